"""The cost of a function: floating-point operations and bytes through memory, counted in its jaxpr without running it.

XLA's own `cost_analysis` does not serve. On JAX 0.10.2 it counts the body of a `scan` once whatever its length, and a real FFT
as about ten times its 2.5 n log2 n. It also needs a compilation on this machine, whose kernels differ from those of another.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array, PyTree

from lfjax.errors import ParameterError


@dataclasses.dataclass(frozen=True)
class Cost:
    """Work of a function; costs can be added, and scaled by numbers.

    Attributes:
        float32: flops in full precision: all that the next two do not count.
        tf32: flops of float32 products and convolutions at JAX's default precision, which processors may round: to tf32 on a
            GPU, to bfloat16 on a TPU.
        bfloat16: flops of products and convolutions of 16-bit numbers.
        bytes: bytes read from and written to memory.
    """

    float32: float = 0.0
    tf32: float = 0.0
    bfloat16: float = 0.0
    bytes: float = 0.0

    @property
    def flops(self) -> float:
        """Flops of all precisions."""
        return self.float32 + self.tf32 + self.bfloat16

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def __sub__(self, other: Cost) -> Cost:
        return self + -1 * other

    def __rmul__(self, number: float) -> Cost:
        return Cost(*(number * a for a in dataclasses.astuple(self)))

    def __truediv__(self, number: float) -> Cost:
        return 1 / number * self


def cost(function: Callable[..., PyTree], *arguments: PyTree) -> Cost:
    """Flops and bytes of a call, from shapes alone.

    Flops: 2 m n k for a product, twice the taps for each output of a convolution, 5 n log2 n for a complex transform and half
    of it for a real one, 1 for each element of any other result. A complex product takes 4 times the flops of a real one, an
    elementwise complex multiplication 6 and an addition 2. The body of a `scan` counts once per iteration; of a `cond`, the
    most expensive branch counts, and of `platform_dependent` the default branch, which is that of an accelerator.

    Bytes: products, convolutions and transforms read each argument and write each result once, as loops do in each iteration.
    Reductions write their result. The elementwise operations between them form one kernel per array produced, which reads the
    arrays that it depends on, or the part that is sliced out, once, and writes its result. Reshapes and transposes are free,
    updates happen in place, and caches hold nothing between kernels. XLA moves more bytes wherever it fuses less.

    Args:
        function: traceable by JAX.
        arguments: pytrees of arrays or `jax.ShapeDtypeStruct`; leaves of other types are constants.

    Raises:
        ParameterError: the function holds a loop of unknown length, a matrix factorisation, a `shard_map`, or a call into
            other code.
    """
    arrays, rest = eqx.partition(arguments, lambda leaf: isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)))

    def call(arrays: PyTree) -> list[Array]:
        return jax.tree.leaves(eqx.filter(function(*eqx.combine(arrays, rest)), eqx.is_array))

    return _Program(jax.make_jaxpr(call)(arrays)).cost()


@dataclasses.dataclass(frozen=True)
class _Array:
    """An array of a program; transposed or reshaped it keeps its identity."""

    number: int
    aval: ShapedArray

    @property
    def size(self) -> int:
        return math.prod(self.aval.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.aval.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class _Step:
    """One operation: arguments (None for a literal), results, and its JAX equation."""

    name: str
    arguments: tuple[_Array | None, ...]
    results: tuple[_Array, ...]
    eqn: JaxprEqn

    @property
    def inputs(self) -> set[_Array]:
        return {a for a in self.arguments if a is not None}


class _Program:
    """A jaxpr with its calls inlined and its dead code removed."""

    def __init__(self, closed: ClosedJaxpr) -> None:
        self._count = itertools.count()
        self.steps: list[_Step] = []
        self.stored: set[_Array] = set()
        inputs = [self._array(_shaped(v)) for v in (*closed.jaxpr.constvars, *closed.jaxpr.invars)]
        names = dict(zip((*closed.jaxpr.constvars, *closed.jaxpr.invars), inputs, strict=True))
        self.outputs = {a for a in self._inline(closed.jaxpr, names) if a is not None}
        needed, kept = set(self.outputs), []
        for step in reversed(self.steps):
            if needed & set(step.results):
                needed |= step.inputs
                kept.append(step)
        self.steps = kept[::-1]
        self.origin = {a: i for i, step in enumerate(self.steps) for a in step.results}
        self.stored |= set(inputs) | self.outputs
        for step in self.steps:
            if step.name in KERNELS:
                self.stored |= step.inputs
            if step.name in KERNELS or _reduces(step.name):
                self.stored |= set(step.results)
            if _updates(step.name) and step.arguments[0] is not None:
                self.stored |= {step.arguments[0], *step.results}

    def _array(self, aval: ShapedArray) -> _Array:
        return _Array(next(self._count), aval)

    def _inline(self, jaxpr: Jaxpr, names: dict[Var, _Array | None]) -> list[_Array | None]:
        """Append the steps of a jaxpr and return its results."""

        def array_of(variable: Var | Literal) -> _Array | None:
            return None if isinstance(variable, Literal) else names[variable]

        for eqn in jaxpr.eqns:
            arguments, inner = tuple(map(array_of, eqn.invars)), _called(eqn)
            if inner is not None:
                body, constants = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, [])
                made = [self._array(jax.typeof(c)) for c in constants]
                self.stored |= set(made)
                known: dict[Var, _Array | None] = dict(zip(body.constvars, made, strict=True))
                results = self._inline(body, known | dict(zip(body.invars, arguments, strict=True)))
                names |= dict(zip(eqn.outvars, results, strict=True))
            elif eqn.primitive.name in LAYOUT and _size(eqn.invars[0]) == _size(eqn.outvars[0]):
                names[eqn.outvars[0]] = arguments[0]
            else:
                outputs = tuple(self._array(_shaped(v)) for v in eqn.outvars)
                names |= dict(zip(eqn.outvars, outputs, strict=True))
                self.steps.append(_Step(eqn.primitive.name, arguments, outputs, eqn))
        return [array_of(v) for v in jaxpr.outvars]

    def cost(self) -> Cost:
        return sum((self._step_cost(step) for step in self.steps), Cost())

    def _step_cost(self, step: _Step) -> Cost:
        written = sum(a.nbytes for a in step.results if a in self.stored)
        if step.name in REFUSED:
            raise ParameterError(f"function holds {step.name}: expected products, transforms, and loops of known length")
        if step.name in ("scan", "cond"):
            return _control_cost(step)
        if step.name in KERNELS:
            return _kernel_flops(step) + Cost(bytes=sum(a.nbytes for a in step.inputs) + written)
        if _reduces(step.name):
            return Cost(_reduction_flops(step), bytes=self._read({a: a.size for a in step.inputs}) + written)
        if _updates(step.name):  # in place: only the updated part moves
            place, sums = 2 if step.name.startswith("scatter") else 1, step.name.startswith("scatter-")
            number, values = _size(step.eqn.invars[place]), step.arguments[place]
            read = 0.0 if values is None else self._read({values: number})
            return Cost(number * sums, bytes=read + (1 + sums) * number * step.results[0].aval.dtype.itemsize)
        made = [a for a in step.results if a in self.stored]
        read = sum(self._read({i: min(a.size, i.size) for i in step.inputs}) for a in made)
        return Cost(_element_flops(step), bytes=read + written)

    def _read(self, wanted: dict[_Array, int]) -> float:
        """Bytes to read from stored arrays to compute the given number of elements of each of these arrays."""
        total = 0.0
        while wanted:
            array = max(wanted, key=lambda a: self.origin.get(a, -1))  # latest first: its users have been visited
            elements = min(wanted.pop(array), array.size)
            if array in self.stored:
                total += elements * array.aval.dtype.itemsize
                continue
            for part in self.steps[self.origin[array]].inputs:
                wanted[part] = wanted.get(part, 0) + min(elements, part.size)
        return total


KERNELS = ("dot_general", "conv_general_dilated", "fft", "scan", "cond")
"""Operations that XLA fuses nothing into."""

LAYOUT = ("reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "slice", "pad", "copy", "copy_p")
"""Operations that keep the array, if they keep its size."""

REFUSED = (
    "while", "cholesky", "lu", "qr", "householder_product", "svd", "eigh", "eig", "schur", "triangular_solve",
    "tridiagonal_solve", "ffi_call", "pallas_call", "pure_callback", "io_callback", "shard_map",
)  # fmt: skip
"""Operations whose work the jaxpr does not show."""

NO_ARITHMETIC = (
    *LAYOUT, "concatenate", "split", "dynamic_slice", "gather", "rev", "select_n", "convert_element_type", "real", "imag",
    "complex", "conj", "iota", "bitcast_convert_type", "optimization_barrier", "platform_index", "random_bits",
)  # fmt: skip
"""Operations that count no flops: they move or convert data."""


def _called(eqn: JaxprEqn) -> Jaxpr | ClosedJaxpr | None:
    """The jaxpr that an equation calls once, or None."""
    if eqn.primitive.name in (*KERNELS, *REFUSED) or _reduces(eqn.primitive.name):
        return None
    return next((eqn.params[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in eqn.params), None)


def _shaped(variable: Var | Literal) -> ShapedArray:
    assert isinstance(variable.aval, ShapedArray)
    return variable.aval


def _size(variable: Var | Literal) -> int:
    return math.prod(_shaped(variable).shape)


def _inexact(array: _Array) -> bool:
    return bool(jnp.issubdtype(array.aval.dtype, jnp.inexact))


def _reduces(name: str) -> bool:
    return name.startswith(("reduce", "arg", "cum", "select_and", "sort")) and name != "reduce_precision"


def _updates(name: str) -> bool:
    return name.startswith("scatter") or name == "dynamic_update_slice"


def _control_cost(step: _Step) -> Cost:
    params = step.eqn.params
    if step.name == "scan":
        return params["length"] * _Program(params["jaxpr"]).cost()
    platforms, branches = params.get("branches_platforms"), params["branches"]
    if platforms is not None:
        return _Program(branches[platforms.index(None)] if None in platforms else branches[-1]).cost()
    return max((_Program(branch).cost() for branch in branches), key=lambda c: (c.flops, c.bytes))


def _kernel_flops(step: _Step) -> Cost:
    params, (first, *others), result = step.eqn.params, map(_shaped, step.eqn.invars), step.results[0].aval
    if step.name == "fft":
        n, kind = math.prod(params["fft_lengths"]), params["fft_type"].name
        number = math.prod(result.shape if kind == "IRFFT" else first.shape) / n
        return Cost((2.5 if "RFFT" in kind else 5) * n * math.log2(n) * number)
    if step.name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        taps: float = math.prod(first.shape[axis] for axis in contracted)
    else:
        kernel, spec = others[0].shape, params["dimension_numbers"].rhs_spec  # (out, in, space ...)
        taps = math.prod(kernel) / kernel[spec[0]] / math.prod(params["lhs_dilation"])
    flops = 2.0 * taps * math.prod(result.shape)
    kinds = {a.dtype.name for a in (first, *others)}
    if kinds <= {"bfloat16", "float16"}:
        return Cost(bfloat16=flops)
    if any(name.startswith("complex") for name in kinds):
        return Cost(4 * flops)
    precision = params["precision"]
    levels: Sequence[Any] = precision if isinstance(precision, tuple) else (precision,)
    default = kinds == {"float32"} and all(level in (None, jax.lax.Precision.DEFAULT) for level in levels)
    return Cost(tf32=flops) if default else Cost(flops)


def _reduction_flops(step: _Step) -> float:
    if "window_dimensions" in step.eqn.params:
        return float(step.results[0].size * math.prod(step.eqn.params["window_dimensions"]))
    return float(max((a.size for a in step.inputs if _inexact(a)), default=0))


def _element_flops(step: _Step) -> float:
    result = step.results[0]
    if step.name in NO_ARITHMETIC or not _inexact(result):
        return 0.0
    each = 1 if not jnp.issubdtype(result.aval.dtype, jnp.complexfloating) else 6 if step.name == "mul" else 2
    return float(each * result.size)
