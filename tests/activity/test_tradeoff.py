"""More iterations confine light, fewer give less noise; the knee lies between."""

import equinox as eqx
import numpy as np
import pytest

from lfjax import activity
from lfjax.activity.tradeoff import knee
from lfjax.errors import ParameterError, ShapeError
from lfjax.optics import LightField, Microscope, compute_psf
from lfjax.viz import neurons as viz_activity

VOXEL_UM = (12.0, 12.5, 12.5)


@pytest.fixture(scope="module")
def case():
    scope = Microscope(10, 0.3, 1.33, 0.52, 125, 2500, 5)
    psf = compute_psf(scope, (-60.0, -30.0, 0.0, 30.0, 60.0), 2, tolerance=0.2)
    op = eqx.filter_jit(LightField)(psf, (10, 10))
    centres = np.array([[45.0, 40.0, 40.0], [105.0, 80.0, 85.0]])
    prints = activity.soma_footprints(centres, op.in_shape, psf.voxel_um, diameter_um=20.0)
    t = np.arange(60)
    light = 3e4 * (1 + np.stack([(t % 20 < 4), ((t + 9) % 20 < 4)]).astype(float))
    clean = activity.image_footprints(op, np.asarray(np.einsum("nt,nzyx->tzyx", light, prints) + 5, np.float32))
    return op, centres, psf.voxel_um, np.random.default_rng(0).poisson(np.maximum(clean, 0)).astype(np.float32)


def test_iterations_confine_and_cost_signal(case, tmp_path):
    op, centres, voxel_um, frames = case
    found = activity.iteration_tradeoff(
        frames, op, centres, voxel_um, 0.01, iterations=(1, 8, 64), radius_um=30.0, diameter_um=20.0
    )
    assert found.confinement[0] < found.confinement[1] < found.confinement[2]
    assert found.snr_db[2] < found.snr_db[0]
    assert found.best in found.iterations
    viz_activity.tradeoff(found, tmp_path / "tradeoff.png")
    assert (tmp_path / "tradeoff.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_knee_of_known_curves():
    assert knee([0, 0.9, 1.0], [1.0, 0.9, 0.0]) == 1
    assert knee([0, 1, 2], [5, 5, 5]) == 2
    assert knee([1, 1, 1], [3, 2, 1]) == 0


def test_wrong_arguments_are_named(case):
    op, centres, voxel_um, frames = case
    with pytest.raises(ParameterError, match="iterations"):
        activity.iteration_tradeoff(frames, op, centres, voxel_um, 0.01, iterations=(4, 2))
    with pytest.raises(ShapeError, match="frames has shape"):
        activity.iteration_tradeoff(frames[:, 1:], op, centres, voxel_um, 0.01)
