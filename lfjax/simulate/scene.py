"""A living sample: active tissue that bleaches and moves. `volume(t)` gives any of its frames."""

from __future__ import annotations

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from lfjax.errors import require, require_shape
from lfjax.simulate.tissue import Tissue

HEART_HZ = 9.0  # heart rate of a mouse (assumed)
BREATH_HZ = 2.0  # breathing rate of an anaesthetised mouse (assumed)


class Scene(eqx.Module):
    """The fluorescence of tissue as it changes with time.

        x_t = bleach(t) transmission shift_t( sum_n (1 + dF/F_n(t)) footprint_n + (1 + dF/F_0(t)) neuropil )

    Attributes:
        tissue: footprints, neuropil, shadows.
        dff: (n, t), dF/F of the neurons.
        neuropil_dff: (t,), dF/F of the neuropil; by default the mean over neurons.
        shifts_um: (t, 3), displacement (z, y, x) of the tissue; none by default.
        frame_s: time per frame.
        bleach_s: time in which the fluorescence fades to 1/e; infinite by default.
    """

    tissue: Tissue
    dff: Float[Array, "n t"]
    neuropil_dff: Float[Array, " t"]
    shifts_um: Float[Array, "t 3"]
    frame_s: float
    bleach_s: float

    def __init__(
        self,
        tissue: Tissue,
        dff: Float[Array, "n t"],
        frame_s: float,
        *,
        neuropil_dff: Float[Array, " t"] | None = None,
        shifts_um: Float[Array, "t 3"] | None = None,
        bleach_s: float = math.inf,
    ) -> None:
        """Build the scene.

        Raises:
            ShapeError: not one trace per neuron, or not one shift per frame.
            ParameterError: `frame_s` or `bleach_s` is not positive.
        """
        require_shape("dff", dff.shape, (tissue.footprints.shape[0], "t"))
        frames = dff.shape[1]
        neuropil_dff = dff.mean(0) if neuropil_dff is None else neuropil_dff
        shifts_um = jnp.zeros((frames, 3)) if shifts_um is None else shifts_um
        require_shape("neuropil_dff", neuropil_dff.shape, (frames,))
        require_shape("shifts_um", shifts_um.shape, (frames, 3))
        require(frame_s > 0, "frame_s", frame_s, "a positive number")
        require(bleach_s > 0, "bleach_s", bleach_s, "a positive number, or infinity")
        self.tissue, self.dff, self.neuropil_dff, self.shifts_um = tissue, dff, neuropil_dff, shifts_um
        self.frame_s, self.bleach_s = frame_s, bleach_s

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.dff.shape[1]

    def volume(self, t: Int[ArrayLike, ""]) -> Float[Array, "z y x"]:
        """The sample at frame t; batch by `jax.vmap` or `jax.lax.map`.

        Raises:
            ParameterError: the scene has no frame t.
        """
        if isinstance(t, (int, np.integer)):
            require(0 <= int(t) < self.frames, "t", t, f"a frame from 0 to {self.frames - 1}")
        return self._volume(jnp.asarray(t))

    @eqx.filter_jit
    def _volume(self, t: Int[Array, ""]) -> Float[Array, "z y x"]:
        light = jnp.einsum("n,nzyx->zyx", 1 + self.dff[:, t], self.tissue.footprints)
        light = light + (1 + self.neuropil_dff[t]) * self.tissue.neuropil
        moved = shift(light, self.shifts_um[t] / jnp.asarray(self.tissue.voxel_um))
        return jnp.exp(-t * self.frame_s / self.bleach_s) * self.tissue.transmission * moved


def shift(volume: Float[Array, "z y x"], by: Float[Array, "3"]) -> Float[Array, "z y x"]:
    """The volume x(r - by), displaced by voxels (z, y, x): linear interpolation, edge values repeated outside."""
    for axis in range(3):
        n = volume.shape[axis]
        at = jnp.clip(jnp.arange(n) - by[axis], 0, n - 1)
        low = jnp.clip(jnp.floor(at).astype(int), 0, max(n - 2, 0))
        part = jnp.expand_dims(at - low, [a for a in range(3) if a != axis])
        near, far = (jnp.take(volume, jnp.minimum(i, n - 1), axis=axis) for i in (low, low + 1))
        volume = (1 - part) * near + part * far
    return volume


def brain_motion(
    key: Array,
    frames: int,
    frame_s: float,
    *,
    heart_um: float = 0.5,
    breath_um: float = 1.0,
    drift_um: float = 0.5,
    axial: float = 0.5,
) -> Float[Array, "t 3"]:
    """Displacements (z, y, x) in um of the brain by heartbeat, breath, and a random drift.

    Args:
        key: random key of directions, phases and drift.
        frames: t.
        frame_s: time per frame.
        heart_um: amplitude of the motion with the heartbeat (assumed). That heartbeat and breath move the brain visibly under
            a two-photon microscope is shown by Paukert & Bergles, J. Physiol. 590, 2955 (2012).
        breath_um: amplitude of the motion with the breath (assumed).
        drift_um: standard deviation of the random walk after a minute (assumed).
        axial: size of the z component relative to the lateral ones (assumed).
    """
    require(isinstance(frames, int) and frames >= 1, "frames", frames, "a whole number, 1 or more")
    for name, value in (("heart_um", heart_um), ("breath_um", breath_um), ("drift_um", drift_um), ("axial", axial)):
        require(0 <= value < math.inf, name, value, "zero or more")
    amplitudes = np.array([heart_um, breath_um], np.float32)
    return _motion(key, frames, frame_s, amplitudes, drift_um, axial)


@partial(jax.jit, static_argnums=1)
def _motion(
    key: Array, frames: int, frame_s: Array, amplitudes_um: Float[Array, "2"], drift_um: Array, axial: Array
) -> Float[Array, "t 3"]:
    """`brain_motion`, whose amplitudes of heartbeat and breath are one array."""
    directions, phases, walk = jax.random.split(key, 3)
    weight = jnp.stack([jnp.asarray(axial, jnp.result_type(float)), 1.0, 1.0])
    along = jax.random.normal(directions, (2, 3)) * weight
    along = along / jnp.linalg.norm(along, axis=1, keepdims=True)
    t = jnp.arange(frames)[:, None] * frame_s
    waves = 2 * jnp.pi * (jnp.asarray([HEART_HZ, BREATH_HZ]) * t + jax.random.uniform(phases, (2,)))
    cycles = jnp.sin(waves) * amplitudes_um
    drift = jnp.cumsum(jax.random.normal(walk, (frames, 3)), axis=0) * jnp.sqrt(frame_s / 60) * drift_um
    return cycles @ along + drift * weight
