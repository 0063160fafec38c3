"""Runs that are killed, interrupted, started twice, on full disks, and on damaged stores: what comes of them, in figures."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import zarr

from benchmarks import torture
from benchmarks.common import Report
from lfjax.errors import StorageWarning
from lfjax.io.chunks import Chunks, stream

RESUMED = ("movie", "neurons", "train")
FULL = ("movie", "neurons", "train", "reconstruct", "project", "backproject", "psf")
LIMITS = (100, 2_000, 5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000)  # bytes


class StoppedError(Exception):
    """A run that a benchmark stops."""


def rows(report: Report, toy: bool) -> None:
    """Add the rows about files and runs to a report.

    Args:
        report: the report.
        toy: one of each instead of 10, 20 and 500.
    """
    damaged_stores(report, 20 if toy else 500)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torture.make_data(folder, frames=12 if toy else 48, steps=10 if toy else 40)
        known = {}
        for case in (one for one in torture.cases().values() if one.name in FULL and (not toy or one.name in RESUMED[:1])):
            known[case.name] = torture.whole(folder, case)
        _disturbed(report, folder, known, toy)
        _full_disks(report, folder, known, toy)


def _disturbed(report: Report, folder: Path, known: dict[str, tuple[str, float]], toy: bool) -> None:
    """Kills, interrupts and second processes."""
    cases = torture.cases()
    for name in (one for one in RESUMED if one in known):
        wanted, seconds = known[name]
        count = 1 if toy else 20
        ends, wrong = torture.stopped(folder, cases[name], count, signal.SIGKILL, wanted, seconds)
        _tell(wrong)
        report.row(f"lfjax {name}: kill -9 at random moments", sum(end.code == -signal.SIGKILL for end in ends), "")
        report.at_most(f"lfjax {name}, killed: half or different results", len(wrong), 0)
        ends, wrong = torture.stopped(folder, cases[name], 1 if toy else 10, signal.SIGINT, wanted, seconds, seed=1)
        wrong += [f"{end.code}: {end.err[-400:]}" for end in ends if not _interrupted_well(end)]
        _tell(wrong)
        report.row(f"lfjax {name}: interrupts by Ctrl-C", sum(end.code == 130 for end in ends), "")
        report.at_most(f"lfjax {name}, interrupted: without its one line and exit code 130, or different", len(wrong), 0)
        wrong = torture.twice(folder, cases[name], wanted)
        _tell(wrong)
        report.at_most(f"lfjax {name}, two processes on one output: tracebacks, different results", len(wrong), 0)


def _full_disks(report: Report, folder: Path, known: dict[str, tuple[str, float]], toy: bool) -> None:
    """Disks that are full: half of them mounted, where this user may, half by a limit of the size of files."""
    cases, mounts = torture.cases(), torture.can_mount()
    for name, (wanted, _) in known.items():
        full, wrong = 0, []
        for number, limit in enumerate(LIMITS[3:4] if toy else LIMITS):
            mounted = mounts and number % 2 == 1
            done, bad = torture.on_full_disk(folder, cases[name], limit, wanted, mounted=mounted)
            full += done.code != 0
            wrong += [f"{limit} bytes{' mounted' * mounted}: {one}" for one in bad]
        _tell(wrong)
        report.row(f"lfjax {name}: disks that were too small", full, "")
        report.at_most(f"lfjax {name}, full disk: signals, tracebacks, files left behind, half results", len(wrong), 0)


def _interrupted_well(end: torture.Done) -> bool:
    """Whether an interrupted run ended with its line, or had ended before."""
    return end.code == 0 or (end.code == 130 and len(end.told) == 1 and "interrupted" in end.told[0] and not end.raw)


def damaged_stores(report: Report, number: int) -> None:
    """Stores in chunks, each with one file damaged: noticed, and the result that of an undisturbed run."""
    with tempfile.TemporaryDirectory() as name:
        unnoticed, different = damage_stores(Path(name), number)
    report.row("stores in chunks with one damaged file", number, "")
    report.at_most("stores in chunks, damaged: not noticed", unnoticed, 0)
    report.at_most("stores in chunks, damaged: different results", different, 0)


def damage_stores(folder: Path, number: int, seed: int = 0) -> tuple[int, int]:
    """Resume interrupted runs after damage to a random file of each.

    Args:
        folder: an empty folder.
        number: how many.
        seed: fixes the damage.

    Returns:
        The number of runs in which the damage was not noticed, and of those whose result differs.
    """
    frames = np.random.default_rng(0).random((9, 6, 5)).astype(np.float32)

    def new(path: Path) -> Chunks:
        return Chunks(path, len(frames), 2, {"0": (2, 6, 5), "sum": ()}, {"step": 0.1, "name": "toy"}, axes={"0": "tzyx"})

    def double(block: np.ndarray) -> dict[str, np.ndarray]:
        return {"0": np.stack([block, 2 * block], 1), "sum": block.sum((1, 2))}

    def end(path: Path) -> bytes:
        chunks = new(path)
        stream(frames, chunks, double)
        group = zarr.open_group(chunks.finish(), mode="r")
        return b"".join(np.asarray(group[name][:]).tobytes() for name in ("0", "sum"))

    wanted = end(folder / "whole.zarr")
    try:
        stream(frames, new(folder / "half.zarr"), double, track=_until(3))
    except StoppedError:
        pass
    draw, unnoticed, different = random.Random(seed), 0, 0
    for turn in range(number):
        path, partial = folder / f"{turn}.zarr", folder / f".{turn}.zarr.partial"
        shutil.copytree(folder / ".half.zarr.partial", partial)
        how = torture.damage(draw.choice(sorted(one for one in partial.rglob("*") if one.is_file())), draw)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                different += end(path) != wanted
            except Exception as error:
                different += 1
                print(f"store {turn}: {error}")
        told = any(issubclass(one.category, StorageWarning) for one in said)
        unnoticed += not told and how != "gone"  # a chunk that is missing is one that was not written yet
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)
    return unnoticed, different


def _until(step: int):
    def track(items: Iterable[int], _: str) -> Iterator[int]:
        for number, item in enumerate(items):
            if number == step:
                raise StoppedError
            yield item

    return track


def _tell(wrong: list[str]) -> None:
    for line in wrong:
        print(f"  {line}")
