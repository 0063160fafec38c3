"""The two-photon focus: the excitation PSF squared, as a Gaussian."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Float

from lfjax.errors import require


def squared_psf_widths(
    numerical_aperture: float | Array, wavelength_um: float | Array, medium_index: float | Array = 1.33
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """1/e radii (w_xy, w_z) of the squared excitation PSF, in micrometres; the FWHM is 2 sqrt(ln 2) times the radius.

        IPSF^2 = exp(-(x^2 + y^2) / w_xy^2 - z^2 / w_z^2)
        w_xy = 0.320 lambda / (sqrt 2 NA)  for NA <= 0.7,  else  0.325 lambda / (sqrt 2 NA^0.91)
        w_z = 0.532 lambda / sqrt 2 / (n - sqrt(n^2 - NA^2))

    For an overfilled back aperture. The two branches of w_xy are 1.6 % apart at NA 0.7.

    Args:
        numerical_aperture: NA that the excitation fills, below the medium index.
        wavelength_um: excitation wavelength in vacuum.
        medium_index: n.

    Raises:
        ParameterError: a value is out of range.

    Source: Zipfel, Williams & Webb, Nat. Biotechnol. 21, 1369 (2003), box 3.
    """
    require_focus(numerical_aperture, wavelength_um, medium_index)
    na, unit = jnp.asarray(numerical_aperture, jnp.result_type(float)), wavelength_um / math.sqrt(2)
    lateral = jnp.where(na <= 0.7, 0.320 / na, 0.325 / na**0.91) * unit
    # 1 / (n - sqrt(n^2 - NA^2)) without subtracting nearly equal numbers
    return lateral, 0.532 * unit * (medium_index + jnp.sqrt(medium_index**2 - na**2)) / na**2


def require_focus(numerical_aperture: float | Array, wavelength_um: float | Array, medium_index: float | Array) -> None:
    """Raise `ParameterError` unless 0 < NA < n and the wavelength is positive; arrays, which may be traced, pass."""
    if isinstance(numerical_aperture, (int, float)) and isinstance(medium_index, (int, float)):
        fits = 0 < numerical_aperture < medium_index
        require(fits, "numerical_aperture", numerical_aperture, f"above 0 and below medium_index = {medium_index}")
    if isinstance(wavelength_um, (int, float)):
        require(0 < wavelength_um < math.inf, "wavelength_um", wavelength_um, "a positive number")


def gaussian_share(
    positions_um: Float[np.ndarray, " p"], voxels: int, voxel_um: float, width_um: Array | float
) -> Float[Array, "p v"]:
    """Fraction of exp(-(x - x_p)^2 / w^2) that falls into each voxel; a row sums to 1 if no light falls outside.

    Args:
        positions_um: x_p, from the edge of the first voxel.
        voxels: number of voxels along this axis.
        voxel_um: size of a voxel along this axis.
        width_um: w, the 1/e radius.
    """
    edges = jnp.asarray(voxel_um * np.arange(voxels + 1) - positions_um[:, None], jnp.result_type(float))
    return jnp.diff(0.5 * erf(edges / width_um), axis=1)
