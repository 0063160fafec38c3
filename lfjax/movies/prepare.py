"""Recordings prepared as they are read: rectified, registered, without their slow background, one block at a time."""

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
from lfjax.movies.frames import Frames
from lfjax.optics import PSF, Microscope
from lfjax.optics.camera.rectify import Rectifier


class Prepared:
    """A movie with a function applied to every frame as it is read.

    Args:
        frames: (t, y, x).
        function: frame -> frame, traceable.
    """

    def __init__(self, frames: Frames, function: Callable[[Array], Array]) -> None:
        self.frames = frames
        self.function = jax.jit(function)
        one = jax.eval_shape(function, jax.ShapeDtypeStruct(frames.shape[1:], jnp.float32))
        self.shape, self.dtype = (len(frames), *one.shape), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: int | slice) -> np.ndarray:
        """Frames by number or slice."""
        block = np.asarray(self.frames[which], np.float32)
        if block.ndim == 2:
            return np.asarray(self.function(block))
        made = [self.function(frame) for frame in block]  # one by one: a block of another length compiles nothing
        return np.stack([np.asarray(frame) for frame in made]) if made else np.zeros((0, *self.shape[1:]), np.float32)


class WithoutBackground:
    """A movie minus its slow background, clipped at zero: its transients.

    Args:
        frames: (t, y, x).
        background: fitted to these frames.
    """

    def __init__(self, frames: Frames, background: SlowBackground) -> None:
        self.frames, self.background = frames, background
        self.shape, self.dtype = tuple(frames.shape), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: int | slice) -> np.ndarray:
        """Frames by number or slice of step 1."""
        if not isinstance(which, slice):
            number = which % len(self)
            return self[number : number + 1][0]
        first, last, step = which.indices(len(self))
        require(step == 1, "step", step, "1")
        return np.maximum(self.background.remove(self.frames[first : max(first, last)], first), 0)


class LightFields(NamedTuple):
    """A recording ready for reconstruction.

    Attributes:
        frames: (t, y, x), rectified.
        field: lenslets (Y, X).
        mean: (y, x), mean frame.
        mask: (y, x), True for valid pixels; None: all of them.
    """

    frames: Frames
    field: tuple[int, int]
    mean: Float[np.ndarray, "y x"]
    mask: Bool[Array, "y x"] | None


def light_fields(
    frames: Frames,
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
    """Prepare a recording for reconstruction; the steps are applied lazily, per requested frame.

    Args:
        frames: (t, y, x), raw, or rectified light fields.
        microscope: its parameters.
        psf: its vignetting is divided out of raw frames.
        white: raw white frame; by default the mean of the movie shows the lenslets.
        dark: raw dark frame, or one level for all pixels.
        rectified: whether frames have N whole pixels per lenslet already, dark subtracted.
        register: whether to move every frame onto the mean of the first hundred (`motion`).
        background: rank of the slow background to subtract; 0: none.
        frame_s: duration of a frame.

    Raises:
        ParameterError: `background` is out of range, or `rectified` frames are not a whole number of lenslets.
        LfjaxError: as `Rectifier.calibrate`.
    """
    require(isinstance(background, int) and background >= 0, "background", background, "a rank of 1 or more, or 0 for none")
    mask = None
    if rectified:
        field = whole_lenslets(frames.shape[1:], microscope.cell_pixels)
    else:
        rectifier = Rectifier.calibrate(microscope, mean_frame(frames), white=white, dark=dark)
        field, mask = rectifier.field, rectifier.mask
        # noise below the dark level is clipped: solvers and photon weights need nonnegative light
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


def fingerprint(*inputs: Frames | ArrayLike | None) -> str:
    """SHA-256 of inputs, to tell whether two runs share them: of arrays (None is skipped), of movies by three of their frames.

    Args:
        *inputs: arrays or numbers; those of three axes are movies, of which the first, middle and last frame count.
    """
    digest = hashlib.sha256()
    for given in inputs:
        if given is None:
            continue
        array: Any = given if isinstance(given, Frames) else np.asarray(given)
        movie = len(array.shape) == 3
        for part in [array[i] for i in sorted({0, len(array) // 2, len(array) - 1})] if movie else [array]:
            digest.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def mean_frame(frames: Frames, count: int = 50) -> Float[np.ndarray, "y x"]:
    """Mean of about `count` frames, evenly spread over the movie and read one by one."""
    require(count >= 1, "count", count, "1 or more frames")
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    total = np.zeros(frames.shape[1:])
    for number in chosen:
        total += np.asarray(frames[int(number)], float)
    return (total / len(chosen)).astype(np.float32)


def whole_lenslets(shape: tuple[int, ...], cell_pixels: tuple[int, int]) -> tuple[int, int]:
    """Number of lenslets (Y, X) of rectified frames.

    Args:
        shape: pixels (y, x) of a frame.
        cell_pixels: pixels (y, x) per lenslet.

    Raises:
        ParameterError: the frames do not hold a whole number of lenslets.
    """
    if any(n % p for n, p in zip(shape, cell_pixels, strict=True)):
        raise ParameterError(f"frames of {shape}: expected whole lenslets of {cell_pixels} pixels in rectified frames")
    rows, columns = (n // p for n, p in zip(shape, cell_pixels, strict=True))
    return rows, columns
