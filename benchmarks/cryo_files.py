"""Cryo-EM from the files that people have: flags honoured, symmetry, aberrations, post-processing, memory, the first run.

`make bench-cryo_files`. The peers are `relion_reconstruct` and `relion_postprocess` 3.1 on the same files, where they are
installed. Times are wall times on two CPU cores, peers in the same run.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks import common, peers_relion
from benchmarks.common import Report
from benchmarks.cryo_processes import first_runs, large_stack, peak_memory
from benchmarks.cryo_scenes import SHARED, Scene, blobs, ribosome, write_scene
from lfjax import io, metrics
from lfjax.errors import DataWarning, FileError
from lfjax.pipeline import reconstruct_particles
from lfjax.tomography import (
    Aberrations,
    Particles,
    convert_particles,
    density_mask,
    fsc,
    postprocess,
    read_particles,
    resolution,
    sharpen,
    spherical_mask,
    symmetry_group,
)
from lfjax.tomography.ctf import PHASE_FLIPPED, PREMULTIPLIED

READ = {
    "00_good_reference.star": {},
    "01_ctf_premultiplied_flag_ignored.star": {},
    "02_phase_flipped_flag_ignored.star": {},
    "03_two_optics_groups_4A_5A_silently_mixed.star": {},
    "04_one_unassigned_subset_reshuffles_all_halves.star": {},
    "07_unnormalised_dc_10_sigma.star": {"normalised": False},
    "13_blob_sign_-1_ignored.cs": {},
}
"""Cases that give a map, with the options that they need."""

OPTIONS = {"phase flipped": ("--ctf_phase_flipped",)}
"""What `relion_reconstruct` must be told, since it does not read it from the file."""

REFUSED = {
    "05_one_nan_defocus_kills_map_at_the_end.star": "rlnDefocus",
    "07_unnormalised_dc_10_sigma.star": "--normalise",
    "09_zero_particles_traceback.star": "particle",
    "10_undefined_optics_group_says_nan_to_nan.star": "group",
    "14_main_cs_without_ctf_silently_no_ctf.cs": "CTF",
}
"""Cases that are refused, with a word of the message."""


def cases(report: Report, toy: bool) -> None:
    """Every file of the cases: the right map, or the error by name."""
    folder = SHARED / "data/cases/cryo"
    truth = io.read_map(folder / "truth_32px_4A.mrc").array
    found: dict[str, float] = {}
    for name, options in list(READ.items())[: 2 if toy else None]:
        volume = np.asarray(reconstruct_particles(read_particles(folder / name), **options).found.volume)
        found[name] = float(metrics.correlation(volume, truth))
        angstrom = resolution(fsc(volume, truth), 128.0, 0.5)
        report.row(f"cases, {name}: resolution at FSC 0.5 to the truth", angstrom, "A")
        floor = found["00_good_reference.star"] - 0.005
        report.at_least(f"cases, {name}: correlation with the truth", found[name], floor, "1")
    for name, word in REFUSED.items():
        try:
            reconstruct_particles(read_particles(folder / name))
            says = "no error"
        except FileError as error:
            says = str(error)
        report.at_least(f"cases, {name}: refused by name", float(word in says and name in says), 1.0)


def symmetric(report: Report, folder: Path, toy: bool) -> None:
    """Molecules of each point group in RELION's frame."""
    size, count = (24, 60) if toy else (48, 300)
    for name in ("T",) if toy else ("T", "O", "I1", "I2", "C3", "D4"):
        truth = blobs(size, 3.0, symmetry_group(name), seed=3)
        scene = write_scene(folder / name, truth, 3.0, count=count, snr=0.2, seed=5)
        made = reconstruct_particles(read_particles(scene.star), symmetry=name)
        report.at_least(f"{name}: correlation with the truth", float(metrics.correlation(made.found.volume, truth)), 0.985)
        curve = np.asarray(made.found.curve)
        apart = resolution(fsc(made.found.volume, truth), size * 3.0, 0.5) / resolution(curve, size * 3.0, 0.143)
        report.at_most(f"{name}: resolution against the truth (0.5) over that of the half-maps (0.143)", apart, 1.1)


def flag_scenes(folder: Path, toy: bool) -> dict[str, Callable[[], Scene]]:
    """One scene per thing that an optics group can say."""
    count = 150 if toy else 1000
    truth, voxel = ribosome(32 if toy else 64), 10.0 if toy else 5.0
    fine = 1.0  # angstroms per voxel where aberrations matter

    def scene(name: str, pixel: float = voxel, **options: Any) -> Callable[[], Scene]:
        return lambda: write_scene(folder / name, truth, pixel, count=count, snr=0.1, seed=1, **options)

    tilt = Aberrations(beam_tilt_rad=np.array([3e-3, -2e-3]))
    stretched = Aberrations(magnification=np.array([[1.02, 0.005], [0.005, 0.985]]))
    near = {"defocus_angstrom": (3000.0, 8000.0)}
    return {
        "as recorded": scene("plain"),
        "phase flipped": scene("flipped", applied=PHASE_FLIPPED),
        "premultiplied": scene("multiplied", applied=PREMULTIPLIED),
        "beam tilt": scene("tilt", fine, aberrations=tilt, **near),
        "anisotropic magnification": scene("stretched", aberrations=stretched),
    }


