"""A fast stand-in for H: a chain of short linear convolutions, fitted to H's images of single voxels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.models.convolution import convolve, impulse_kernels, random_kernel
from lfjax.optics.lightfield import views

CHUNK = 50  # optimiser steps between two signs of life


class LinearForwardNet(LinearOperator):
    """H~ x = C_L * ... * C_1 * x, kernels of 3 x 3 lenslets, no bias and no activation: a `LinearOperator` like H.

    L kernels reach L lenslets, so L should be at least the reach of H's point-spread function. H~ has no margin: what lies
    outside of the field is dark.

    Attributes:
        kernels: of the chain, (3, 3, in, out) each.
        depths: D.
        field: lenslets (Y, X).
        cell_voxels: voxels (y, x) of a lenslet.
        cell_pixels: pixels (y, x) of it.
        error: |H~ - H| / |H| over the images of all voxels of a lenslet, measured when it was fitted.

    Source: the light-field loss of Verinaz-Jadan et al., IEEE Trans. Comput. Imaging (2023).
    """

    kernels: tuple[Float[Array, "3 3 i o"], ...]
    depths: int = eqx.field(static=True)
    field: tuple[int, int] = eqx.field(static=True)
    cell_voxels: tuple[int, int] = eqx.field(static=True)
    cell_pixels: tuple[int, int] = eqx.field(static=True)
    error: float = eqx.field(static=True)

    @classmethod
    def fit(
        cls,
        op: LinearOperator,
        cell_voxels: tuple[int, int],
        cell_pixels: tuple[int, int],
        *,
        layers: int = 4,
        width: int = 96,
        steps: int = 1000,
        learning_rate: float = 3e-3,
        key: Array | None = None,
        track: Callable[..., Any] | None = None,
    ) -> LinearForwardNet:
        """Fit a chain to an operator by least squares over all of its impulses, with Adam and a falling learning rate.

        Args:
            op: H, or any composition with it that is a convolution on the lenslet grid.
            cell_voxels: `LightField.cell_voxels`.
            cell_pixels: `LightField.cell_pixels`.
            layers: L.
            width: channels between two kernels.
            steps: of Adam.
            learning_rate: at its highest.
            key: of the random start; a fixed one if not given.
            track: see `lfjax.progress.track`.

        Returns:
            The chain, for the field of `op` without its margin; `error` says how good it is.

        Raises:
            ParameterError: a number below 1, or a field too small to see an impulse whole.
        """
        for name, number in (("layers", layers), ("width", width), ("steps", steps)):
            require(isinstance(number, int) and number >= 1, name, number, "a whole number, 1 or more")
        field = (op.out_shape[0] // cell_pixels[0], op.out_shape[1] // cell_pixels[1])
        reach = (min(field) - 1) // 2
        require(reach >= layers, "layers", layers, f"at most {reach}, for which op's field has room")
        wanted = jnp.flip(impulse_kernels(op, cell_voxels, cell_pixels, reach), (0, 1)).transpose(2, 0, 1, 3)
        channels, rim = len(wanted), reach - layers
        target = wanted[:, rim : 2 * reach + 1 - rim, rim : 2 * reach + 1 - rim]  # as far as the chain can reach
        impulses = jnp.zeros((*target.shape[:3], channels)).at[:, layers, layers].set(jnp.eye(channels))
        energy = jnp.sum(wanted**2)
        beyond = (energy - jnp.sum(target**2)) / energy

        def misfit(kernels: tuple[Array, ...]) -> Array:
            return beyond + jnp.sum((jax.vmap(lambda x: _chain(kernels, x))(impulses) - target) ** 2) / energy

        kernels = _start(jax.random.key(0) if key is None else key, layers, width, target)
        optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

        @eqx.filter_jit
        def advance(kernels: Any, state: Any, count: int) -> Any:
            def step(carry: Any, _: None) -> tuple[Any, None]:
                kernels, state = carry
                updates, state = optimiser.update(jax.grad(misfit)(kernels), state)
                return (optax.apply_updates(kernels, updates), state), None

            return jax.lax.scan(step, (kernels, state), None, length=count)[0]

        state = optimiser.init(kernels)
        counts = [min(CHUNK, steps - done) for done in range(0, steps, CHUNK)]
        for count in track(counts, f"fitting {layers} linear layers") if track else counts:
            kernels, state = advance(kernels, state, count)
        error = math.sqrt(float(jax.jit(misfit)(kernels)))
        depths = op.in_shape[0]
        return cls(kernels, depths, field, cell_voxels, cell_pixels, error)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return (self.depths, self.cell_voxels[0] * self.field[0], self.cell_voxels[1] * self.field[1])

    @property
    def out_shape(self) -> tuple[int, int]:
        return (self.cell_pixels[0] * self.field[0], self.cell_pixels[1] * self.field[1])

    def matvec(self, x: Float[Array, "z y x"]) -> Float[Array, "y x"]:
        seen = _chain(self.kernels, views.to_channels(x, self.cell_voxels).transpose(1, 2, 0))
        return views.from_views(seen.transpose(2, 0, 1).reshape(*self.cell_pixels, *self.field))


def _chain(kernels: tuple[Array, ...], x: Float[Array, "Y X c"]) -> Float[Array, "Y X p"]:
    for kernel in kernels:
        x = convolve(x, kernel)
    return x


def _start(key: Array, layers: int, width: int, target: Float[Array, "c Y X p"]) -> tuple[Array, ...]:
    """Kernels that carry on the strongest components of the volume's channels, plus a little noise."""
    sizes = [target.shape[0], *[width] * (layers - 1), target.shape[-1]]
    left = jnp.linalg.svd(target.reshape(sizes[0], -1), full_matrices=False)[0]
    right = jnp.linalg.svd(target.reshape(-1, sizes[-1]), full_matrices=False)[2]
    scale = (jnp.linalg.norm(target) / math.sqrt(sizes[0])) ** (1 / layers)
    kernels = []
    for index, (i, o) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        kernel = random_kernel(jax.random.fold_in(key, index), (3, 3, i, o), 0.5)
        middle = left[:, :o] if index == 0 else right[:i] if index == layers - 1 else jnp.eye(i, o)
        rows, columns = min(i, middle.shape[0]), min(o, middle.shape[1])
        kernels.append(scale * kernel.at[1, 1, :rows, :columns].add(middle[:rows, :columns]))
    return tuple(kernels)
