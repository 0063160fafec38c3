"""Uncertainty of a reconstruction: its spread over symmetries or an ensemble, and detection of unfamiliar frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lfjax.errors import require
from lfjax.training.losses import Forward, Reconstruct, dihedral


class Spread(NamedTuple):
    """Mean and standard deviation of several reconstructions of a frame, voxel by voxel.

    Attributes:
        mean: (z, y, x); usually closer to the truth than any single reconstruction.
        deviation: (z, y, x), in the same units.
    """

    mean: Float[Array, "z y x"]
    deviation: Float[Array, "z y x"]


def ensemble(models: Sequence[Reconstruct], y: Float[Array, "row col"]) -> Spread:
    """Spread over networks trained from different seeds (Lakshminarayanan et al., NeurIPS 2017).

    Raises:
        ParameterError: fewer than two models.
    """
    require(len(models) >= 2, "models", len(models), "two or more")
    return _spread(jnp.stack([model(y) for model in models]))


def symmetries(model: Reconstruct, y: Float[Array, "row col"]) -> Spread:
    """Spread over one network's reconstructions of all flips and transposes of a frame, transformed back.

    It needs no further training, unlike an ensemble. For a mirror-symmetric microscope all eight have the same true volume, so
    where they differ the network is uncertain. The deviation is a lower bound on the error: it misses errors that all eight
    share. A field that is not square has four flips and no transposes.
    """
    inverses = jnp.asarray([0, 1, 2, 3, 4, 6, 5, 7])  # a transposed flip of y is undone by one of x

    def transformed(which: Int[Array, ""]) -> Float[Array, "z y x"]:
        return dihedral(model(dihedral(y, which)), inverses[which])

    return _spread(jax.lax.map(transformed, jnp.arange(8 if y.shape[0] == y.shape[1] else 4)))


def _spread(volumes: Float[Array, "n z y x"]) -> Spread:
    return Spread(volumes.mean(0), volumes.std(0, ddof=1))


class ResynthesisFlag(eqx.Module):
    """Flags frames that their reconstruction explains less well than it explains frames like those trained on.

        e(y) = sum m (H f(y) - y)^2 / sum m max(y, 1)

    is the misfit in units of shot noise. A frame is flagged if its e exceeds `slack` times the `quantile` of e over the
    calibration frames.

    Attributes:
        limit: largest e that is not flagged.
        mask: m, pixels that count.
    """

    limit: Float[Array, ""]
    mask: Bool[Array, "row col"]

    @classmethod
    def calibrate(
        cls,
        model: Reconstruct,
        forward: Forward,
        frames: Float[Array, "t row col"],
        mask: Bool[Array, "row col"],
        *,
        quantile: float = 0.99,
        slack: float = 1.1,
    ) -> ResynthesisFlag:
        """A flag whose limit comes from frames like those trained on, in photons.

        Raises:
            ParameterError: `quantile` or `slack` out of range.
        """
        require(0 < quantile <= 1, "quantile", quantile, "a fraction above 0, at most 1")
        require(slack >= 1, "slack", slack, "1 or more")
        errors = jax.lax.map(lambda y: misfit(model, forward, y, mask), frames)
        return cls(slack * jnp.quantile(errors, quantile), mask)

    def __call__(self, model: Reconstruct, forward: Forward, y: Float[Array, "row col"]) -> Bool[Array, ""]:
        """Whether a frame differs from the calibration frames."""
        return misfit(model, forward, y, self.mask) > self.limit


@eqx.filter_jit
def misfit(model: Reconstruct, forward: Forward, y: Float[Array, "row col"], mask: Bool[Array, "row col"]) -> Float[Array, ""]:
    """Squared re-synthesis error over shot noise, e of `ResynthesisFlag`."""
    weight = mask.astype(y.dtype)
    return jnp.sum(weight * (forward(model(y)) - y) ** 2) / jnp.sum(weight * jnp.maximum(y, 1))
