"""A painted panel: wood, ground, a hidden underpainting, and shapes in eight pigments, drawn from a key."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lfjax.errors import require
from lfjax.simulate.pigments import PIGMENTS

GROUNDS = ("chalk", "gypsum")
THICKNESS_UM = {
    "lead white": 30.0,
    "vermilion": 20.0,
    "azurite": 40.0,
    "smalt": 40.0,
    "umber": 20.0,
    "ochre": 25.0,
    "lead-tin yellow": 25.0,
    "bone black": 20.0,
}
"""Pigment -> mean thickness of a layer of paint, micrometres, as cross-sections of old paintings show."""

Field = Float[NDArray[np.float64], "rows columns"]


class Layer(NamedTuple):
    """A layer: its materials are mixed, each with its own thickness at each pixel.

    Attributes:
        name: of the layer.
        materials: names, see `simulate.pigments.MATERIALS`.
        thickness_um: that each material would have alone.
    """

    name: str
    materials: tuple[str, ...]
    thickness_um: Float[NDArray[np.float64], "materials rows columns"]


class Painting(NamedTuple):
    """Layers of a panel, the first on top.

    Attributes:
        layers: paint, underpainting, imprimatura, ground, wood.
        visible: pigment that one sees at each pixel, its number in `pigments`.
        pigments: names.
    """

    layers: tuple[Layer, ...]
    visible: Int[NDArray[np.int64], "rows columns"]
    pigments: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.visible.shape[0], self.visible.shape[1]


def paint(key: Array, shape: tuple[int, int] = (64, 64), *, ground: str | None = "chalk") -> Painting:
    """A panel with all eight pigments.

    The paint layer has a blob with sharp edges for each colour, strokes of bone black and lead-tin yellow over them, and lead
    white elsewhere, of which colours hold up to a third; thickness varies smoothly. Below lie a figure that was painted over,
    vermilion with contours of umber, an imprimatura of lead white, the ground, and 8 mm of wood. NumPy draws it, so `key` must
    be concrete (outside `jit`).

    Args:
        key: random key, which fixes the painting.
        shape: rows and columns.
        ground: chalk or gypsum. None: lead white alone.

    Raises:
        ParameterError: the panel is below 16 x 16 pixels, or there is no such ground.
    """
    require(len(shape) == 2 and min(shape) >= 16, "shape", shape, "16 rows and 16 columns or more")
    require(ground is None or ground in GROUNDS, "ground", ground, f"{', '.join(GROUNDS)} or None")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    names = tuple(PIGMENTS)
    visible = _figures(rng, shape, names)
    white = np.clip(_smooth(rng, shape, 0.12) * 0.12 + 0.1, 0, 0.33)
    covered = np.where(visible == names.index("lead white"), 0.0, white)
    thickness = np.stack([np.where(visible == i, 1 - covered, 0.0) for i in range(len(names))])
    thickness[names.index("lead white")] += covered
    of_pigment = np.array([THICKNESS_UM[name] for name in names])
    thickness *= _uneven(rng, shape, 0.25) * of_pigment[visible]
    hidden = _blob(rng, shape, rng.uniform(0.35, 0.65, 2), 0.28)
    contours = _stroke(rng, shape) | _stroke(rng, shape)
    under = np.stack([15 * hidden * _uneven(rng, shape, 0.25), 15 * contours * _uneven(rng, shape, 0.25)])
    layers = [
        Layer("paint", names, thickness),
        Layer("underpainting", ("vermilion", "umber"), under),
        Layer("imprimatura", ("lead white",), 12 * _uneven(rng, shape, 0.2)[None]),
    ]
    if ground is not None:
        layers.append(Layer("ground", (ground,), 150 * _uneven(rng, shape, 0.1)[None]))
    layers.append(Layer("panel", ("wood",), np.full((1, *shape), 8000.0)))
    return Painting(tuple(layers), visible, names)


def _figures(
    rng: np.random.Generator, shape: tuple[int, int], names: tuple[str, ...]
) -> Int[NDArray[np.int64], "rows columns"]:
    """Number of the pigment at each pixel: blobs in a random order at jittered places of a 3 x 3 grid, then strokes."""
    label = np.full(shape, names.index("lead white"))
    colours = rng.permutation([i for i, name in enumerate(names) if name != "lead white"])
    places = rng.permutation(9)[: len(colours)]
    for colour, place in zip(colours, places, strict=True):
        centre = (np.array(divmod(int(place), 3)) + 0.5 + rng.uniform(-0.12, 0.12, 2)) / 3
        label[_blob(rng, shape, centre, rng.uniform(0.17, 0.21))] = colour
    for name in ("bone black", "lead-tin yellow"):
        for _ in range(2):
            label[_stroke(rng, shape)] = names.index(name)
    return label


def _blob(
    rng: np.random.Generator, shape: tuple[int, int], centre: NDArray[np.float64], radius: float
) -> Bool[NDArray[np.bool_], "rows columns"]:
    """Inside of a closed curve r(angle) = radius (1 + a few harmonics); sizes are fractions of the panel's sides."""
    y, x = _grid(shape)
    angle = np.arctan2(y - centre[0], x - centre[1])
    outline = np.ones(shape)
    for order in range(2, 7):
        outline += rng.normal(0, 0.25 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray(np.hypot(y - centre[0], x - centre[1]) < radius * outline)


def _stroke(rng: np.random.Generator, shape: tuple[int, int]) -> Bool[NDArray[np.bool_], "rows columns"]:
    """A bent line across half of the panel, one fortieth of it wide and a pixel at least."""
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-2.5, 2.5)
    along = np.linspace(-0.3, 0.3, 120)
    middle = rng.uniform(0.3, 0.7, 2)
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    path = np.stack([along, bend * along**2], axis=1) @ turned + middle
    y, x = _grid(shape)
    near = np.min((y[..., None] - path[:, 0]) ** 2 + (x[..., None] - path[:, 1]) ** 2, axis=-1)
    return np.asarray(near < max(0.0125, 0.5 / min(shape)) ** 2)


def _grid(shape: tuple[int, int]) -> tuple[Float[NDArray[np.float64], "rows 1"], Float[NDArray[np.float64], "1 columns"]]:
    """Middles of the pixels as fractions of the sides: rows as a column, columns as a row."""
    rows, columns = ((np.arange(side) + 0.5) / side for side in shape)
    return rows[:, None], columns[None, :]


def _smooth(rng: np.random.Generator, shape: tuple[int, int], width: float) -> Field:
    """A random field of standard deviation 1, smooth over a fraction of the sides."""
    field = gaussian_filter(rng.normal(size=shape), [width * side for side in shape], mode="wrap")
    return np.asarray((field - field.mean()) / field.std())


def _uneven(rng: np.random.Generator, shape: tuple[int, int], spread: float) -> Field:
    """A thickness about 1 that varies by a fraction, smoothly."""
    return np.asarray(np.exp(spread * _smooth(rng, shape, 0.08)))
