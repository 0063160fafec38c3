"""How far to trust a reconstruction: its spread over symmetries or an ensemble, and frames unlike any seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lfjax.errors import require
from lfjax.training.losses import Forward, Reconstruct, dihedral


class Spread(NamedTuple):
    """Mean and standard deviation of several answers, voxel by voxel.

    Attributes:
        mean: (z, y, x); usually a better reconstruction than any one of them.
        deviation: (z, y, x), in the same units.
    """

    mean: Float[Array, "z y x"]
    deviation: Float[Array, "z y x"]


def ensemble(models: Sequence[Reconstruct], y: Float[Array, "y x"]) -> Spread:
    """Answers of networks trained from different seeds (Lakshminarayanan et al., NeurIPS 2017).

    Raises:
        ParameterError: fewer than two models.
    """
    require(len(models) >= 2, "models", len(models), "two or more")
    return _spread(jnp.stack([model(y) for model in models]))


def symmetries(model: Reconstruct, y: Float[Array, "y x"]) -> Spread:
    """Answers of one network to the flips and transposes of a frame, turned back: an ensemble at no cost in training.

    A mirror-symmetric microscope gives all eight the same right answer, so where they differ the network guesses. It is a
    lower bound on the error: what all eight get wrong together it does not see.
    """
    square = y.shape[0] == y.shape[1]
    turns = range(8 if square else 4)

    def answer(which: int) -> Array:
        back = {5: 6, 6: 5}.get(which, which)  # a transposed flip of y is undone by one of x
        return dihedral(model(dihedral(y, which)), back)

    return _spread(jnp.stack([answer(which) for which in turns]))


def _spread(answers: Float[Array, "n z y x"]) -> Spread:
    return Spread(answers.mean(0), answers.std(0, ddof=1))


class ResynthesisFlag(eqx.Module):
    """Tells frames that the volume does not explain as well as it explains frames of the kind trained on.

        e(y) = sum m (H f(y) - y)^2 / sum m max(y, 1)

    that is the misfit in units of shot noise; a frame is flagged if e is above the `quantile` of the calibration frames, times
    `slack`.

    Attributes:
        limit: largest e that passes.
        mask: pixels that count.
    """

    limit: Float[Array, ""]
    mask: Bool[Array, "y x"]

    @classmethod
    def calibrate(
        cls,
        model: Reconstruct,
        forward: Forward,
        frames: Float[Array, "t y x"],
        mask: Bool[Array, "y x"],
        *,
        quantile: float = 0.99,
        slack: float = 1.1,
    ) -> ResynthesisFlag:
        """Set the limit from frames like those trained on, in photons.

        Raises:
            ParameterError: `quantile` or `slack` out of range.
        """
        require(0 < quantile <= 1, "quantile", quantile, "a fraction above 0, at most 1")
        require(slack >= 1, "slack", slack, "1 or more")
        errors = jax.lax.map(lambda y: misfit(model, forward, y, mask), frames)
        return cls(slack * jnp.quantile(errors, quantile), mask)

    def __call__(self, model: Reconstruct, forward: Forward, y: Float[Array, "y x"]) -> Bool[Array, ""]:
        """Whether the frame is unlike those calibrated on."""
        return misfit(model, forward, y, self.mask) > self.limit


def misfit(
    model: Callable[[Array], Array], forward: Forward, y: Float[Array, "y x"], mask: Bool[Array, "y x"]
) -> Float[Array, ""]:
    """Squared re-synthesis error over shot noise, see `ResynthesisFlag`."""
    weight = mask.astype(y.dtype)
    return jnp.sum(weight * (forward(model(y)) - y) ** 2) / jnp.sum(weight * jnp.maximum(y, 1))
