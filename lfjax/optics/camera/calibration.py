"""Calibration by gradient: what the microscope is, from a light field of fluorescent beads.

A bead out of focus lights several lenslets. Where its spots stand tells the distance from array to sensor, how sharp they
are tells the focal length, and their shapes the aberrations. The model is the wave-optics PSF itself, differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Float

from lfjax.errors import ParameterError, require, require_shape
from lfjax.optics.microscope import Microscope
from lfjax.optics.psf.images import Sampling, psf_images
from lfjax.optics.psf.lenslets import Alignment
from lfjax.optics.psf.pupil import Pupil

System = tuple[Microscope, Pupil | None, Alignment]


def _microscope(name: str) -> Callable[[System, Array], System]:
    return lambda s, v: (eqx.tree_at(lambda m: getattr(m, name), s[0], getattr(s[0], name) + v), s[1], s[2])


def _alignment(name: str) -> Callable[[System, Array], System]:
    return lambda s, v: (s[0], s[1], eqx.tree_at(lambda a: getattr(a, name), s[2], getattr(s[2], name) + v))


UNKNOWNS: dict[str, tuple[float, Callable[[System, Array], System]]] = {
    "lenslet_focal_length_um": (10.0, _microscope("lenslet_focal_length_um")),
    "medium_index": (0.01, _microscope("medium_index")),
    "numerical_aperture": (0.01, _microscope("numerical_aperture")),
    "magnification": (0.1, _microscope("magnification")),
    "array_to_sensor_um": (3.0, _alignment("array_to_sensor_um")),
    "native_plane_um": (30.0, _alignment("native_plane_um")),
    "rotation_rad": (1e-3, _alignment("rotation_rad")),
    "offset_y_um": (
        1.0,
        lambda s, v: (s[0], s[1], eqx.tree_at(lambda a: a.offset_um[0], s[2], s[2].offset_um[0] + v)),
    ),
    "offset_x_um": (
        1.0,
        lambda s, v: (s[0], s[1], eqx.tree_at(lambda a: a.offset_um[1], s[2], s[2].offset_um[1] + v)),
    ),
}
"""What can be fitted besides the beads: its natural step, and how a change of it enters."""

BEAD_SCALES = (1.0, 0.03, 0.03, 0.1)  # natural steps of z (um), y, x (lenslets), and of the brightness (relative)


class Calibration(NamedTuple):
    """What `calibrate` finds.

    Attributes:
        microscope: with the fitted parameters.
        alignment: of the array.
        pupil: aberrations; None if none were asked for.
        values: the fitted parameters by name; Zernike coefficients as "zernike 7", in rms waves.
        errors: one standard deviation of each, from the residual and the curvature.
        beads: (n, 3): z in um, y and x in lenslets.
        residual: |frame - model| / |frame|.
        steps: of the minimiser.
    """

    microscope: Microscope
    alignment: Alignment
    pupil: Pupil | None
    values: dict[str, float]
    errors: dict[str, float]
    beads: np.ndarray
    residual: float
    steps: int


def bead_frame(
    system: System, beads: Float[Array, "n 4"], corners: np.ndarray, field: tuple[int, int], sampling: Sampling
) -> Float[Array, "y x"]:
    """The light field of beads (z in um, y and x in lenslets, brightness), each on the K x K lenslets around its own.

    Args:
        system: microscope, pupil and alignment.
        beads: the beads.
        corners: (n, 2), the lenslet that each bead belongs to: fixed, so that the frame is differentiable.
        field: lenslets (Y, X) of the frame.
        sampling: sizes of the PSF.
    """
    scope, pupil, alignment = system
    n, reach = scope.pixels_per_lenslet, sampling.lenslets // 2

    def image(bead: Float[Array, "4"], corner: Float[Array, "2"]) -> Float[Array, "y x"]:
        offset = (bead[1:3] - corner)[None]
        return bead[3] * psf_images(scope, bead[0], offset, sampling=sampling, pupil=pupil, alignment=alignment)[0]

    images = jax.lax.map(lambda pair: image(*pair), (beads, jnp.asarray(corners, beads.dtype)))
    frame = jnp.zeros([(side + 2 * reach) * n for side in field], beads.dtype)
    for patch, (y, x) in zip(images, corners, strict=True):
        frame = frame.at[n * y : n * y + patch.shape[0], n * x : n * x + patch.shape[1]].add(patch)
    return frame[reach * n : (reach + field[0]) * n, reach * n : (reach + field[1]) * n]


def calibrate(
    frame: Float[Array, "y x"],
    microscope: Microscope,
    beads: Float[Array, "n 3"],
    *,
    unknown: Sequence[str] = ("lenslet_focal_length_um", "array_to_sensor_um"),
    zernike: Sequence[int] = (),
    alignment: Alignment | None = None,
    lenslets: int = 9,
    oversampling: int = 5,
    known_depths: bool = False,
    weights: Float[Array, "y x"] | None = None,
    steps: int = 40,
) -> Calibration:
    """Parameters of a microscope from a rectified light field of beads.

    Minimises |W^(1/2) (frame - model)|^2 over the unknowns and over place and brightness of every bead, by
    Levenberg-Marquardt with forward-mode derivatives of the wave-optics PSF.

    Args:
        frame: rectified light field, background taken off.
        microscope: the parameters to start from.
        beads: (z in um, y, x in lenslets, the middle of lenslet 0 at 0) of each bead, to about 3 um and 0.3 lenslets.
            Beads at several depths, most of them out of focus, tell the parameters apart.
        unknown: names of `UNKNOWNS`.
        zernike: Noll indices of the aberrations to fit.
        alignment: of the array, to start from.
        lenslets: K, odd side of the image of a bead.
        oversampling: field samples a pixel; its error becomes an error of the result.
        known_depths: whether z is exact, from a calibrated stage.
        weights: of the pixels, 1 / variance or 0.
        steps: most steps of the minimiser.

    Raises:
        ParameterError: an unknown name, no convergence, or a bead outside of the frame.
        ShapeError: arrays that do not fit.
    """
    n = microscope.pixels_per_lenslet
    frame, start = jnp.asarray(frame, jnp.result_type(float)), np.asarray(beads, float)
    require_shape("beads", start.shape, ("n", 3))
    whole = frame.ndim == 2 and frame.shape[0] % n == 0 and frame.shape[1] % n == 0
    require(whole, "frame of shape", frame.shape, f"whole lenslets of {n} pixels")
    field = (frame.shape[0] // n, frame.shape[1] // n)
    for name in unknown:
        require(name in UNKNOWNS, "unknown", name, f"one of {', '.join(UNKNOWNS)}")
    corners = np.round(start[:, 1:]).astype(int)
    inside = bool(np.all((corners >= 0) & (corners < np.asarray(field))))
    require(inside, "beads", start[:, 1:].tolist(), f"places within the {field[0]} x {field[1]} lenslets of the frame")
    root = jnp.ones(frame.shape) if weights is None else jnp.sqrt(jnp.asarray(weights))
    base = _start(microscope, alignment)
    sampling = Sampling.of(microscope, float(np.abs(start[:, 0]).max()) + 5, lenslets, oversampling)
    scale = jnp.linalg.norm(root * frame)
    bead_scales = jnp.asarray(BEAD_SCALES) * jnp.asarray([not known_depths, 1, 1, 1])

    def unpack(p: Float[Array, " p"]) -> tuple[System, Float[Array, "n 4"]]:
        system = base
        for value, name in zip(p, unknown, strict=False):
            system = UNKNOWNS[name][1](system, UNKNOWNS[name][0] * value)
        if zernike:
            waves = p[len(unknown) : len(unknown) + len(zernike)]
            pupil = Pupil(jnp.zeros(max(zernike)).at[jnp.asarray(zernike) - 1].set(0.05 * waves))
            system = (system[0], pupil, system[2])
        own = p[len(unknown) + len(zernike) :].reshape(-1, 4) * bead_scales
        return system, jnp.concatenate([start[:, :3] + own[:, :3], bright[:, None] * (1 + own[:, 3:])], axis=1)

    def residual(p: Float[Array, " p"], args: None) -> Float[Array, "y x"]:
        return root * (frame - bead_frame(*unpack(p), corners, field, sampling)) / scale

    first = jnp.zeros(len(unknown) + len(zernike) + 4 * len(start))
    bright = jnp.ones(len(start))
    bright = _brightness(jax.jit(lambda: unpack(first))(), corners, field, sampling, root * frame, root)
    solver: Any = optimistix.LevenbergMarquardt(rtol=1e-4, atol=1e-7)
    found: Any = optimistix.least_squares(residual, solver, first, options={"jac": "fwd"}, max_steps=steps, throw=False)
    return _report(found, residual, unpack, list(unknown), list(zernike))


def _start(microscope: Microscope, alignment: Alignment | None) -> System:
    """The system to start from, with every number in place."""
    alignment = Alignment() if alignment is None else alignment
    distance = alignment.array_to_sensor_um
    distance = microscope.lenslet_focal_length_um if distance is None else distance
    offsets = tuple(jnp.asarray(v, jnp.result_type(float)) for v in alignment.offset_um)
    return microscope, None, Alignment(distance, offsets, alignment.rotation_rad, alignment.native_plane_um, alignment.mask)


def _brightness(
    model: tuple[System, Array], corners: np.ndarray, field: tuple[int, int], sampling: Sampling, data: Array, root: Array
) -> Float[Array, " n"]:
    """Brightness of each bead at its first place, by least squares."""
    system, beads = model
    images = [root * bead_frame(system, beads[i : i + 1], corners[i : i + 1], field, sampling) for i in range(len(beads))]
    matrix = jnp.stack([image.ravel() for image in images], axis=1)
    return jnp.maximum(jnp.linalg.lstsq(matrix, data.ravel())[0], 1e-3 * jnp.sum(data) / len(beads))


def _report(
    found: Any, residual: Callable[..., Any], unpack: Callable[..., Any], unknown: list[str], zernike: list[int]
) -> Calibration:
    system, beads = unpack(found.value)
    jacobian = jax.jit(jax.jacfwd(lambda p: residual(p, None).ravel()))(found.value)
    left = residual(found.value, None)
    variance = jnp.sum(left**2) / (left.size - found.value.size)
    inverse = jnp.linalg.pinv(jacobian.T @ jacobian, hermitian=True)
    deviation = np.sqrt(np.maximum(np.diag(np.asarray(variance * inverse)), 0))
    # at the limit of float32 no step is accepted any more: what counts is that the next one would be lost in the noise
    ahead = np.abs(np.asarray(inverse @ (jacobian.T @ left.ravel())))
    if found.result != optimistix.RESULTS.successful and np.any(ahead > 0.2 * deviation):
        steps = int(found.stats["num_steps"])
        raise ParameterError(f"steps = {steps}: no convergence; expected more steps or a start nearer to the answer")
    values, errors = {}, {}
    holders = {"microscope": system[0], "alignment": system[2]}
    for i, name in enumerate(unknown):
        if name.startswith("offset_"):
            value = system[2].offset_um["yx".index(name[7])]
        else:
            value = next(getattr(h, name) for h in holders.values() if hasattr(h, name))
        values[name], errors[name] = float(value), float(UNKNOWNS[name][0] * deviation[i])
    for i, j in enumerate(zernike):
        values[f"zernike {j}"] = float(system[1].zernike_waves[j - 1])
        errors[f"zernike {j}"] = float(0.05 * deviation[len(unknown) + i])
    steps = int(found.stats["num_steps"])
    return Calibration(
        system[0], system[2], system[1], values, errors, np.asarray(beads[:, :3]), float(jnp.linalg.norm(left)), steps
    )
