"""Illumination: which molecules are excited when, and how long a volume takes.

An `Illumination` is a sequence of steps: a camera frame, a line, a point. In each step a pattern of light dwells on the
sample; the weights (t, z, y, x) are the excitations of a molecule at each voxel in each step. A step is a linear operator
on the volume, which composes with the detection:

    H @ S @ illumination.operator(step)

This module holds one-photon illumination (widefield, light sheet, selective volume); `illumination.scan` holds two-photon
illumination (point, line, many foci). All units are physical.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import require, require_shape
from lfjax.linop import Diagonal

PHOTON_ENERGY_J_UM = 1.98645e-19  # h c, divided by the wavelength in micrometres


class Fluorophore(eqx.Module):
    """Response of a molecule to light; the defaults are for EGFP, which GCaMP in its bright state resembles.

    Attributes:
        one_photon_um2: absorption cross-section; 55,900 /M/cm at 488 nm, 3.82e-21 cm^2 per /M/cm (EGFP in FPbase, Lambert,
            Nat. Methods 16, 277 (2019)).
        two_photon_gm: two-photon cross-section in Goeppert-Mayer, 1e-50 cm^4 s. Assumed: published spectra differ, and that
            of Drobizhev et al. (Nat. Methods 8, 393 (2011)), as the SWC two-photon viewer tabulates it, has 55 at 926 nm.
        quantum_yield: photons emitted per excitation (EGFP in FPbase).
        lifetime_s: lifetime of the excited state; assumed.
        excitations: mean number of excitations that a molecule survives; assumed, a bleaching yield of 8e-6 per excitation.
            Under two-photon excitation real samples bleach faster.
    """

    one_photon_um2: float | Array = 2.14e-8
    two_photon_gm: float | Array = 39.0
    quantum_yield: float | Array = 0.60
    lifetime_s: float | Array = 2.6e-9
    excitations: float | Array = 1.25e5


class Timing(eqx.Module):
    """Durations of the parts of a volume, in seconds.

    Attributes:
        dwell_s: exposure of each step.
        line_s: turnaround after each line.
        plane_s: settling after each plane (assumed: piezo 10 to 20 ms, remote focus or tunable lens 1 to 5 ms).
        volume_s: flyback after each volume; the readout of the camera where a volume is one frame.

    Raises:
        ParameterError: a duration is out of range.
    """

    dwell_s: float | Array
    line_s: float | Array = 0.0
    plane_s: float | Array = 0.0
    volume_s: float | Array = 0.0

    def __check_init__(self) -> None:
        for name in ("dwell_s", "line_s", "plane_s", "volume_s"):
            value = getattr(self, name)
            if isinstance(value, (int, float)):
                fits = 0 <= value < math.inf and (value > 0 or name != "dwell_s")
                require(fits, name, value, "seconds, above zero" if name == "dwell_s" else "seconds, zero or more")

    def starts_s(self, steps: tuple[int, int, int]) -> Float[Array, "plane line step"]:
        """Start of each step of a volume.

        Args:
            steps: planes, lines per plane, steps per line.
        """
        return _starts(self, steps)

    def period_s(self, steps: tuple[int, int, int]) -> float | Array:
        """Time from the start of a volume to that of the next."""
        planes, lines, points = steps
        return planes * (lines * (points * self.dwell_s + self.line_s) + self.plane_s) + self.volume_s


@partial(jax.jit, static_argnames="steps")
def _starts(timing: Timing, steps: tuple[int, int, int]) -> Float[Array, "plane line step"]:
    plane, line, step = (jnp.arange(n, dtype=jnp.result_type(float)) for n in steps)
    line_time = steps[2] * timing.dwell_s + timing.line_s
    plane_time = steps[1] * line_time + timing.plane_s
    return plane[:, None, None] * plane_time + line[:, None] * line_time + step * timing.dwell_s


class Illumination(eqx.Module):
    """Light on a volume (z, y, x), step by step: a subclass gives `steps` and `rate`.

    Attributes:
        shape: voxels (z, y, x).
        voxel_um: voxel size (z, y, x).
        timing: durations of a step, a line, a plane, a volume.
        power_mw: average power at the surface.
        wavelength_um: excitation wavelength in vacuum.
        medium_index: n.
        fluorophore: the molecule that is excited.
        thickness_um: tissue that the light crosses to each plane, a number or (z,).
        mean_free_path_um: mean free path of the excitation in the tissue. Only ballistic light forms a focus: give l at the
            excitation wavelength. Forward-scattered widefield light still excites: give l / (1 - g).

    Raises:
        ParameterError: a value is out of range.
        ShapeError: `thickness_um` does not have one value per plane.
    """

    shape: tuple[int, int, int] = eqx.field(static=True)
    voxel_um: tuple[float, float, float] = eqx.field(static=True)
    timing: Timing
    power_mw: float | Array = 10.0
    wavelength_um: float | Array = 0.488
    medium_index: float | Array = 1.33
    fluorophore: Fluorophore = eqx.field(default_factory=Fluorophore)
    thickness_um: float | Array | np.ndarray | Sequence[float] = 0.0
    mean_free_path_um: float | Array = math.inf

    def __check_init__(self) -> None:
        require(len(self.shape) == 3 and min(self.shape) >= 1, "shape", self.shape, "three whole numbers (z, y, x)")
        require(len(self.voxel_um) == 3 and min(self.voxel_um) > 0, "voxel_um", self.voxel_um, "three sizes (z, y, x)")
        if np.ndim(self.thickness_um):
            require_shape("thickness_um", np.shape(self.thickness_um), (self.shape[0],))
        depths = self.thickness_um if isinstance(self.thickness_um, (tuple, list)) else [self.thickness_um]
        if all(isinstance(depth, (int, float)) for depth in depths):  # the values of arrays may be traced, hence unknown
            require(min(depths) >= 0, "thickness_um", self.thickness_um, "zero or more")
        for name in ("power_mw", "wavelength_um", "mean_free_path_um"):
            value = getattr(self, name)
            if isinstance(value, (int, float)):
                require(value > 0, name, value, "a positive number")

    @property
    @abc.abstractmethod
    def steps(self) -> tuple[int, int, int]:
        """Planes, lines per plane, steps per line."""

    @property
    def imaged(self) -> bool:
        """Whether a camera records the light; a point scanner instead knows the place that it excites."""
        return True

    @abc.abstractmethod
    def rate(self, step: ArrayLike) -> Float[Array, "z y x"]:
        """Excitations per second of a molecule at each voxel during a step."""

    def weights(self, steps: Sequence[int] | ArrayLike | None = None) -> Float[Array, "t z y x"]:
        """Excitations of a molecule at each voxel in each step.

        Args:
            steps: indices of the steps; None: all, which for a point scan are as many volumes as it has points.

        Raises:
            ParameterError: an index is out of range.
        """
        number = math.prod(self.steps)
        chosen = np.arange(number) if steps is None else steps
        if not isinstance(chosen, jax.core.Tracer):
            inside = bool(np.all((np.asarray(chosen) >= 0) & (np.asarray(chosen) < number)))
            require(inside, "steps", np.asarray(chosen).tolist(), f"numbers from 0 to {number - 1}")
        return _weights(self, jnp.asarray(chosen))

    def dose(self) -> Float[Array, "z y x"]:
        """Excitations of a molecule in a whole volume: the sum of the weights over all steps."""
        return _dose(self)

    def operator(self, step: int | None = None) -> Diagonal:
        """The weights of a step as an operator on volumes; None: of a camera frame that lasts all steps."""
        return Diagonal(self.dose() if step is None else self.weights([step])[0])

    def surviving(self, volumes: float | Array = 1.0) -> Float[Array, "z y x"]:
        """Fraction of molecules not yet bleached after some volumes: exp(-volumes dose / excitations survived)."""
        return _surviving(self, volumes)

    def start_s(self, step: ArrayLike) -> Array:
        """Start of a step, from the start of its volume."""
        return self.timing.starts_s(self.steps).ravel()[step]

    @property
    def volume_s(self) -> float | Array:
        """Duration of a volume."""
        return self.timing.period_s(self.steps)

    def step_at(self, z: int, y: int, x: int) -> int:
        """Index of the step that is aimed at a voxel."""
        place = [min(i * n // size, n - 1) for i, n, size in zip((z, y, x), self.steps, self.shape, strict=True)]
        return int(np.ravel_multi_index(place, self.steps))

    @property
    def extent_um(self) -> tuple[float, float, float]:
        """Size (z, y, x) of the volume."""
        z, y, x = (n * v for n, v in zip(self.shape, self.voxel_um, strict=True))
        return (z, y, x)

    def arrival(self) -> Float[Array, " z"]:
        """Fraction of the light that reaches each plane, exp(-thickness / mean free path)."""
        thickness = jnp.broadcast_to(jnp.asarray(self.thickness_um, jnp.result_type(float)), self.shape[:1])
        return jnp.exp(-thickness / self.mean_free_path_um)

    def _flux(self, watt_um2: Array) -> Array:
        """Photons per second and square micrometre."""
        return watt_um2 * (self.wavelength_um / PHOTON_ENERGY_J_UM)

    def _one_photon(self, watt_um2: Array) -> Array:
        """sigma F / (1 + sigma F lifetime): a molecule is excited at most once per lifetime."""
        rate = self.fluorophore.one_photon_um2 * self._flux(watt_um2)
        return rate / (1 + rate * self.fluorophore.lifetime_s)


@jax.jit
def _weights(light: Illumination, steps: Array) -> Float[Array, "t z y x"]:
    return jax.lax.map(light.rate, steps) * light.timing.dwell_s


@jax.jit
def _surviving(light: Illumination, volumes: float | Array) -> Float[Array, "z y x"]:
    return jnp.exp(-volumes * _dose(light) / light.fluorophore.excitations)


@jax.jit
def _dose(light: Illumination) -> Float[Array, "z y x"]:
    def add(total: Array, step: Array) -> tuple[Array, None]:
        return total + light.rate(step), None

    start = jnp.zeros(light.shape, jnp.result_type(float))
    total, _ = jax.lax.scan(add, start, jnp.arange(math.prod(light.steps)))
    return total * light.timing.dwell_s


class Widefield(Illumination):
    """One-photon light on the whole field, one step per volume: the usual illumination of a light-field microscope."""

    @property
    def steps(self) -> tuple[int, int, int]:
        return (1, 1, 1)

    def rate(self, step: ArrayLike) -> Float[Array, "z y x"]:
        _, height, width = self.extent_um
        plane = self.arrival() * (1e-3 * self.power_mw / (height * width))
        return jnp.broadcast_to(self._one_photon(plane)[:, None, None], self.shape)


class LightSheet(Illumination):
    """One-photon Gaussian sheet from the side, along x, one step per plane; a swept beam covers the height y.

        I = P / height sqrt(2 / pi) / w(x) exp(-2 (z - z_t)^2 / w(x)^2)
        w(x) = w_0 sqrt(1 + (x / x_R)^2),  x_R = pi n w_0^2 / lambda

    It passes through clear medium: `thickness_um` does not weaken it.

    Attributes:
        waist_um: w_0, in the middle of the field; None: its Rayleigh range is half of the field.
    """

    waist_um: float | Array | None = None

    @property
    def steps(self) -> tuple[int, int, int]:
        return (self.shape[0], 1, 1)

    def rate(self, step: ArrayLike) -> Float[Array, "z y x"]:
        _, height, width = self.extent_um
        waist = self.waist_um
        if waist is None:
            waist = jnp.sqrt(width / 2 * self.wavelength_um / (jnp.pi * self.medium_index))
        x = _centres(self.shape[2]) * self.voxel_um[2]
        z = (jnp.arange(self.shape[0]) - step) * self.voxel_um[0]
        spread = waist * jnp.sqrt(1 + (x * self.wavelength_um / (jnp.pi * self.medium_index * waist**2)) ** 2)
        profile = jnp.sqrt(2 / jnp.pi) / spread * jnp.exp(-2 * (z[:, None] / spread) ** 2)
        sheet = self._one_photon(1e-3 * self.power_mw / height * profile)
        return jnp.broadcast_to(sheet[:, None, :], self.shape)


class SelectiveVolume(Illumination):
    """One-photon light from the side on a slab only, one step per volume: less background from below and above the slab.

    The slab is illuminated evenly; its edges are those of the beam (Truong et al., Commun. Biol. 3, 74 (2020)).
    `thickness_um` does not weaken it.

    Attributes:
        slab_um: first and last depth of the slab, from the first face of the volume; None: the whole volume.
        edge_um: 1/e^2 radius of the swept beam.
    """

    slab_um: tuple[float, float] | None = eqx.field(static=True, default=None)
    edge_um: float | Array = 3.0

    @property
    def steps(self) -> tuple[int, int, int]:
        return (1, 1, 1)

    def rate(self, step: ArrayLike) -> Float[Array, "z y x"]:
        depth, height, _ = self.extent_um
        low, high = (0.0, depth) if self.slab_um is None else self.slab_um
        require(low < high, "slab_um", self.slab_um, "two depths, the lower one first")
        z = (jnp.arange(self.shape[0]) + 0.5) * self.voxel_um[0]
        scale = math.sqrt(2) / self.edge_um
        inside = 0.5 * (jax.scipy.special.erf((z - low) * scale) - jax.scipy.special.erf((z - high) * scale))
        plane = self._one_photon(1e-3 * self.power_mw / (height * (high - low)) * inside)
        return jnp.broadcast_to(plane[:, None, None], self.shape)


def _centres(n: int) -> Array:
    """Voxel centres from the middle of the volume, in voxels."""
    return jnp.arange(n) - (n - 1) / 2
