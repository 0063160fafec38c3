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
from lfjax.linop import LinearOperator, SelfAdjoint


class Scattering(SelfAdjoint):
    """S: volume (z, y, x) -> the volume that unscattered light would seem to come from; its own transpose.

    Each plane is convolved with the kernel of M(q) above; there is nothing outside of the volume. Differentiable in the
    mean free path, the anisotropy and the thickness.

    Attributes:
        transfer: M on the padded grid of each plane.
        thickness_um: d, tissue above each plane.
        mean_free_path_um: l, the scattering mean free path.
        anisotropy: g.
        shape: of the volume.
        padded: grid on which nothing that leaves the volume comes back.
    """

    transfer: Float[Array, "z ky kx"]
    thickness_um: Float[Array, " z"]
    mean_free_path_um: Float[Array, ""]
    anisotropy: Float[Array, ""]
    padded: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        voxel_um: float,
        thickness_um: Sequence[float] | Array,
        *,
        mean_free_path_um: float | Array,
        anisotropy: float | Array,
        padding_um: float | None = None,
    ) -> None:
        """Build S.

        Args:
            shape: (z, y, x) of the volume, `LightField.in_shape`.
            voxel_um: lateral size of a voxel, `Microscope.voxel_um(s)`.
            thickness_um: tissue between each plane and the surface on the objective's side, 0 or more.
            mean_free_path_um: l; mouse cortex has 50 to 100 at 500 nm (about 200 at 900 nm).
            anisotropy: g, 0 <= g < 1; brain 0.85 to 0.98. The small-angle theory wants it near 1.
            padding_um: how far light may be displaced without coming back on the other side. Five standard deviations
                of the widest plane, and at least the volume, if not given; where values are traced it is the volume.

        Raises:
            ParameterError: a value outside its meaning.
            ShapeError: not one thickness a plane.
        """
        single = isinstance(voxel_um, (int, float)) and 0 < voxel_um < math.inf
        require(single, "voxel_um", voxel_um, "a positive number, the lateral size: `Microscope.voxel_um(s)`")
        thickness = jnp.asarray(thickness_um, jnp.result_type(float))
        require_shape("thickness_um", thickness.shape, (shape[0],))
        for name, value, fits, expected in (
            ("thickness_um", thickness, lambda v: v >= 0, "zero or more, finite"),
            ("mean_free_path_um", mean_free_path_um, lambda v: v > 0, "one number above zero"),
            ("anisotropy", anisotropy, lambda v: (v >= 0) & (v < 1), "one number, at least 0 and below 1"),
        ):
            require(np.ndim(value) == (name == "thickness_um"), name, np.shape(value), expected)
            if not isinstance(value, jax.core.Tracer):
                require(bool(np.all(np.isfinite(value) & fits(np.asarray(value)))), name, value, expected)
        self.shape = shape
        self.thickness_um = thickness
        self.mean_free_path_um = jnp.asarray(mean_free_path_um, thickness.dtype)
        self.anisotropy = jnp.asarray(anisotropy, thickness.dtype)
        if padding_um is None:
            padding_um = _spread_um(thickness, mean_free_path_um, anisotropy)
        rows, columns = (fourier.good_size(n + max(n, math.ceil(padding_um / voxel_um))) for n in shape[1:])
        self.padded = (rows, columns)
        ky, kx = 2 * np.pi * np.fft.fftfreq(rows, voxel_um), 2 * np.pi * np.fft.rfftfreq(columns, voxel_um)
        q = jnp.asarray(np.hypot(ky[:, None], kx[None, :]), thickness.dtype)
        self.transfer = jax.vmap(lambda d: scattering_transfer(q, d, self.mean_free_path_um, self.anisotropy))(thickness)

    @property
    def ballistic(self) -> Float[Array, " z"]:
        """exp(-d / l): the part of the light that is not scattered, of each plane."""
        return jnp.exp(-self.thickness_um / self.mean_free_path_um)

    def matvec(self, x: Float[Array, "z y x"]) -> Float[Array, "z y x"]:
        spectrum = fourier.rfft2(x, self.padded)
        _, rows, columns = self.shape
        return fourier.irfft2(spectrum * self.transfer.astype(spectrum.real.dtype), self.padded, (rows, columns))


