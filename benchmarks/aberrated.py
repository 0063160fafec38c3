"""Aberrated particle images, corrected and not: resolution beside the clean case, and beside `relion_reconstruct`.

`make bench-aberrated`. A globule of 2000 atoms, 96 pixels of 1 A, 300 kV, Cs 2.7 mm; white noise. Every case has the same
particles and the same noise. One soft sphere masks the truth and both maps: RELION masks the corners of its own.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks import common, peers_relion
from benchmarks.common import Report
from lfjax.tomography import (
    Aberrations,
    Gaussians,
    Particles,
    Reconstruction,
    add_noise,
    fsc,
    random_particles,
    reconstruct,
    resolution,
    spherical_mask,
)
from lfjax.tomography.ctf import AS_RECORDED, PHASE_FLIPPED, PREMULTIPLIED

NONE = {"beam_tilt_rad": np.zeros(2), "odd": np.zeros(6), "even": np.zeros(9), "magnification": np.eye(2)}
MATRIX = np.array([[1.01, 0.004], [0.004, 0.99]])
TREFOIL = [0.0, 0.0, 50.0, 0.0, 0.0, 40.0]
FOURTH = [40.0, 0.0, 60.0, 0.0, 120.0, 0.0, 20.0, 0.0, 100.0]  # tetrafoil and 120 |k|^4: the lower orders cancel


class Case(NamedTuple):
    """Aberrations of the images, the columns of an optics table that say so, and RELION's further options."""

    aberrations: dict[str, Any]
    columns: dict[str, Any]
    applied: int = AS_RECORDED
    options: tuple[str, ...] = ()


CASES = {
    "clean": Case({}, {}),
    "beam tilt 1 mrad": Case({"beam_tilt_rad": np.array([1e-3, 0.0])}, {"rlnBeamTiltX": 1.0, "rlnBeamTiltY": 0.0}),
    "trefoil": Case({"odd": np.array(TREFOIL)}, {"rlnOddZernike": str(TREFOIL).replace(" ", "")}),
    "4th order": Case({"even": np.array(FOURTH)}, {"rlnEvenZernike": str(FOURTH).replace(" ", "")}),
    "magnification 2 %": Case({"magnification": MATRIX}, {f"rlnMagMat{i}{j}": MATRIX[i, j] for i in (0, 1) for j in (0, 1)}),
    "phases flipped": Case({}, {}, PHASE_FLIPPED, ("--ctf_phase_flipped",)),
    "premultiplied": Case({}, {"rlnCtfDataAreCtfPremultiplied": 1}, PREMULTIPLIED),
}


def scene(count: int, size: int) -> tuple[NDArray[np.float32], Particles]:
    """The molecule and the poses and optics of its images."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(2000, 3))
    places *= (0.25 * size * rng.random((2000, 1)) ** (1 / 3)) / np.linalg.norm(places, axis=1, keepdims=True)
    atoms = Gaussians(jnp.asarray(places), jnp.full(2000, 0.6), jnp.ones(2000))
    optics = {"defocus_angstrom": (4000.0, 12000.0), "b_factor_angstrom2": 30.0, "shift_px": 1.0}
    return np.asarray(atoms.volume(size)), random_particles(jax.random.key(0), count, pixel_angstrom=1.0, **optics)


def with_optics(particles: Particles, case: Case) -> Particles:
    """The particles with the aberrations and the flag of a case, in one form for all cases."""
    count = len(particles)
    optics = Aberrations(**(NONE | case.aberrations)).each(count), jnp.full(count, case.applied)
    return eqx.tree_at(lambda p: (p.ctf.aberrations, p.ctf.applied), particles, optics, is_leaf=lambda leaf: leaf is None)


def recorded(case: Case, volume: NDArray[np.float32], particles: Particles, snr: float) -> NDArray[np.float32]:
    """Noisy images of a case: noise of the camera, then the sign of the CTF or the CTF."""
    size, unflipped = len(volume), case._replace(applied=AS_RECORDED)
    clean = with_optics(particles, unflipped).projector(size, kernel=4)(volume)
    images = np.asarray(add_noise(jax.random.key(1), clean, snr))
    if case.applied == AS_RECORDED:
        return images
    k = np.fft.fftfreq(size)
    plain = jax.vmap(lambda ctf: ctf(k[None, : size // 2 + 1], k[:, None]))(particles.ctf)  #
    factor = np.sign(plain) if case.applied == PHASE_FLIPPED else np.asarray(plain)
    return np.fft.irfft2(np.fft.rfft2(images) * factor, (size, size)).astype(np.float32)


def ours(images: NDArray[np.float32], particles: Particles) -> tuple[Reconstruction, float]:
    """`reconstruct`, and its wall time."""
    start = time.perf_counter()
    made = reconstruct([(images, particles)], images.shape[1])
    jax.block_until_ready(made.volume)
    return made, time.perf_counter() - start


def measure(report: Report, count: int, size: int, snr: float) -> None:
    """All rows."""
    volume, particles = scene(count, size)
    mask = spherical_mask(size, 0.3 * size)
    clean, relion = np.inf, peers_relion.available("reconstruct")

    def period(map_: ArrayLike) -> float:
        return resolution(fsc(map_ * mask, volume * mask), size, 0.5)

    for name, case in CASES.items():
        images = recorded(case, volume, particles, snr)
        made, seconds = ours(images, with_optics(particles, case))
        found, plain = period(made.volume), period(made.halves[0] + made.halves[1])  # filtered by the half-maps' FSC, and not
        clean = plain if name == "clean" else clean
        report.row(f"{name}: half-maps 0.143", made.resolution_angstrom, "A")
        report.at_most(f"{name}: truth 0.5", plain, 1.01 * clean, "A")
        if name != "clean":
            blind, _ = ours(images, with_optics(particles, CASES["clean"]))
            report.row(f"{name}, not corrected: half-maps 0.143", blind.resolution_angstrom, "A")
            report.row(f"{name}, not corrected: truth 0.5", period(blind.halves[0] + blind.halves[1]), "A")
        if relion:
            with tempfile.TemporaryDirectory() as folder:
                star = peers_relion.write_relion(folder, images, particles, case.columns)
                peer = peers_relion.reconstruct_star(star, *case.options)
            other = period(peer.volume)
            report.row(f"{name}: truth 0.5, filtered map", found, "A")
            report.row(f"{name}: truth 0.5, relion_reconstruct", other, "A", peer="relion 3.1.3")
            report.at_least(f"{name}: truth 0.5 of relion_reconstruct over ours", other / found, 1.0, peer="relion 3.1.3")
            mutual = np.asarray(fsc(made.volume * mask, peer.volume * mask))[1 : 1 + int(0.8 * size / found)].min()
            report.at_least(f"{name}: least FSC with relion_reconstruct up to 0.8 of it", mutual, 0.99, peer="relion 3.1.3")
            report.row(f"{name}: seconds, ours (first includes compilation)", seconds, "s")
            report.row(f"{name}: seconds, relion_reconstruct", peer.seconds, "s", peer="relion 3.1.3")
    if not relion:
        print("relion_reconstruct is not installed: its rows are left out")


def main() -> None:
    """Run everything."""
    args = common.arguments(__doc__ or "")
    report = Report("aberrated", args.toy)
    measure(report, *((200, 32, 1.0) if args.toy else (2000, 96, 0.1)))
    report.write()


if __name__ == "__main__":
    main()
