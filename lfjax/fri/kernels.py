"""Sampling kernels, and the coefficients with which their shifts reproduce polynomials and exponentials.

    samples y[n] = sum_k a_k phi(x_k / T - n),   sum_n c[n] phi(x - n) = f(x)   so   sum_n c[n] y[n] = sum_k a_k f(x_k / T)

(Dragotti, Vetterli & Blu, IEEE Trans. Signal Process. 55, 1741 (2007); approximately for any kernel: Uriguen, Blu & Dragotti,
IEEE Trans. Signal Process. 61, 5310 (2013).) Positions in this module are in units of the sampling distance T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float
from numpy import typing as npt
from numpy.polynomial import chebyshev, legendre
from scipy.interpolate import CubicSpline

from lfjax.errors import require, require_shape
from lfjax.fri.refine import require_x64

QUADRATURE = 32  # Gauss-Legendre nodes per cell: exact to rounding for the kernels here


class Kernel(eqx.Module):
    """phi: a piecewise polynomial on cells of equal width, zero outside them.

    Attributes:
        table: coefficients of v^power in each cell; v runs from -1 to 1 over a cell.
        start: left end of the first cell.
        width: width of a cell.
        name: used in messages and figures.
        period: period of the kernel; None: not periodic.
        after: value to the right of the support: 0, except for integrals.
    """

    table: Float[Array, "cell power"]
    start: float = eqx.field(static=True)
    width: float = eqx.field(static=True)
    name: str = eqx.field(static=True)
    period: float | None = eqx.field(static=True, default=None)
    after: Float[ArrayLike, ""] = 0.0

    @property
    def support(self) -> tuple[float, float]:
        """The interval outside which phi is zero; one period of a periodic kernel."""
        return (self.start, self.start + self.width * self.table.shape[0])

    @eqx.filter_jit
    def __call__(self, x: ArrayLike) -> Float[Array, "..."]:
        """phi(x)."""
        return _values(self, x, jnp)

    @eqx.filter_jit
    def derivative(self) -> Kernel:
        """d phi / dx, without the impulses where phi jumps."""
        powers = np.arange(1, max(self.table.shape[1], 2)) * 2 / self.width
        table = self.table[:, 1:] * powers if self.table.shape[1] > 1 else jnp.zeros_like(self.table)
        return Kernel(table, self.start, self.width, f"derivative of the {self.name}", self.period)

    @eqx.filter_jit
    def integral(self) -> Kernel:
        """Integral of phi from minus infinity to x, for a kernel that is not periodic."""
        raised = self.table / np.arange(1, self.table.shape[1] + 1)
        parts = jnp.pad(raised, ((0, 0), (1, 0))) * self.width / 2
        signs = (-1.0) ** np.arange(parts.shape[1])
        right, left = jnp.sum(parts, axis=1), parts @ signs  # at both ends of each cell
        ends = jnp.cumsum(right - left)
        table = parts.at[:, 0].add(ends - right)
        return Kernel(table, self.start, self.width, f"integral of the {self.name}", after=ends[-1])

    @eqx.filter_jit
    def times_x(self) -> Kernel:
        """x phi(x)."""
        middle = self.start + self.width * (np.arange(self.table.shape[0]) + 0.5)
        table = jnp.pad(self.table * middle[:, None], ((0, 0), (0, 1)))
        return Kernel(table.at[:, 1:].add(self.table * self.width / 2), self.start, self.width, f"x {self.name}", self.period)

    @eqx.filter_jit
    def fourier(self, frequency: ArrayLike) -> Complex[Array, "..."]:
        """Integral of phi(x) exp(-i w x) dx, by quadrature cell by cell."""
        return _fourier(self, frequency, jnp)

    @eqx.filter_jit
    def moment(self, power: int) -> Float[Array, ""]:
        """Integral of x^power phi(x) dx."""
        return _moment(self, power, jnp)


# The same formulas serve JAX and, for coefficients that are computed once and not differentiated, NumPy: nothing to compile.


def _values(kernel: Kernel, x: ArrayLike, xp: ModuleType) -> Any:
    table, cells = xp.asarray(kernel.table), kernel.table.shape[0]
    offset = xp.asarray(x) - kernel.start
    place = (offset if kernel.period is None else xp.mod(offset, kernel.period)) / kernel.width
    cell = xp.clip(xp.floor(place), 0, cells - 1)
    coefficients = xp.moveaxis(table[cell.astype(int)], -1, 0)
    v = 2 * (place - cell) - 1
    value = coefficients[-1]
    for c in coefficients[-2::-1]:
        value = value * v + c
    return xp.where(place < 0, 0, xp.where(place <= cells, value, kernel.after))


def _quadrature(kernel: Kernel) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Gauss-Legendre nodes of all cells, and their weights."""
    nodes, weights = legendre.leggauss(QUADRATURE)
    cells = kernel.table.shape[0]
    middle = kernel.start + kernel.width * (np.arange(cells) + 0.5)
    return (middle[:, None] + kernel.width / 2 * nodes).ravel(), np.tile(weights, cells) * kernel.width / 2