def _spread_um(thickness_um: Array, mean_free_path_um: Array | float, anisotropy: Array | float) -> float:
    """Five standard deviations of the widest blur; 0 where the values cannot be looked at."""
    if any(isinstance(v, jax.core.Tracer) for v in (thickness_um, mean_free_path_um, anisotropy)):
        return 0.0
    d = float(np.max(np.asarray(thickness_um), initial=0.0))
    return 5 * math.sqrt((1 - float(anisotropy)) * d**3 / (3 * float(mean_free_path_um)))


def scattering_transfer(
    q: Float[Array, "..."], thickness_um: Array | float, mean_free_path_um: Array | float, anisotropy: Array | float
) -> Float[Array, "..."]:
    """M(q) of the module's text, for angular frequencies q in radians per micrometre."""
    u = q * thickness_um * jnp.sqrt((1 - anisotropy) / 2)
    near = u < 0.2
    safe = jnp.where(near, 1.0, u)
    series = 1 - u**2 / 3 + u**4 / 10 - u**6 / 42 + u**8 / 216
    mean = jnp.where(near, series, math.sqrt(math.pi) * jax.lax.erf(safe) / (2 * safe))
    return jnp.exp(-thickness_um / mean_free_path_um * (1 - mean))


class ScatteringFit(NamedTuple):
    """What `fit_scattering` finds.

    Attributes:
        mean_free_path_um: l.
        anisotropy: g.
        brightness: factor of the volume that explains the light field best.
        errors: one standard deviation of l and of g, from the residual and the curvature.
        residual: |y - brightness H S x| / |y|.
        steps: of the minimiser.
    """

    mean_free_path_um: float
    anisotropy: float
    brightness: float
    errors: tuple[float, float]
    residual: float
    steps: int


def fit_scattering(
    light_field: Float[Array, "y x"],
    volume: Float[Array, "z y x"],
    operator: LinearOperator,
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
    pair = isinstance(start, Sequence) and len(start) == 2 and start[0] > 0 and 0 < start[1] < 1
    require(pair, "start", start, "(mean free path > 0, 0 < anisotropy < 1)")
    require_shape("weights", jnp.shape(light_field if weights is None else weights), operator.out_shape)
    require(bool(jnp.all(weights >= 0)) if weights is not None else True, "weights", "some negative", "zero or more")
    root = jnp.ones(operator.out_shape) if weights is None else jnp.sqrt(jnp.asarray(weights))
    data = root * jnp.where(root > 0, light_field, 0)
    scale = jnp.linalg.norm(data)
    require(bool(jnp.isfinite(scale)) and float(scale) > 0, "light_field", float(scale), "finite values that are not all zero")
    thickness = jnp.asarray(thickness_um, jnp.result_type(float))
    padding = 2 * _spread_um(thickness, *start)

    def model(parameters: Float[Array, "2"]) -> tuple[Array, Array]:
        free_path, anisotropy = jnp.exp(parameters[0]), 1 - jnp.exp(parameters[1])
        scattering = Scattering(
            operator.in_shape,  # type: ignore[arg-type]
            voxel_um,
            thickness,
            mean_free_path_um=free_path,
            anisotropy=anisotropy,
            padding_um=padding,
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
    left, jacobian = residual(found.value, None), jax.jacfwd(residual)(found.value, None).reshape(-1, 2)
    curvature = np.asarray(jacobian.T @ jacobian, np.float64)
    if np.linalg.cond(curvature) > 1e8 or curvature.max() < 1e-12:
        raise ParameterError(
            f"thickness_um = {np.asarray(thickness).tolist()}: this light field does not tell mean free path and anisotropy; "
            "expected tissue above several planes of the volume, of different thickness"
        )
    deviation = np.sqrt(np.diag(np.linalg.inv(curvature)) * float(jnp.sum(left**2)) / (left.size - 3))
    free_path, spread = (float(v) for v in jnp.exp(found.value))
    return ScatteringFit(
        free_path,
        1 - spread,
        float(model(found.value)[1]),
        (float(free_path * deviation[0]), float(spread * deviation[1])),
        float(jnp.linalg.norm(left)),
        int(found.stats["num_steps"]),
    )
