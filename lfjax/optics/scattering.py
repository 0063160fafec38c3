"""Scattering in tissue as a linear operator on volumes: ballistic light and forward-scattered light.

Tissue scatters light forwards, by many small deflections. A photon that is deflected by an angle theta at height h above
its source appears to come from a point theta h beside it. For a Poisson-distributed number of deflections, a Gaussian
phase function, mean free path l and anisotropy g = <cos theta>, the transfer function of a source under d micrometres of
tissue is, at angular frequency q,

    M(q) = exp(-(1 / l) int_0^d (1 - exp(-q^2 h^2 (1 - g) / 2)) dh)
         = exp(-(d / l) (1 - sqrt(pi) erf(u) / (2 u))),   u = q d sqrt((1 - g) / 2),

1 at q = 0 (no light is lost), exp(-d / l) for q -> infinity (the ballistic light), and in between a blur whose variance
along each axis is (1 - g) d^3 / (3 l). On the plane of the source the displacement is the same for all views, so a
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
from jaxtyping import Array, ArrayLike, Float

from lfjax import fourier
from lfjax.errors import ParameterError, require, require_shape
from lfjax.linop import LinearOperator, SelfAdjoint


class Scattering(SelfAdjoint):
    """S: volume (z, y, x) -> the volume from which the scattered light appears to come; its own transpose.

    Each plane is convolved with the kernel of M(q) above, with zeros outside the volume. Differentiable in the mean free
    path, the anisotropy and the thickness.

    Attributes:
        transfer: M on the padded grid of each plane.
        thickness_um: d, tissue above each plane.
        mean_free_path_um: l, the scattering mean free path.
        anisotropy: g.
        shape: (z, y, x) of the volume.
        padded: size (y, x) of the padded grid, on which light that leaves the volume does not wrap around into it.
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
        thickness_um: Sequence[float] | ArrayLike,
        *,
        mean_free_path_um: float | Array,
        anisotropy: float | Array,
        padding_um: float | None = None,
    ) -> None:
        """Build S.

        Args:
            shape: (z, y, x) of the volume, `LightField.in_shape`.
            voxel_um: lateral size of a voxel, `Microscope.voxel_um(s)`.
            thickness_um: (z,), tissue between each plane and the surface on the side of the objective, 0 or more.
            mean_free_path_um: l; assumed values for mouse cortex are 50 to 100 at 500 nm and about 200 at 900 nm.
            anisotropy: g, 0 <= g < 1; assumed values for brain are 0.85 to 0.98. The small-angle theory holds near 1.
            padding_um: largest displacement of light that does not wrap around to the other side. None: five standard
                deviations of the widest blur, and at least the width of the volume; the width of the volume where values
                are traced.

        Raises:
            ParameterError: a value is out of range.
            ShapeError: `thickness_um` does not have one value per plane.
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
        self.transfer = scattering_transfer(q, thickness[:, None, None], self.mean_free_path_um, self.anisotropy)

    @property
    def ballistic(self) -> Float[Array, " z"]:
        """exp(-d / l): fraction of the light of each plane that is not scattered."""
        return jnp.exp(-self.thickness_um / self.mean_free_path_um)

    def matvec(self, x: Float[Array, "z y x"]) -> Float[Array, "z y x"]:
        spectrum = fourier.rfft2(x, self.padded)
        _, rows, columns = self.shape
        return fourier.irfft2(spectrum * self.transfer.astype(spectrum.real.dtype), self.padded, (rows, columns))


def _spread_um(thickness_um: Sequence[float] | ArrayLike, mean_free_path_um: Array | float, anisotropy: Array | float) -> float:
    """Five standard deviations of the widest blur; 0 for traced values."""
    if any(isinstance(v, jax.core.Tracer) for v in (thickness_um, mean_free_path_um, anisotropy)):
        return 0.0
    d = float(np.max(np.asarray(thickness_um), initial=0.0))
    return 5 * math.sqrt((1 - float(anisotropy)) * d**3 / (3 * float(mean_free_path_um)))


@jax.jit
def scattering_transfer(
    q: Float[Array, "..."], thickness_um: Array | float, mean_free_path_um: Array | float, anisotropy: Array | float
) -> Float[Array, "..."]:
    """The transfer function M(q) of this module; the arguments broadcast.

    Args:
        q: angular frequency, in radians per micrometre.
        thickness_um: d, tissue above the source.
        mean_free_path_um: l.
        anisotropy: g.
    """
    u = q * thickness_um * jnp.sqrt((1 - anisotropy) / 2)
    near = u < 0.2
    safe = jnp.where(near, 1.0, u)
    series = 1 - u**2 / 3 + u**4 / 10 - u**6 / 42 + u**8 / 216
    mean = jnp.where(near, series, math.sqrt(math.pi) * jax.lax.erf(safe) / (2 * safe))
    return jnp.exp(-thickness_um / mean_free_path_um * (1 - mean))


class ScatteringFit(NamedTuple):
    """Result of `fit_scattering`.

    Attributes:
        mean_free_path_um: l.
        anisotropy: g.
        brightness: b, factor of the volume that explains the light field best.
        errors: standard deviations of l and of g, from the residual and the curvature.
        residual: |y - b H S x| / |y|.
        steps: steps of the minimiser.
    """

    mean_free_path_um: float
    anisotropy: float
    brightness: float
    errors: tuple[float, float]
    residual: float
    steps: int


def fit_scattering(
    light_field: ArrayLike,
    volume: ArrayLike,
    operator: LinearOperator,
    voxel_um: float,
    thickness_um: Sequence[float] | ArrayLike,
    *,
    start: Sequence[float] = (80.0, 0.9),
    weights: ArrayLike | None = None,
    steps: int = 60,
) -> ScatteringFit:
    """Mean free path and anisotropy from a light field of a known volume, for example a two-photon stack.

    Minimises |W^(1/2) (y - b H S(l, g) x)|^2 over l, g and the brightness b by Levenberg-Marquardt in log l and
    log(1 - g); the linear parameter b is projected out.

    Args:
        light_field: y, of shape `operator.out_shape`.
        volume: x, of shape `operator.in_shape`.
        operator: H.
        voxel_um: lateral size of a voxel.
        thickness_um: (z,), tissue above each plane; only several depths distinguish l from g.
        start: (l, g) to start from.
        weights: w, of the shape of the light field, 0 for invalid pixels; None: all pixels count alike.
        steps: largest number of steps of the minimiser.

    Raises:
        ShapeError: light field, volume or weights do not fit the operator.
        ParameterError: the minimiser does not converge, the light field does not determine l and g, or a value is out of
            range.
    """
    require_shape("light_field", jnp.shape(light_field), operator.out_shape)
    require_shape("volume", jnp.shape(volume), operator.in_shape)
    pair = isinstance(start, Sequence) and len(start) == 2 and start[0] > 0 and 0 < start[1] < 1
    require(pair, "start", start, "(mean free path > 0, 0 < anisotropy < 1)")
    require_shape("weights", jnp.shape(light_field if weights is None else weights), operator.out_shape)
    w = np.ones(operator.out_shape) if weights is None else np.asarray(weights)
    require(bool(np.all(w >= 0)), "weights", "some negative", "zero or more")
    data = np.sqrt(w) * np.where(w > 0, np.asarray(light_field), 0)
    scale = float(np.linalg.norm(data))
    require(0 < scale < math.inf, "light_field", scale, "finite values that are not all zero")
    dtype, thickness = jnp.result_type(float), np.asarray(thickness_um, float)
    x, y, root = (jnp.asarray(array, dtype) for array in (volume, data / scale, np.sqrt(w)))
    first = jnp.asarray(np.log([start[0], 1 - start[1]]), dtype)
    padding_um = 2 * _spread_um(thickness, *start)
    found = _minimise(operator, x, y, root, jnp.asarray(thickness, dtype), first, (voxel_um, padding_um, steps))
    free_path, spread = (float(v) for v in np.exp(np.asarray(found.logarithms)))
    if not found.converged:
        raise ParameterError(
            f"steps = {steps}: no convergence, at l = {free_path:.3g} um, g = {1 - spread:.3g}; "
            "expected a start nearer to the answer, or more depths"
        )
    curvature, residual = np.asarray(found.curvature, np.float64), float(found.residual)
    if np.linalg.cond(curvature) > 1e8 or curvature.max() < 1e-12:
        raise ParameterError(
            f"thickness_um = {thickness.tolist()}: this light field does not determine mean free path and anisotropy; "
            "expected tissue above several planes of the volume, of different thickness"
        )
    deviation = np.sqrt(np.diag(np.linalg.inv(curvature)) * residual**2 / (data.size - 3))
    errors = (float(free_path * deviation[0]), float(spread * deviation[1]))
    return ScatteringFit(free_path, 1 - spread, scale * float(found.brightness), errors, residual, int(found.steps))


class _Minimum(NamedTuple):
    """Minimum over log l and log(1 - g), with the curvature there; residual and brightness for data of norm 1."""

    logarithms: Float[Array, "2"]
    brightness: Float[Array, ""]
    curvature: Float[Array, "2 2"]
    residual: Float[Array, ""]
    steps: Array
    converged: Array


@eqx.filter_jit
def _minimise(
    operator: LinearOperator,
    volume: Float[Array, "z y x"],
    data: Array,
    root: Array,
    thickness: Float[Array, " z"],
    first: Float[Array, "2"],
    sizes: tuple[float, float, int],
) -> _Minimum:
    """Levenberg-Marquardt from `first`; `sizes` are voxel and padding in micrometres and the largest number of steps."""
    voxel_um, padding_um, steps = sizes

    def model(logarithms: Float[Array, "2"]) -> tuple[Array, Array]:
        free_path, anisotropy = jnp.exp(logarithms[0]), 1 - jnp.exp(logarithms[1])
        tissue = {"mean_free_path_um": free_path, "anisotropy": anisotropy}
        scattering = Scattering(volume.shape, voxel_um, thickness, padding_um=padding_um, **tissue)  # type: ignore[arg-type]
        image = root * operator.matvec(scattering.matvec(volume))
        brightness = jnp.vdot(image, data) / jnp.maximum(jnp.vdot(image, image), 1e-30)
        return brightness * image, brightness

    def residual(logarithms: Float[Array, "2"], args: None = None) -> Array:
        return (data - model(logarithms)[0]).ravel()

    solver: Any = optimistix.LevenbergMarquardt(rtol=1e-4, atol=1e-5)
    found: Any = optimistix.least_squares(residual, solver, first, options={"jac": "fwd"}, max_steps=steps, throw=False)
    jacobian = jax.jacfwd(residual)(found.value)
    return _Minimum(
        found.value,
        model(found.value)[1],
        jacobian.T @ jacobian,
        jnp.linalg.norm(residual(found.value)),
        found.stats["num_steps"],
        found.result == optimistix.RESULTS.successful,
    )
