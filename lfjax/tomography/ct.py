"""Filtered back-projection of parallel beams in a plane; other methods are `solvers` on a `Rays` operator.

x(r) = pi / (2 views) sum_a (ramp * y_a)(r . u_a)     over half a turn, each view once
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size

WINDOWS = {
    "ramp": lambda f: np.ones_like(f),
    "shepp-logan": np.sinc,
    "cosine": lambda f: np.cos(np.pi * f),
    "hann": lambda f: np.cos(np.pi * f) ** 2,
}


def filtered_back_projection(
    sinogram: Float[Array, "v u"], angles_rad: Float[Array, " v"], size: int, *, window: str = "ramp"
) -> Float[Array, "y x"]:
    """Image from parallel projections spread over half a turn, as `Rays.parallel` makes them.

    Args:
        sinogram: line integrals.
        angles_rad: of the views, evenly spread over pi.
        size: pixels a side.
        window: on the ramp: "ramp" (none), "shepp-logan", "cosine", "hann".

    Source: Kak & Slaney, Principles of Computerized Tomographic Imaging (1988), 3.3; the ramp is sampled in space, which keeps
    the mean right.
    """
    require(window in WINDOWS, "window", window, ", ".join(WINDOWS))
    views, detectors = sinogram.shape
    require_shape("angles_rad", jnp.shape(angles_rad), (views,))
    length = good_size(2 * detectors)
    n = np.fft.fftfreq(length) * length
    kernel = np.where(n % 2 == 1, -1 / (np.pi * np.where(n == 0, 1, n)) ** 2, 0.0)
    kernel[0] = 0.25
    response = np.fft.rfft(kernel).real * WINDOWS[window](np.fft.rfftfreq(length))
    filtered = jnp.fft.irfft(jnp.fft.rfft(sinogram, length) * response, length)[:, :detectors]
    x = jnp.arange(size) - size // 2
    image = jnp.zeros((size, size), filtered.dtype)
    for row, angle in zip(filtered, jnp.asarray(angles_rad), strict=True):
        u = x * jnp.cos(angle) + x[:, None] * jnp.sin(angle) + detectors // 2
        image = image + jnp.interp(u, jnp.arange(detectors), row, left=0.0, right=0.0)
    return image * np.pi / views
