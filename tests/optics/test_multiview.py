import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d

from lfjax.errors import ParameterError, ShapeError
from lfjax.optics.multiview import MultiView


@pytest.mark.parametrize("margin", [0, 2, -2])
@pytest.mark.parametrize("kernel", [(5, 5), (4, 3)])
def test_equals_direct_convolution(margin, kernel):
    rng = np.random.default_rng(0)
    psfs, x = rng.random((3, 2, *kernel)), rng.random((2, 9 + 2 * margin, 7 + 2 * margin))
    wide = np.pad(x, ((0, 0), (9, 9), (9, 9)))  # zeros outside the volume, wider than any kernel
    full = np.stack([sum(convolve2d(p, h) for p, h in zip(wide, view, strict=True)) for view in psfs])
    r, c = 9 + margin + kernel[0] // 2, 9 + margin + kernel[1] // 2
    expected = full[:, r : r + 9, c : c + 7]
    found = np.asarray(MultiView(jnp.asarray(psfs), (9, 7), margin=margin)(jnp.asarray(x)))
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named():
    with pytest.raises(ShapeError, match="psfs"):
        MultiView(jnp.ones((2, 3, 3)), (4, 4))
    with pytest.raises(ParameterError, match="margin"):
        MultiView(jnp.ones((2, 1, 3, 3)), (4, 4), margin=-2)
