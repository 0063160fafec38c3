"""Filtered back-projection of parallel beams in a plane; iterative methods are `solvers` with a `Rays` operator.

x(r) = pi / (2 views) sum_a (ramp * y_a)(r . u_a)     over half a turn, each view once
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size

WINDOWS = {
    "ramp": lambda f: np.ones_like(f),
    "shepp-logan": np.sinc,
    "cosine": lambda f: np.cos(np.pi * f),
    "hann": lambda f: np.cos(np.pi * f) ** 2,
}


def filtered_back_projection(
    sinogram: Float[ArrayLike, "v u"], angles_rad: Float[ArrayLike, " v"], size: int, *, window: str = "ramp"
) -> Float[Array, "y x"]:
    """Image from parallel projections spread over half a turn, as `Rays.parallel` makes them.

    Args:
        sinogram: line integrals, one row per view.
        angles_rad: angles of the views, evenly spread over pi.
        size: pixels per side.
        window: window on the ramp: "ramp" (none), "shepp-logan", "cosine" or "hann".

    Raises:
        ParameterError: the window is unknown.
        ShapeError: the number of angles is not that of views.

    Source: Kak & Slaney, Principles of Computerized Tomographic Imaging (1988), 3.3; the ramp is sampled in space, which keeps
    the mean right.
    """
    require(window in WINDOWS, "window", window, ", ".join(WINDOWS))
    views, detectors = jnp.shape(sinogram)
    require_shape("angles_rad", jnp.shape(angles_rad), (views,))
    length = good_size(2 * detectors)
    n = np.fft.fftfreq(length) * length
    kernel = np.where(n % 2 == 1, -1 / (np.pi * np.where(n == 0, 1, n)) ** 2, 0.0)
    kernel[0] = 0.25
    response = np.fft.rfft(kernel).real * WINDOWS[window](np.fft.rfftfreq(length))
    return _back_project(sinogram, angles_rad, response, length, size)


@partial(jax.jit, static_argnums=(3, 4))
def _back_project(sinogram: Array, angles_rad: Array, response: Array, length: int, size: int) -> Array:
    views, detectors = sinogram.shape
    filtered = jnp.fft.irfft(jnp.fft.rfft(sinogram, length) * response, length)[:, :detectors]
    x = jnp.arange(size) - size // 2

    def add(image: Array, view: tuple[Array, Array]) -> tuple[Array, None]:
        row, angle = view
        u = x * jnp.cos(angle) + x[:, None] * jnp.sin(angle) + detectors // 2
        return image + jnp.interp(u, jnp.arange(detectors), row, left=0.0, right=0.0), None

    image, _ = jax.lax.scan(add, jnp.zeros((size, size), filtered.dtype), (filtered, angles_rad))
    return image * np.pi / views
