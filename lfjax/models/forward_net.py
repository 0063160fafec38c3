"""A fast surrogate of H: a chain of short linear convolutions, fitted to H's images of single voxels."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax._lazy import load
from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.models.convolution import convolve, impulse_kernels, random_kernel
from lfjax.optics.lightfield import views

if TYPE_CHECKING:
    import optax

CHUNK = 50  # optimiser steps per compiled call, between two updates of the progress bar
Kernels = tuple[Float[Array, "3 3 _ _"], ...]


class LinearForwardNet(LinearOperator):
    """H~ x = C_L * ... * C_1 * x, kernels of 3 x 3 lenslets, no bias and no activation: a `LinearOperator` like H.

    L kernels reach L lenslets, so L should be at least the reach of H's point-spread function. H~ has no margin: the volume
    outside the field is taken as dark.

    Attributes:
        kernels: kernels of the chain, (3, 3, in, out) each.
        depths: D.
        field: lenslets (Y, X).
        cell_voxels: voxels (y, x) per lenslet.
        cell_pixels: pixels (y, x) per lenslet.
        error: |H~ - H| / |H| over the images of all voxels of a lenslet, measured at the end of the fit.

    Source: the light-field loss of Verinaz-Jadan et al., IEEE Trans. Comput. Imaging (2023).
    """

    kernels: Kernels
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
        """Fit a chain to an operator by least squares over all of its impulses, by Adam with a cosine schedule. Needs Optax.

        Args:
            op: H, or any composition with it that is a convolution on the lenslet grid.
            cell_voxels: `LightField.cell_voxels`.
            cell_pixels: `LightField.cell_pixels`.
            layers: L.
            width: channels between two kernels.
            steps: steps of Adam.
            learning_rate: learning rate of the first step; it falls to zero as a cosine.
            key: random key of the initial kernels; None: a fixed one.
            track: see `lfjax.progress.track`.

        Returns:
            The chain, for the field of `op` without its margin; `error` tells how well it fits.

        Raises:
            ParameterError: a number below 1, or a field too small to hold the image of an impulse.
            ModuleNotFoundError: Optax is not installed.
        """
        for name, number in (("layers", layers), ("width", width), ("steps", steps)):
            require(isinstance(number, int) and number >= 1, name, number, "a whole number, 1 or more")
        field = (op.out_shape[0] // cell_pixels[0], op.out_shape[1] // cell_pixels[1])
        reach = (min(field) - 1) // 2
        require(reach >= layers, "layers", layers, f"at most {reach}, for which op's field has room")
        target, energy = _target(op, cell_voxels, cell_pixels, reach, layers)
        kernels = _start(jax.random.key(0) if key is None else key, layers, width, target)
        optax = load("optax")
        optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
        state = jax.jit(optimiser.init)(kernels)
        advance = jax.jit(partial(_advance, optimiser), static_argnums=4)
        counts = [min(CHUNK, steps - done) for done in range(0, steps, CHUNK)]
        for count in track(counts, f"fitting {layers} linear layers") if track else counts:
            kernels, state = advance(target, energy, kernels, state, count)
        error = math.sqrt(float(jax.jit(_misfit)(kernels, target, energy)))
        return cls(kernels, op.in_shape[0], field, cell_voxels, cell_pixels, error)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return (self.depths, self.cell_voxels[0] * self.field[0], self.cell_voxels[1] * self.field[1])

    @property
    def out_shape(self) -> tuple[int, int]:
        return (self.cell_pixels[0] * self.field[0], self.cell_pixels[1] * self.field[1])

    def matvec(self, x: Float[Array, "z y x"]) -> Float[Array, "row col"]:
        seen = _chain(self.kernels, views.to_channels(x, self.cell_voxels).transpose(1, 2, 0))
        return views.from_views(seen.transpose(2, 0, 1).reshape(*self.cell_pixels, *self.field))


def _chain(kernels: Kernels, x: Float[Array, "Y X c"]) -> Float[Array, "Y X p"]:
    for kernel in kernels:
        x = convolve(x, kernel)
    return x


@eqx.filter_jit
def _target(
    op: LinearOperator, cell_voxels: tuple[int, int], cell_pixels: tuple[int, int], reach: int, layers: int
) -> tuple[Float[Array, "c Y X p"], Float[Array, ""]]:
    """H's images of the voxels of one lenslet, as far as the chain reaches, and their whole energy."""
    images = jnp.flip(impulse_kernels(op, cell_voxels, cell_pixels, reach), (0, 1)).transpose(2, 0, 1, 3)
    inner = slice(reach - layers, reach + layers + 1)
    return images[:, inner, inner], jnp.sum(images**2)


def _misfit(kernels: Kernels, target: Float[Array, "c Y X p"], energy: Float[Array, ""]) -> Float[Array, ""]:
    """|H~ - H|^2 / |H|^2 over all impulses, with the energy beyond the reach of the chain."""
    channels, side, _, _ = target.shape
    impulses = jnp.zeros((channels, side, side, channels)).at[:, side // 2, side // 2].set(jnp.eye(channels))
    images = jax.vmap(lambda x: _chain(kernels, x))(impulses)
    return (energy - jnp.sum(target**2) + jnp.sum((images - target) ** 2)) / energy


def _advance(
    optimiser: optax.GradientTransformation,
    target: Float[Array, "c Y X p"],
    energy: Float[Array, ""],
    kernels: Kernels,
    state: optax.OptState,
    count: int,
) -> tuple[Kernels, optax.OptState]:
    """`count` steps of the optimiser."""

    def step(carry: tuple[Kernels, optax.OptState], _: None) -> tuple[tuple[Kernels, optax.OptState], None]:
        kernels, state = carry
        updates, state = optimiser.update(jax.grad(_misfit)(kernels, target, energy), state)
        return (jax.tree.map(jnp.add, kernels, updates), state), None

    return jax.lax.scan(step, (kernels, state), None, length=count)[0]


@eqx.filter_jit
def _start(key: Array, layers: int, width: int, target: Float[Array, "c Y X p"]) -> Kernels:
    """Kernels that pass on the strongest components of the volume's channels, plus a little noise."""
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
