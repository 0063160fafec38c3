"""ISTA unfolded into a network: the classical proximal step, K times, with learned parameters."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from lfjax.errors import require_shape
from lfjax.models.convolution import scan_layers
from lfjax.models.frozen import Frozen
from lfjax.solvers import momentum, proximal_step
from lfjax.solvers.units import rms


@runtime_checkable
class DataTerm(Protocol):
    """The interface of a network's data term: H^T (H x - y), or a learned substitute.

    `Physics`, `Convolutional` and `Compressed` implement it; any class of yours with these members works too. The gradient
    should be homogeneous: doubling both y and x doubles it.

    Attributes:
        step_size: a `Frozen` number, tau.
        channels: voxels per lenslet, D s^2.
        out_shape: shape of y; (0, 0): any whole number of lenslets.
    """

    step_size: Frozen

    @property
    def channels(self) -> int: ...

    @property
    def out_shape(self) -> tuple[int, int]: ...

    def start(self, y: Float[Array, "row col"]) -> tuple[Array, PyTree, PyTree]:
        """The first estimate, the data for all layers, and the state that each layer hands to the next."""
        ...

    def layers(self) -> PyTree:
        """Parameters of the layers, with a leading axis K; None: the layers have none."""
        ...

    def gradient(self, layer: PyTree, x: Array, known: PyTree, code: PyTree) -> tuple[Array, PyTree]:
        """The gradient at x, which the step descends, and the state for the next layer."""
        ...

    def spread(self, per_channel: Float[Array, " c"]) -> Array:
        """One number per channel, in a shape that broadcasts against x."""
        ...

    def volume(self, x: Array) -> Float[Array, "z y x"]:
        """The estimate as a volume."""
        ...


class UnfoldedISTA(eqx.Module):
    """x^(k+1) = ReLU(z^k - tau_k g_k(z^k; y) - tau_k lambda_k),  z^k = x^k + mu_k (x^k - x^(k-1)),  k = 1 .. K.

    g is the data term, tau_k = step_k tau its step size, and lambda_k holds one threshold for each of the D s^2 voxels of a
    lenslet. Each layer is `solvers.proximal_step`: an untrained network with `Physics` is K iterations of `solvers.ISTA`.

    Thresholds are in units of rms(y). Twice the light therefore gives twice the volume, and a threshold of 0.01 means the same
    for a bright and for a dim recording.

    Attributes:
        data_term: `Physics`, `Convolutional` or `Compressed`.
        step: (K,), factors of the data term's step size; 1 before training.
        threshold: (K, channels), lambda in units of rms(y).
        momentum: (K,), mu; None: no momentum. `fista_momentum` gives FISTA's rising sequence.
        checkpoint: whether the gradient keeps about sqrt(K) estimates instead of K, at the cost of one more forward pass.

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
        momentum: Float[ArrayLike, " k"] | None = None,
        checkpoint: bool = False,
    ) -> None:
        """Build an untrained network.

        Args:
            data_term: see the class.
            layers: K.
            sparsity: initial lambda, in units of rms(y).
            momentum: initial mu_k, one per layer.
            checkpoint: see the class.

        Raises:
            ShapeError: `momentum` is not one number per layer.
        """
        kind = jnp.result_type(float)
        self.data_term = data_term
        self.step = jnp.asarray(np.ones(layers, kind))
        self.threshold = jnp.asarray(np.full((layers, data_term.channels), sparsity, kind))
        if momentum is not None:
            require_shape("momentum", jnp.shape(momentum), (layers,))
            momentum = jnp.asarray(momentum, kind)
        self.momentum = momentum
        self.checkpoint = checkpoint

    @property
    def depth(self) -> int:
        """K, the number of layers."""
        return self.step.shape[0]

    @eqx.filter_jit
    def __call__(self, y: Float[Array, "row col"]) -> Float[Array, "z y x"]:
        """The volume of one rectified light field, compiled; batch frames by `jax.vmap`. NaN in y gives NaN in the volume.

        Raises:
            ShapeError: y does not have the shape that the data term needs.
        """
        if self.data_term.out_shape != (0, 0):
            require_shape("y", jnp.shape(y), self.data_term.out_shape)
        unit = rms(y)
        x, known, code = self.data_term.start(y)

        def layer(carry: PyTree, parameters: PyTree) -> PyTree:
            x, before, code = carry
            own, step, threshold, momentum = parameters
            z = x if momentum is None else x + momentum * (x - before)
            gradient, code = self.data_term.gradient(own, z, known, code)
            tau = step * self.data_term.step_size.value
            after = proximal_step(z, gradient, tau, self.data_term.spread(unit * threshold))
            return after, (None if momentum is None else x), code

        carry = (x, None if self.momentum is None else x, code)
        layers = (self.data_term.layers(), self.step, self.threshold, self.momentum)
        x, _, _ = scan_layers(layer, carry, layers, checkpoint=self.checkpoint)
        return self.data_term.volume(x)


@eqx.filter_jit
def fista_momentum(layers: int) -> Float[Array, " k"]:
    """FISTA's momentum (t_(k-1) - 1) / t_k for k = 1 .. `layers`: 0, 0.28, 0.43, ... towards 1."""
    return jax.lax.scan(lambda clock, _: momentum.advance(clock), jnp.ones(()), None, length=layers)[1]
