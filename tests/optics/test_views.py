"""Three arrangements of the same numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.optics import epipolar_image, from_views, to_views
from lfjax.optics.lightfield.views import view_mosaic


def test_views_and_back():
    image = jnp.arange(4 * 3 * 5 * 3.0).reshape(12, 15)
    views = to_views(image, 3)
    assert views.shape == (3, 3, 4, 5)
    assert float(views[1, 2, 3, 4]) == float(image[3 * 3 + 1, 4 * 3 + 2])
    np.testing.assert_array_equal(from_views(views), image)
    np.testing.assert_array_equal(epipolar_image(views, v=1, row=2), image[7].reshape(5, 3).T)
    assert float(view_mosaic(views)[1 * 4 + 3, 2 * 5 + 4]) == float(views[1, 2, 3, 4])
    with pytest.raises(ValueError, match="whole lenslets of 3"):
        to_views(jnp.zeros((12, 16)), 3)
