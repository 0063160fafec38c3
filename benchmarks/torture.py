"""Commands of lfjax that are killed, interrupted, started twice, and given disks that are full; `reliability_runs` counts."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import zarr

COMMAND = "import sys; sys.argv[0] = 'lfjax'; from lfjax.cli.main import run; run()"
SCOPE = """magnification = 20.0
numerical_aperture = 0.5
medium_index = 1.33
wavelength_um = 0.52
lenslet_pitch_um = 125.0
lenslet_focal_length_um = 2500.0
pixels_per_lenslet = 5
name = "torture"
"""
RECIPE = """[microscope]
preset = "25x1.0w"
pixels_per_lenslet = 5
[volume]
z_um = [-9, -6, -3, 0, 3, 6, 9]
voxels_per_lenslet = 2
lenslets = 13
psf_tolerance = 0.2
[data]
fields = 1
windows = 2
unlabelled = 1
frames = 3
beyond = 1
[model]
kind = "compressed"
layers = 2
width = 6
compress = 5
reach = 1
[losses]
light_field = 0.1
[training]
steps = {steps}
border = 1
labelled = 1
unlabelled = 1
checkpoint_every = 5
validate_every = 5
"""
QUICK = {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"}


class Case(NamedTuple):
    """A command and its traces.

    Attributes:
        name: name of the command.
        arguments: all but the output; relative paths are those in the folder of the data.
        output: name of the result.
        states: names of files and folders that a run keeps.
    """

    name: str
    arguments: tuple[str, ...]
    output: str
    states: tuple[str, ...] = ()


class Done(NamedTuple):
    """How a command ended: its exit code (negative: the signal that ended it), and standard error."""

    code: int
    err: str

    @property
    def told(self) -> list[str]:
        """The lines of errors and interruptions."""
        return [line for line in self.err.splitlines() if line.startswith("lfjax: ")]

    @property
    def raw(self) -> bool:
        """Whether a traceback or a crash reached the user."""
        return "Traceback" in self.err or "Fatal" in self.err or self.code < 0


def make_data(folder: Path, *, frames: int = 48, steps: int = 40) -> None:
    """Inputs of all commands: a raw movie with its truth, a recipe, a map, particles."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scope.toml").write_text(SCOPE, encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE.format(steps=steps), encoding="utf-8")
    movie = ("--frames", str(frames), "--lenslets", "13", "--count", "4", "--z=-30:30:30", "--voxels", "2")
    for name, *rest in (
        ("simulate", "--microscope", "scope.toml", *movie, "--tolerance", "0.2", "-o", "sim"),
        ("project", "map.mrc", "--n", "60", "--snr", "2", "-o", "particles.star"),
    ):
        if name == "project":
            _write_map(folder / "map.mrc")
        done = run(folder, name, *rest)
        if done.code:
            raise RuntimeError(done.err)


def cases() -> dict[str, Case]:
    """The commands under torture."""
    camera = ("sim/raw.h5", "--white", "sim/white.tif", "--dark", "sim/dark.tif", "--microscope", "sim/microscope.toml")
    grid = ("--z=-30:30:30", "--voxels", "2", "--tolerance", "0.2")
    solver = ("--solver", "richardson_lucy", "--iterations", "2")
    frame = ("sim/white.tif", *camera[1:])
    return {
        case.name: case
        for case in (
            Case("movie", (*camera, *grid, *solver, "--chunk", "4"), "x.zarr", (".x.zarr.partial",)),
            Case(
                "neurons",
                (*camera, *grid, "--structure", "sim/structure.ome.tif", "--chunk", "4"),
                "x.h5",
                (".x.courses.zarr.partial", "x.courses.zarr"),
            ),
            Case("train", ("recipe.toml", "--folder", "{work}/run"), "x.h5", ("run",)),
            Case("reconstruct", (*frame, *grid, *solver), "x.h5"),
            Case("project", ("map.mrc", "--n", "200"), "x.star"),
            Case("backproject", ("particles.star", "--half-maps"), "x.mrc"),
            Case("psf", ("--microscope", "scope.toml", *grid), "x.h5"),
            Case("abinitio", ("particles.star", "--restarts", "1", "--half-maps"), "x.mrc", (".x.abinitio.h5",)),
        )
    }


