"""Depth-dependent anti-aliasing: what a light-field microscope cannot tell apart near its native plane, it should not print.

Near z = 0 all light of a point falls on one lenslet, so a plane is sampled once a lenslet only, and a plain solver fills
the gap with a copy of the lenslet grid. Stefanoiu et al. smooth each plane to what is sampled there.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.optics.microscope import Microscope

LOBES = 2  # of the Lanczos window


def sampling_widths(microscope: Microscope, z_um: Sequence[float]) -> NDArray[np.float64]:
    """Lateral sampling distance at each depth, in lenslets: min(1, n f_ml / (M^2 |z|)).

    A plane at depth z has its image a distance Z = M^2 |z| / n from the lenslets, which project it onto the sensor with
    magnification f_ml / Z: the lenslets' shifted views interleave and sample it f_ml / Z lenslets apart, and no better
    than once a lenslet where Z < f_ml.

    Source: Stefanoiu et al., Opt. Express 27, 31644 (2019), section 3.
    """
    image_distance_um = float(microscope.magnification) ** 2 * np.abs(z_um) / float(microscope.medium_index)
    f_ml = float(microscope.lenslet_focal_length_um)
    return f_ml / np.maximum(image_distance_um, f_ml)


def lanczos_matrix(n: int, width: float) -> NDArray[np.float64]:
    """n x n matrix of 1-D smoothing by the Lanczos kernel sinc(x / w) sinc(x / (2 w)), w samples wide.

    Rows sum to 1: at the borders the kernel is cut and scaled up, so that a uniform object stays uniform. A width of one
    sample or less leaves everything as it is.
    """
    if width <= 1:
        return np.eye(n)
    x = (np.arange(n)[:, None] - np.arange(n)[None, :]) / width
    kernel = np.where(np.abs(x) < LOBES, np.sinc(x) * np.sinc(x / LOBES), 0.0)
    return kernel / kernel.sum(axis=1, keepdims=True)


class AntiAlias(LinearOperator):
    """A: smooths every plane (y, x) of a volume by a Lanczos kernel as wide as the sampling distance at its depth.

    Use it as `H @ A`: the solver looks for u >= 0 and the volume is x = A u, which cannot hold the lenslet grid. Stefanoiu
    et al. filter x after each step instead; inside the operator the filter has a transpose and an objective, and hence
    works with every solver, CG and FISTA included.

    Attributes:
        rows: (z, y, y) smoothing matrices along y; likewise `columns` along x.
    """

    rows: Float[Array, "z y y"]
    columns: Float[Array, "z x x"]

    def __init__(self, microscope: Microscope, z_um: Sequence[float], voxels_per_lenslet: int, shape: tuple[int, int]) -> None:
        """Build the filter.

        Args:
            microscope: M, n and f_ml are used.
            z_um: depths of the planes.
            voxels_per_lenslet: s.
            shape: (y, x) voxels of a plane.

        Raises:
            ParameterError: s is below 1.
        """
        require(microscope.lenslet_lattice == "square", "lenslet_lattice", microscope.lenslet_lattice, "square lenslets")
        require(voxels_per_lenslet >= 1, "voxels_per_lenslet", voxels_per_lenslet, "1 or more")
        # whole voxels, rounded down as in the authors' code: 1.5 voxels would smooth what is sampled well enough
        widths = np.floor(voxels_per_lenslet * sampling_widths(microscope, z_um) + 1e-6)
        self.rows, self.columns = (
            jnp.asarray(np.stack([lanczos_matrix(n, w) for w in widths]), jnp.result_type(float)) for n in shape
        )

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return (self.rows.shape[0], self.rows.shape[1], self.columns.shape[1])

    @property
    def out_shape(self) -> tuple[int, int, int]:
        return self.in_shape

    def matvec(self, x: Float[Array, "z y x"]) -> Float[Array, "z y x"]:
        return jnp.einsum("zij,zjk,zlk->zil", self.rows, x, self.columns)