def _fourier(kernel: Kernel, frequency: ArrayLike, xp: ModuleType) -> Any:
    x, weights = _quadrature(kernel)
    return xp.exp(-1j * xp.asarray(frequency)[..., None] * x) @ (_values(kernel, x, xp) * weights)


def _moment(kernel: Kernel, power: int, xp: ModuleType) -> Any:
    x, weights = _quadrature(kernel)
    return xp.sum(_values(kernel, x, xp) * x**power * weights)


def tabulated(
    function: Callable[[npt.NDArray[np.float64]], npt.ArrayLike],
    start: float,
    cells: int,
    degree: int,
    *,
    width: float = 1.0,
    name: str,
) -> Kernel:
    """A kernel from a NumPy function that is smooth in each cell, interpolated at Chebyshev nodes.

    Args:
        function: phi, for an array of positions.
        start: left end of the first cell.
        cells: number of cells.
        degree: degree of the polynomial in each cell.
        width: width of a cell.
        name: name of the kernel.
    """
    require_x64("lfjax.fri")
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    middle = start + width * (np.arange(cells) + 0.5)
    values = np.asarray(function(middle[:, None] + width / 2 * nodes), np.float64)
    series = chebyshev.chebfit(nodes, values.T, degree).T
    table = np.stack([np.pad(p := chebyshev.cheb2poly(row), (0, degree + 1 - len(p))) for row in series])
    with jax.ensure_compile_time_eval():  # numbers, also where the caller is traced
        return Kernel(jnp.asarray(table), start, width, name)


def bspline(degree: int) -> Kernel:
    """Centred B-spline of support degree + 1; reproduces polynomials up to its degree."""
    require(isinstance(degree, int) and 0 <= degree <= 20, "degree", degree, "a whole number from 0 to 20")

    def values(x: npt.NDArray[np.float64]) -> npt.NDArray[np.floating[Any]]:
        u = x + (degree + 1) / 2  # Cox and de Boor, on knots 0, 1, ...
        level: list[npt.NDArray[np.floating[Any]]] = [((u >= j) & (u < j + 1)).astype(np.longdouble) for j in range(degree + 1)]
        for d in range(1, degree + 1):
            level = [((u - j) * level[j] + (j + d + 1 - u) * level[j + 1]) / d for j in range(len(level) - 1)]
        return level[0]

    return tabulated(values, -(degree + 1) / 2, degree + 1, degree, name=f"B-spline of degree {degree}")


