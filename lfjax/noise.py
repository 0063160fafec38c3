"""The camera: expected photons to digital numbers, and back."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, UInt32

from lfjax.errors import require

MOST_ELECTRONS = 2.0**30  # beyond any full well; keeps Poisson samples within int32


class Camera(eqx.Module):
    """A scientific camera: shot noise, read noise, gain, offset, quantisation and saturation.

        electrons = Poisson(QE photons) + Normal(0, read_noise)
        dn = clip(round(electrons / gain + offset), 0, 2^bits - 1)

    so that, away from the limits, mean = QE photons / gain + offset and
    var = (QE photons + read_noise^2) / gain^2 + 1/12, the photon transfer curve (Janesick, Photon Transfer, SPIE 2007).
    The defaults are those of an ordinary sCMOS camera.

    Args:
        quantum_efficiency: electrons per photon, QE, in (0, 1].
        read_noise_e: standard deviation of the read noise in electrons.
        gain_e_per_dn: electrons per digital number.
        offset_dn: digital number of a pixel without light.
        bits: bits of the converter, 1 to 24, since float32 holds whole numbers up to 24 bits.

    Raises:
        ParameterError: a value out of range.
    """

    quantum_efficiency: Float[ArrayLike, ""] = 0.8
    read_noise_e: Float[ArrayLike, ""] = 1.5
    gain_e_per_dn: Float[ArrayLike, ""] = 0.5
    offset_dn: Float[ArrayLike, ""] = 100.0
    bits: int = eqx.field(static=True, default=16)

    def __check_init__(self) -> None:
        qe, read, gain, offset = self.quantum_efficiency, self.read_noise_e, self.gain_e_per_dn, self.offset_dn
        whole = isinstance(self.bits, int) and 1 <= self.bits <= 24
        require(whole, "bits", self.bits, "a whole number from 1 to 24")
        if isinstance(qe, (int, float)):  # values of tracers are unknown
            require(0 < qe <= 1, "quantum_efficiency", qe, "a fraction above 0, at most 1")
        if isinstance(read, (int, float)):
            require(math.isfinite(read) and read >= 0, "read_noise_e", read, "zero or more electrons")
        if isinstance(gain, (int, float)):
            require(math.isfinite(gain) and gain > 0, "gain_e_per_dn", gain, "a positive number")
        if isinstance(offset, (int, float)):
            require(0 <= offset <= self.maximum_dn, "offset_dn", offset, f"a number from 0 to {self.maximum_dn}")

    @property
    def maximum_dn(self) -> int:
        """Largest digital number, 2^bits - 1."""
        return 2**self.bits - 1

    def expose(self, key: Array, photons: ArrayLike) -> Integer[Array, "..."]:
        """One noisy exposure.

        Args:
            key: random key; the same key gives the same frame.
            photons: expected photons per pixel, any shape; negative values count as zero.

        Returns:
            Digital numbers of the same shape, uint16 up to 16 bits and uint32 above.
        """
        values = (self.quantum_efficiency, self.read_noise_e, self.gain_e_per_dn, self.offset_dn, self.maximum_dn)
        return _expose(key, photons, *values).astype(jnp.uint16 if self.bits <= 16 else jnp.uint32)

    def photons(self, dn: ArrayLike) -> Float[Array, "..."]:
        """Photons that digital numbers stand for, (dn - offset) gain / QE; unbiased, hence negative at times."""
        electrons = (jnp.asarray(dn, jnp.result_type(float)) - self.offset_dn) * self.gain_e_per_dn
        return electrons / self.quantum_efficiency

    def saturated(self, dn: ArrayLike) -> Bool[Array, "..."]:
        """Pixels at the largest digital number, whose light is unknown."""
        return jnp.asarray(dn) >= self.maximum_dn


@jax.jit
def _expose(
    key: Array,
    photons: Array,
    efficiency: Array,
    read_noise_e: Array,
    gain_e_per_dn: Array,
    offset_dn: Array,
    maximum_dn: Array,
) -> UInt32[Array, "..."]:
    """`Camera.expose`; the numbers of the camera are arguments, so that all cameras share one program."""
    kind = jnp.result_type(float)
    shot_key, read_key = jax.random.split(key)
    photons = jnp.asarray(photons, kind)
    # Drawn flat: the numbers are the same, and XLA compiles a draw of many axes several times more slowly.
    mean = jnp.clip(efficiency * photons.ravel(), 0, MOST_ELECTRONS)
    electrons = jax.random.poisson(shot_key, mean).astype(kind)
    electrons = electrons + read_noise_e * jax.random.normal(read_key, mean.shape, kind)
    dn = jnp.round(electrons / gain_e_per_dn + offset_dn).reshape(photons.shape)
    return jnp.clip(dn, 0, maximum_dn).astype(jnp.uint32)
