"""Pixels of a camera that do not tell the light: saturated, hot and dead ones; and the local brightness of a white frame."""

from __future__ import annotations

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter, median_filter, minimum_filter

from lfjax.errors import ParameterError, require, require_shape

BITS = (8, 10, 11, 12, 13, 14, 15, 16)
NATURAL = 3.0  # how far above what its neighbourhood does by itself a defect stands out
LEAST = 0.1  # smallest defect, as a fraction of the local brightness: smaller ones are differences between pixels
NEIGHBOURS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))
RING = tuple((i, j) for i in range(-2, 3) for j in range(-2, 3) if max(abs(i), abs(j)) == 2)
REPAIR_REACH = 3  # pixels within which a bad pixel is replaced


def check_frame(name: str, frame: ArrayLike, shape: tuple[int, ...] | None = None) -> Float[np.ndarray, "row col"]:
    """A camera frame as 32-bit floats.

    Args:
        name: name of the argument, for messages.
        frame: (row, col), real and finite.
        shape: the size that it must have; None: any.

    Raises:
        ParameterError: the values are complex, are not numbers, or are NaN or infinite.
        ShapeError: it is a colour image, a stack, or of another size.
    """
    array = np.asarray(frame)
    real = "real numbers: the counts of a camera"
    require(array.dtype.kind in "uifb" or array.dtype.name == "bfloat16", f"{name} of type", str(array.dtype), real)
    if array.ndim == 3 and array.shape[-1] in (3, 4) and min(array.shape[:2]) > 4:
        raise ParameterError(
            f"{name} has shape {array.shape}: expected (y, x); this looks like colour (RGB): give one of its channels"
        )
    require_shape(name, array.shape, ("y", "x") if shape is None else shape)
    with np.errstate(over="ignore"):  # overflow becomes infinity, which is refused
        values = array.astype(np.float32)
    wrong = np.argwhere(~np.isfinite(values))
    first = ", ".join(map(str, wrong[:1].ravel().tolist()))
    found = f"{len(wrong)} of {values.size} values NaN or infinite, the first at [{first}]"
    require(len(wrong) == 0, name, found, "finite values")
    return values


def find_saturation(frame: ArrayLike) -> float | None:
    """Level at which a frame is clipped, found from its values; None: it is not clipped.

    A clipped frame piles pixels up at its largest value. The largest value of the integer type is always a clipped one, and so
    is 2^k - 1, the top of a camera of k bits, where half of the pixels have it. Another largest value is clipped if more pixels
    have it than any of the eight values below it: at least twice as many where it is 2^k - 1, and four times as many elsewhere,
    as after a level was subtracted or in data shifted by bits.

    Args:
        frame: camera frame of any shape: whole numbers, also as floats, or whole numbers minus one number.
    """
    values = np.asarray(frame)
    require(values.dtype.kind in "uifb", "frame of type", str(values.dtype), "real numbers")
    if values.size == 0 or values.dtype.kind == "b":
        return None
    top = float(values.max())
    if not math.isfinite(top):
        return None
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2 and top == np.iinfo(values.dtype).max:
        return top
    depth = any(top == 2**bits - 1 for bits in BITS)
    if depth and np.count_nonzero(values == top) >= values.size / 2:
        return top
    levels, counts = np.unique(values, return_counts=True)
    steps, counts = (top - levels.astype(np.float64))[::-1], counts[::-1]
    if np.abs(steps - np.round(steps)).max() > 1e-3:
        return None
    if len(steps) < 4:
        return None  # an image of so few grey levels has no tail to compare with
    pile = counts[0] >= (4 if depth else 10) and counts[0] > (2 if depth else 4) * counts[1:9].max()
    # the tail must lead up to the top: a plateau far above the rest is no clipped tail
    return top if pile and steps[1] <= 0.1 * steps[-1] else None


