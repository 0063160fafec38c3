"""The data term of physics: H^T (H x - y), with H fixed or trained."""

from __future__ import annotations

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.models.frozen import Frozen
from lfjax.solvers import Problem


class Physics(eqx.Module):
    """g(x; y) = H^T (H x - y), the gradient of 1/2 |y - H x|^2.

    Attributes:
        op: H, volume (z, y, x) -> light field (row, col): `Frozen(H)`, or H itself, whose arrays are then trained.
        step_size: tau = 1 / |H|^2.
        cell_voxels: voxels (y, x) per lenslet; thresholds repeat with this period.
        margin: lenslets on each side of H's volume that are estimated, to explain light from outside, and then cut off.
    """

    op: LinearOperator | Frozen
    step_size: Frozen
    cell_voxels: tuple[int, int] = eqx.field(static=True)
    margin: int = eqx.field(static=True)

    def __init__(
        self, op: LinearOperator, cell_voxels: tuple[int, int], *, margin: int = 0, learn_operator: bool = False
    ) -> None:
        """Build the data term; |H| comes from power iteration.

        Args:
            op: H, any composition of operators.
            cell_voxels: `LightField.cell_voxels`.
            margin: `LightField.margin`.
            learn_operator: whether the arrays of H are trained.

        Raises:
            ParameterError: H's volume is not a whole number of cells.
        """
        whole = all(n % s == 0 for n, s in zip(op.in_shape[1:], cell_voxels, strict=True))
        require(whole, "cell_voxels", cell_voxels, f"a divisor of the volume's sides {op.in_shape[1:]}")
        self.op = op if learn_operator else Frozen(op)
        self.step_size = Frozen(_step_size(op))
        self.cell_voxels, self.margin = cell_voxels, margin

    @property
    def operator(self) -> LinearOperator:
        """H."""
        return self.op.value if isinstance(self.op, Frozen) else self.op

    @property
    def channels(self) -> int:
        """D s^2, the number of voxels per lenslet."""
        return self.operator.in_shape[0] * math.prod(self.cell_voxels)

    @property
    def out_shape(self) -> tuple[int, int]:
        """Shape of the light field."""
        rows, columns = self.operator.out_shape
        return rows, columns

    def start(self, y: Float[Array, "row col"]) -> tuple[Float[Array, "z y x"], Problem, None]:
        return jnp.zeros(self.operator.in_shape, y.dtype), Problem(self.operator, y), None

    def layers(self) -> None:
        return None

    def gradient(self, layer: None, x: Float[Array, "z y x"], known: Problem, code: None) -> tuple[Float[Array, "z y x"], None]:
        return known.gradient(known.op.matvec(x)), None

    def spread(self, per_channel: Float[Array, " c"]) -> Float[Array, "z y x"]:
        depths, rows, columns = self.operator.in_shape
        (a, b) = self.cell_voxels
        return jnp.tile(per_channel.reshape(depths, a, b), (1, rows // a, columns // b))

    def volume(self, x: Float[Array, "z y x"]) -> Float[Array, "z h w"]:
        (_, rows, columns), (y, left) = x.shape, (self.margin * s for s in self.cell_voxels)
        return x[:, y : rows - y, left : columns - left]


@eqx.filter_jit
def _step_size(op: LinearOperator) -> Float[Array, ""]:
    return 1 / Problem(op, jnp.zeros(op.out_shape)).lipschitz()