def against_relion(report: Report, folder: Path, toy: bool) -> None:
    """Maps from all flags beside `relion_reconstruct` on the same STAR file, both in one soft mask."""
    for name, make in flag_scenes(folder, toy).items():
        scene = make()
        size, box = len(scene.truth), len(scene.truth) * scene.voxel_angstrom
        mask = _mask(scene.truth, scene.voxel_angstrom) * spherical_mask(size, 0.42 * size, 0.08 * size)
        reconstruct_particles(read_particles(scene.star))
        ours, seconds = common.timed(lambda star=scene.star: _volume(star))
        runs = [peers_relion.reconstruct_star(scene.star, *OPTIONS.get(name, ())) for _ in range(1 if toy else 5)]
        theirs, relion = runs[0].volume, float(np.median([run.seconds for run in runs]))
        to_truth = [np.asarray(fsc(v * mask, scene.truth * mask)) for v in (ours, theirs)]
        own, peer = (resolution(curve, box, 0.5) for curve in to_truth)
        report.at_most(f"{name}: FSC 0.5 to the truth, lfjax, at most that of RELION", own, peer * 1.0001, "A", "relion")
        report.row(f"{name}: FSC 0.5 to the truth, RELION", peer, "A", peer="relion")
        last = int(0.8 * box / own)
        plain = np.asarray(reconstruct_particles(read_particles(scene.star)).found.unfiltered)  # as RELION's is
        mutual = float(np.asarray(fsc(plain * mask, theirs * mask))[1 : last + 1].min())
        report.at_least(f"{name}: mutual FSC of the unfiltered maps up to 0.8 of it, least", mutual, 0.99, "1", "relion")
        better = np.mean(to_truth[0][1 : size // 2] >= to_truth[1][1 : size // 2] - 1e-3)
        report.row(f"{name}: share of the shells in which lfjax equals or beats RELION", float(better), "1", peer="relion")
        report.at_least(f"{name}: speed over relion_reconstruct, warm", relion / seconds, 5.0, "x", "relion")
        report.write()


def _mask(volume: ArrayLike, voxel_angstrom: float) -> NDArray[np.float32]:
    return density_mask(volume, voxel_angstrom=voxel_angstrom, lowpass_angstrom=4 * voxel_angstrom).mask


def _volume(star: Path) -> NDArray[np.float32]:
    return np.asarray(reconstruct_particles(read_particles(star)).found.volume)


def aberrations(report: Report, folder: Path, toy: bool) -> None:
    """Beam tilt of 1 mrad, trefoil and fourth order at 1 A per pixel: corrected, and left alone."""
    size, count = (32, 100) if toy else (96, 600)
    truth = blobs(size, 1.0, seed=7)
    truth = np.asarray(_sharpened(truth))
    tilt = Aberrations(beam_tilt_rad=np.array([1e-3, 0.0]))
    trefoil = Aberrations(odd=np.array([0.0, 0.0, 25.0, 0.0, 0.0, 0.0]))
    fourth = Aberrations(even=np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 60.0, 0.0, 0.0]))
    clean = None
    kinds = {"none": None, "tilt 1 mrad": tilt, "trefoil": trefoil, "fourth order": fourth}
    for name, kind in list(kinds.items())[: 2 if toy else None]:
        scene = write_scene(
            folder / f"aberration {name}", truth, 1.0, count=count, snr=0.05, aberrations=kind, seed=2,
            defocus_angstrom=(5000.0, 12000.0),
        )  # fmt: skip
        corrected = resolution(fsc(_volume(scene.star), truth), size * 1.0, 0.5)
        if clean is None:
            clean = corrected
            report.row("aberrations: FSC 0.5 to the truth of clean data", clean, "A")
            continue
        report.at_most(f"aberrations, {name}: FSC 0.5 to the truth over that of clean data", corrected / clean, 1.01)
        tables = io.read_star(scene.star)
        gone = [c for c in tables["optics"] if c.startswith(("rlnBeamTilt", "rlnOddZernike", "rlnEvenZernike"))]
        io.write_star(scene.star, tables | {"optics": tables["optics"].drop(columns=gone)})
        report.row(
            f"aberrations, {name}: FSC 0.5, not corrected", resolution(fsc(_volume(scene.star), truth), size * 1.0, 0.5), "A"
        )


def _sharpened(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """The volume with its power spread evenly up to Nyquist, so that fine shells count."""
    spectrum = np.fft.rfftn(volume)
    k = np.fft.fftfreq(len(volume))
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + np.fft.rfftfreq(len(volume)) ** 2)
    return np.fft.irfftn(spectrum * np.exp(np.minimum(40 * radius**2, 6.0)), volume.shape, (0, 1, 2)).astype(np.float32)