def espline(frequencies: npt.ArrayLike) -> Kernel:
    """Centred E-spline; reproduces exp(i w x) at all given frequencies w, which must be symmetric and distinct.

        phi^(w) = prod_m sinc((w - w_m) / (2 pi)), up to a factor; the support is their number

    (Unser & Blu, IEEE Trans. Signal Process. 53, 1425 (2005)).
    """
    w = np.sort(np.asarray(frequencies, np.longdouble).ravel())
    require(len(w) >= 1 and np.allclose(np.asarray(w + w[::-1], float), 0), "frequencies", frequencies, "symmetric about 0")
    gaps = np.asarray(np.diff(w), float)
    require(bool(np.all(gaps > 1e-3)), "frequencies", frequencies, "distinct ones, 1e-3 apart or more")
    require(float(w[-1]) < math.pi, "frequencies", frequencies, "below pi")
    order = len(w)

    def values(x: npt.NDArray[np.float64]) -> npt.NDArray[np.longdouble]:
        u = x.astype(np.longdouble) + np.longdouble(order) / 2
        # prod (1 - e^(i w_m) shift) applied to the causal Green's function of prod (D - i w_m)
        steps = np.array([1.0 + 0j], np.clongdouble)
        for m in w:
            steps = np.convolve(steps, np.array([1.0, -np.exp(1j * m)], np.clongdouble))
        weights = [1 / np.prod([1j * (m - k) for k in w if k != m]) for m in w] if order > 1 else [1.0]
        total = np.zeros(u.shape, np.clongdouble)
        for j, step in enumerate(steps):
            late = np.where(u - j >= 0, u - j, 0)
            green = sum(g * np.exp(1j * m * late) for g, m in zip(weights, w, strict=True))
            total += step * np.where(u - j >= 0, green, 0)
        return np.real(total * np.exp(-1j * w.sum() / 2))

    kernel = tabulated(values, -order / 2, order, 16 if order > 1 else 0, name=f"E-spline of order {order}")
    with jax.ensure_compile_time_eval():
        return eqx.tree_at(lambda k: k.table, kernel, jnp.asarray(np.asarray(kernel.table) / _moment(kernel, 0, np)))


