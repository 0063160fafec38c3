"""Calibration by gradient: microscope, lenslet array and aberrations from a light field of fluorescent beads.

A bead out of focus lights several lenslets. The positions of its spots determine the distance from array to sensor, their
sharpness the focal length, and their shapes the aberrations. The model is the wave-optics PSF itself, differentiated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from lfjax.errors import ParameterError, require, require_shape
from lfjax.optics.alignment import Alignment
from lfjax.optics.microscope import Microscope, require_square
from lfjax.optics.psf.images import Sampling, psf_images
from lfjax.optics.psf.pupil import Pupil

System = tuple[Microscope, Pupil | None, Alignment]
Number = Float[Array, ""] | float


def _microscope(name: str) -> Callable[[System, Number], System]:
    return lambda s, v: (eqx.tree_at(lambda m: getattr(m, name), s[0], getattr(s[0], name) + v), s[1], s[2])


def _alignment(name: str) -> Callable[[System, Number], System]:
    return lambda s, v: (s[0], s[1], eqx.tree_at(lambda a: getattr(a, name), s[2], getattr(s[2], name) + v))


def _offset(axis: int) -> Callable[[System, Number], System]:
    return lambda s, v: (s[0], s[1], eqx.tree_at(lambda a: a.offset_um[axis], s[2], s[2].offset_um[axis] + v))


UNKNOWNS: dict[str, tuple[float, Callable[[System, Number], System]]] = {
    "lenslet_focal_length_um": (10.0, _microscope("lenslet_focal_length_um")),
    "medium_index": (0.01, _microscope("medium_index")),
    "numerical_aperture": (0.01, _microscope("numerical_aperture")),
    "magnification": (0.1, _microscope("magnification")),
    "array_to_sensor_um": (3.0, _alignment("array_to_sensor_um")),
    "native_plane_um": (30.0, _alignment("native_plane_um")),
    "rotation_rad": (1e-3, _alignment("rotation_rad")),
    "offset_y_um": (1.0, _offset(0)),
    "offset_x_um": (1.0, _offset(1)),
}
"""Parameters that `calibrate` can fit: the natural step of each, and the function that adds a change to it."""

BEAD_STEPS = (1.0, 0.03, 0.03, 0.1)  # natural steps of z (um), y, x (lenslets), and of the brightness (relative)
ZERNIKE_STEP_WAVES = 0.05


class Calibration(NamedTuple):
    """Result of `calibrate`.

    Attributes:
        microscope: the microscope with the fitted parameters, `alignment` among them.
        alignment: position of the array.
        pupil: aberrations; None if none were fitted.
        values: the fitted parameters by name; Zernike coefficients as "zernike 7", in rms waves.
        errors: standard deviation of each, from the residual and the curvature.
        beads: (n, 3): z in um, y and x in lenslets.
        residual: |frame - model| / |frame|, weighted.
        steps: steps of the minimiser.
    """

    microscope: Microscope
    alignment: Alignment
    pupil: Pupil | None
    values: dict[str, float]
    errors: dict[str, float]
    beads: Float[np.ndarray, "n 3"]
    residual: float
    steps: int


@eqx.filter_jit
def bead_frame(
    system: System,
    beads: Float[Array, "n 4"],
    corners: Int[Array | np.ndarray, "n 2"],
    field: tuple[int, int],
    sampling: Sampling,
) -> Float[Array, "row col"]:
    """Light field of beads: the sum of their images, each on the K x K lenslets around the lenslet of its bead.

    Args:
        system: microscope, pupil and alignment.
        beads: z in um, y and x in lenslets, and brightness of each bead.
        corners: lenslet (y, x) of each bead; it stays fixed, so that the frame is differentiable.
        field: lenslets (Y, X) of the frame.
        sampling: sizes of the PSF computation.
    """
    scope, pupil, alignment = system
    n, reach = scope.pixels_per_lenslet, sampling.lenslets // 2

    def add(frame: Float[Array, "row col"], pair: tuple[Float[Array, "4"], Int[Array, "2"]]) -> tuple[Array, None]:
        bead, corner = pair
        offset = (bead[1:3] - corner)[None]
        image = bead[3] * psf_images(scope, bead[0], offset, sampling=sampling, pupil=pupil, alignment=alignment)[0]
        first = (n * corner[0], n * corner[1])
        image = image + jax.lax.dynamic_slice(frame, first, image.shape)
        return jax.lax.dynamic_update_slice(frame, image, first), None

    padded = jnp.zeros([(side + 2 * reach) * n for side in field], beads.dtype)
    frame, _ = jax.lax.scan(add, padded, (beads, jnp.asarray(corners)))
    return frame[reach * n : (reach + field[0]) * n, reach * n : (reach + field[1]) * n]


def calibrate(
    frame: ArrayLike,
    microscope: Microscope,
    beads: ArrayLike,
    *,
    unknown: Sequence[str] = ("lenslet_focal_length_um", "array_to_sensor_um"),
    zernike: Sequence[int] = (),
    alignment: Alignment | None = None,
    lenslets: int = 9,
    oversampling: int = 5,
    known_depths: bool = False,
    weights: ArrayLike | None = None,
    steps: int = 40,
) -> Calibration:
    """Parameters of a microscope from a rectified light field of beads.

    Minimises |W^(1/2) (frame - model)|^2 over the unknowns and over position and brightness of every bead, by
    Levenberg-Marquardt with forward-mode derivatives of the wave-optics PSF.

    Args:
        frame: rectified light field (row, col), background subtracted.
        microscope: the parameters to start from.
        beads: (n, 3), start of each bead: z in um, y and x in lenslets from the centre of lenslet 0, to about 3 um and 0.3
            lenslets. Beads at several depths, most of them out of focus, distinguish the parameters.
        unknown: names of `UNKNOWNS`.
        zernike: Noll indices of the aberrations to fit.
        alignment: position of the array to start from; None: that of the microscope.
        lenslets: K, odd side of a bead's image in lenslets.
        oversampling: field samples per pixel; the error of the PSF at this sampling becomes an error of the result.
        known_depths: whether z is exact, from a calibrated stage.
        weights: (row, col), 1 / variance of each pixel, 0 for invalid pixels; None: all pixels count alike.
        steps: largest number of steps of the minimiser.

    Raises:
        ParameterError: lenslets that are not square or not of one focal length, an unknown name, an empty frame, a bead outside
            the frame, or no convergence.
        ShapeError: beads or weights have the wrong shape.
    """
    require_square(microscope)
    n = microscope.pixels_per_lenslet
    data, start = np.asarray(frame, float), np.asarray(beads, float)
    require_shape("beads", start.shape, ("n", 3))
    whole = data.ndim == 2 and data.shape[0] % n == 0 and data.shape[1] % n == 0
    require(whole, "frame of shape", data.shape, f"whole lenslets of {n} pixels")
    field = (data.shape[0] // n, data.shape[1] // n)
    for name in unknown:
        require(name in UNKNOWNS, "unknown", name, f"one of {', '.join(UNKNOWNS)}")
    corners = np.round(start[:, 1:]).astype(int)
    inside = bool(np.all((corners >= 0) & (corners < np.asarray(field))))
    require(inside, "beads", start[:, 1:].tolist(), f"places within the {field[0]} x {field[1]} lenslets of the frame")
    root = np.ones(data.shape) if weights is None else np.sqrt(np.asarray(weights, float))
    require_shape("weights", root.shape, data.shape)
    norm = float(np.linalg.norm(root * data))
    require(0 < norm < math.inf, "frame of weighted norm", norm, "finite values that are not all zero")
    dtype = jnp.result_type(float)
    model = _Model(
        _start(microscope, alignment),
        jnp.asarray(start, dtype),
        jnp.asarray(np.multiply(BEAD_STEPS, [not known_depths, 1, 1, 1]), dtype),
        jnp.asarray(corners),
        tuple(unknown),
        tuple(zernike),
        field,
        Sampling.of(microscope, float(np.abs(start[:, 0]).max()) + 5, lenslets, oversampling),
    )
    return _report(model, _minimise(model, jnp.asarray(root * data / norm, dtype), jnp.asarray(root / norm, dtype), steps))


def _start(microscope: Microscope, alignment: Alignment | None) -> System:
    """The system to start from, with every number in place."""
    alignment = microscope.alignment if alignment is None else alignment
    alignment = Alignment() if alignment is None else alignment
    distance = alignment.array_to_sensor_um
    focal_um = microscope.lenslet_focal_length_um
    assert not isinstance(focal_um, tuple), "checked by `require_square`"
    distance = focal_um if distance is None else distance
    offsets = (alignment.offset_um[0], alignment.offset_um[1])
    plain = dataclasses.replace(microscope, alignment=None)  # the system holds the alignment once, beside the microscope
    return plain, None, Alignment(distance, offsets, alignment.rotation_rad, alignment.native_plane_um, alignment.mask)


class _Model(eqx.Module):
    """The frame as a function of parameters p, each in its natural step: unknowns, Zernike coefficients, four per bead."""

    start: System
    beads: Float[Array, "n 3"]
    bead_steps: Float[Array, "4"]
    corners: Int[Array, "n 2"]
    unknown: tuple[str, ...] = eqx.field(static=True)
    zernike: tuple[int, ...] = eqx.field(static=True)
    field: tuple[int, int] = eqx.field(static=True)
    sampling: Sampling = eqx.field(static=True)

    @property
    def shared(self) -> int:
        """Number of parameters that all beads share."""
        return len(self.unknown) + len(self.zernike)

    def system(self, p: Float[Array | np.ndarray, " p"]) -> System:
        """Microscope, pupil and alignment; plain numbers if p is a NumPy array."""
        system = self.start
        for i, name in enumerate(self.unknown):
            step, add = UNKNOWNS[name]
            system = add(system, step * p[i])
        if not self.zernike:
            return system
        waves: list[Number] = [0.0] * max(self.zernike)
        for i, noll in enumerate(self.zernike, len(self.unknown)):
            waves[noll - 1] = ZERNIKE_STEP_WAVES * p[i]
        return system[0], Pupil(waves), system[2]

    def positions(self, p: Float[Array, " p"], brightness: Float[Array, " n"]) -> Float[Array, "n 4"]:
        """z, y, x and brightness of the beads; `brightness` is that at the start."""
        change = p[self.shared :].reshape(-1, 4) * self.bead_steps
        return jnp.concatenate([self.beads + change[:, :3], brightness[:, None] * (1 + change[:, 3:])], axis=1)

    def __call__(self, p: Float[Array, " p"], brightness: Float[Array, " n"]) -> Float[Array, "row col"]:
        return bead_frame(self.system(p), self.positions(p, brightness), self.corners, self.field, self.sampling)

    def brightness(self, data: Float[Array, "row col"], root: Float[Array, "row col"]) -> Float[Array, " n"]:
        """Brightness of each bead at its start, by least squares."""

        def image(pair: tuple[Float[Array, "4"], Int[Array, "2"]]) -> Float[Array, " pixel"]:
            bead, corner = (array[None] for array in pair)
            return (root * bead_frame(self.system(zero), bead, corner, self.field, self.sampling)).ravel()

        count = len(self.beads)
        zero = jnp.zeros(self.shared + 4 * count, data.dtype)
        images = jax.lax.map(image, (self.positions(zero, jnp.ones(count, data.dtype)), self.corners))
        return jnp.maximum(jnp.linalg.lstsq(images.T, data.ravel())[0], 1e-3 * jnp.sum(data) / count)


class _Minimum(NamedTuple):
    """Minimum over p, with curvature J^T J and gradient J^T r there; the residual r is for data of norm 1."""

    parameters: Float[Array, " p"]
    beads: Float[Array, "n 4"]
    curvature: Float[Array, "p p"]
    gradient: Float[Array, " p"]
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Array


@eqx.filter_jit
def _minimise(model: _Model, data: Float[Array, "row col"], root: Float[Array, "row col"], steps: int) -> _Minimum:
    """Levenberg-Marquardt from p = 0; `data` is the weighted frame at norm 1, `root` the weights' root on the same scale."""
    brightness = model.brightness(data, root)

    def residual(p: Float[Array, " p"], args: None = None) -> Float[Array, " pixel"]:
        return (data - root * model(p, brightness)).ravel()

    first = jnp.zeros(model.shared + 4 * len(model.beads), data.dtype)
    solver: Any = optimistix.LevenbergMarquardt(rtol=1e-4, atol=1e-7)
    found: Any = optimistix.least_squares(residual, solver, first, options={"jac": "fwd"}, max_steps=steps, throw=False)
    jacobian, left = jax.jacfwd(residual)(found.value), residual(found.value)
    return _Minimum(
        found.value,
        model.positions(found.value, brightness),
        jacobian.T @ jacobian,
        jacobian.T @ left,
        jnp.linalg.norm(left),
        found.stats["num_steps"],
        found.result == optimistix.RESULTS.successful,
    )


