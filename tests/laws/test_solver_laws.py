"""The laws that every solver of the package keeps; the table of docs/solvers.md lists them.

Data of all scales and types have one shape, so that each solver compiles once.
"""

import functools
import importlib
import importlib.util
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lfjax
from lfjax import solvers
from lfjax.errors import ParameterError
from lfjax.linop import FunctionOperator
from lfjax.solvers.units import power_of_two, rms

spec = importlib.util.spec_from_file_location("listed_solvers", Path(__file__).with_name("solvers.py"))
listed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(listed)
SOLVERS = listed.SOLVERS
DOCS = Path(__file__).parents[2] / "docs/solvers.md"

RNG = np.random.default_rng(3)
ROWS, VOXELS = 24, (2, 2, 3)
ITERATIONS = 20  # rounding moves CG on its way, by 1e-3 in between, not where it ends
MATRIX = (0.3 * RNG.random((ROWS, 12)) + np.tile(np.eye(12), (2, 1))).astype(np.float32)
OP = FunctionOperator(lambda x: jnp.asarray(MATRIX) @ x.reshape(-1), VOXELS)
DATA = np.round(200 * MATRIX @ RNG.random(12) ** 3 / 3).astype(np.float32)  # whole numbers below 256, which every type holds
ONE_PIXEL = np.where(np.arange(ROWS) == 5, 9, 0).astype(np.float32)
SCALES = (1e-30, 1.0, 1e30)
DTYPES = ("uint8", "uint16", "int16", "int32", "float16", "float32", "float64")

every = pytest.mark.parametrize("name", SOLVERS)


def solution(name, data, weights=None, *, normal=False, **options):
    """`run` on the problem, or on its normal equations, with the weights of the prior relative to its scale."""
    problem = solvers.NormalEquations(OP, data) if normal else solvers.Problem(OP, data, weights)
    return solvers.run(SOLVERS[name](problem), problem, ITERATIONS, **options)


@functools.cache
def usual(name):
    return solution(name, DATA)


def all_finite(result):
    return all(np.isfinite(values).all() for values in (result.x, result.image, result.objective))


def close(got, wanted, bound=1e-5):
    return np.linalg.norm(np.asarray(got, float) - wanted) <= bound * np.linalg.norm(np.asarray(wanted, float))


@every
@pytest.mark.parametrize("data", [np.zeros(ROWS), np.full(ROWS, 7.0), ONE_PIXEL], ids=["zeros", "constant", "one pixel"])
def test_degenerate_data_give_finite_volumes(name, data):
    result = solution(name, data)
    assert all_finite(result)
    assert np.any(result.x) == np.any(data) or np.abs(result.x).max() < 1e-20  # no light, no volume


@every
def test_no_trusted_pixel_gives_a_finite_volume(name):
    assert all_finite(solution(name, DATA, np.zeros(ROWS)))


@every
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_number_gives_the_same_volume(name, dtype):
    result = solution(name, DATA.astype(dtype))
    assert result.x.dtype == np.float32
    np.testing.assert_array_equal(result.x, usual(name).x)


@every
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_any_unit_of_the_data_gives_the_same_volume(name, scale):
    result, power = solution(name, scale * DATA), SOLVERS[name](solvers.Problem(OP, DATA)).objective_powers[0]
    assert all_finite(result)
    assert close(result.x / np.float64(scale), usual(name).x) and close(result.image / np.float64(scale), usual(name).image)
    wanted = usual(name).objective
    np.testing.assert_allclose(result.objective / scale**power, wanted, rtol=1e-4, atol=1e-6 * wanted[0])


@every
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_any_unit_of_the_weights_gives_the_same_volume(name, scale):
    assert close(solution(name, DATA, np.full(ROWS, scale)).x, usual(name).x)


@every
def test_twice_the_data_are_exactly_twice_the_volume(name):
    result = solution(name, 2 * DATA)
    np.testing.assert_array_equal(result.x, 2 * usual(name).x)
    np.testing.assert_array_equal(result.image, 2 * usual(name).image)


@every
def test_a_warm_start_is_in_the_units_of_the_volume(name):
    warm = [solution(name, scale * DATA, x0=scale * usual(name).x).x / np.float64(scale) for scale in SCALES]
    assert close(warm[0], warm[1]) and close(warm[2], warm[1])