def hot_pixels(frame: ArrayLike, pitch_px: float = 16.0, *, spot_px: float | None = None) -> Bool[np.ndarray, "row col"]:
    """Hot and dead pixels of a white, dark or raw frame.

    A pixel is compared with its eight neighbours. It is hot if it exceeds the second-brightest of them by more than three
    times the largest such excess that is usual in a block of one lenslet (the median over 5 x 5 blocks), and by a tenth of the
    local brightness. It is dead if it falls as far below the second-darkest, and below half of it where the frame is positive.
    Lenslets, their edges and the corners between them repeat from block to block, hence are usual. The second neighbour is
    taken so that two defects side by side are found.

    A point of the sample does not repeat, but the optics spread it: the narrowest spot that a lenslet makes, sinc^2(x / w) with
    w = `spot_px`, gives the neighbours of its pixel a known share. With `spot_px`, only those pixels are hot whose
    neighbours have less than half of it, judged beyond the noise. What is usual is then at least the median over all blocks in
    which a pixel exceeds its neighbours: in a nearly dark frame these are single photons.

    Args:
        frame: (row, col); raw and white frames are best given with the dark level subtracted.
        pitch_px: about the pixels per lenslet.
        spot_px: w = lambda f_ml / (pitch pixel), width of the narrowest spot of a sample; None: a white or a dark frame.

    Raises:
        ParameterError: the frame is not real and finite, or a number is out of range.
    """
    image = check_frame("frame", frame)
    require(math.isfinite(pitch_px) and pitch_px >= 1, "pitch_px", pitch_px, "1 or more pixels")
    require(spot_px is None or spot_px > 0, "spot_px", spot_px, "a positive number, or None")
    if min(image.shape) < 3:
        return np.zeros(image.shape, bool)
    low, high = _second_neighbours(image)
    step = 1.0 if np.array_equal(image[::3], np.round(image[::3])) else 0.0  # rounding of whole numbers
    excess, lack = image - high, low - image
    least = LEAST * np.maximum(local_maximum(image, max(4.0, pitch_px)), 0) + step
    hot = excess > np.maximum(NATURAL * _usual(excess, pitch_px, everywhere=spot_px is not None) + step, least)
    dead = (lack > np.maximum(NATURAL * _usual(lack, pitch_px) + step, least)) & ((low <= 0) | (image < low / 2))
    if spot_px is not None:
        hot[hot] = _sharper(image, np.argwhere(hot), least_share(spot_px) / 2)
    return hot | dead


def _second_neighbours(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Second-smallest and second-largest of the eight neighbours of each pixel; the border is mirrored."""
    padded = np.pad(image, 1, mode="reflect")
    low, low2 = np.full_like(image, np.inf), np.full_like(image, np.inf)
    high, high2, spare = -low, -low, np.empty_like(image)
    for i, j in NEIGHBOURS:
        near = padded[1 + i : 1 + i + image.shape[0], 1 + j : 1 + j + image.shape[1]]
        np.minimum(low2, np.maximum(low, near, out=spare), out=low2)
        np.minimum(low, near, out=low)
        np.maximum(high2, np.minimum(high, near, out=spare), out=high2)
        np.maximum(high, near, out=high)
    return low2, high2


def _usual(excess: NDArray[np.float32], pitch_px: float, everywhere: bool = False) -> NDArray[np.float32]:
    """Largest excess in a block of one pitch, as the median over 5 x 5 blocks, for every pixel.

    `everywhere`: and at least the median over all blocks that have an excess.
    """
    side = max(4, math.ceil(pitch_px))
    largest = np.maximum(_blocks(excess, (side, side)).max(axis=3).max(axis=1), 0)
    usual = median_filter(largest, 5, mode="nearest")
    if everywhere and largest.any():
        usual = np.maximum(usual, np.median(largest[largest > 0]))
    return np.repeat(np.repeat(usual, side, 0), side, 1)[: excess.shape[0], : excess.shape[1]]


def _blocks(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """The image in blocks (Y, size, X, size); the last ones are filled by mirroring."""
    pad = [(0, -n % s) for n, s in zip(image.shape, size, strict=True)]
    whole = np.pad(image, pad, mode="symmetric") if any(p[1] for p in pad) else image
    return whole.reshape(whole.shape[0] // size[0], size[0], whole.shape[1] // size[1], size[1])


def _sharper(image: NDArray[np.float32], places: NDArray[np.intp], share: float) -> NDArray[np.bool_]:
    """Which of the pixels (n, 2) give their direct neighbours less than a share of their own light above the surroundings."""
    padded = np.pad(image, 2, mode="reflect" if min(image.shape) > 2 else "edge")

    def at(offsets: tuple[tuple[int, int], ...]) -> NDArray[np.float32]:
        return np.stack([padded[places[:, 0] + 2 + i, places[:, 1] + 2 + j] for i, j in offsets])

    ring = at(RING)
    around = np.median(ring, axis=0)
    noise = 1.4826 * np.median(np.abs(ring - around), axis=0)
    beside = np.median(at(((0, 1), (1, 0), (0, -1), (-1, 0))), axis=0)  # one of them may be a defect too
    return beside - around + 2 * noise < share * (image[tuple(places.T)] - around)


def least_share(spot_px: float) -> float:
    """Light of the direct neighbour of a pixel on which a spot sinc^2(x / w) is centred, relative to that pixel's."""
    nodes, weights = np.polynomial.legendre.leggauss(64)  # of -1 to 1; the pixel itself is -0.5 to 0.5

    def light(middle: float) -> float:
        return float(weights @ np.sinc((middle + nodes / 2) / spot_px) ** 2)

    return light(1.0) / light(0.0)


def local_maximum(white: ArrayLike, pitch_px: float | tuple[float, float]) -> Float[np.ndarray, "row col"]:
    """Brightness of the lenslets about each pixel of a white frame, whatever its single pixels do.

    The maximum in each block of one lenslet, the median of it over 3 x 3 blocks, linear between the blocks' middles. It follows
    vignetting, and neither single hot pixels nor single dark lenslets move it.

    Args:
        white: (row, col), dark level subtracted.
        pitch_px: pixels per lenslet; (y, x) if they differ, or for the cell of a hexagonal array.
    """
    image = check_frame("white", white)
    sizes = np.broadcast_to(np.asarray(pitch_px, float), (2,))
    size = (math.ceil(sizes[0] - 1e-9), math.ceil(sizes[1] - 1e-9))
    level = _blocks(image, size).max(axis=3).max(axis=1)
    level = median_filter(level, 3, mode="nearest")
    rows, columns = (_hat(n, s, len_) for n, s, len_ in zip(image.shape, size, level.shape, strict=True))
    return (rows @ level @ columns.T).astype(np.float32)


def equal_lenslets(white: Float[np.ndarray, "row col"], pitch_px: float, cell: tuple[int, int]) -> Float[np.ndarray, "row col"]:
    """White frame of a multi-focal array with lenslets of equal brightness, so that it repeats from lenslet to lenslet.

        min(white, t) / t,  t = 0.7 min over a cell of (max over a lenslet of white)

    Lenslets far out of focus are dimmer than others. Without this their pattern is the strongest lattice in the frame.

    Args:
        white: dark level subtracted, without hot pixels.
        pitch_px: pixels per lenslet.
        cell: lenslets (y, x) of the pattern.
    """
    side = math.ceil(pitch_px)
    peaks = maximum_filter(white, side, mode="nearest")
    dimmest = minimum_filter(peaks, (side * cell[0], side * cell[1]), mode="nearest")
    level = 0.7 * np.maximum(dimmest, 0.05 * np.percentile(peaks, 95))
    return np.minimum(white / np.maximum(level, np.finfo(np.float32).tiny), 1).astype(np.float32)


def _hat(pixels: int, side: int, blocks: int) -> NDArray[np.float64]:
    """Matrix (pixel, block) of linear interpolation between the middles of blocks, constant beyond the outer ones."""
    place = np.clip((np.arange(pixels) - (side - 1) / 2) / side, 0, blocks - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(blocks)))


