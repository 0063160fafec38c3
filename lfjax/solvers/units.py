"""Units of a problem's data and weights: powers of two, by which numbers are divided and multiplied without rounding."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST = 100  # exponent of the largest unit, and minus that of the smallest: 1 / unit is then an ordinary number too


class Units(NamedTuple):
    """Units in which a solver computes.

    Attributes:
        data: that of the data y, of their image H x and of the volume x.
        weights: that of the weights w.
    """

    data: Float[Array, ""]
    weights: Float[Array, ""]

    def of(self, powers: tuple[int, int]) -> float:
        """The unit data^a weights^b of a number with powers (a, b), in 64 bits. Call it outside of jit."""
        return float(self.data) ** powers[0] * float(self.weights) ** powers[1]


def power_of_two(size: Float[Array, ""]) -> Float[Array, ""]:
    """The largest power of two that is not above `size`, from 2^-100 to 2^100; 1 where `size` is 0, NaN or infinite.

    Dividing by it changes the exponent of a number and no digit. Its derivative is taken as zero, which is exact wherever the
    unit cancels in the result.

    Args:
        size: zero or more.
    """
    size = jax.lax.stop_gradient(size)
    bits = jnp.finfo(size.dtype)
    whole = jax.lax.bitcast_convert_type(size, jnp.dtype(f"uint{bits.bits}"))
    power = jax.lax.bitcast_convert_type(whole >> bits.nmant << bits.nmant, size.dtype)  # the mantissa becomes 1
    ordinary = (power > 0) & jnp.isfinite(power)
    return jnp.where(ordinary, jnp.clip(power, 2.0**-LARGEST, 2.0**LARGEST), 1)


def rms(y: Float[Array, "..."]) -> Float[Array, ""]:
    """Root mean square of y, never zero; its squares neither overflow nor vanish, whatever the unit of y."""
    unit = power_of_two(jnp.max(jnp.abs(y)))
    return unit * jnp.sqrt(jnp.mean((y / unit) ** 2) + jnp.finfo(y.dtype).tiny)
