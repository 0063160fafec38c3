"""Recordings as they are read: raw frames become light fields, registered and without their background, a piece at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from lfjax.errors import ParameterError, require
from lfjax.movies import motion
from lfjax.movies.background import SlowBackground
from lfjax.optics import PSF, Microscope
from lfjax.optics.camera.rectify import Rectifier


class Prepared:
    """A movie whose frames go through a function as they are read.

    Args:
        frames: (t, y, x), read by number or slice: an array, `io.open_movie`, or another of these.
        function: frame -> frame, traceable.
    """

    def __init__(self, frames: Any, function: Callable[[Array], Array]) -> None:
        self.frames = frames
        self.function = jax.jit(lambda block: jax.lax.map(function, block))
        one = jax.eval_shape(function, jax.ShapeDtypeStruct(frames.shape[1:], jnp.float32))
        self.shape, self.dtype = (len(frames), *one.shape), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: int | slice) -> np.ndarray:
        """Frames by number or slice."""
        block = np.asarray(self.frames[which], np.float32)
        single = block.ndim == 2
        made = np.asarray(self.function(jnp.asarray(block[None] if single else block)))
        return made[0] if single else made


class WithoutBackground:
    """A movie without its slow background, zero or more: what flares up.

    Args:
        frames: (t, y, x), read by number or slice.
        background: of this movie.
    """

    def __init__(self, frames: Any, background: SlowBackground) -> None:
        self.frames, self.background = frames, background
        self.shape, self.dtype = tuple(frames.shape), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: int | slice) -> np.ndarray:
        """Frames by number or slice of step 1."""
        if isinstance(which, slice):
            first, last, step = which.indices(len(self))
            require(step == 1, "step", step, "1")
            return np.maximum(self.background.remove(self.frames[which], first), 0) if last > first else self.frames[which]
        return np.maximum(self.background.remove(self.frames[which][None], which % len(self))[0], 0)


class LightFields(NamedTuple):
    """A recording ready for reconstruction.

    Attributes:
        frames: (t, y, x), rectified.
        field: lenslets (Y, X).
        mean: (y, x), mean frame.
        mask: (y, x), pixels that are trusted; None is all.
    """

    frames: Any
    field: tuple[int, int]
    mean: Float[np.ndarray, "y x"]
    mask: Bool[Array, "y x"] | None


def light_fields(
    frames: Any,
    microscope: Microscope,
    psf: PSF,
    *,
    white: ArrayLike | None = None,
    dark: ArrayLike | float | None = None,
    rectified: bool = False,
    register: bool = False,
    background: int = 0,
    frame_s: float = 0.01,
) -> LightFields:
    """Prepare a recording; each step is done on the frames that are asked for, when they are.

    Args:
        frames: (t, y, x), raw, or rectified light fields.
        microscope: its parameters.
        psf: whose vignetting is divided out of raw frames.
        white: raw white frame; the lenslets are found in the mean of the movie if not given.
        dark: raw dark frame, or a level.
        rectified: whether frames have N whole pixels a lenslet already, dark subtracted.
        register: whether frames are moved onto the mean of the first hundred (`motion`).
        background: rank of the slow background to take away; 0 takes none.
        frame_s: time of a frame.

    Raises:
        ParameterError: frames that are said to be rectified and have no whole number of lenslets.
        LfjaxError: as `Rectifier.calibrate`.
    """
    require(isinstance(background, int) and background >= 0, "background", background, "a rank of 1 or more, or 0 for none")
    mask = None
    if rectified:
        field = whole_lenslets(frames.shape[1:], microscope.cell_pixels)
    else:
        rectifier = Rectifier.calibrate(microscope, mean_frame(frames), white=white, dark=dark)
        field, mask = rectifier.field, rectifier.mask
        # noise around the dark level is cut off: solvers and photon weights want light
        frames = Prepared(frames, lambda raw: jnp.maximum(rectifier.flatten(rectifier(raw), psf), 0))
    if register:
        cell, first = microscope.cell_pixels, jnp.asarray(np.asarray(frames[: min(100, len(frames))], np.float32))
        reference = motion.make_reference(first, cell_pixels=cell)

        def moved(frame: Array) -> Array:
            shift = motion.light_field_shift(frame, reference, cell)
            return jnp.maximum(motion.shift_light_field(frame, -shift, cell), 0)

        frames = Prepared(frames, moved)
    if background:
        frames = WithoutBackground(frames, SlowBackground.fit(frames, frame_s, rank=background))
    return LightFields(frames, field, mean_frame(frames), mask)


def fingerprint(*arrays: Any) -> str:
    """SHA-256 of arrays (None is left out), of movies by their first, middle and last frame: whether inputs are the same."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            continue
        movie = len(array.shape) == 3
        for part in [array[i] for i in sorted({0, len(array) // 2, len(array) - 1})] if movie else [array]:
            digest.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def mean_frame(frames: Any, count: int = 50) -> Float[np.ndarray, "y x"]:
    """Mean of about `count` frames, evenly spread over the movie and read one by one."""
    require(count >= 1, "count", count, "1 or more frames")
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    total = np.zeros(frames.shape[1:])
    for number in chosen:
        total += np.asarray(frames[int(number)], float)
    return (total / len(chosen)).astype(np.float32)


def whole_lenslets(shape: tuple[int, ...], cell_pixels: tuple[int, int]) -> tuple[int, int]:
    """Lenslets (Y, X) of rectified frames.

    Raises:
        ParameterError: not a whole number of them.
    """
    if any(n % p for n, p in zip(shape, cell_pixels, strict=True)):
        raise ParameterError(f"frames of {shape}: expected whole lenslets of {cell_pixels} pixels where they are rectified")
    rows, columns = (n // p for n, p in zip(shape, cell_pixels, strict=True))
    return rows, columns
