"""Recordings prepared as they are read: rectified, registered, without their slow background, one block at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.movies import motion
from lfjax.movies.background import SlowBackground
from lfjax.movies.frames import Frames
from lfjax.optics import PSF, Rectifier
from lfjax.optics.camera.trust import require_trusted


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
        frames: (t, y, x), rectified and flattened, 0 outside the mask.
        field: lenslets (Y, X).
        mean: (y, x), mean frame.
        mask: (y, x), True for trusted pixels; the weight of every fit to these frames.
    """

    frames: Frames
    field: tuple[int, int]
    mean: Float[np.ndarray, "y x"]
    mask: Bool[np.ndarray, "y x"]

    @property
    def weights(self) -> Float[np.ndarray, "y x"]:
        """The mask as numbers."""
        return self.mask.astype(np.float32)


def light_fields(
    frames: Frames,
    rectifier: Rectifier,
    psf: PSF,
    *,
    peak: ArrayLike | None = None,
    saturation: float | None = None,
    register: bool = False,
    background: int = 0,
    frame_s: float = 0.01,
) -> LightFields:
    """Prepare a recording for reconstruction; the steps are applied lazily, per requested frame.

    Args:
        frames: (t, y, x), raw.
        rectifier: the correction of these frames, from `Rectifier.calibrate`, `Rectifier.aligned` or `optics.read_calibration`.
        psf: its vignetting is divided out of the frames.
        peak: (y, x), largest value of each raw pixel, as `movies.survey` finds it; with `saturation`, pixels that saturate in
            any frame are not trusted.
        saturation: counts at and above which a raw pixel is saturated.
        register: whether to move every frame onto the mean of the first hundred (`motion`).
        background: rank of the slow background to subtract; 0: none.
        frame_s: duration of a frame.

    Raises:
        ParameterError: `background` is out of range.
        ShapeError: the frames have another size than those of the calibration.
        CalibrationError: too few pixels are trusted.
    """
    require(isinstance(background, int) and background >= 0, "background", background, "a rank of 1 or more, or 0 for none")
    require_shape("frames", frames.shape, ("t", *rectifier.dark.shape))
    mask = np.asarray(rectifier.mask)
    if peak is not None and saturation is not None:
        mask = mask & ~np.asarray(rectifier.saturated(peak, saturation))
        require_trusted(mask, f"pixels reach {saturation:g} counts, where the camera saturates: shorten the exposure")
    trusted = jnp.asarray(mask)

    def corrected(raw: Array) -> Array:
        # noise below the dark level is clipped: solvers and photon weights need nonnegative light
        return jnp.where(trusted, jnp.maximum(rectifier.flatten(rectifier(raw), psf), 0), 0)

    ready: Frames = Prepared(frames, corrected)
    if register:
        ready = _registered(ready, rectifier.microscope.cell_pixels, trusted)
    if background:
        slow = SlowBackground.fit(ready, frame_s, rank=background, weights=mask.astype(np.float32))
        ready = WithoutBackground(ready, slow)
    return LightFields(ready, rectifier.field, mean_frame(ready), mask)


def _registered(frames: Frames, cell_pixels: tuple[int, int], trusted: Bool[Array, "y x"]) -> Prepared:
    """Light fields shifted onto the mean of the first hundred."""
    first = jnp.asarray(np.asarray(frames[: min(100, len(frames))], np.float32))
    trust = trusted.astype(jnp.float32)
    reference = motion.make_reference(first, cell_pixels=cell_pixels, weight=trust)

    def moved(frame: Array) -> Array:
        shift = motion.light_field_shift(frame, reference, cell_pixels, weight=trust)
        return jnp.where(trusted, jnp.maximum(motion.shift_light_field(frame, -shift, cell_pixels, weight=trust), 0), 0)

    return Prepared(frames, moved)


def mean_frame(frames: Frames, count: int = 50) -> Float[np.ndarray, "y x"]:
    """Mean of about `count` frames, evenly spread over the movie and read one by one."""
    require(count >= 1, "count", count, "1 or more frames")
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    total = np.zeros(frames.shape[1:])
    for number in chosen:
        total += np.asarray(frames[int(number)], float)
    return (total / len(chosen)).astype(np.float32)