def published(report: Report, folder: Path, toy: bool) -> None:
    """Post-processing beside `relion_postprocess` on the same half-maps and mask; phases are random, so both draw several."""
    seeds, voxel = 2 if toy else 8, 1.5
    optics = {"b_factor_angstrom2": 30.0, "defocus_angstrom": (8000.0, 20000.0), "shift_px": 0.0}
    scene = write_scene(folder / "published", ribosome(), voxel, count=60 if toy else 300, snr=6.0, seed=9, **optics)
    found = reconstruct_particles(read_particles(scene.star)).found
    halves = [np.asarray(half, np.float32) for half in found.halves]
    mask = _mask(found.volume, voxel) * spherical_mask(64, 26.0, 5.0)
    draws = [
        peers_relion.postprocess_halves(*halves, voxel, "--auto_bfac", "--random_seed", seed + 1, mask=mask)
        for seed in range(seeds)
    ]
    same = sharpen((halves[0] + halves[1]) / 2, voxel, draws[0].curves["corrected"], fit_range_angstrom=(10.0, 0.0))
    change = abs(same.b_factor / draws[0].b_factor_angstrom2 - 1)
    report.at_most("postprocess: B-factor on RELION's own curve, relative difference", change, 0.01, "1", "relion")
    ours = postprocess(*halves, voxel, mask=mask, fit_range_angstrom=(10.0, 0.0), draws=seeds)
    theirs = [draw.b_factor_angstrom2 for draw in draws]
    report.row("postprocess: B-factor, lfjax", ours.b_factor, "A^2")
    report.row("postprocess: B-factor, RELION, mean over seeds", float(np.mean(theirs)), "A^2", peer="relion")
    report.row("postprocess: B-factor, RELION, deviation over seeds", float(np.std(theirs)), "A^2", peer="relion")
    box = len(mask) * voxel
    middle = float(np.median([draw.resolution_angstrom for draw in draws]))
    last = int(box / ours.resolution_angstrom + 1e-6)  # RELION states the last shell before the fall, ours lies between two
    apart = abs(last - round(box / middle))
    report.at_most("postprocess: resolution, shells from RELION's median over seeds", apart, 0, "shells", "relion")
    for name in ("unmasked", "masked"):
        gap = np.abs(np.asarray(getattr(ours.curves, name)) - draws[0].curves[name])[1:].max()
        report.at_most(f"postprocess: FSC {name}, largest difference in a shell", gap, 0.01, "1", "relion")
    mean = np.mean([draw.curves["corrected"] for draw in draws], axis=0)
    gap = float(np.abs(np.asarray(ours.curves.corrected) - mean)[1:].mean())
    report.at_most("postprocess: FSC corrected, mean difference of a shell, means over seeds", gap, 0.01, "1", "relion")
    report.write()


def conversions(report: Report, folder: Path, toy: bool) -> None:
    """STAR -> .cs -> STAR of RELION 3.0, 3.1 and 5."""
    source = SHARED / "data/cryo/relion31.6opticsgroups.star"
    warnings.simplefilter("ignore", DataWarning)  # what is lost is listed at length
    for version in ("3.0", "3.1", "5"):
        first, middle, last = (folder / f"{version}.{name}" for name in ("a.star", "b.cs", "c.star"))
        convert_particles(source, first, version=version)
        convert_particles(first, middle)
        convert_particles(middle, last, version=version)
        a, b = (read_particles(path) for path in (first, last))
        pairs = list(zip(_both_say(a.particles), _both_say(b.particles), strict=True))
        worst = max(float(np.abs(x - y).max() / max(np.abs(x).max(), 1.0)) for x, y in pairs)
        assert a.names == b.names
        report.at_most(f"STAR {version} -> .cs -> STAR: largest change of a number, relative", worst, 2e-6, "1")


def _both_say(particles: Particles) -> list[NDArray[np.float64]]:
    """Numbers that STAR and .cs both hold: poses, half-sets, pixel sizes, defocus and the numbers of the microscope."""
    ctf = particles.ctf
    assert ctf is not None
    plain = [getattr(ctf, name) for name in ("defocus_u_angstrom", "defocus_v_angstrom", "angle_rad", "voltage_kv", "cs_mm")]
    plain += [ctf.amplitude_contrast, ctf.phase_shift_rad, ctf.scale]
    leaves = [particles.rotations, particles.shifts, particles.pixel_angstrom, particles.half, *plain]
    return [np.asarray(leaf, float) for leaf in leaves]


def main() -> None:
    """Run everything; the shared files must be there."""
    args = common.arguments(__doc__ or "")
    report = Report("cryo_files", args.toy)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases(report, args.toy)
        symmetric(report, folder, args.toy)
        conversions(report, folder, args.toy)
        aberrations(report, folder, args.toy)
        report.write()
        if peers_relion.available():
            against_relion(report, folder, args.toy)
            published(report, folder, args.toy)
        else:
            print("relion_reconstruct is not installed: its rows are left out")
        first_runs(report, folder, args.toy)
        peak_memory(report, folder, args.toy)
        large_stack(report, folder, args.toy)
    report.write()


if __name__ == "__main__":
    main()