class Repair(eqx.Module):
    """Replaces bad pixels by the mean of the good ones nearest to them; linear, hence the same for every frame.

    Attributes:
        places: (n, 2), the bad pixels.
        sources: (n, k, 2), good pixels near each.
        weights: (n, k), their weights, of sum 1; 0 where no good pixel lies within three pixels.
    """

    places: Int[Array, "n 2"]
    sources: Int[Array, "n k 2"]
    weights: Float[Array, "n k"]

    def __init__(self, bad: Bool[ArrayLike, "row col"]) -> None:
        """Find the good pixels nearest to each bad one."""
        mask = np.asarray(bad, bool)
        reach = range(-REPAIR_REACH, REPAIR_REACH + 1)
        offsets = np.array(
            sorted(((i, j) for i in reach for j in reach if (i, j) != (0, 0)), key=lambda p: p[0] ** 2 + p[1] ** 2)
        )
        distance = np.sum(offsets**2, axis=1)
        places = np.argwhere(mask)
        found = places[:, None] + offsets
        inside = np.all((found >= 0) & (found < mask.shape), axis=-1)
        found = np.clip(found, 0, np.array(mask.shape) - 1)
        good = inside & ~mask[found[..., 0], found[..., 1]]
        far = np.where(good, distance, np.inf)
        nearest = good & (far <= far.min(axis=1, keepdims=True, initial=np.inf))
        first = np.argsort(~nearest, axis=1, kind="stable")[:, :8]  # at most eight lie at one distance
        weights = np.take_along_axis(nearest, first, 1).astype(np.float32)
        self.places = jnp.asarray(places, jnp.int32)
        self.sources = jnp.asarray(np.take_along_axis(found, first[..., None], 1), jnp.int32)
        self.weights = jnp.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1))

    def __call__(self, frame: Float[Array, "row col"]) -> Float[Array, "row col"]:
        """The frame with its bad pixels replaced."""
        if not len(self.places):
            return frame
        near = frame[self.sources[..., 0], self.sources[..., 1]]
        values = jnp.where(self.weights > 0, self.weights * near, 0).sum(-1)  # sources without weight may be bad: NaN, infinite
        return frame.at[self.places[:, 0], self.places[:, 1]].set(values.astype(frame.dtype))

    def in_numpy(self, frame: Float[np.ndarray, "row col"]) -> Float[np.ndarray, "row col"]:
        """The same, computed by NumPy: a calibration repairs each of its frames once, which is not worth compiling."""
        places, sources, weights = (np.asarray(part) for part in (self.places, self.sources, self.weights))
        repaired, near = frame.copy(), frame[sources[..., 0], sources[..., 1]]
        repaired[places[:, 0], places[:, 1]] = np.where(weights > 0, weights * near, 0).sum(-1)
        return repaired
