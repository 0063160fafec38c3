"""ISTA unfolded into a network: the classical proximal step, K times, with learned parameters."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import require_shape
from lfjax.models.convolution import scan_layers
from lfjax.solvers import proximal_step


@runtime_checkable
class DataTerm(Protocol):
    """How a network judges an estimate by the data: H^T (H x - y), or what was learned in its place.

    `Physics`, `Convolutional` and `Compressed` are the three; a class of yours with these members is a fourth. Twice y and
    twice x should be twice the gradient.
    """

    step_size: Any  # a `Frozen` number
    channels: int
    out_shape: tuple[int, int]  # of y; (0, 0) takes every whole number of lenslets

    def start(self, y: Float[Array, "y x"]) -> tuple[Array, Any, Any]:
        """The first estimate, what all layers know of y, and what they hand on from one to the next."""
        ...

    def layers(self) -> Any:
        """Parameters of the layers, with a leading axis K, or None if there are none."""
        ...

    def gradient(self, layer: Any, x: Array, known: Any, code: Any) -> tuple[Array, Any]:
        """What the step goes against, and what is handed on to the next layer."""
        ...

    def spread(self, per_channel: Float[Array, " c"]) -> Array:
        """One number a channel, so that it broadcasts against x."""
        ...

    def volume(self, x: Array) -> Float[Array, "z y x"]:
        """The estimate as a volume."""
        ...


class UnfoldedISTA(eqx.Module):
    """x^(k+1) = ReLU(z^k - tau_k g_k(z^k; y) - tau_k lambda_k),  z^k = x^k + mu_k (x^k - x^(k-1)),  k = 1 .. K.

    g is the data term, tau_k = step_k tau its step size and lambda_k one threshold for each of the D s^2 voxels of a lenslet.
    The layer is `solvers.proximal_step`: with `Physics`, and untrained, the network is K iterations of `solvers.ISTA`.

    Thresholds are in units of rms(y), so that twice the light is twice the volume, and a threshold of 0.01 means the same for a
    bright and a dim recording.

    Attributes:
        data_term: `Physics`, `Convolutional` or `Compressed`.
        step: (K,), factors of the data term's own step size; 1 untrained.
        threshold: (K, channels), lambda in units of rms(y).
        momentum: (K,), mu; None is none, FISTA's rising sequence is `fista_momentum`.
        checkpoint: keep about sqrt(K) estimates for the gradient instead of K, for one more forward pass.

    Source: Gregor & LeCun, ICML (2010); Verinaz-Jadan, Song, Howe, Foust, Dragotti, IEEE Trans. Comput. Imaging (2023).
    """

    data_term: DataTerm
    step: Float[Array, " k"]
    threshold: Float[Array, "k c"]
    momentum: Float[Array, " k"] | None
    checkpoint: bool = eqx.field(static=True)

    def __init__(
        self,
        data_term: DataTerm,
        layers: int,
        *,
        sparsity: float = 0.0,
        momentum: Float[Array, " k"] | None = None,
        checkpoint: bool = False,
    ) -> None:
        """Build an untrained network.

        Args:
            data_term: see the class.
            layers: K.
            sparsity: lambda to start from, in units of rms(y).
            momentum: mu_k to start from, one a layer.
            checkpoint: see the class.

        Raises:
            ShapeError: `momentum` is not one number a layer.
        """
        self.data_term = data_term
        self.step = jnp.ones(layers)
        self.threshold = jnp.full((layers, data_term.channels), float(sparsity))
        if momentum is not None:
            require_shape("momentum", jnp.shape(momentum), (layers,))
            momentum = jnp.asarray(momentum, self.step.dtype)
        self.momentum = momentum
        self.checkpoint = checkpoint

    @property
    def depth(self) -> int:
        """K, the number of layers."""
        return self.step.shape[0]

    def __call__(self, y: Float[Array, "y x"]) -> Float[Array, "z y x"]:
        """The volume of one rectified light field; frames go in batches through `jax.vmap`.

        Raises:
            ShapeError: not the light field that the data term is made for.
        """
        if self.data_term.out_shape != (0, 0):
            require_shape("y", jnp.shape(y), self.data_term.out_shape)
        unit = rms(y)
        x, known, code = self.data_term.start(y)

        def layer(carry: Any, parameters: Any) -> Any:
            x, before, code = carry
            own, step, threshold, momentum = parameters
            z = x if momentum is None else x + momentum * (x - before)
            slope, code = self.data_term.gradient(own, z, known, code)
            tau = step * self.data_term.step_size.value
            after = proximal_step(z, slope, tau, self.data_term.spread(unit * threshold))
            return after, (None if momentum is None else x), code

        carry = (x, None if self.momentum is None else x, code)
        layers = (self.data_term.layers(), self.step, self.threshold, self.momentum)
        x, _, _ = scan_layers(layer, carry, layers, checkpoint=self.checkpoint)
        return self.data_term.volume(x)


def rms(y: Array) -> Float[Array, ""]:
    """Root mean square, and never zero: the unit of light in which networks compute."""
    return jnp.sqrt(jnp.mean(y**2) + jnp.finfo(y.dtype).tiny)


def fista_momentum(layers: int) -> Float[Array, " k"]:
    """FISTA's (t_(k-1) - 1) / t_k: 0, 0.28, 0.43, ... towards 1."""

    def advance(clock: Array, _: None) -> tuple[Array, Array]:
        after = (1 + jnp.sqrt(1 + 4 * clock**2)) / 2
        return after, (clock - 1) / after

    return jax.lax.scan(advance, jnp.ones(()), None, length=layers)[1]
