"""Which arrays of a model learn: all that are floating, but for those inside `Frozen`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax


class Frozen(eqx.Module):
    """Arrays that training leaves as they are: a fixed H, a constant step size. They still pass through jit and vmap."""

    value: Any


def trainable(model: Any) -> Any:
    """A pytree of booleans like `model`, true where an array learns: the filter for `equinox.partition`."""

    def mark(node: Any) -> Any:
        if isinstance(node, Frozen):
            return jax.tree.map(lambda _: False, node)
        return eqx.is_inexact_array(node)

    return jax.tree.map(mark, model, is_leaf=lambda node: isinstance(node, Frozen))


def count_parameters(model: Any) -> int:
    """Numbers that learn."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, trainable(model))))
