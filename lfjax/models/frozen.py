"""Which arrays of a model are trained: all floating-point arrays except those inside `Frozen`."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import PyTree


class Frozen(eqx.Module):
    """Arrays that training leaves unchanged, such as a fixed H or a constant step size; they still go through jit and vmap."""

    value: PyTree


def trainable(model: PyTree) -> PyTree[bool]:
    """A pytree of booleans with the structure of `model`, True where an array is trained: a filter for `equinox.partition`."""

    def mark(node: PyTree) -> PyTree[bool]:
        if isinstance(node, Frozen):
            return jax.tree.map(lambda _: False, node)
        return eqx.is_inexact_array(node)

    return jax.tree.map(mark, model, is_leaf=lambda node: isinstance(node, Frozen))


def count_parameters(model: PyTree) -> int:
    """Number of scalar parameters that are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, trainable(model))))
