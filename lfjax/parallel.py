"""Batches spread over devices and processes: the same results on one device, eight, or a cluster.

Only batches are spread (frames of a movie, particles, samples). Each device holds the whole operator or model, so a forward
pass communicates nothing. The module uses `jax.shard_map`, not `pmap`.

    >>> import numpy as np
    >>> over_batch(lambda x: 2 * x, np.arange(5.0, dtype=np.float32), mesh=mesh()).tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0]
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from lfjax.errors import require

BATCH = "batch"
WHOLE = PartitionSpec()  # of arrays that every device holds whole


def mesh(devices: int | Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, "batch", over devices of this process.

    Args:
        devices: number of `jax.local_devices()` to use, or a list of devices; None: all of them.

    Raises:
        ParameterError: the process has fewer devices.
    """
    local = jax.local_devices()
    chosen: Sequence[jax.Device] = local
    if isinstance(devices, int):
        require(1 <= devices <= len(local), "devices", devices, f"1 to {len(local)}, the devices of this process")
        chosen = local[:devices]
    elif devices is not None:
        chosen = devices
    return Mesh(np.array(chosen), (BATCH,), axis_types=(AxisType.Auto,))


def spread(mesh: Mesh) -> PartitionSpec:
    """The partition of arrays whose leading axis is spread over a mesh.

    Raises:
        ParameterError: the mesh has more than one axis.
    """
    require(len(mesh.axis_names) == 1, "mesh", mesh.axis_names, "one axis")
    return PartitionSpec(mesh.axis_names[0])


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """The arrays of a tree, copied to every device of a mesh; unchanged if `mesh` is None."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, WHOLE))


def unreplicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """The inverse of `replicate`: arrays on the default device; unchanged if `mesh` is None."""
    return tree if mesh is None else jax.tree.map(jnp.asarray, jax.device_get(tree))


def over_batch(
    function: Callable[[Any], PyTree],
    items: PyTree,
    *,
    mesh: Mesh | None = None,
    batch_size: int = 1,
    checkpoint: bool = False,
) -> PyTree:
    """Apply a function to every item along the leading axis, the items spread over the devices of a mesh.

    Each device maps its share by `jax.lax.map`, `batch_size` items at a time, so that memory does not grow with the number of
    items. If this number is not a multiple of the devices, the last item is repeated and its surplus results are dropped.

    Args:
        function: item -> result, traceable; an Equinox module, or a function whose arrays are constants.
        items: array (n, ...), or a tree of such arrays.
        mesh: mesh of one axis; None: the default device.
        batch_size: items at once on each device.
        checkpoint: whether gradients recompute each item instead of storing its intermediate results.

    Returns:
        The results, (n, ...); spread over the mesh, if there is one.

    Raises:
        ParameterError: the mesh has more than one axis, or there are no items.
    """
    return over_shares(_ItemByItem(function, batch_size, checkpoint), items, mesh=mesh)


def over_shares(function: Callable[[Any], PyTree], items: PyTree, *, mesh: Mesh | None = None) -> PyTree:
    """Apply a function to blocks of items, (n, ...) -> (n, ...), one block on each device of a mesh.

    Args:
        function: block -> results, one per item and independent of the other items; an Equinox module, or a function whose
            arrays are constants.
        items: array (n, ...), or a tree of such arrays.
        mesh: mesh of one axis; None: the default device.

    Returns:
        The results, (n, ...); spread over the mesh, if there is one.

    Raises:
        ParameterError: the mesh has more than one axis, or there are no items.
    """
    count = len(jax.tree.leaves(items)[0])
    require(count >= 1, "items", count, "1 or more")
    return _over_shares(function, items, mesh)


class _ItemByItem(eqx.Module):
    """`jax.lax.map` of a function over a block of items."""

    function: Callable[[Any], PyTree]
    batch_size: int = eqx.field(static=True)
    checkpoint: bool = eqx.field(static=True)

    def __call__(self, items: PyTree) -> PyTree:
        def one(item: PyTree) -> PyTree:  # JAX hashes functions, and modules cannot hash their arrays
            return self.function(item)

        some = self.batch_size if self.batch_size > 1 else None  # batches of one would copy all items
        return jax.lax.map(jax.checkpoint(one) if self.checkpoint else one, items, batch_size=some)


@eqx.filter_jit
def _over_shares(function: Callable[[Any], PyTree], items: PyTree, mesh: Mesh | None) -> PyTree:
    if mesh is None:
        return function(items)
    arrays, fixed = eqx.partition(function, eqx.is_array)
    count = len(jax.tree.leaves(items)[0])
    missing = -count % mesh.size
    if missing:
        items = jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], missing, axis=0)]), items)
    out = spread(mesh)

    def share(arrays: PyTree, items: PyTree) -> PyTree:
        return eqx.combine(arrays, fixed)(items)

    each = jax.shard_map(share, mesh=mesh, in_specs=(WHOLE, out), out_specs=out, check_vma=False)
    return jax.tree.map(lambda a: a[:count], each(arrays, items)) if missing else each(arrays, items)


class Process(NamedTuple):
    """One of several processes of a job.

    Attributes:
        number: index of this process, from 0.
        processes: number of processes.
    """

    number: int = 0
    processes: int = 1

    def owns(self, chunk: int) -> bool:
        """Whether this process computes a chunk: chunks are assigned round-robin."""
        return chunk % self.processes == self.number


def join(address: str | None = None, count: int | None = None, index: int | None = None) -> Process:
    """Join the other processes of a job; call it before any other use of JAX.

    Under SLURM (SLURM_NTASKS above 1) JAX finds all three arguments itself; elsewhere give all three. A single process needs
    none. Under SLURM a process alone on its node uses all devices of the node; of several on a node each uses one.

    Args:
        address: host:port of process 0.
        count: number of processes.
        index: index of this process, from 0.

    Raises:
        ParameterError: some of the three are missing, or one is out of range.
    """
    given = [v is not None for v in (address, count, index)]
    require(all(given) or not any(given), "address, count, index", (address, count, index), "all three, or none")
    if address is not None and count is not None and index is not None:
        host, _, port = address.rpartition(":")
        require(bool(host) and port.isdigit(), "address", address, "host:port")
        require(0 <= index < count, "index", index, f"0 to count - 1 = {count - 1}")
    # under SLURM, JAX gives each process one device by default; an empty list means all
    alone = re.fullmatch(r"1([(]x[0-9]+[)])?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    own: list[int] | None = [] if alone else None
    if all(given):
        jax.distributed.initialize(address, count, index, own)
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        jax.distributed.initialize(local_device_ids=own)
    return Process(jax.process_index(), jax.process_count())