def _report(model: _Model, found: _Minimum) -> Calibration:
    """The result with its standard deviations.

    Raises:
        ParameterError: the minimiser has not converged.
    """
    p, curvature = np.asarray(found.parameters, float), np.asarray(found.curvature, float)
    residual, steps = float(found.residual), int(found.steps)
    cutoff = 10 * len(p) * float(jnp.finfo(found.curvature.dtype).eps)
    inverse = np.linalg.pinv(curvature, cutoff, hermitian=True)
    pixels = math.prod(model.field) * model.start[0].pixels_per_lenslet ** 2
    deviation = np.sqrt(np.maximum(np.diag(inverse), 0) * residual**2 / (pixels - len(p)))
    # at the limit of float32 no step is accepted any more; the fit has converged if the next step is lost in the noise
    ahead = np.abs(inverse @ np.asarray(found.gradient, float))
    if not found.converged and not np.all(ahead <= 0.2 * deviation):
        raise ParameterError(f"steps = {steps}: no convergence; expected more steps or a start nearer to the answer")
    microscope, pupil, alignment = model.system(p)
    values, errors = {}, {}
    for i, name in enumerate(model.unknown):
        offset = name.startswith("offset_")
        holder = microscope if hasattr(microscope, name) else alignment
        values[name] = float(alignment.offset_um["yx".index(name[7])] if offset else getattr(holder, name))
        errors[name] = float(UNKNOWNS[name][0] * deviation[i])
    for i, noll in enumerate(model.zernike, len(model.unknown)):
        values[f"zernike {noll}"] = float(ZERNIKE_STEP_WAVES * p[i])
        errors[f"zernike {noll}"] = float(ZERNIKE_STEP_WAVES * deviation[i])
    beads = np.asarray(found.beads)[:, :3]
    microscope = dataclasses.replace(microscope, alignment=alignment)
    return Calibration(microscope, alignment, pupil, values, errors, beads, residual, steps)