def gaussian(sigma: float, *, tail: float = 8.5) -> Kernel:
    """exp(-x^2 / (2 sigma^2)) / (sigma sqrt(2 pi)), cut off at `tail` sigma (8.5: 2e-16 of the peak)."""
    require(0 < sigma < math.inf, "sigma", sigma, "a positive number")
    width = min(1.0, sigma)
    cells = 2 * math.ceil(tail * sigma / width)

    def values(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.exp(-0.5 * (x / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))

    return tabulated(values, -cells / 2 * width, cells, 17, width=width, name=f"Gaussian of sigma {sigma:g}")


def sinc(half_width: int = 12) -> Kernel:
    """sinc(x) under a Hann window that ends at `half_width`: the plain sinc decays too slowly for finitely many samples."""
    require(isinstance(half_width, int) and half_width >= 2, "half_width", half_width, "a whole number, 2 or more")

    def values(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.sinc(x) * np.cos(np.pi * x / (2 * half_width)) ** 2

    return tabulated(values, -float(half_width), 2 * half_width, 15, name=f"sinc within {half_width}")


def dirichlet(period: int) -> Kernel:
    """Periodic sinc, (1 / N) sum over |m| <= (N - 1) / 2 of exp(2 pi i m x / N), for an odd period N.

    It equals an E-MOMS kernel of order N - 1 on a periodic signal, and reproduces all N of its exponentials.
    """
    require(isinstance(period, int) and period % 2 == 1 and period >= 3, "period", period, "an odd number, 3 or more")

    def values(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        order = np.arange(1, period // 2 + 1)
        return (1 + 2 * np.cos(2 * np.pi / period * np.multiply.outer(x, order)).sum(-1)) / period

    kernel = tabulated(values, -period / 2, period, 17, name=f"Dirichlet kernel of period {period}")
    return Kernel(kernel.table, kernel.start, kernel.width, kernel.name, float(period))


def measured(samples: npt.ArrayLike, step: float, centre: float | None = None) -> Kernel:
    """A measured kernel: cubic between equidistant samples, zero at both ends and beyond.

    Args:
        samples: phi at equal distances; close to zero at both ends.
        step: distance between two samples, in units of T.
        centre: index, possibly fractional, of x = 0 among the samples; None: their middle.
    """
    y = np.asarray(samples, np.float64)
    require_shape("samples", y.shape, ("n",))
    require(len(y) >= 4 and bool(np.all(np.isfinite(y))), "samples", y.shape, "four finite numbers or more")
    require(0 < step < math.inf, "step", step, "a positive number")
    centre = (len(y) - 1) / 2 if centre is None else centre
    x = (np.arange(len(y)) - centre) * step
    return tabulated(CubicSpline(x, y), float(x[0]), len(y) - 1, 3, width=step, name="measured kernel")


class Reproduction(NamedTuple):
    """Coefficients c with sum_n c[m, n] phi(x - n) = f_m(x) on an interval.

    Attributes:
        coefficients: one row per function f_m.
        interval: the x whose every overlapping shift phi(x - n) is among the samples.
        error: largest deviation from f_m on the interval, relative to the largest |f_m| there; rounding where exact.
    """

    coefficients: npt.NDArray[np.inexact[Any]]
    interval: tuple[float, float]
    error: float


def exponentials(kernel: Kernel, frequencies: npt.ArrayLike, positions: npt.ArrayLike) -> Reproduction:
    """exp(i w x) by c[n] = exp(i w n) / phi^(w): exact where phi^(w + 2 pi l) = 0 for all l other than 0.

    Args:
        kernel: phi.
        frequencies: w, in radians per T.
        positions: n of the available samples, in steps of 1.
    """
    w, n = np.asarray(frequencies, np.float64), np.asarray(positions, np.float64)
    coefficients = np.exp(1j * w[:, None] * n) / _fourier(kernel, w, np)[:, None]
    return _reproduction(kernel, coefficients, n, lambda x: np.exp(1j * w[:, None] * x))


def polynomials(kernel: Kernel, degree: int, positions: npt.ArrayLike) -> Reproduction:
    """x^0 ... x^degree: exact up to the degree of a B-spline (Strang & Fix).

    sum_n P(n) phi(x - n) = sum_j (-1)^j m_j / j! P^(j)(x) with the moments m_j of phi. The inverse of that series, applied
    to x^p, is the polynomial P whose values are the coefficients.

    Args:
        kernel: phi.
        degree: highest power.
        positions: n of the available samples, in steps of 1.
    """
    moments = np.array([_moment(kernel, j, np) * (-1) ** j / math.factorial(j) for j in range(degree + 1)])
    inverse = np.zeros(degree + 1)
    inverse[0] = 1 / moments[0]
    for j in range(1, degree + 1):
        inverse[j] = -(moments[1 : j + 1] * inverse[j - 1 :: -1][:j]).sum() / moments[0]
    n = np.asarray(positions, np.float64)
    rows = [
        sum(inverse[j] * math.factorial(p) / math.factorial(p - j) * n ** (p - j) for j in range(p + 1))
        for p in range(degree + 1)
    ]
    return _reproduction(kernel, np.stack(rows), n, lambda x: x ** np.arange(degree + 1)[:, None])


def _reproduction(
    kernel: Kernel,
    coefficients: npt.NDArray[np.inexact[Any]],
    positions: npt.NDArray[np.float64],
    function: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.inexact[Any]]],
) -> Reproduction:
    low, high = kernel.support
    interval = (float(positions[0]) + high - 1, float(positions[-1]) + low + 1)
    if kernel.period is not None:
        interval = (low, high)
    x = np.linspace(min(interval), max(interval), 257) if interval[0] < interval[1] else np.array([sum(interval) / 2])
    reproduced = coefficients @ _values(kernel, x - positions[:, None], np)
    wanted = function(x)
    error = np.abs(reproduced - wanted).max(1) / np.maximum(np.abs(wanted).max(1), 1e-300)
    return Reproduction(coefficients, interval, float(error.max()))