def command(case: Case, work: Path) -> tuple[str, ...]:
    """The command line of a case whose results go to the folder `work`."""
    return (case.name, *(part.format(work=work) for part in case.arguments), "-o", str(work / case.output))


def start(
    folder: Path, *arguments: str, limit: int | None = None, prefix: Sequence[str] = (), cache: Path | None = None
) -> subprocess.Popen[str]:
    """Start a command of lfjax in the folder of its data.

    Args:
        folder: folder of the data.
        *arguments: the command and its arguments.
        limit: bytes that a file may have, as under a quota; None: any number.
        prefix: a program that starts it, with its arguments.
        cache: cache of PSFs. None: that of the data.
    """

    def confine() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**QUICK, **os.environ, "LFJAX_CACHE": str(cache or folder / "cache"), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", COMMAND, *arguments], cwd=folder, env=environment, text=True, preexec_fn=confine,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for a command."""
    _, err = process.communicate()
    return Done(process.returncode, err)


def run(folder: Path, *arguments: str, limit: int | None = None, cache: Path | None = None) -> Done:
    """Run a command to its end."""
    return finish(start(folder, *arguments, limit=limit, cache=cache))


def whole(folder: Path, case: Case) -> tuple[str, float]:
    """Digest of the undisturbed result, and the seconds that it takes once everything is compiled."""
    for attempt in ("first", "whole"):
        work = _fresh(folder / f"{case.name}-{attempt}")
        begin = time.perf_counter()
        done = run(folder, *command(case, work))
        if done.code:
            raise RuntimeError(f"{case.name}: {done.err}")
        spent = time.perf_counter() - begin
    return digest(work / case.output), spent


def digest(output: Path) -> str:
    """SHA-256 of the numbers in a result: no dates, no names."""
    found = hashlib.sha256()
    if output.suffix == ".zarr":
        found.update(np.asarray(zarr.open_group(output, mode="r")["0"][:]).tobytes())
    elif output.suffix == ".h5":
        with h5py.File(output, "r") as file:
            for name in sorted(file):
                found.update(name.encode() + np.asarray(file[name][()]).tobytes())
    else:
        stack = output.with_suffix(".mrcs")
        found.update(output.read_bytes()[1024:] if output.suffix == ".mrc" else output.read_bytes())
        found.update(stack.read_bytes()[1024:] if stack.exists() else b"")
    return found.hexdigest()


def stopped(
    folder: Path, case: Case, number: int, how: signal.Signals, wanted: str, seconds: float, seed: int = 0
) -> tuple[list[Done], list[str]]:
    """Stop a command at random moments of its run, every second time of a resumed one, and then let it end.

    Args:
        folder: folder of the data.
        case: the command.
        number: how often it is stopped.
        how: signal.
        wanted: digest of the undisturbed result.
        seconds: how long it runs undisturbed.
        seed: fixes the moments.

    Returns:
        How the stopped runs ended, and what went wrong: half results, results that differ, files left behind.
    """
    draw, work, ends, wrong = random.Random(seed), _fresh(folder / f"{case.name}-{how.name}"), [], []
    for turn in range(number):
        if turn % 2 == 0:
            _fresh(work)
        process = start(folder, *command(case, work))
        time.sleep(draw.uniform(0.2, 0.95) * seconds)
        process.send_signal(how)
        ends.append(finish(process))
        wrong += _judge(work, case, wanted, temporary=how != signal.SIGKILL)
        if (work / case.output).exists():
            _fresh(work)
    done = run(folder, *command(case, work))
    if done.code:
        wrong.append(f"the last run of {case.name} ends with {done.code}: {done.err[-300:]}")
    wrong += _judge(work, case, wanted, temporary=True)
    if not (work / case.output).exists():
        wrong.append("no result")
    return ends, wrong


