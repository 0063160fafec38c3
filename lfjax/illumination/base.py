"""Illumination: which molecules are excited when, and how long a volume takes.

An `Illumination` is a sequence of steps: a camera frame, a line, a point. In each a pattern of light dwells on the sample;
the weights (t, z, y, x) are the excitations of a molecule at each voxel in each step. What a step excites is a linear
operator on the volume, which composes with what the light meets on its way out:

    H @ S @ illumination.operator(step)

Here one photon (widefield, light sheet, selective volume); `optics.scan` has two (point, line, many foci). Units are
physical throughout.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require, require_shape
from lfjax.linop import Diagonal

PHOTON_ENERGY_J_UM = 1.98645e-19  # h c, divided by the wavelength in micrometres


class Fluorophore(eqx.Module):
    """How a molecule answers to light; the defaults are those of EGFP, which GCaMP in its bright state resembles.

    Attributes:
        one_photon_um2: absorption cross-section; 55,900 /M/cm at 488 nm (Patterson et al., Biophys. J. 73, 2782 (1997)).
        two_photon_gm: two-photon cross-section in Goeppert-Mayer, 1e-50 cm^4 s; 39 at 927 nm (Drobizhev et al., Nat. Methods
            8, 393 (2011)).
        quantum_yield: photons emitted an excitation; 0.60 (Patterson et al. 1997).
        lifetime_s: of the excited state, 2.6 ns.
        excitations: that a molecule survives on average; 0.6 / 8e-6 bleached an emitted photon (Peterman et al., J. Phys. Chem.
            A 103, 10553 (1999)). With two photons real samples bleach faster.
    """

    one_photon_um2: Any = 2.14e-8
    two_photon_gm: Any = 39.0
    quantum_yield: Any = 0.60
    lifetime_s: Any = 2.6e-9
    excitations: Any = 1.25e5


class Timing(eqx.Module):
    """How long the parts of a volume take, in seconds.

    Attributes:
        dwell_s: light on, each step.
        line_s: turning round after each line.
        plane_s: settling after each plane (piezo 10 to 20 ms, remote focus or tunable lens 1 to 5 ms).
        volume_s: flying back after each volume; a camera's readout where a volume is one frame.
    """

    dwell_s: Any
    line_s: Any = 0.0
    plane_s: Any = 0.0
    volume_s: Any = 0.0

    def __check_init__(self) -> None:
        for name in ("dwell_s", "line_s", "plane_s", "volume_s"):
            value = getattr(self, name)
            if isinstance(value, (int, float)):
                fits = 0 <= value < math.inf and (value > 0 or name != "dwell_s")
                require(fits, name, value, "seconds, above zero" if name == "dwell_s" else "seconds, zero or more")

    def starts_s(self, steps: tuple[int, int, int]) -> Float[Array, "plane line step"]:
        """When each step of a volume starts."""
        plane, line, step = (jnp.arange(n, dtype=jnp.result_type(float)) for n in steps)
        line_time = steps[2] * self.dwell_s + self.line_s
        plane_time = steps[1] * line_time + self.plane_s
        return plane[:, None, None] * plane_time + line[:, None] * line_time + step * self.dwell_s

    def period_s(self, steps: tuple[int, int, int]) -> Any:
        """From the start of a volume to that of the next."""
        planes, lines, points = steps
        return planes * (lines * (points * self.dwell_s + self.line_s) + self.plane_s) + self.volume_s


class Illumination(eqx.Module):
    """Light on a volume (z, y, x), step by step: subclasses give the pattern.

    Attributes:
        shape: voxels (z, y, x).
        voxel_um: voxel size (z, y, x).
        timing: of a step, a line, a plane, a volume.
        power_mw: average power at the surface.
        wavelength_um: of excitation, in vacuum.
        medium_index: n.
        fluorophore: what is excited.
        thickness_um: tissue that the light crosses to each plane, a number or (z,).
        mean_free_path_um: of excitation in it. A focus is made by ballistic light: l at this wavelength. Widefield light
            that is scattered forwards still excites: l / (1 - g) there.
    """

    shape: tuple[int, int, int] = eqx.field(static=True)
    voxel_um: tuple[float, float, float] = eqx.field(static=True)
    timing: Timing
    power_mw: Any = 10.0
    wavelength_um: Any = 0.488
    medium_index: Any = 1.33
    fluorophore: Fluorophore = eqx.field(default_factory=Fluorophore)
    thickness_um: Any = 0.0
    mean_free_path_um: Any = math.inf

    def __check_init__(self) -> None:
        require(len(self.shape) == 3 and min(self.shape) >= 1, "shape", self.shape, "three whole numbers (z, y, x)")
        require(len(self.voxel_um) == 3 and min(self.voxel_um) > 0, "voxel_um", self.voxel_um, "three sizes (z, y, x)")
        if np.ndim(self.thickness_um):
            require_shape("thickness_um", np.shape(self.thickness_um), (self.shape[0],))
        depths = self.thickness_um if isinstance(self.thickness_um, (tuple, list)) else [self.thickness_um]
        if all(isinstance(depth, (int, float)) for depth in depths):  # arrays and tracers cannot be looked into
            require(min(depths) >= 0, "thickness_um", self.thickness_um, "zero or more")
        for name in ("power_mw", "wavelength_um", "mean_free_path_um"):
            value = getattr(self, name)
            if isinstance(value, (int, float)):
                require(value > 0, name, value, "a positive number")

    @property
    @abc.abstractmethod
    def steps(self) -> tuple[int, int, int]:
        """Planes, lines a plane, steps a line."""

    @property
    def imaged(self) -> bool:
        """Whether a camera has to tell where the light comes from; a point scanner knows."""
        return True

    @abc.abstractmethod
    def rate(self, step: Array | int) -> Float[Array, "z y x"]:
        """Excitations a second of a molecule at each voxel while a step lasts."""

    def weights(self, steps: Sequence[int] | Array | None = None) -> Float[Array, "t z y x"]:
        """Excitations of a molecule at each voxel in each step.

        Args:
            steps: which; all if not given, which for a point scan is as many volumes as it has points.
        """
        number = math.prod(self.steps)
        chosen = jnp.arange(number) if steps is None else jnp.asarray(steps)
        if not isinstance(chosen, jax.core.Tracer):
            inside = bool(jnp.all((chosen >= 0) & (chosen < number)))
            require(inside, "steps", np.asarray(chosen).tolist(), f"numbers from 0 to {number - 1}")
        return jax.lax.map(self.rate, chosen) * self.timing.dwell_s

    def dose(self) -> Float[Array, "z y x"]:
        """Excitations of a molecule in a whole volume: the sum of the weights over all steps."""

        def add(total: Array, step: Array) -> tuple[Array, None]:
            return total + self.rate(step), None

        total, _ = jax.lax.scan(add, jnp.zeros(self.shape, jnp.result_type(float)), jnp.arange(math.prod(self.steps)))
        return total * self.timing.dwell_s

    def operator(self, step: int | None = None) -> Diagonal:
        """The weights of a step, or of a camera frame that lasts all of them, as an operator on volumes."""
        return Diagonal(self.dose() if step is None else self.weights([step])[0])

    def surviving(self, volumes: float = 1.0) -> Float[Array, "z y x"]:
        """Molecules not yet bleached after some volumes: exp(-volumes dose / excitations survived)."""
        return jnp.exp(-volumes * self.dose() / self.fluorophore.excitations)

    def start_s(self, step: Array | int) -> Array:
        """When a step starts."""
        return self.timing.starts_s(self.steps).ravel()[step]

    @property
    def volume_s(self) -> Any:
        """Time that a volume takes."""
        return self.timing.period_s(self.steps)

    def step_at(self, z: int, y: int, x: int) -> int:
        """The step aimed at a voxel."""
        place = [min(i * n // size, n - 1) for i, n, size in zip((z, y, x), self.steps, self.shape, strict=True)]
        return int(np.ravel_multi_index(place, self.steps))

    @property
    def extent_um(self) -> tuple[float, float, float]:
        """Size (z, y, x) of the volume."""
        z, y, x = (n * v for n, v in zip(self.shape, self.voxel_um, strict=True))
        return (z, y, x)

    def arrival(self) -> Float[Array, " z"]:
        """Share of the light that reaches each plane."""
        thickness = jnp.broadcast_to(jnp.asarray(self.thickness_um, jnp.result_type(float)), self.shape[:1])
        return jnp.exp(-thickness / self.mean_free_path_um)

    def _flux(self, watt_um2: Any) -> Any:
        """Photons a second and square micrometre."""
        return watt_um2 * (self.wavelength_um / PHOTON_ENERGY_J_UM)

    def _one_photon(self, watt_um2: Array) -> Array:
        """sigma F / (1 + sigma F lifetime): a molecule is excited at most once a lifetime."""
        rate = self.fluorophore.one_photon_um2 * self._flux(watt_um2)
        return rate / (1 + rate * self.fluorophore.lifetime_s)


class Widefield(Illumination):
    """One-photon light all over the field, one step a volume: what a light-field microscope usually has."""

    @property
    def steps(self) -> tuple[int, int, int]:
        return (1, 1, 1)

    def rate(self, step: Array | int) -> Float[Array, "z y x"]:
        _, height, width = self.extent_um
        plane = self.arrival() * (1e-3 * self.power_mw / (height * width))
        return jnp.broadcast_to(self._one_photon(plane)[:, None, None], self.shape)


class LightSheet(Illumination):
    """One-photon Gaussian sheet from the side, along x, one step a plane; a swept beam makes its height y.

        I = P / height sqrt(2 / pi) / w(x) exp(-2 (z - z_t)^2 / w(x)^2)
        w(x) = w_0 sqrt(1 + (x / x_R)^2),  x_R = pi n w_0^2 / lambda

    It comes through clear medium: `thickness_um` does not weaken it.

    Attributes:
        waist_um: w_0, in the middle of the field; by default the one whose Rayleigh range is half of the field.
    """

    waist_um: Any = None

    @property
    def steps(self) -> tuple[int, int, int]:
        return (self.shape[0], 1, 1)

    def rate(self, step: Array | int) -> Float[Array, "z y x"]:
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
    """One-photon light from the side on a slab only, one step a volume: less background below and above it.

    The slab is lit evenly, its edges are those of the beam (Truong et al., Commun. Biol. 3, 74 (2020)). `thickness_um` does not
    weaken it.

    Attributes:
        slab_um: from and to which depth of the volume, counted from its first face.
        edge_um: 1/e^2 radius of the beam that is swept.
    """

    slab_um: tuple[float, float] | None = eqx.field(static=True, default=None)
    edge_um: Any = 3.0

    @property
    def steps(self) -> tuple[int, int, int]:
        return (1, 1, 1)

    def rate(self, step: Array | int) -> Float[Array, "z y x"]:
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
