"""Batches over devices and processes: one device, eight, or a cluster, and the same results.

Only batches are spread (frames of a movie, particles, samples): each device holds the whole operator or model, so nothing is
communicated on the way forward. `pmap` is not used; `jax.shard_map` took its place.

    >>> import jax.numpy as jnp
    >>> over_batch(lambda x: 2 * x, jnp.arange(5.0), mesh=mesh()).tolist()
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

from lfjax.errors import require

BATCH = "batch"
WHOLE = PartitionSpec()  # of what every device holds


def mesh(devices: int | Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis, "batch", over devices of this process.

    Args:
        devices: how many of `jax.local_devices()`, or which; all if not given.

    Raises:
        ParameterError: more than there are.
    """
    local = jax.local_devices()
    chosen: Sequence[Any] = local
    if isinstance(devices, int):
        require(1 <= devices <= len(local), "devices", devices, f"1 to {len(local)}, the devices of this process")
        chosen = local[:devices]
    elif devices is not None:
        chosen = devices
    return Mesh(np.array(chosen), (BATCH,), axis_types=(AxisType.Auto,))


def spread(mesh: Mesh) -> PartitionSpec:
    """Of arrays whose leading axis is spread over a mesh.

    Raises:
        ParameterError: a mesh of more than one axis.
    """
    require(len(mesh.axis_names) == 1, "mesh", mesh.axis_names, "one axis")
    return PartitionSpec(mesh.axis_names[0])


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """The arrays of a tree on every device of a mesh; as they are without one."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, WHOLE))


def unreplicate(tree: Any, mesh: Mesh | None) -> Any:
    """The arrays that `replicate` put on a mesh, free to be used on any device again; as they are without one."""
    return tree if mesh is None else jax.tree.map(jnp.asarray, jax.device_get(tree))


def over_batch(
    function: Callable[[Any], Any], items: Any, *, mesh: Mesh | None = None, batch_size: int = 1, checkpoint: bool = False
) -> Any:
    """`function` of every item along the leading axis, the items spread over the devices of a mesh.

    Each device works through its share by `jax.lax.map`, `batch_size` items at a time, so that memory does not grow with the
    number of items. If that is no multiple of the devices, the last item is repeated and what comes of it dropped.

    Args:
        function: of one item; an Equinox module, or a function whose arrays are constants.
        items: array, or arrays in a tree, (n, ...).
        mesh: of one axis; None is the device at hand.
        batch_size: items at once on each device.
        checkpoint: whether gradients compute each item again instead of keeping what is between.

    Returns:
        (n, ...) of what the function returns; on a mesh, spread over it.

    Raises:
        ParameterError: a mesh of more than one axis, or no items.
    """
    return over_shares(_OneByOne(function, batch_size, checkpoint), items, mesh=mesh)


def over_shares(function: Callable[[Any], Any], items: Any, *, mesh: Mesh | None = None) -> Any:
    """`function` of all items at once, (n, ...) -> (n, ...), each device seeing its share of them.

    Args:
        function: of a block of items, each treated by itself; an Equinox module, or a function whose arrays are constants.
        items: array, or arrays in a tree, (n, ...).
        mesh: of one axis; None is the device at hand.

    Returns:
        (n, ...) of what the function returns; on a mesh, spread over it.

    Raises:
        ParameterError: a mesh of more than one axis, or no items.
    """
    count = len(jax.tree.leaves(items)[0])
    require(count >= 1, "items", count, "1 or more")
    return _over_shares(function, items, mesh)


class _OneByOne(eqx.Module):
    """A block of items by `jax.lax.map`."""

    function: Any
    batch_size: int = eqx.field(static=True)
    checkpoint: bool = eqx.field(static=True)

    def __call__(self, items: Any) -> Any:
        def one(item: Any) -> Any:  # JAX hashes functions, and modules hash their arrays
            return self.function(item)

        some = self.batch_size if self.batch_size > 1 else None  # batches of one would be a copy of all items
        return jax.lax.map(jax.checkpoint(one) if self.checkpoint else one, items, batch_size=some)


@eqx.filter_jit
def _over_shares(function: Any, items: Any, mesh: Mesh | None) -> Any:
    if mesh is None:
        return function(items)
    arrays, fixed = eqx.partition(function, eqx.is_array)
    count = len(jax.tree.leaves(items)[0])
    missing = -count % mesh.size
    if missing:
        items = jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], missing, axis=0)]), items)
    out = spread(mesh)

    def share(arrays: Any, items: Any) -> Any:
        return eqx.combine(arrays, fixed)(items)

    each = jax.shard_map(share, mesh=mesh, in_specs=(WHOLE, out), out_specs=out, check_vma=False)
    return jax.tree.map(lambda a: a[:count], each(arrays, items)) if missing else each(arrays, items)


class Process(NamedTuple):
    """Which of several processes this is.

    Attributes:
        number: from 0.
        processes: in all.
    """

    number: int = 0
    processes: int = 1

    def owns(self, chunk: int) -> bool:
        """Whether a chunk of this number is this process's: they take turns."""
        return chunk % self.processes == self.number


def join(address: str | None = None, count: int | None = None, index: int | None = None) -> Process:
    """Join the other processes of a job; call it before anything else of JAX.

    Under SLURM (SLURM_NTASKS above 1) everything is found by itself; elsewhere give all three. One process alone needs nothing.
    A process that has a node of SLURM for itself gets all of its devices; of several on a node each gets one.

    Args:
        address: host:port of process 0.
        count: of processes.
        index: of this one.

    Raises:
        ParameterError: only some of the three are given.
    """
    given = [v is not None for v in (address, count, index)]
    require(all(given) or not any(given), "address, count, index", (address, count, index), "all three, or none")
    if address is not None and count is not None and index is not None:
        host, _, port = address.rpartition(":")
        require(bool(host) and port.isdigit(), "address", address, "host:port")
        require(0 <= index < count, "index", index, f"0 to count - 1 = {count - 1}")
    # JAX believes that under SLURM a process wants one device; an empty list stands for all
    alone = re.fullmatch(r"1([(]x[0-9]+[)])?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    own: list[int] | None = [] if alone else None
    if all(given):
        jax.distributed.initialize(address, count, index, own)
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        jax.distributed.initialize(local_device_ids=own)
    return Process(jax.process_index(), jax.process_count())
