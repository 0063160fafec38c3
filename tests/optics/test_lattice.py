"""The lattice finder on simulated discs and on a real white frame."""

import numpy as np
import pytest
import tifffile

from lfjax.errors import CalibrationError
from lfjax.optics import Lattice, find_lattice


def discs(lattice, shape, noise=0.0):
    pixels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    inside = lattice.to_lattice(pixels)
    radius = np.hypot(*np.moveaxis(inside - np.round(inside), -1, 0))
    return 100 / (1 + np.exp((radius - 0.45) * 30)) + noise * np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("rotation", [0.0, 0.03, -0.2])
@pytest.mark.parametrize("guess", [15.4, 12.5, 18.0])
def test_found_whatever_the_guess_and_rotation(rotation, guess):
    true = Lattice(15.4, rotation, 100.3, 94.7)
    found = find_lattice(discs(true, (200, 190), noise=5.0), guess)
    assert found.pitch_px == pytest.approx(15.4, abs=2e-3)
    assert found.rotation_rad == pytest.approx(rotation, abs=2e-4)
    offset = found.to_lattice((100.3, 94.7))
    np.testing.assert_allclose(offset, np.round(offset), atol=2e-3)


def test_a_positive_rotation_turns_rows_towards_larger_y():
    lattice = Lattice(10.0, 0.1, 5.0, 7.0)
    assert lattice.to_raw((0, 1))[0] > 5.0
    np.testing.assert_allclose(lattice.to_lattice(lattice.to_raw((2, 3))), (2, 3), atol=1e-12)


def test_nothing_to_be_found():
    with pytest.raises(CalibrationError, match="no lenslet lattice"):
        find_lattice(np.random.default_rng(0).normal(size=(200, 200)), 15)
    with pytest.raises(CalibrationError, match="six lenslets"):
        find_lattice(np.ones((50, 200)), 15)
    with pytest.raises(CalibrationError):
        find_lattice(np.ones((200, 200)), 15)


def test_found_in_a_real_white_frame(shared):
    white, dark = (tifffile.imread(shared / f"data/guv/{name}.tif").astype(float) for name in ("white", "dark"))
    found = find_lattice(white - dark, 100 / 6.5)  # pitch over camera pixel, both in micrometres
    assert found.pitch_px == pytest.approx(15.385, abs=0.02)
    assert abs(found.rotation_rad) == pytest.approx(0.0018, abs=3e-4)