@every
def test_a_run_resumes_from_its_state(name):
    problem = solvers.Problem(OP, 1e30 * DATA)
    solver = SOLVERS[name](problem)
    first = solvers.run(solver, problem, 10)
    own, inner, units = solvers.in_own_units(solver, problem)
    state, objective = solvers.iterate(own, inner, first.state, ITERATIONS - 10)
    whole = solvers.run(solver, problem, ITERATIONS)
    assert close(state.x * units.data, whole.x)
    objective = units.of(solver.objective_powers) * np.asarray(objective, float)
    np.testing.assert_allclose(objective, whole.objective[11:], rtol=1e-4)


@every
def test_solve_has_the_same_units_under_jit_vmap_and_derivatives(name):
    """Euler: the volume is homogeneous in the data, so its derivative along the data is the volume."""

    def volume(y):
        problem = solvers.Problem(OP, y)
        return solvers.solve(SOLVERS[name](problem), problem, ITERATIONS)

    frames = np.stack([scale * DATA for scale in SCALES])
    volumes, derivatives = jax.jit(jax.vmap(lambda y: jax.jvp(volume, (y,), (y,))))(frames)
    for scale, x, along in zip(SCALES, volumes, derivatives, strict=True):
        assert close(x / np.float64(scale), usual(name).x)
        assert close(along / np.float64(scale), usual(name).x, 1e-3)


@every
def test_numbers_that_are_not_finite_are_refused_and_named(name):
    problem = solvers.Problem(OP, DATA)
    for value, says in ((np.nan, "nan"), (np.inf, "inf")):
        spoilt = np.where(np.arange(ROWS) == 7, value, DATA)
        with pytest.raises(ParameterError, match=rf"data\[7\] = {says}: expected finite"):
            solution(name, spoilt)
        assert all_finite(solution(name, spoilt, np.isfinite(spoilt)))  # masked
        with pytest.raises(ParameterError, match=f"weights = {says}: expected finite"):
            solution(name, DATA, spoilt)
        with pytest.raises(ParameterError, match=rf"x0\[1, 0, 2\] = {says}: expected finite"):
            solution(name, DATA, x0=np.full(VOXELS, 1.0) * np.where(np.arange(12) == 8, value, 1).reshape(VOXELS))
        for parameter in SOLVERS[name](problem).powers:
            solver = changed(SOLVERS[name](problem), parameter, value)
            with pytest.raises(ParameterError, match=f"{parameter} = {says}: expected finite"):
                solvers.run(solver, problem, ITERATIONS)


def changed(solver, parameter, value):
    return eqx.tree_at(lambda s: getattr(s, parameter), solver, value, is_leaf=lambda n: n is None)


@every
def test_negative_parameters_are_refused(name):
    problem = solvers.Problem(OP, DATA)
    for parameter in SOLVERS[name](problem).powers:
        solver = changed(SOLVERS[name](problem), parameter, -0.5)
        with pytest.raises(ParameterError, match=f"{parameter} = -0.5: expected (zero or )?more"):
            solvers.run(solver, problem, ITERATIONS)


@pytest.mark.parametrize("name", ["ISTA", "FISTA", "ADMM, signed, penalty given", "CG, ridge"])
def test_normal_equations_have_the_same_units(name):
    results = [solution(name, scale * DATA, normal=True) for scale in SCALES]
    assert all(map(all_finite, results))
    assert close(results[1].x, usual(name).x, 1e-4)
    for scale, result in zip(SCALES, results, strict=True):
        assert close(result.x / np.float64(scale), results[1].x)
        np.testing.assert_allclose(result.objective / scale**2, results[1].objective, rtol=1e-3)
    with pytest.raises(ParameterError, match=r"data\[7\] = nan"):
        solution(name, np.where(np.arange(ROWS) == 7, np.nan, DATA), normal=True)


def test_double_precision_has_units_too():
    with jax.enable_x64(True):
        x, small, large = (solution("FISTA", scale * np.float64(DATA)).x for scale in (1.0, 1e-30, 1e30))
        assert x.dtype == np.float64
        assert close(small * 1e30, x, 1e-12) and close(large * 1e-30, x, 1e-12)


def test_a_diverging_step_size_is_refused():
    with pytest.raises(ParameterError, match=r"ISTA: its objective is (inf|nan) after iteration \d+: .*step_size"):
        solvers.run(solvers.ISTA(step_size=1e30), solvers.Problem(OP, DATA), ITERATIONS)


