"""`lfjax simulate --frames` and `lfjax neurons` on what it writes: traces against the truth, false discoveries, kills."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.common import Report
from lfjax import activity, metrics

LFJAX = (sys.executable, "-m", "lfjax.cli.main")
SOMA_UM = 12.0


class Truth(NamedTuple):
    """What `lfjax simulate` knows: centres (n, 3), dF/F (n, t)."""

    centres_um: np.ndarray
    dff: np.ndarray


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of lfjax in a process of its own."""
    return subprocess.run([*LFJAX, *arguments], capture_output=True, text=True, check=False)


def simulated(folder: Path, *options: str, toy: bool) -> Path:
    """A raw movie of 20 neurons with white, dark, structure and truth."""
    size = ("--frames", "200" if toy else "300", "--lenslets", "19" if toy else "25", "--count", "8" if toy else "20")
    scope = folder / "scope.toml"
    scope.write_text(
        "magnification = 20.0\nnumerical_aperture = 0.5\nmedium_index = 1.33\nwavelength_um = 0.52\nlenslet_pitch_um = 125.0\n"
        "lenslet_focal_length_um = 2500.0\npixels_per_lenslet = 9\nname = 'my rig'\n"
    )
    output = folder / f"simulated{''.join(options)}"
    depths = ("--z=-30:30:10", "--voxels", "2")
    done = run("simulate", "--microscope", str(scope), "--sample", "cortex", *size, *depths, *options, "-o", str(output))
    assert done.returncode == 0, done.stderr
    return output


def extracted(folder: Path, name: str, *options: str) -> activity.Neurons | None:
    """Neurons of a simulated folder, by the command; None: it found none and said so."""
    output = folder / f"{name}.h5"
    output.unlink(missing_ok=True)
    done = run("neurons", *arguments_of(folder), *options, "-o", str(output))
    if done.returncode and "none were found" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    return activity.read_neurons(output)


def arguments_of(folder: Path) -> tuple[str, ...]:
    """How the command is told about a simulated folder."""
    frames = ("--white", str(folder / "white.tif"), "--dark", str(folder / "dark.tif"))
    return (str(folder / "raw.h5"), *frames, "--microscope", str(folder / "microscope.toml"), "--z=-30:30:10", "--voxels", "2")


def truth_of(folder: Path) -> Truth:
    """The truth of a simulated folder."""
    with h5py.File(folder / "truth.h5", "r") as file:
        return Truth(np.asarray(file["centres_um"]), np.asarray(file["dff"]))


def pairs_of(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(true, found) numbers of neurons within one soma radius of each other, one to one."""
    distance = np.linalg.norm(truth[:, None] - found[None], axis=-1)
    rows, columns = linear_sum_assignment(np.where(distance <= SOMA_UM / 2, distance, 1e6))
    good = distance[rows, columns] <= SOMA_UM / 2
    return np.stack([rows[good], columns[good]], axis=1)


def neurons_of_movie(report: Report, folder: Path) -> None:
    """Structure, no structure, and static tissue."""
    raw = simulated(folder, toy=report.toy)
    truth, structure = truth_of(raw), ("--structure", str(raw / "structure.ome.tif"))
    begin = time.perf_counter()
    found = extracted(raw, "with", *structure)
    assert found is not None
    spent = time.perf_counter() - begin
    report.row(
        "raw simulated movie: lfjax neurons with structure, all included: frames per second", truth.dff.shape[1] / spent, "1/s"
    )
    score = metrics.f1_score(found.centres_um, truth.centres_um, SOMA_UM / 2)
    report.at_least("raw simulated movie, with structure: neurons F1", score, 0.9)
    pairs = [(i, j) for i, j in pairs_of(found.centres_um, truth.centres_um) if np.ptp(truth.dff[i]) > 0.1]
    correlation = np.median([np.corrcoef(truth.dff[i], found.dff[j])[0, 1] for i, j in pairs])
    report.at_least("raw simulated movie, with structure: correlation with the true dF/F, median", float(correlation), 0.95)
    alone = extracted(raw, "without")
    fires = np.ptp(truth.dff, axis=1) > 0.1
    places = np.zeros((0, 3)) if alone is None else alone.centres_um
    hits = len(pairs_of(places, truth.centres_um[fires]))
    others = len(pairs_of(places, truth.centres_um)) - hits
    f1 = 2 * hits / max(1, fires.sum() + len(places) - others)
    report.row("raw simulated movie: neurons that fire in it", float(fires.sum()), "")
    report.at_least("raw simulated movie, without structure: neurons F1, of those that fire", f1, 0.8)
    still = simulated(folder, "--static", toy=report.toy)
    false = extracted(still, "without")
    report.at_most("static tissue with photon noise: false neurons", 0 if false is None else len(false), 1)


def kills(report: Report, folder: Path) -> None:
    """kill -9 at random moments of `lfjax neurons`: the last run ends with the result of an uninterrupted one."""
    raw = next((path for path in folder.glob("simulated") if path.is_dir()), None) or simulated(folder, toy=report.toy)
    structure = ("--structure", str(raw / "structure.ome.tif"), "--chunk", "16")
    begin = time.perf_counter()
    whole = extracted(raw, "whole", *structure)
    spent = time.perf_counter() - begin
    assert whole is not None
    output, draw = raw / "killed.h5", random.Random(0)
    number, half, phases = 2 if report.toy else 20, 0, {"before": 0, "frames": 0, "spikes": 0}
    courses, partial = raw / "killed.courses.zarr", raw / ".killed.courses.zarr.partial"
    for turn in range(number):
        if turn % 2 == 0:  # from the start; the others resume
            for kept in (courses, partial):
                shutil.rmtree(kept, ignore_errors=True)
        process = subprocess.Popen(
            [*LFJAX, "neurons", *arguments_of(raw), *structure, "-o", str(output)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(draw.uniform(0.2, 0.9) * spent)
        process.send_signal(signal.SIGKILL)
        process.wait()
        phases["spikes" if courses.exists() else "frames" if partial.exists() else "before"] += 1
        if output.exists():  # the run ended before the kill
            half += not same(activity.read_neurons(output), whole)
            output.unlink()
    resumed = extracted(raw, "killed", *structure)
    assert resumed is not None
    report.row("lfjax neurons: kills at random moments", number, "")
    for name, count in phases.items():
        report.row(
            f"lfjax neurons: kills {'before the first chunk' if name == 'before' else 'in the phase of ' + name}", count, ""
        )
    report.at_most("lfjax neurons, killed: results that differ from an uninterrupted run", half + (not same(resumed, whole)), 0)


def same(a: activity.Neurons, b: activity.Neurons) -> bool:
    """Whether two results are equal bit for bit."""
    names = ("centres_um", "footprints", "fluorescence", "dff", "noise")
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in names)
    return arrays and all(np.array_equal(x, y) for x, y in zip(a.spikes, b.spikes, strict=True))
