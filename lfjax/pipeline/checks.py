"""What would spoil the result of a recording, found before any work: what the command `lfjax check` prints."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from lfjax import activity, movies
from lfjax.errors import CalibrationWarning, LfjaxError
from lfjax.movies.quality import Survey
from lfjax.movies.repair import name_first
from lfjax.optics import Microscope, Rectifier, depth_range
from lfjax.pipeline.recording import volume_grid
from lfjax.pipeline.settings import Calibration, Grid, Run

SATURATED = 1e-3  # share of saturated pixels above which the exposure is too long
FEWEST = 20  # frames below which there is no activity to speak of
TIMED = 16  # frames that are rectified to measure the speed


class Finding(NamedTuple):
    """One line of a check.

    Attributes:
        name: the subject, "lenslets" for example.
        text: what was found.
        level: "ok", "note" (worth knowing) or "problem" (spoils the result).
    """

    name: str
    text: str
    level: str = "ok"


def check_recording(
    frames: Any,
    microscope: Microscope | None,
    *,
    structure: ArrayLike | None = None,
    structure_um: tuple[float, float, float] | None = None,
    calibration: Calibration = Calibration(),  # noqa: B008 - frozen
    grid: Grid = Grid(),  # noqa: B008 - frozen
    diameter_um: float = 12.0,
    frame_s: float | None = None,
    track: Callable[..., Any] | None = None,
) -> list[Finding]:
    """Findings about frames, calibration, depths, structure, time and memory of a recording.

    Args:
        frames: (t, row, col), camera frames: an array, or `io.open_movie`.
        microscope: its parameters. None: those of the calibration.
        structure: (z, y, x), structural volume; None: none.
        structure_um: its voxel size (z, y, x); None: it is on the grid.
        calibration: calibration frames, or a calibration made before.
        grid: depths and voxels per lenslet.
        diameter_um: diameter of a soma.
        frame_s: seconds per frame. None: that of the file.
        track: see `lfjax.progress.track`.

    Returns:
        Findings in the order in which they are looked for; a problem that hides what follows ends the list.
    """
    found = [_frames(frames), _rate(frames, frame_s)]
    begin = time.perf_counter()
    known = calibration.rectifier
    seen = movies.survey(frames, saturation=calibration.saturation if known is None else known.saturation, track=track)
    read_s = (time.perf_counter() - begin) / len(frames)
    found.append(_bad(seen, frames))
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", CalibrationWarning)
            rectifier = calibration.prepare(microscope, seen.mean)
            cells = grid.of(rectifier.microscope)
    except LfjaxError as error:
        return [*found, _saturated(seen, None), Finding("calibration", str(error), "problem")]
    found.append(_saturated(seen, rectifier))
    found += [Finding("calibration", str(w.message), "note") for w in told if issubclass(w.category, CalibrationWarning)]
    found += [*_lenslets(rectifier), _depths(cells, rectifier.microscope)]
    neurons = 50  # a guess, for the cost
    if structure is not None:
        finding, neurons = _structure(np.asarray(structure), structure_um, rectifier, cells, diameter_um)
        found.append(finding)
    return [*found, _cost(frames, rectifier, neurons, read_s)]


def _frames(frames: Any) -> Finding:
    count, rows, columns = frames.shape
    files = len(getattr(frames, "files", ()))
    several = f" in {files} files" if files > 1 else ""
    return Finding("frames", f"{count} frames of {rows} x {columns} {np.dtype(frames.dtype)}{several}")


def _rate(frames: Any, frame_s: float | None) -> Finding:
    stated = getattr(frames, "frame_s", None)
    rate = stated if frame_s is None else frame_s
    if rate is None:
        return Finding("rate", "the file does not tell its frame rate; say --rate-hz", "problem")
    source = "as stated" if frame_s is not None else "by the file"
    if stated is not None and frame_s is not None and abs(stated / frame_s - 1) > 0.01:
        return Finding("rate", f"{1 / frame_s:.6g} frames per second stated, {1 / stated:.6g} by the file", "note")
    return Finding("rate", f"{1 / rate:.6g} frames per second {source}, {len(frames) * rate:.4g} s")


def _bad(seen: Survey, frames: Any) -> Finding:
    lost, count = sum(seen.dropped.values()), len(frames)
    if seen.bad or lost:
        texts = {number: f"{n} frames lost before it" for number, n in seen.dropped.items()} | seen.bad
        named = name_first(dict(sorted(texts.items())))
        text = f"{len(seen.bad)} of {count} are bad, {lost} were lost ({named}); say --bad-frames skip or interpolate"
        return Finding("bad frames", text, "problem")
    if count > 1 and seen.still:
        return Finding("bad frames", "all frames are the same: nothing fires in them", "problem")
    if count < FEWEST:
        return Finding("bad frames", f"none, but {count} frames tell nothing about activity", "note")
    return Finding("bad frames", "none")


def _saturated(seen: Survey, rectifier: Rectifier | None) -> Finding:
    """Saturation of pixels that are not hot in every frame; hot ones are replaced."""
    if seen.saturation is None:
        return Finding("saturation", "no value repeats at the top of the range: no pixel is saturated")
    reached = np.asarray(seen.peak) >= seen.saturation
    hot = 0
    if rectifier is not None:
        hot, reached = int((reached & rectifier.bad).sum()), reached & ~rectifier.bad
    count = int(reached.sum())
    text = (
        f"{count} pixels reach {seen.saturation:g} counts in some frame"
        + f", beside {hot} hot ones, which are replaced" * bool(hot)
    )
    if reached.mean() > SATURATED:
        return Finding("saturation", f"{text}; shorten the exposure: these pixels are not trusted", "problem")
    return Finding("saturation", text, "note" if count else "ok")


def _lenslets(rectifier: Rectifier) -> list[Finding]:
    lattice, n = rectifier.lattice, rectifier.microscope.pixels_per_lenslet
    stated = rectifier.microscope.raw_pitch_px
    expected = f"N = {n}" if stated is None else f"{stated:.3f} px by the microscope"
    turn = math.degrees(lattice.rotation_rad)
    text = f"{lattice.kind}, pitch {lattice.pitch_px:.3f} px ({expected}), rotation {turn:+.3f} degrees"
    rows, columns = rectifier.field
    level = "ok" if rectifier.trusted > 0.4 else "note"
    return [
        Finding("lenslets", f"{text}, field {rows} x {columns}"),
        Finding("trusted pixels", f"{rectifier.trusted:.1%}", level),
    ]


def _depths(grid: Grid, microscope: Microscope) -> Finding:
    low, high = depth_range(microscope)
    text = f"{len(grid.depths)} planes, {grid.depths[0]:g} to {grid.depths[-1]:g} um; usable: {low:.3g} to {high:.3g} um"
    beyond = grid.depths[0] < low * 1.001 or grid.depths[-1] > high * 1.001
    return Finding("depths", text + (": the outer planes are blurred" if beyond else ""), "note" if beyond else "ok")


def _structure(
    structure: np.ndarray, structure_um: tuple[float, float, float] | None, rectifier: Rectifier, grid: Grid, diameter_um: float
) -> tuple[Finding, int]:
    shape, voxel_um = volume_grid(rectifier, grid)
    try:
        volume = activity.resample_structure(structure, structure_um, shape, voxel_um, diameter_um=diameter_um)
    except LfjaxError as error:
        return Finding("structure", str(error), "problem"), 0
    count = len(activity.segment_somata(volume, voxel_um, diameter_um=diameter_um).centres_um)
    assumed = "" if structure_um is not None else ", whose voxel size is taken for its own, since its file tells none"
    text = f"fits the grid {shape}{assumed}; {count} somata of {diameter_um:g} um"
    return Finding("structure", text, "problem" if not count else "note" if assumed else "ok"), count


def _cost(frames: Any, rectifier: Rectifier, neurons: int, read_s: float) -> Finding:
    """Time and memory of `lfjax neurons`, from the speed of reading and of rectifying measured here."""
    block = np.asarray(frames[: min(TIMED, len(frames))], np.float32)
    np.asarray(rectifier(block[0]))  # compiles
    begin = time.perf_counter()
    for frame in block:
        np.asarray(rectifier(frame))
    rectify_s = (time.perf_counter() - begin) / len(block)
    pixels, chunk = rectifier.mask.size, Run(chunk=256).chunk
    components = 2 * max(neurons, 1) + 1
    product = jax.jit(lambda a, b: a @ b)
    images, y = jnp.zeros((components, pixels)), jnp.zeros((pixels, TIMED))
    product(images, y).block_until_ready()
    begin = time.perf_counter()
    product(images, y).block_until_ready()
    extract_s = (time.perf_counter() - begin) / TIMED
    seconds = len(frames) * (2 * read_s + rectify_s + extract_s)
    gib = (3 * min(chunk, len(frames)) * pixels * 4 + 3 * components * pixels * 4) / 2**30
    text = (
        f"about {seconds:.3g} s and {gib:.2g} GiB beside the PSF, for {components // 2} neurons; per frame read twice "
        f"{2e3 * read_s:.3g} ms, rectify {1e3 * rectify_s:.3g} ms, extract {1e3 * extract_s:.3g} ms"
    )
    return Finding("neurons", text)