class Landweber(solvers.AbstractSolver):
    """A user's solver, which says nothing of units."""

    pull: float = 3.0

    def init(self, problem, x0):
        x = problem.start(x0)
        return solvers.ISTA().init(problem, x)._replace(x=x)

    def step(self, problem, state):
        x = state.x - state.step_size * (problem.gradient(state.image) + self.pull)
        return state._replace(x=x, image=problem.op.matvec(x))

    def objective(self, problem, state):
        return problem.least_squares(state.x, state.image)


def test_a_solver_that_states_no_units_keeps_those_of_the_caller():
    problem, solver = solvers.Problem(OP, DATA), Landweber()
    wanted = solvers.iterate(solver, problem, solver.init(problem, None), ITERATIONS)[0].x
    assert close(solvers.run(solver, problem, ITERATIONS).x, wanted)
    assert close(solvers.solve(solver, problem, ITERATIONS), wanted)


def test_units_are_powers_of_two_between_limits():
    for size, wanted in ((0.0, 1), (1.0, 1), (1.999, 1), (3e30, 2.0**101), (1e-40, 1), (np.nan, 1), (np.inf, 1), (5.0, 4)):
        assert power_of_two(jnp.float32(size)) == min(wanted, 2.0**100)
    assert rms(jnp.array([3e30, -4e30])) == pytest.approx(5e30 / np.sqrt(2), rel=1e-6)
    assert rms(jnp.array([3e-30, -4e-30])) == pytest.approx(5e-30 / np.sqrt(2), rel=1e-6)
    assert 0 < rms(jnp.zeros(3)) < 1e-15 and np.isfinite(jax.grad(rms)(jnp.zeros(3))).all()


@pytest.mark.parametrize("scale", SCALES)
def test_nonnegative_least_squares_have_units(scale):
    gram, right = jnp.asarray(MATRIX.T @ MATRIX), jnp.stack([MATRIX.T @ DATA, MATRIX.T @ DATA[::-1]], axis=1)
    wanted = solvers.nonnegative_least_squares(gram, right)
    assert close(solvers.nonnegative_least_squares(gram, np.float32(scale) * right) / np.float64(scale), wanted, 1e-4)
    assert not np.any(solvers.nonnegative_least_squares(gram, 0 * right))
    for name, given in (("gram", (gram * np.nan, right)), ("right", (gram, right * np.inf))):
        with pytest.raises(ParameterError, match=rf"{name}\[0, 0\] = "):
            solvers.nonnegative_least_squares(*given)


def concrete(cls):
    below = {cls}.union(*map(concrete, cls.__subclasses__()))
    return {c for c in below if c.__module__.startswith("lfjax.") and not c.__abstractmethods__}


def entered():
    return {type(make(solvers.Problem(OP, DATA))) for make in SOLVERS.values()}


def test_no_solver_is_forgotten():
    for path in Path(lfjax.__file__).parent.rglob("*.py"):  # importing all of them would take half a minute
        if "AbstractSolver" in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(["lfjax", *path.relative_to(Path(lfjax.__file__).parent).with_suffix("").parts]))
    assert concrete(solvers.AbstractSolver) == entered()
    public = {solver.__name__ for solver in entered()} | set(listed.FUNCTIONS)
    assert set(solvers.__all__) - set(listed.PARTS) == public
    given = {name for make in SOLVERS.values() for name in _given(make)}
    assert given == {(solver, name) for solver in entered() for name in solver.powers}


def _given(make):
    solver = make(solvers.Problem(OP, DATA))
    return {(type(solver), name) for name in solver.powers if isinstance(getattr(solver, name), jax.Array)}


def rows(text, heading):
    table = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]
    return cells[2:]


def test_the_page_lists_solvers_and_laws():
    text = DOCS.read_text(encoding="utf-8")
    stated = {name.strip("`"): [yes, counts, units] for name, _, yes, counts, units in rows(text, "Solvers")}
    for solver in entered():
        units = ", ".join(f"`{name}` {_unit(powers)}" for name, powers in solver.powers.items())
        expected = ["yes" if solver.takes_normal_equations else "", "yes" if solver.needs_counts else "", units]
        assert stated.pop(solver.__name__) == expected
    assert set(stated) == set(listed.FUNCTIONS)
    laws = {name for name, value in globals().items() if name.startswith("test_") and hasattr(value, "pytestmark")}
    laws = {name for name in laws if any(mark.args[1] is SOLVERS for mark in globals()[name].pytestmark)}
    assert {re.fullmatch(r"`(\w+)`", row[-1])[1] for row in rows(text, "Laws")} == laws


def _unit(powers):
    return {(1, 1): "y w", (0, 1): "w", (0, -1): "1 / w", (1, 0): "y"}[powers]
