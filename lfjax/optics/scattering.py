"""Scattering in tissue as a linear operator on volumes: ballistic light, and light that is scattered forwards.

Tissue scatters forwards: many small deflections, each of which moves the place where the light seems to come from. A
photon that is deflected by an angle theta at height h above its source is traced back to a point theta h beside it. With
Poisson many deflections of a Gaussian phase function, mean free path l and anisotropy g = <cos theta>, the transfer
function of a source under d micrometres of tissue is, at angular frequency q,

    M(q) = exp(-(1 / l) int_0^d (1 - exp(-q^2 h^2 (1 - g) / 2)) dh)
         = exp(-(d / l) (1 - sqrt(pi) erf(u) / (2 u))),   u = q d sqrt((1 - g) / 2),

1 at q = 0 (light is kept), exp(-d / l) for q -> infinity (the ballistic light), and in between a blur whose variance
along each axis is (1 - g) d^3 / (3 l). Light of all views is displaced alike on the source's own plane, so that a
light-field microscope sees `LightField @ Scattering`.

Source: W. H. Wells, J. Opt. Soc. Am. 59, 686 (1969); small-angle theory in Ishimaru, Wave Propagation and Scattering in
Random Media (1978), ch. 12-13.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Float

from lfjax import fourier
from lfjax.errors import ParameterError, require, require_shape
from lfjax.linop import LinearOperator
from lfjax.optics.lightfield import LightField


class Scattering(LinearOperator):
    """S: volume (z, y, x) -> the volume that unscattered light would seem to come from; its own transpose.

    Each plane is convolved with the kernel of M(q) above; there is nothing outside of the volume. Differentiable in the
    mean free path, the anisotropy and the thickness.

    Attributes:
        transfer: M on the padded grid of each plane.
        thickness_um: d, tissue above each plane.
        mean_free_path_um: l, the scattering mean free path.
        anisotropy: g.
        shape: of the volume.
    """

    transfer: Float[Array, "z ky kx"]
    thickness_um: Float[Array, " z"]
    mean_free_path_um: Float[Array, ""]
    anisotropy: Float[Array, ""]
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        voxel_um: float,
        thickness_um: Sequence[float] | Array,
        *,
        mean_free_path_um: float | Array,
        anisotropy: float | Array,
    ) -> None:
        """Build S.

        Args:
            shape: (z, y, x) of the volume, `LightField.in_shape`.
            voxel_um: lateral size of a voxel, `Microscope.voxel_um(s)`.
            thickness_um: tissue between each plane and the surface on the objective's side, 0 or more.
            mean_free_path_um: l; mouse cortex has 50 to 100 at 500 nm (about 200 at 900 nm).
            anisotropy: g, 0 <= g < 1; brain 0.85 to 0.98. The small-angle theory wants it near 1.

        Raises:
            ParameterError: a value outside its meaning.
            ShapeError: not one thickness a plane.
        """
        require(voxel_um > 0, "voxel_um", voxel_um, "a positive number")
        thickness = jnp.asarray(thickness_um, jnp.result_type(float))
        require_shape("thickness_um", thickness.shape, (shape[0],))
        _require_between("thickness_um", thickness, 0.0, math.inf)
        _require_between("mean_free_path_um", mean_free_path_um, 1e-9, math.inf)
        _require_between("anisotropy", anisotropy, 0.0, 1.0 - 1e-9)
        self.shape = shape
        self.thickness_um = thickness
        self.mean_free_path_um = jnp.asarray(mean_free_path_um, thickness.dtype)
        self.anisotropy = jnp.asarray(anisotropy, thickness.dtype)
        padded = _padded(shape)
        ky, kx = 2 * np.pi * np.fft.fftfreq(padded[0], voxel_um), 2 * np.pi * np.fft.rfftfreq(padded[1], voxel_um)
        q = jnp.asarray(np.hypot(ky[:, None], kx[None, :]), thickness.dtype)
        self.transfer = jax.vmap(lambda d: scattering_transfer(q, d, self.mean_free_path_um, self.anisotropy))(thickness)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return self.shape

    @property
    def out_shape(self) -> tuple[int, int, int]:
        return self.shape

    @property
    def ballistic(self) -> Float[Array, " z"]:
        """exp(-d / l): the part of the light that is not scattered, of each plane."""
        return jnp.exp(-self.thickness_um / self.mean_free_path_um)

    def matvec(self, x: Float[Array, "z y x"]) -> Float[Array, "z y x"]:
        padded = _padded(self.shape)
        return fourier.irfft2(fourier.rfft2(x, padded) * self.transfer, padded, self.shape[1:])

    def rmatvec(self, y: Float[Array, "z y x"]) -> Float[Array, "z y x"]:
        return self.matvec(y)


def _padded(shape: tuple[int, int, int]) -> tuple[int, int]:
    """A grid on which nothing that leaves the volume comes back."""
    return (fourier.good_size(2 * shape[1]), fourier.good_size(2 * shape[2]))


def _require_between(name: str, value: Array | float, low: float, high: float) -> None:
    if not isinstance(value, jax.core.Tracer):
        inside = bool(np.all((low <= np.asarray(value)) & (np.asarray(value) <= high)))
        require(inside, name, value, f"between {low:g} and {high:g}")


def scattering_transfer(
    q: Float[Array, "..."], thickness_um: Array | float, mean_free_path_um: Array | float, anisotropy: Array | float
) -> Float[Array, "..."]:
    """M(q) of the module's text, for angular frequencies q in radians per micrometre."""
    u = q * thickness_um * jnp.sqrt((1 - anisotropy) / 2)
    near = u < 1e-2
    safe = jnp.where(near, 1.0, u)
    mean = jnp.where(near, 1 - u**2 / 3 + u**4 / 10, math.sqrt(math.pi) * jax.lax.erf(safe) / (2 * safe))
    return jnp.exp(-thickness_um / mean_free_path_um * (1 - mean))


