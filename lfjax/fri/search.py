"""Alternating projection on a grid: a start for maximum likelihood where algebra breaks down."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lfjax.errors import require, require_shape


@eqx.filter_jit
def alternating_projection(
    dictionary: Float[Array, "g n"], samples: Float[Array, " n"], count: int, *, cycles: int = 8
) -> Int[Array, " k"]:
    """Grid points whose atoms explain the samples best: chosen one after another, then each again given the others.

    Each step takes the atom with the largest |<d, y>|^2 / |d|^2 after the span of the other atoms is projected out of both:
    the misfit never rises (Ziskind & Wax, IEEE Trans. Acoust. 36, 1553 (1988)).

    Args:
        dictionary: one atom d per grid point.
        samples: y.
        count: K, the number of atoms.
        cycles: number of passes over all K atoms after the first.

    Returns:
        Indices of the grid points.
    """
    require_shape("dictionary", dictionary.shape, ("g", samples.shape[0]))
    require(1 <= count <= min(dictionary.shape), "count", count, f"1 to {min(dictionary.shape)}")
    energy = jnp.sum(dictionary**2, axis=1)

    def best(chosen: Array, fixed: Array) -> Array:
        """The best grid point beside those atoms of `chosen` that `fixed` marks."""
        atoms = dictionary[chosen] * fixed[:, None]
        gram = atoms @ atoms.T + jnp.diag(jnp.where(fixed > 0, 0.0, 1.0)) + 1e-10 * energy.max() * jnp.eye(count)
        unexplained = samples - jnp.linalg.solve(gram, atoms @ samples) @ atoms
        shared = dictionary @ atoms.T
        rest = energy - jnp.sum(shared * jnp.linalg.solve(gram, shared.T).T, axis=1)
        score = jnp.where(rest > 1e-6 * energy, (dictionary @ unexplained) ** 2 / jnp.where(rest > 0, rest, 1), 0)
        return jnp.argmax(score)

    def replace(step: Array, chosen: Array) -> Array:
        k = step % count
        index = jnp.arange(count)
        fixed = jnp.where(step < count, index < k, index != k).astype(dictionary.dtype)
        return chosen.at[k].set(best(chosen, fixed))

    return jax.lax.fori_loop(0, count * (cycles + 1), replace, jnp.zeros(count, int))
