"""The picture of a calibration: dots on the lenslets of the frame, borders around them."""

import dataclasses

import numpy as np
import pytest

from lfjax import optics, viz
from lfjax.errors import ShapeError
from lfjax.optics import Rectifier

SCOPE = optics.preset("20x0.5")


def calibrated(kind):
    """A calibration of rectified frames, and their distance from the nearest centre of a lenslet in pixels."""
    scope = dataclasses.replace(SCOPE, lenslet_lattice=kind)
    shape = tuple(10 * n for n in scope.cell_pixels)
    rectifier = Rectifier.aligned(scope, shape)
    cells = rectifier.lattice.to_lattice(np.stack(np.mgrid[: shape[0], : shape[1]], -1))
    shifts = (0.0, 0.5) if kind == "hexagonal" else (0.0,)
    off = [np.linalg.norm((cells - s - np.round(cells - s)) * rectifier.lattice.cell_px, axis=-1) for s in shifts]
    return rectifier, np.min(off, axis=0)


def drawn(figure, kind):
    """Raw positions (n, 2) of the dots, and (m, corners, 2) of the borders of cells, of all crops."""
    dots, borders = [], []
    for axes in figure.axes:
        corner = [int(word) for word in axes.get_title().replace(",", "").split() if word.isdigit()]
        (line,) = axes.lines
        (cells,) = axes.collections
        dots.append(line.get_xydata()[:, ::-1] + corner)
        borders += [path.vertices[:-1, ::-1] + corner for path in cells.get_paths()]
    return np.concatenate(dots), np.array(borders)


@pytest.mark.parametrize(("kind", "corners"), [("square", 4), ("hexagonal", 6)])
def test_dots_are_on_lenslets_and_borders_as_far_from_them_as_can_be(kind, corners):
    rectifier, distance = calibrated(kind)
    figure = viz.lenslet_grid(100 - distance, rectifier)
    assert len(figure.axes) == 9 and kind in figure.get_suptitle()
    dots, borders = drawn(figure, kind)
    assert borders.shape == (len(dots), corners, 2)
    inside = np.all((dots >= 0) & (dots <= np.array(distance.shape) - 1), axis=1)
    assert inside.sum() > 9 * 20
    assert distance[tuple(np.rint(dots[inside]).astype(int).T)].max() < 0.71
    radius = np.linalg.norm(borders - dots[:, None], axis=-1)
    np.testing.assert_allclose(radius, radius.max(), rtol=0.06)  # cells of 11 x 19 pixels are not quite sqrt(3) high
    assert abs(radius.max() - distance.max()) <= 1


def test_a_wrong_rotation_shows_in_the_corners():
    rectifier, distance = calibrated("square")
    turned = rectifier.lattice._replace(rotation_rad=0.1)
    dots, _ = drawn(viz.lenslet_grid(100 - distance, dataclasses.replace(rectifier, lattice=turned)), "square")
    inside = np.all((dots >= 0) & (dots <= np.array(distance.shape) - 1), axis=1)
    assert distance[tuple(np.rint(dots[inside]).astype(int).T)].max() > 0.3 * 11


def test_a_frame_of_another_size_is_refused():
    rectifier, distance = calibrated("square")
    with pytest.raises(ShapeError, match="frame"):
        viz.lenslet_grid(distance[:-1], rectifier)