class ScatteringFit(NamedTuple):
    """What `fit_scattering` finds.

    Attributes:
        mean_free_path_um: l.
        anisotropy: g.
        brightness: factor of the volume that explains the light field best.
        residual: |y - brightness H S x| / |y|.
        steps: of the minimiser.
    """

    mean_free_path_um: float
    anisotropy: float
    brightness: float
    residual: float
    steps: int


def fit_scattering(
    light_field: Float[Array, "y x"],
    volume: Float[Array, "z y x"],
    operator: LightField,
    voxel_um: float,
    thickness_um: Sequence[float] | Array,
    *,
    start: tuple[float, float] = (80.0, 0.9),
    weights: Float[Array, "y x"] | None = None,
    steps: int = 60,
) -> ScatteringFit:
    """Mean free path and anisotropy from a light field of a volume that is known, a two-photon stack of the same place.

    Minimises |W^(1/2) (y - b H S(l, g) x)|^2 over l, g and the brightness b by Levenberg-Marquardt in log l and
    log(1 - g), from which b, being linear, is projected out.

    Args:
        light_field: y.
        volume: x, on the grid of `operator`.
        operator: H.
        voxel_um: lateral size of a voxel.
        thickness_um: tissue above each plane; several depths are what tells l from g.
        start: (l, g) to start from.
        weights: w, 0 for pixels that carry nothing.
        steps: most steps of the minimiser.

    Raises:
        ShapeError: light field or volume do not fit the operator.
        ParameterError: no convergence, or a start outside its meaning.
    """
    require_shape("light_field", jnp.shape(light_field), operator.out_shape)
    require_shape("volume", jnp.shape(volume), operator.in_shape)
    require(start[0] > 0 and 0 < start[1] < 1, "start", start, "(mean free path > 0, 0 < anisotropy < 1)")
    root = jnp.ones(operator.out_shape) if weights is None else jnp.sqrt(jnp.asarray(weights))
    data = root * jnp.where(root > 0, light_field, 0)
    scale = jnp.linalg.norm(data)

    def model(parameters: Float[Array, "2"]) -> tuple[Array, Array]:
        free_path, anisotropy = jnp.exp(parameters[0]), 1 - jnp.exp(parameters[1])
        scattering = Scattering(
            operator.in_shape, voxel_um, thickness_um, mean_free_path_um=free_path, anisotropy=anisotropy
        )
        image = root * operator.matvec(scattering.matvec(volume))
        brightness = jnp.vdot(image, data) / jnp.maximum(jnp.vdot(image, image), 1e-30)
        return brightness * image, brightness

    def residual(parameters: Float[Array, "2"], args: None) -> Array:
        return (data - model(parameters)[0]) / scale

    first = jnp.log(jnp.asarray([start[0], 1 - start[1]], data.dtype))
    solver: Any = optimistix.LevenbergMarquardt(rtol=1e-4, atol=1e-5)
    found: Any = optimistix.least_squares(residual, solver, first, options={"jac": "fwd"}, max_steps=steps, throw=False)
    if found.result != optimistix.RESULTS.successful:
        raise ParameterError(
            f"steps = {steps}: no convergence, at l = {float(jnp.exp(found.value[0])):.3g} um, "
            f"g = {float(1 - jnp.exp(found.value[1])):.3g}; expected a start nearer to the answer, or more depths"
        )
    _, brightness = model(found.value)
    return ScatteringFit(
        float(jnp.exp(found.value[0])),
        float(1 - jnp.exp(found.value[1])),
        float(brightness),
        float(jnp.linalg.norm(residual(found.value, None))),
        int(found.stats["num_steps"]),
    )
