"""Projections on several devices: each device holds its own poses and images, all hold the volume.

>>> import jax, jax.numpy as jnp
>>> from lfjax import parallel, rotation
>>> from lfjax.tomography.fourier_slice import FourierSlice
>>> mesh = parallel.mesh()
>>> A = Sharded(FourierSlice(rotation.random_rotations(jax.random.key(0), 8 * mesh.size), 8), mesh)
>>> A.T(A(jnp.ones((8, 8, 8)))).shape
(8, 8, 8)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from lfjax.errors import require
from lfjax.linop import LinearOperator, Shape
from lfjax.parallel import WHOLE, spread


class Sharded(LinearOperator):
    """An operator from a volume to images, such as `FourierSlice` or `Rays`, on the devices of a mesh.

    The forward operator needs no communication, its transpose one sum of volumes (`jax.lax.psum`).

    Attributes:
        op: operator; the leading axis of each of its arrays counts the images.
        mesh: mesh of one axis, see `parallel.mesh`; None: the default device.
    """

    op: LinearOperator
    mesh: Mesh | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if self.mesh is None:
            return
        spread(self.mesh)  # raises unless the mesh has one axis
        count = self.op.out_shape[0]
        require(count % self.mesh.size == 0, "op", f"{count} images", f"a multiple of the {self.mesh.size} devices")
        shapes = {leaf.shape[:1] for leaf in jax.tree.leaves(self.op)}
        require(shapes == {(count,)}, "op", f"arrays with leading axes {shapes}", f"one per image, {count}, in all")

    @property
    def in_shape(self) -> Shape:
        """Shape of the volume."""
        return self.op.in_shape

    @property
    def out_shape(self) -> Shape:
        """(images, ...)."""
        return self.op.out_shape

    def matvec(self, volume: Array) -> Array:
        """The images, each on the device of its pose."""
        return self.op.matvec(volume) if self.mesh is None else _project(self.mesh, self.op, volume)

    def rmatvec(self, images: Array) -> Array:
        """The sum of all back-projections, on every device."""
        return self.op.rmatvec(images) if self.mesh is None else _backproject(self.mesh, self.op, images)


@partial(jax.jit, static_argnums=0)
def _project(mesh: Mesh, op: LinearOperator, volume: Array) -> Array:
    return _on_each(mesh, lambda op, v: op.matvec(v), WHOLE, spread(mesh))(op, volume)


@partial(jax.jit, static_argnums=0)
def _backproject(mesh: Mesh, op: LinearOperator, images: Array) -> Array:
    def back(op: LinearOperator, y: Array) -> Array:
        return jax.lax.psum(op.rmatvec(y), mesh.axis_names[0])

    return _on_each(mesh, back, spread(mesh), WHOLE)(op, images)


def _on_each(
    mesh: Mesh, function: Callable[[LinearOperator, Array], Array], given: PartitionSpec, out: PartitionSpec
) -> Callable[[LinearOperator, Array], Array]:
    return jax.shard_map(function, mesh=mesh, in_specs=(spread(mesh), given), out_specs=out, check_vma=False)
