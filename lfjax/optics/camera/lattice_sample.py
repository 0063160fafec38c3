"""The lattice of a light field without a white frame: found where the holes between the pupils fix it, refused elsewhere."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfjax.errors import CalibrationError, require, require_shape
from lfjax.optics.camera.lattice_cells import KINDS, Lattice
from lfjax.optics.camera.lattice_fit import fit_cells, windowed
from lfjax.optics.camera.lattice_holes import Votes, best_offset, darkness, distance_px, hole_response, hole_votes
from lfjax.optics.camera.lattice_search import Basis, find_bases, find_peaks

WAY_OUT = (
    "give a white frame (--white), say that the frame is rectified (--rectified), or state what is known of the lattice "
    "(--pitch, --rotation, --offset)"
)
CENTRE = 640  # least side, in pixels, of the middle of a large frame in which candidates are compared
CANDIDATES = 4
CLEAR = 1.0  # least response of the holes that fixes a lattice alone
HINT = 0.5  # least response that fixes the offset of a lattice whose pitch is known
SCATTER = 0.045  # largest scatter of the holes about a lattice whose pitch is measured, in pitches
KNOWN_SCATTER = 0.2  # the same, about a lattice whose pitch is known
ROTATION_TOLERANCE = math.radians(2)  # largest difference of a stated rotation from that of a candidate
TURN = math.radians(4)  # rotations searched around a stated pitch, to both sides


def sample_lattice(image: NDArray[np.float32], pitch_px: float, kind: str, rotation_rad: float | None) -> Lattice:
    """The lattice on which the holes between the pupils lie.

    A frame that is seen to be rectified already, where the stated pitch is a whole number, has that lattice. Otherwise the
    candidates are the bases of the spectrum of the dark parts of the frame, and the stated pitch. The one with the darkest
    holes is fitted to the whole frame; it is right if its holes are dark and lie alike in all parts of the frame.

    Raises:
        CalibrationError: no candidate has dark holes, they scatter, or the lattice is of the other kind.
    """
    whole = round(pitch_px)
    aligned = rectified_lattice(image, whole, kind) if whole == pitch_px and not rotation_rad else None
    if aligned is not None:
        return aligned.moved((np.array(image.shape) - 1) / 2)
    middle = _middle(image, max(CENTRE, round(32 * pitch_px)))
    dark = darkness(middle, pitch_px)
    bases = find_bases(find_peaks(windowed(-dark), pitch_px), pitch_px)
    stated = Lattice(pitch_px, rotation_rad or 0.0, 0.0, 0.0, kind=kind)
    tried: list[tuple[float, Lattice]] = []
    for start in _different([*(b.start() for b in bases if b.kind is not None), stated]):
        try:
            start = near_rotation(start, rotation_rad)
            same = abs(math.log(start.pitch_px / pitch_px)) < 0.2
            seen = dark if same else darkness(middle, start.pitch_px)
            lattice = fit_cells(windowed(-seen), start, rotation_rad if start.kind == kind else None, equal=False)
            tried.append((best_offset(hole_response(seen, lattice)[0, 0])[0], lattice))
        except CalibrationError:
            continue
    tried.sort(key=lambda t: -t[0])
    others = ", ".join(dict.fromkeys(f"{t.kind} {t.pitch_px:.2f} px (holes {r:.2f})" for r, t in tried))
    tried = sorted((t for t in tried if t[0] > 0.9 * tried[0][0]), key=lambda t: t[1].pitch_px)  # 2 p has the holes of p
    if not tried or tried[0][0] < CLEAR:
        raise _refusal(pitch_px, f"no candidate has dark holes between its lenslets: {others or 'no lattice at all'}")
    lattice = tried[0][1]
    if lattice.kind != kind:
        raise CalibrationError(
            f"kind = {kind!r}: the frame looks {lattice.kind}; say lenslet_lattice = {lattice.kind!r}; candidates: {others}"
        )
    dark = darkness(image, lattice.pitch_px)
    lattice = fit_cells(windowed(-dark), lattice, rotation_rad)
    votes = hole_votes(dark, lattice)
    if not _supported(votes, CLEAR, SCATTER):
        raise _refusal(pitch_px, f"{_told(lattice, votes, CLEAR, SCATTER)}; candidates: {others}")
    return _placed(lattice, votes, image.shape)


def _different(starts: list[Lattice]) -> list[Lattice]:
    """The first few that differ by more than 1 % or 0.01 rad, and the last."""
    kept: list[Lattice] = []
    for s in starts[:-1]:
        same = [k for k in kept if k.kind == s.kind and abs(math.log(k.pitch_px / s.pitch_px)) < 0.01]
        if all(abs(k.rotation_rad - s.rotation_rad) > 0.01 for k in same) and len(kept) < CANDIDATES:
            kept.append(s)
    return [*kept, starts[-1]]


def sample_lattice_of_pitch(image: NDArray[np.float32], pitch_px: float, kind: str, rotation_rad: float | None) -> Lattice:
    """The lattice of a known pitch: the rotation, unless it is known too, and the offset at which the holes are darkest.

    Raises:
        CalibrationError: the holes are not dark, or scatter.
    """
    middle = (np.array(image.shape) - 1) / 2
    lattice = Lattice(pitch_px, rotation_rad or 0.0, float(middle[0]), float(middle[1]), kind=kind)
    dark = darkness(image, pitch_px)
    if rotation_rad is None:
        lattice = _turned(dark, lattice)
    votes = hole_votes(dark, lattice)
    if not _supported(votes, HINT, KNOWN_SCATTER):
        raise _refusal(pitch_px, _told(lattice, votes, HINT, KNOWN_SCATTER))
    return _placed(lattice, votes, image.shape)


def _turned(dark: NDArray[np.float32], lattice: Lattice) -> Lattice:
    """The lattice turned such that the holes are darkest: tried in a small part of the frame first, then in larger ones."""
    from scipy.optimize import minimize_scalar  # takes long to load, and white frames do not need it

    low, high = lattice.rotation_rad - TURN, lattice.rotation_rad + TURN
    for side in (16 * lattice.pitch_px, CENTRE / 2, max(dark.shape)):
        part = _middle(dark, round(side))

        def bright(rotation: float, part: NDArray[np.float32] = part) -> float:
            middle = (np.array(part.shape) - 1) / 2
            turned = lattice._replace(rotation_rad=rotation, origin_y_px=middle[0], origin_x_px=middle[1])
            return -best_offset(hole_response(part, turned)[0, 0])[0]

        step = 0.2 * lattice.pitch_px / (max(part.shape) / 2)
        angles = np.linspace(low, high, 2 * math.ceil((high - low) / (2 * step)) + 1)
        best = float(angles[int(np.argmin([bright(float(a)) for a in angles]))])
        best = float(minimize_scalar(bright, bounds=(best - step, best + step), method="bounded").x)
        low, high = best - step, best + step
    return lattice._replace(rotation_rad=best)


def near_rotation(start: Lattice, rotation_rad: float | None, reach_px: float = 0.0) -> Lattice:
    """The start, its axes named such that its rotation is the one nearest to the stated one.

    Args:
        start: lattice found without knowledge of the rotation.
        rotation_rad: stated rotation; None: the start is returned as it is.
        reach_px: distance from the middle at which the two may differ by a quarter of a pitch; 0: they may differ by 2 degrees.

    Raises:
        CalibrationError: the rotations differ.
    """
    if rotation_rad is None:
        return start
    turn = math.radians(60) if start.kind == "hexagonal" else math.pi / 2
    off = math.remainder(start.rotation_rad - rotation_rad, turn)
    if abs(off) > min(ROTATION_TOLERANCE, 0.25 * start.pitch_px / reach_px if reach_px else math.inf):
        raise CalibrationError(
            f"rotation_rad = {rotation_rad:.4f}: the frame shows {start.rotation_rad:.4f}; state this, or leave it out"
        )
    quarter = round((start.rotation_rad - rotation_rad - off) / turn) % 2 == 1 and start.kind == "square"
    return start._replace(pitch_px=start.cell_px[0], pitch_y_px=start.pitch_px) if quarter else start


def is_rectified(frame: ArrayLike, pixels_per_lenslet: int, *, kind: str = "square") -> bool:
    """Whether a light field is rectified already: whole cells of N pixels, no rotation, cells that begin at multiples of N.

    The holes between the pupils must be dark at the corners of the cells, darker than at other offsets, and so in all parts
    of the frame; and no lattice beside this one may fit better by more than the frame can tell.

    Args:
        frame: light field (y, x).
        pixels_per_lenslet: N; the cell of a hexagonal lattice has round(sqrt(3) N) x N pixels.
        kind: "square" or "hexagonal".

    Raises:
        ParameterError: N is below 3, or the kind is unknown.
    """
    require(pixels_per_lenslet >= 3, "pixels_per_lenslet", pixels_per_lenslet, "3 or more")
    require(kind in KINDS, "kind", kind, " or ".join(KINDS))
    image = np.asarray(frame, np.float32)
    require_shape("frame", image.shape, ("y", "x"))
    return rectified_lattice(image, pixels_per_lenslet, kind) is not None


def rectified_lattice(image: NDArray[np.float32], n: int, kind: str) -> Lattice | None:
    """The lattice of a rectified frame; None: the frame is not seen to be one."""
    cell = (round(n * KINDS[kind]), n)
    if any(side % c or side < 6 * c for side, c in zip(image.shape, cell, strict=True)) or not np.isfinite(image).all():
        return None
    high = None if kind == "square" else float(cell[0])
    lattice = Lattice(float(n), 0.0, (cell[0] - 1) / 2, (cell[1] - 1) / 2, high, kind)
    dark = darkness(image, n)
    votes = hole_votes(dark, lattice)
    clear = votes.response >= CLEAR
    if not _supported(votes, HINT, KNOWN_SCATTER) or distance_px(lattice, votes.offset) > (0.04 if clear else 0.12) * n:
        return None
    reach = max(image.shape) / 2  # from the middle to the edge
    if clear:
        try:
            near = fit_cells(windowed(-dark), lattice)
        except CalibrationError:
            return None
        strain = [abs(found / side - 1) for found, side in zip(near.cell_px, cell, strict=True)]
        return lattice if max(*strain, abs(near.rotation_rad)) * reach < 0.04 * n else None
    drifts = np.linspace(-0.6, 0.6, 13) * n / reach  # of the edge, by an error of pitch or rotation
    stretched = [lattice._replace(pitch_px=n * (1 + d), pitch_y_px=cell[0] * (1 + d)) for d in drifts]
    turned = [lattice._replace(rotation_rad=float(d)) for d in drifts]
    best = [int(np.argmax([hole_response(dark, other).max() for other in others])) for others in (stretched, turned)]
    return lattice if max(abs(drifts[best])) * reach < 0.25 * n else None


def _told(lattice: Lattice, votes: Votes, response: float, scatter: float) -> str:
    place = f"{lattice.pitch_px:.2f} px at {math.degrees(lattice.rotation_rad):.2f} degrees"
    seen = f"are seen in {votes.voting} of {votes.tiles} parts of the frame (expected half)"
    return (
        f"the holes between the lenslets of the best lattice, {place}, have darkness {votes.response:.2f} (expected "
        f"{response:.1f} or more), {seen}, and scatter by {votes.scatter:.3f} pitches (expected {scatter:.3f} or less)"
    )


def _refusal(pitch_px: float, reason: str) -> CalibrationError:
    stated = f"expected pitch {pitch_px:.2f} px"
    return CalibrationError(f"the sample hides the lenslet lattice of the frame ({stated}): {reason}; {WAY_OUT}")


def _supported(votes: Votes, response: float, scatter: float) -> bool:
    return votes.response >= response and votes.voting >= votes.tiles / 2 and votes.scatter <= scatter


def _placed(lattice: Lattice, votes: Votes, shape: tuple[int, ...]) -> Lattice:
    """The lattice with its origin on the lenslet nearest to the middle, at the offset voted for."""
    y, x = lattice.to_raw(votes.offset)
    return lattice._replace(origin_y_px=float(y), origin_x_px=float(x)).moved((np.array(shape) - 1) / 2)


def named(bases: list[Basis]) -> str:
    """The first few candidates, for error messages."""
    return ", ".join(dict.fromkeys(b.describe() for b in bases[:4]))


def _middle(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The middle of a frame, at most `side` pixels wide and high."""
    (top, high), (left, wide) = ((max(0, (n - side) // 2), min(n, side)) for n in image.shape)
    return image[top : top + high, left : left + wide]
