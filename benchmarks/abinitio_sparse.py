"""Maps from few views of known pose: the prior against the best Wiener map, rows of `benchmarks/abinitio.py`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks.abinitio_scenes import ribosome, small_molecule
from benchmarks.common import Report
from lfjax import tomography
from lfjax.tomography import Particles

PIXEL = 5.0 * 65 / 64
RADIUS_PX = 27.0
COUNTS = (25, 50, 100)
PRIORS = ("nonnegative", "nonnegative+l1", "solvent", "tv+solvent")


def resolution(volume: jax.Array, truth: jax.Array, radius: float) -> float:
    """Period at which the correlation with the truth, inside a soft ball, falls below 0.5."""
    mask, size = tomography.spherical_mask(truth.shape[0], radius, 4.0), truth.shape[0]
    return tomography.resolution(tomography.fsc(volume * mask, truth * mask), size * PIXEL, 0.5)


def best_wiener(images: jax.Array, particles: Particles, truth: jax.Array, radius: float) -> float:
    """The best period of the Wiener maps: filters of any strength, judged by the truth, and that of the half-maps."""
    size = truth.shape[0]
    sums = tomography.Sums.empty(size).add(particles, images)
    weights = sums.weights()
    filters = [a * weights for a in (0.1, 0.3, 1.0, 3.0)] + [a * float(weights.mean()) for a in (0.3, 1.0, 3.0, 10.0)]
    maps = [sums.volume(each) for each in filters] + [tomography.reconstruct([(images, particles)], size).volume]
    return min(resolution(volume, truth, radius) for volume in maps)


def sparse_rows(report: Report, toy: bool, seed: int = 0) -> None:
    """Rows per number of views and object at an SNR of 0.1, without a CTF (bounded) and with one (stated).

    At toy size the molecule stands alone.
    """
    objects = {"molecule": small_molecule(32 if toy else 64).volume}
    if not toy:
        objects = {"ribosome": ribosome().volume} | objects
    for name, array in objects.items():
        for count in COUNTS[:1] if toy else COUNTS:
            for optics in ("no CTF", "CTF"):
                _compare(report, f"{name}, {optics}, N = {count}", jnp.asarray(array), count, optics == "CTF", seed)


def _compare(report: Report, label: str, truth: jax.Array, count: int, ctf: bool, seed: int) -> None:
    size, key = truth.shape[0], jax.random.key(seed)
    radius = RADIUS_PX * size / 64
    limits = (8000.0, 20000.0) if ctf else None
    particles = tomography.random_particles(key, count, pixel_angstrom=PIXEL, defocus_angstrom=limits)
    images = tomography.add_noise(jax.random.fold_in(key, 1), particles.projector(size)(truth), 0.1)

    def period(prior: str) -> float:
        found = tomography.regularised_map(images, particles, radius_angstrom=radius * PIXEL, prior=prior)
        return resolution(found.volume, truth, radius)

    wiener, prior = best_wiener(images, particles, truth, radius), period("tv")
    report.row(f"{label}: FSC 0.5, Wiener", wiener, "A")
    report.row(f"{label}: FSC 0.5, total variation", prior, "A")
    gain = 100 * (1 - prior / wiener)
    if ctf:
        report.row(f"{label}: better by", gain, "%")
    else:
        report.at_least(f"{label}: better by", gain, 5, "%")
    if count == COUNTS[0]:
        for other in PRIORS:
            report.row(f"{label}: FSC 0.5, {other}", period(other), "A")
