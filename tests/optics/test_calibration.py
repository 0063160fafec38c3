"""Calibration from beads: the parameters come back from a frame made with a finer field than the fit uses."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError, ShapeError
from lfjax.optics import Alignment, Microscope, Pupil
from lfjax.optics.camera.calibration import bead_frame, calibrate
from lfjax.optics.psf.images import Sampling

SCOPE = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 9)
BEADS = np.array([[-22.0, 3.1, 3.2], [18.0, 3.3, 10.8], [25.0, 10.9, 6.1]])
CORNERS = np.round(BEADS[:, 1:]).astype(int)


def frame_of(scope, pupil, alignment, oversampling, seed=0):
    sampling = Sampling.of(scope, 30.0, 7, oversampling)
    beads = jnp.asarray(np.c_[BEADS, [1.0, 1.3, 0.8]])
    clean = 1e3 * np.asarray(bead_frame((scope, pupil, alignment), beads, CORNERS, (14, 14), sampling))
    noise = np.random.default_rng(seed).normal(size=clean.shape)
    return clean + noise * np.linalg.norm(clean) / np.linalg.norm(noise) * 10 ** (-30 / 20)


def guess():
    return BEADS + np.random.default_rng(1).normal(size=BEADS.shape) * [1.0, 0.1, 0.1]


def test_focal_length_and_distance_are_found():
    truth = eqx.tree_at(lambda m: m.lenslet_focal_length_um, SCOPE, 2550.0)
    frame = frame_of(truth, None, Alignment(array_to_sensor_um=2503.0), 7)
    found = calibrate(frame, SCOPE, guess(), lenslets=7, oversampling=5)
    assert found.values["lenslet_focal_length_um"] == pytest.approx(2550.0, rel=2e-3)
    assert found.values["array_to_sensor_um"] == pytest.approx(2503.0, abs=0.5)
    assert float(found.microscope.lenslet_focal_length_um) == found.values["lenslet_focal_length_um"]
    assert found.residual <= 0.04
    assert np.abs(found.beads[:, 0] - BEADS[:, 0]).max() <= 0.1


def test_aberrations_and_offset_are_found():
    pupil, alignment = Pupil.of({5: 0.08, 7: -0.06}), Alignment(2500.0, (6.0, 0.0))
    options = {"unknown": ("offset_y_um",), "zernike": (5, 7), "lenslets": 7, "oversampling": 3}
    found = calibrate(frame_of(SCOPE, pupil, alignment, 3), SCOPE, guess(), **options)
    assert found.values["zernike 5"] == pytest.approx(0.08, abs=max(5 * found.errors["zernike 5"], 2e-3))
    assert found.values["zernike 7"] == pytest.approx(-0.06, abs=max(5 * found.errors["zernike 7"], 2e-3))
    assert found.values["offset_y_um"] == pytest.approx(6.0, abs=max(5 * found.errors["offset_y_um"], 0.1))


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named():
    frame = jnp.zeros((14 * 9, 14 * 9))
    with pytest.raises(ParameterError, match="unknown"):
        calibrate(frame, SCOPE, BEADS, unknown=("focal_length",))
    with pytest.raises(ParameterError, match="beads"):
        calibrate(frame, SCOPE, BEADS + 20)
    with pytest.raises(ShapeError, match="beads"):
        calibrate(frame, SCOPE, BEADS[:, :2])
    with pytest.raises(ParameterError, match="frame"):
        calibrate(frame[:-1], SCOPE, BEADS)
