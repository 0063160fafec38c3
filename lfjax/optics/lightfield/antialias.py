"""Depth-dependent anti-aliasing: each plane of a volume is smoothed to the resolution at which the lenslets sample it.

Near z = 0 all light of a point falls on one lenslet. The plane is then sampled only once per lenslet, and a plain solver
fills the gap with a copy of the lenslet grid. The filter is that of Stefanoiu et al.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike, NDArray

from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.optics.microscope import Microscope, require_square

LOBES = 2  # lobes of the Lanczos window on each side


def sampling_widths(microscope: Microscope, z_um: Sequence[float] | ArrayLike) -> NDArray[np.float64]:
    """Lateral sampling distance at each depth, in lenslets: min(1, n f_ml / (M^2 |z|)).

    The image of a plane at depth z lies at a distance Z = M^2 |z| / n from the lenslets, which project it onto the sensor
    with magnification f_ml / Z. The shifted views of the lenslets interleave and sample the plane f_ml / Z lenslets apart;
    where Z < f_ml they sample it once per lenslet. With an alignment, the array stands D behind the native plane and b from
    the sensor: Z = |M^2 z / n + D|, and b takes the place of f_ml, also that of the focal lengths of a multi-focal array.

    Args:
        microscope: M, n, f_ml and `alignment` are used.
        z_um: depths of the planes.

    Source: Stefanoiu et al., Opt. Express 27, 31644 (2019), section 3.
    """
    image_um = float(microscope.magnification) ** 2 * np.asarray(z_um, float) / float(microscope.medium_index)
    distance_um = np.abs(image_um + microscope.native_plane_um)
    f_ml = microscope.sensor_distance_um
    return f_ml / np.maximum(distance_um, f_ml)


def lanczos_matrix(n: int, width: float) -> NDArray[np.float64]:
    """n x n matrix of 1-D smoothing by the Lanczos kernel sinc(x / w) sinc(x / (2 w)), w samples wide.

    Rows sum to 1: at the borders the kernel is cut and rescaled, so that a uniform object stays uniform. A width of one
    sample or less gives the identity.
    """
    if width <= 1:
        return np.eye(n)
    x = (np.arange(n)[:, None] - np.arange(n)[None, :]) / width
    kernel = np.where(np.abs(x) < LOBES, np.sinc(x) * np.sinc(x / LOBES), 0.0)
    return kernel / kernel.sum(axis=1, keepdims=True)


class AntiAlias(LinearOperator):
    """A: smooths every plane (y, x) of a volume by a Lanczos kernel as wide as the sampling distance at its depth.

    Use it as `H @ A`: the solver looks for u >= 0, and the volume x = A u cannot hold the lenslet grid. Stefanoiu et al.
    filter x after each step instead. Inside the operator the filter has a transpose and an objective, and so works with
    every solver, CG and FISTA included.

    Attributes:
        rows: (z, y, y), smoothing matrices along y.
        columns: (z, x, x), smoothing matrices along x.
    """

    rows: Float[Array, "z y y"]
    columns: Float[Array, "z x x"]

    def __init__(
        self, microscope: Microscope, z_um: Sequence[float] | ArrayLike, voxels_per_lenslet: int, shape: tuple[int, int]
    ) -> None:
        """Build the filter.

        Args:
            microscope: M, n and f_ml are used.
            z_um: depths of the planes.
            voxels_per_lenslet: s, voxels across a lenslet.
            shape: (y, x) voxels of a plane.

        Raises:
            ParameterError: s is below 1, or the lenslets are not square, or not of one focal length.
        """
        require_square(microscope)
        require(voxels_per_lenslet >= 1, "voxels_per_lenslet", voxels_per_lenslet, "1 or more")
        # whole voxels, rounded down as in the authors' code: 1.5 voxels would smooth a plane that is sampled well enough

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
