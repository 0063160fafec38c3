"""The programs that `benchmarks.abinitio` compares with: RELION's initial model and auto-refine, and ASPIRE's common lines.

None of them sees a true pose: the files are written without. Poses come back in lfjax's convention and in the order of the
images. Times are those of the programs alone, without the writing of their input. A program that reaches its time limit is
ended, and the poses are those of its last iteration on disk.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from numpy.typing import NDArray

from benchmarks.abinitio_scenes import POSES, Made, Scene
from benchmarks.peers_relion import PeerError, write_relion
from lfjax import io
from lfjax.tomography import Ctf, Particles, read_particles
from lfjax.tomography.bands import resized

ASPIRE = ("CLSync3N", "CLSyncVoting", "CommonlineIRLS")
"""Classes of ASPIRE 0.14 that find poses without symmetry; the last is the best on 64 views at SNR 1, and fails at 0.1."""

RELION_ITERATIONS = (50, 200, 50)
START_PX = 32  # box of RELION's initial model
MOST = 200  # images for common lines
CHILD = "import sys; from benchmarks.peers_abinitio import _common_lines; _common_lines(*sys.argv[1:])"


class Found(NamedTuple):
    """Poses that a program found.

    Attributes:
        rotations: (n, 3, 3), object to image.
        shifts: (n, 2), displacement (x, y) of the particle in pixels.
        seconds: wall time.
        version: name and version of the program, and the processes and threads that it had.
        cpu_seconds: processor time of all its processes.
        finished: whether it ended by itself within the time limit.
        volume: its map; None: it makes none.
    """

    rotations: NDArray[np.floating]
    shifts: NDArray[np.floating]
    seconds: float
    version: str
    cpu_seconds: float
    finished: bool
    volume: NDArray[np.float32] | None = None


def initial_model(
    images: NDArray[np.float32],
    particles: Particles,
    folder: Path,
    *,
    diameter_angstrom: float,
    symmetry: str = "C1",
    shift_px: float = 0.0,
    limit_s: float = 900.0,
    threads: int = 2,
    seed: int = 1,
    iterations: tuple[int, int, int] = RELION_ITERATIONS,
    size: int = START_PX,
) -> Found:
    """RELION's initial model by stochastic gradients, with the options that its window writes for one class.

    It sees the images in a smaller box, as its manual advises: it resolves no more than 15 A. At 64 pixels the last 100 of its
    300 iterations take two minutes each.

    RELION samples orientations 15 degrees apart in the first iterations and 7.5 later. An image with a flat posterior takes
    about 0.15 s of a core in each of the first and 1.3 s in each of the later ones, so give it time, or fewer iterations.

    Args:
        images: (n, y, x), at full size.
        particles: optics; their poses and shifts are not written.
        folder: empty folder for its files; `auto_refine` resumes from there.
        diameter_angstrom: diameter of the mask.
        symmetry: point group.
        shift_px: deviation of the displacements, from which the range of the search follows; 0: no search.
        limit_s: time limit.
        threads: threads.
        seed: random seed.
        iterations: numbers of first, middle and last iterations; the default is RELION's.
        size: pixels of the smaller box; its map comes back in the box of the images.

    Raises:
        PeerError: RELION is missing, fails, or reaches the limit before it has written a model.
    """
    whole, times = images.shape[-1], images.shape[-1] / size
    small: Particles = eqx.tree_at(lambda p: p.pixel_angstrom, particles, np.asarray(particles.pixel_angstrom) * times)
    star = _blind(folder, cropped(images, size), small)
    first, middle, last = iterations
    command: list[Any] = ["relion_refine", "--o", "initial/run", "--i", star.name, "--sgd", "--denovo_3dref", "--K", 1]
    command += ["--sgd_ini_iter", first, "--sgd_inbetween_iter", middle, "--sgd_fin_iter", last, "--sgd_write_iter", 10]
    command += ["--sgd_ini_resol", 35, "--sgd_fin_resol", 15, "--sgd_ini_subset", 100, "--sgd_fin_subset", 500]
    command += ["--particle_diameter", diameter_angstrom, "--flatten_solvent", "--zero_mask", "--sym", symmetry]
    command += ["--oversampling", 1, "--healpix_order", 1, *_offsets(shift_px / times), "--pad", 1, "--skip_gridding"]
    command += ["--pool", 3, "--j", threads, "--random_seed", seed, "--dont_check_norm", *_ctf(particles)]
    seconds, cpu, finished = _timed(command, folder, limit_s)
    found = _read(folder, "initial", seconds, cpu, finished, f"{_relion()}, {threads} threads, {size} px")
    volume = np.asarray(resized(found.volume, whole))
    return found._replace(shifts=found.shifts * times, volume=volume)


def cropped(images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The images in a box of fewer pixels and the same length, cropped in Fourier space; the mean of their pixels stays."""
    few = np.r_[: size // 2, -(size // 2) : 0]
    spectrum = np.fft.fft2(np.fft.ifftshift(images, axes=(1, 2)))[:, few[:, None], few]
    spectrum[:, size // 2] = spectrum[:, :, size // 2] = 0
    small = np.fft.fftshift(np.fft.ifft2(spectrum), axes=(1, 2)).real
    return np.asarray(small * (size / images.shape[-1]) ** 2, np.float32)


def auto_refine(
    images: NDArray[np.float32],
    particles: Particles,
    folder: Path,
    *,
    start: NDArray[np.float32],
    diameter_angstrom: float,
    symmetry: str = "C1",
    shift_px: float = 0.0,
    low_pass_angstrom: float = 40.0,
    limit_s: float = 900.0,
    processes: int = 3,
    seed: int = 1,
) -> Found:
    """RELION's auto-refine of two independent half-sets, by `relion_refine_mpi`, from a map that is low-passed first.

    Args:
        images: (n, y, x).
        particles: optics; their poses and shifts are not written.
        folder: folder for its files.
        start: map (n, n, n) to start from, such as that of `initial_model`.
        diameter_angstrom: diameter of the mask.
        symmetry: point group.
        shift_px: deviation of the displacements, from which the range of the search follows; 0: no search.
        low_pass_angstrom: resolution of the start.
        limit_s: time limit.
        processes: MPI processes, an odd number: one leads, and each half-set has half of the others.
        seed: random seed.

    Raises:
        PeerError: RELION is missing, fails, or reaches the limit before its first iteration ends.
    """
    star = _blind(folder, images, particles)
    io.write_map(folder / "start.mrc", start, float(particles.pixel_angstrom[0]))
    command: list[Any] = ["relion_refine_mpi", "--o", "refined/run", "--i", star.name, "--ref", "start.mrc", "--auto_refine"]
    command += ["--split_random_halves", "--firstiter_cc", "--ini_high", low_pass_angstrom, "--low_resol_join_halves", 40]
    command += ["--particle_diameter", diameter_angstrom, "--flatten_solvent", "--zero_mask", "--sym", symmetry]
    command += ["--oversampling", 1, "--healpix_order", 2, "--auto_local_healpix_order", 4, *_offsets(shift_px)]
    command += ["--pad", 2, "--norm", "--scale", "--pool", 3, "--j", 1, "--random_seed", seed, "--dont_check_norm"]
    command += [*_ctf(particles), *(["--ctf_corrected_ref"] if particles.ctf is not None else [])]
    mpi = ["mpirun", "--oversubscribe", "-n", processes, *(["--allow-run-as-root"] if os.getuid() == 0 else [])]
    seconds, cpu, finished = _timed([*mpi, *command], folder, limit_s)
    return _read(folder, "refined", seconds, cpu, finished, f"{_relion()}, {processes} processes")


def common_lines(images: NDArray[np.float32], *, method: str = ASPIRE[0], limit_s: float = 900.0) -> Found:
    """ASPIRE's common lines, told that no image is displaced; its time grows as n^2 to n^3, so n is 200 at most.

    Args:
        images: (n, y, x), without CTF and displacements.
        method: a name of `ASPIRE`.
        limit_s: time limit.

    Raises:
        PeerError: the method fails or reaches the limit; it has no poses before its end.
    """
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "images.npy", Path(name) / "found.npz"
        np.save(source, images)
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        _, _, finished = _timed([sys.executable, "-c", CHILD, method, source, target], Path(name), limit_s, environment)
        if not finished:
            raise PeerError(f"ASPIRE's {method} has not ended after {limit_s:g} s")
        found = np.load(target)
        shifts = np.zeros((len(images), 2))
        made = f"ASPIRE {version('aspire')} {method}"
        return Found(found["rotations"], shifts, float(found["seconds"]), made, float(found["cpu_seconds"]), True)


def all_that_apply(
    scene: Scene, made: Made, folder: Path, *, limit_s: float = 900.0, iterations: tuple[int, int, int] = RELION_ITERATIONS
) -> Iterator[tuple[str, Found | PeerError]]:
    """Run every peer that can take a scene, one after the other; ASPIRE takes no CTF, displacements, symmetry or large n.

    Args:
        scene: the scene.
        made: its stack.
        folder: folder for the files of RELION.
        limit_s: time limit of each program.
        iterations: of the initial model.

    Yields:
        Name, and the poses; in their place the error of a program that is missing, fails or has nothing to show at its limit.
    """
    optics: dict[str, Any] = {"symmetry": scene.symmetry, "shift_px": scene.shift_px, "limit_s": limit_s}
    optics["diameter_angstrom"] = 2 * made.molecule.radius_angstrom
    first = _or_error(lambda: initial_model(made.images, made.particles, folder, iterations=iterations, **optics))
    yield "RELION initial model", first
    if isinstance(first, Found) and (start := first.volume) is not None:
        yield "RELION auto-refine", _or_error(lambda: auto_refine(made.images, made.particles, folder, start=start, **optics))
    if not scene.ctf and not scene.shift_px and scene.symmetry == "C1" and scene.count <= MOST:
        for method in ASPIRE:
            yield f"ASPIRE {method}", _or_error(partial(common_lines, made.images, method=method, limit_s=limit_s))


def _or_error(call: Callable[[], Found]) -> Found | PeerError:
    try:
        return call()
    except PeerError as error:
        return error


def _common_lines(method: str, source: str, target: str) -> None:
    """Runs in a process of its own, so that it can be ended; its time leaves out the import of ASPIRE."""
    import aspire.abinitio
    from aspire.image import Image
    from aspire.source import ArrayImageSource

    logging.disable(logging.WARNING)
    stack = ArrayImageSource(Image(np.load(source), pixel_size=1.0))
    start, cpu = time.perf_counter(), time.process_time()
    turns = getattr(aspire.abinitio, method)(stack, max_shift=0, disable_gpu=True).rotations
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    np.savez(target, rotations=np.swapaxes(np.asarray(turns), 1, 2), seconds=seconds, cpu_seconds=cpu_seconds)


def _blind(folder: Path, images: NDArray[np.float32], particles: Particles) -> Path:
    """particles.star of RELION without poses and origins; optics that `--ctf` alone would use stand in where there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("initial", "refined"):
        (folder / name).mkdir(exist_ok=True)
    optics = Ctf(10000.0, 10000.0) if particles.ctf is None else particles.ctf
    unknown = np.broadcast_to(np.eye(3), (len(particles), 3, 3))
    blind = Particles(unknown, ctf=optics, pixel_angstrom=particles.pixel_angstrom, half=particles.half)
    star = write_relion(folder, images, blind)
    tables = io.read_star(star)
    io.write_star(star, tables | {"particles": tables["particles"].drop(columns=POSES)})
    return star


def _ctf(particles: Particles) -> list[str]:
    return [] if particles.ctf is None else ["--ctf"]


def _offsets(shift_px: float) -> list[Any]:
    """Three deviations, rounded up to the steps of 2 pixels that RELION's window names.

    Without displacements a tiny step remains: a range of 0 has RELION search half a step about its last origin, which then
    drifts from pass to pass.
    """
    searched = (2 * int(np.ceil(1.5 * shift_px)), 2) if shift_px else (0, 0.01)
    return ["--offset_range", searched[0], "--offset_step", searched[1]]


def _relion() -> str:
    told = subprocess.run(["relion_refine", "--version"], capture_output=True, text=True, check=True).stdout
    return f"RELION {told.split()[2]}"


def _timed(
    command: Sequence[Any], folder: Path, limit_s: float, environment: dict[str, str] | None = None
) -> tuple[float, float, bool]:
    """Wall and processor seconds of a program, and whether it ended by itself; log.txt has its output.

    Raises:
        PeerError: the program is missing or fails; the message has the end of its output.
    """
    if shutil.which(command[0]) is None:
        raise PeerError(f"{command[0]} is not installed (Debian: apt-get install relion)")
    before, start, finished = _cpu_seconds(), time.perf_counter(), True
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(list(map(str, command)), cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            finished = False
        finally:
            if process.poll() is None:
                _end(process)
    seconds = time.perf_counter() - start
    if finished and process.returncode:
        told = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
        raise PeerError(f"{command[0]} ended with {process.returncode}:\n{told}")
    return seconds, _cpu_seconds() - before, finished


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program: mpirun ends its processes when it is asked to."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cpu_seconds() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _read(folder: Path, job: str, seconds: float, cpu: float, finished: bool, program: str) -> Found:
    """Poses of the last iteration that is complete on disk, in the order of the stack."""
    last = _last_iteration(folder / job) if job == "initial" or not finished else ""
    where = folder / job
    posed = read_particles(where / f"run{last}_data.star")
    order = np.argsort([number for number, _ in posed.names])
    maps = (
        [f"run{last}_half{half}_class001.mrc" for half in (1, 2)] if job == "refined" and last else [f"run{last}_class001.mrc"]
    )
    volume = np.mean([io.read_map(where / name).array for name in maps], axis=0)
    turns, shifts = (np.asarray(values)[order] for values in (posed.particles.rotations, posed.particles.shifts))
    return Found(turns, shifts, seconds, f"{program}{', iteration ' + last[3:] if last else ''}", cpu, finished, volume)


def _last_iteration(where: Path) -> str:
    """Part of the file names of the last iteration: its optimiser.star is written last."""
    done = sorted(m[1] for path in where.iterdir() if (m := re.fullmatch(r"run(_it\d+)_optimiser\.star", path.name)))
    if not done or done[-1] == "_it000":
        raise PeerError(f"{where}: RELION has ended no iteration within its time limit")
    return done[-1]
