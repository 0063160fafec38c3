"""A start for maximum likelihood where algebra breaks down: alternating projection on a grid."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lfjax.errors import require, require_shape


def alternating_projection(
    dictionary: Float[Array, "g n"], samples: Float[Array, " n"], count: int, *, cycles: int = 8
) -> Int[Array, " k"]:
    """Places on a grid whose atoms explain samples best: one after another, then each again given the others, in turns.

    Each step takes the atom with the largest |<d, y>|^2 / |d|^2 after what the others explain is taken out of both: the misfit
    never rises (Ziskind & Wax, IEEE Trans. Acoust. 36, 1553 (1988)).

    Args:
        dictionary: one row a place.
        samples: y.
        count: K.
        cycles: through all K.
    """
    require_shape("dictionary", dictionary.shape, ("g", samples.shape[0]))
    require(1 <= count <= min(dictionary.shape), "count", count, f"1 to {min(dictionary.shape)}")
    energy = jnp.sum(dictionary**2, axis=1)

    def best(chosen: Array, others: Array) -> Array:
        """The best place beside those of `chosen` that `others` marks."""
        atoms = dictionary[chosen] * others[:, None]
        gram = atoms @ atoms.T + jnp.diag(jnp.where(others > 0, 0.0, 1.0)) + 1e-10 * energy.max() * jnp.eye(count)
        left = samples - jnp.linalg.solve(gram, atoms @ samples) @ atoms
        shared = dictionary @ atoms.T
        rest = energy - jnp.sum(shared * jnp.linalg.solve(gram, shared.T).T, axis=1)
        score = jnp.where(rest > 1e-6 * energy, (dictionary @ left) ** 2 / jnp.where(rest > 0, rest, 1), 0)
        return jnp.argmax(score)

    def replace(step: Array, chosen: Array) -> Array:
        k = step % count
        places = jnp.arange(count)
        others = jnp.where(step < count, places < k, places != k).astype(dictionary.dtype)
        return chosen.at[k].set(best(chosen, others))

    return jax.lax.fori_loop(0, count * (cycles + 1), replace, jnp.zeros(count, int))
