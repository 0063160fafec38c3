"""The two-photon focus: the excitation PSF squared, as a Gaussian."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Float

from lfjax.errors import require


def squared_psf_widths(
    numerical_aperture: Any, wavelength_um: Any, medium_index: Any = 1.33
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """1/e radii of the squared excitation PSF, (w_xy, w_z) in micrometres; a FWHM is 2 sqrt(ln 2) of them.

        IPSF^2 = exp(-(x^2 + y^2) / w_xy^2 - z^2 / w_z^2)
        w_xy = 0.320 lambda / (sqrt 2 NA)  for NA <= 0.7,  else  0.325 lambda / (sqrt 2 NA^0.91)
        w_z = 0.532 lambda / sqrt 2 / (n - sqrt(n^2 - NA^2))

    Zipfel, Williams & Webb, Nat. Biotechnol. 21, 1369 (2003), box 3, for an overfilled back aperture. The two branches
    of w_xy are 1.6 % apart at NA 0.7.

    Args:
        numerical_aperture: that the excitation fills, below the medium index.
        wavelength_um: of excitation, in vacuum.
        medium_index: n.
    """
    if all(isinstance(v, (int, float)) for v in (numerical_aperture, medium_index)):
        fits = 0 < numerical_aperture < medium_index
        require(fits, "numerical_aperture", numerical_aperture, f"above 0 and below medium_index = {medium_index}")
    if isinstance(wavelength_um, (int, float)):
        require(0 < wavelength_um < math.inf, "wavelength_um", wavelength_um, "a positive number")
    na, unit = jnp.asarray(numerical_aperture, jnp.result_type(float)), wavelength_um / math.sqrt(2)
    lateral = jnp.where(na <= 0.7, 0.320 / na, 0.325 / na**0.91) * unit
    # 1 / (n - sqrt(n^2 - NA^2)) without the difference of near numbers
    return lateral, 0.532 * unit * (medium_index + jnp.sqrt(medium_index**2 - na**2)) / na**2


def gaussian_share(
    positions_um: Float[np.ndarray, " p"], voxels: int, voxel_um: float, width_um: Array | float
) -> Float[Array, "p v"]:
    """Share of exp(-(x - x_p)^2 / w^2) that falls into each voxel; a row sums to 1 if all of it does.

    Args:
        positions_um: x_p, from the edge of the first voxel.
        voxels: their number along this axis.
        voxel_um: their size.
        width_um: w, the 1/e radius.
    """
    edges = jnp.asarray(voxel_um * np.arange(voxels + 1) - positions_um[:, None], jnp.result_type(float))
    return jnp.diff(0.5 * erf(edges / width_um), axis=1)