def on_full_disk(folder: Path, case: Case, limit: int, wanted: str, *, mounted: bool = False) -> tuple[Done, list[str]]:
    """Run a command that may write only `limit` bytes per file, or, `mounted`, on a disk of that many bytes.

    Returns:
        How it ended, and what went wrong: a signal, a traceback, no line about the space, half results, files left behind.
    """
    work = _fresh(folder / f"{case.name}-full")
    if mounted:
        copy = _fresh(folder / f"{case.name}-copy")
        script = f'mount -t tmpfs -o size={limit} tmpfs "{work}" && "$@"; code=$?; cp -a "{work}/." "{copy}/"; exit $code'
        prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
        done, work = finish(start(folder, *command(case, work), prefix=prefix)), copy
    else:
        done = run(folder, *command(case, work), limit=limit)
    wrong = _judge(work, case, wanted, temporary=True)
    if done.raw:
        wrong.append(f"signal or traceback: {done.code}, {done.err[-500:]}")
    if done.code and not (done.code == 1 and len(done.told) == 1 and "no space left" in done.told[0]):
        wrong.append(f"exit code {done.code}, told {done.told or done.err[-300:]}")
    if done.code == 0 and not (work / case.output).exists():
        wrong.append("no result, and no word")
    return done, wrong


def twice(folder: Path, case: Case, wanted: str) -> list[str]:
    """Start a command twice at once, on one output; what went wrong: both fail, a traceback, another result."""
    work = _fresh(folder / f"{case.name}-twice")
    ends = [finish(process) for process in [start(folder, *command(case, work)) for _ in range(2)]]
    wrong = [f"traceback: {done.err[-300:]}" for done in ends if done.raw]
    if min(done.code for done in ends) != 0:
        wrong.append(f"both fail: {[done.err[-200:] for done in ends]}")
    wrong += [f"no word: {done.err[-300:]}" for done in ends if done.code and len(done.told) != 1]
    return wrong + _judge(work, case, wanted, temporary=True)


def can_mount() -> bool:
    """Whether this user may mount a small disk of his own."""
    script = "mount -t tmpfs tmpfs /mnt"
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def damage(file: Path, draw: random.Random) -> str:
    """Change a file as a broken disk would; returns how. The file differs afterwards."""
    data = bytearray(file.read_bytes())
    at = draw.randrange(len(data))
    ways: dict[str, Callable[[], bytes]] = {
        "bit": lambda: data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :],
        "byte": lambda: data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1 :],
        "cut": lambda: data[:at],
        "zeros": lambda: data[:at] + bytes(min(64, len(data) - at)) + data[at + 64 :],
        "empty": lambda: b"",
        "longer": lambda: data + draw.randbytes(20),
        "noise": lambda: draw.randbytes(len(data)),
    }
    how = draw.choice([*ways, "gone"])
    if how == "gone":
        file.unlink()
        return how
    new = bytes(ways[how]())
    if new == bytes(data):  # zeros over zeros
        return damage(file, draw)
    file.write_bytes(new)
    return how


def leftovers(folder: Path) -> list[str]:
    """Temporary files and locks in a folder and below it."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return [name for name in names if "~" in name or name.endswith(".lock")]


def _judge(work: Path, case: Case, wanted: str, *, temporary: bool) -> list[str]:
    """What is wrong in the folder of a run that was disturbed."""
    wrong = [f"left behind: {name}" for name in leftovers(work)] if temporary else []
    output = work / case.output
    try:
        if output.exists() and digest(output) != wanted:
            wrong.append(f"{case.output} differs")
    except Exception as error:
        wrong.append(f"{case.output} is half written: {error}")
    return wrong


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write_map(path: Path) -> None:
    from lfjax.io import write_map

    z, y, x = np.mgrid[:32, :32, :32] - 15.5
    density = sum(
        np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 8)
        for a, b, c in ((4, 0, -3), (-3, 5, 2), (0, -4, 4), (-5, -2, -4))
    )
    write_map(path, density.astype(np.float32), 3.0)
