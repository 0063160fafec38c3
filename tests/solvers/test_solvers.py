"""Solvers against closed forms, SciPy, and their own optimality conditions."""

import functools
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from lfjax import solvers
from lfjax.errors import LfjaxError
from lfjax.linop import FunctionOperator, Identity
from lfjax.optics import PSF, AntiAlias, LightField, Microscope
from lfjax.solvers.admm import Gradient, shrink_vectors
from lfjax.solvers.driver import _advance

RNG = np.random.default_rng(0)
MATRIX = RNG.uniform(0, 1, (30, 12)) * (RNG.random((30, 12)) < 0.4)
TRUTH = RNG.uniform(0, 2, 12) * (RNG.random(12) < 0.5)
DATA = np.maximum(MATRIX @ TRUTH + 0.1 * RNG.normal(size=30), 0)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


OP = FunctionOperator(lambda x: jnp.asarray(MATRIX) @ x, (12,))


def problem(weights=None, data=DATA):
    return solvers.Problem(OP, data, weights)


@functools.cache
def small_light_field():
    scope, rng = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5), np.random.default_rng(0)
    values = rng.random((2, 3, 3, 15, 15)) ** 6
    psf = PSF(jnp.asarray(values / values.sum((3, 4), keepdims=True)), scope, (0.0, 30.0))
    op = LightField(psf, (5, 6))
    spots = rng.random(op.in_shape)
    return op, solvers.Problem(op, op(np.where(spots > 0.9, spots, 0.0))), AntiAlias(scope, psf.z_um, 3, op.in_shape[1:])


def test_cg_solves_the_ridge_problem():
    got = solvers.run(solvers.CG(ridge=0.1), problem(), 40).x
    wanted = np.linalg.solve(MATRIX.T @ MATRIX + 0.1 * np.eye(12), MATRIX.T @ DATA)
    np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", [solvers.ISTA, solvers.FISTA])
def test_normal_equations_take_the_same_steps(method):
    plain, normal = problem(), solvers.NormalEquations(OP, DATA)
    step = 1 / plain.lipschitz()
    one, two = (solvers.run(method(0.3, step), p, 30) for p in (plain, normal))
    np.testing.assert_allclose(two.x, one.x, atol=1e-12)
    np.testing.assert_allclose(two.image, one.image, atol=1e-12)
    np.testing.assert_allclose(two.objective, one.objective, rtol=1e-12)
    np.testing.assert_allclose(normal.lipschitz(), plain.lipschitz(), rtol=1e-3)


@pytest.mark.parametrize("solver", [solvers.CG(0.2), solvers.ADMM(0.1, 0.2, (1.0,), 2.0, signed=True)], ids=["CG", "ADMM"])
def test_quadratic_steps_take_normal_equations_too(solver):
    one, two = (solvers.run(solver, p, 20) for p in (problem(), solvers.NormalEquations(OP, DATA)))
    np.testing.assert_allclose(two.x, one.x, atol=1e-10)
    np.testing.assert_allclose(two.objective, one.objective, rtol=1e-10)


def test_signed_admm_shrinks_both_signs():
    y = jnp.asarray([-2.0, -0.3, 0.0, 0.4, 3.0])
    solver = solvers.ADMM(0.5, 0.0, (1.0,), 1.0, signed=True)
    got = solvers.run(solver, solvers.Problem(Identity((5,)), y), 300).x
    np.testing.assert_allclose(got, np.array([-1.5, 0.0, 0.0, 0.0, 2.5]), atol=1e-6)


def test_whole_numbers_keep_their_weights():
    half = solvers.Problem(OP, np.arange(30, dtype=np.uint16), np.full(30, 0.5))
    assert float(half.weights.min()) == 0.5
    assert float(half.data.max()) == 29.0
    with pytest.raises(LfjaxError, match="weights"):
        solvers.Problem(OP, DATA, -np.ones(30))


def test_the_step_size_is_differentiable_in_weights_with_zeros():
    weights = np.where(np.arange(30) == 3, 0.0, 1.0)
    derivative = jax.jit(jax.grad(lambda w: solvers.Problem(OP, DATA, w).lipschitz()))(weights)
    assert np.all(np.isfinite(derivative))


def test_normal_equations_take_no_filter():
    with pytest.raises(LfjaxError, match="smooth"):
        solvers.run(solvers.ISTA(), solvers.NormalEquations(OP, DATA), 3, smooth=Identity((12,)))


@pytest.mark.parametrize("method", [solvers.ISTA, solvers.FISTA, solvers.RichardsonLucy, solvers.CG, solvers.ADMM])
def test_the_loop_reuses_its_buffers_and_spares_those_of_the_caller(method):
    start, kept = jnp.full(12, 0.5), []
    result = solvers.run(method(), problem(), 9, x0=start, chunk=3, callback=lambda done, x, value: kept.append(x))
    assert start.sum() == 6.0
    assert [bool(jnp.isfinite(x).all()) for x in (*kept, result.x)] == [True] * 4
    before = solvers.run(method(), problem(), 3).state
    after = _advance((method(), problem()), before, 3)[0]
    assert before.x.is_deleted()
    assert not after.x.is_deleted()


def test_cg_past_convergence_gives_no_nan():
    exact = solvers.Problem(Identity((4,)), jnp.arange(4.0))
    np.testing.assert_allclose(solvers.run(solvers.CG(), exact, 10).x, np.arange(4.0), atol=1e-12)


@pytest.mark.parametrize("method", [solvers.ISTA, solvers.FISTA])
def test_without_sparsity_it_is_nonnegative_least_squares(method):
    got = solvers.run(method(), problem(), 5000).x
    np.testing.assert_allclose(got, scipy.optimize.nnls(MATRIX, DATA)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("solver", "iterations"), [(solvers.ISTA, 5000), (solvers.FISTA, 2000), (lambda w: solvers.ADMM(w, 0.0, scale=(1.0,)), 800)]
)
def test_sparse_problem_is_optimal(solver, iterations):
    p = problem()
    weight = 0.2 * float(p.lambda_max())
    x = np.asarray(solvers.run(solver(weight), p, iterations).x)
    gradient = MATRIX.T @ (MATRIX @ x - DATA) + weight  # optimal: 0 where x > 0, at least 0 elsewhere
    assert np.all(np.abs(gradient[x > 1e-6]) < 1e-4) and np.all(gradient[x <= 1e-6] > -1e-4)
    assert 0 < np.count_nonzero(x > 1e-6) < 12


def test_at_lambda_max_nothing_is_left():
    p = problem()
    assert not np.any(solvers.run(solvers.ISTA(1.0001 * p.lambda_max()), p, 50).x)
    assert np.any(solvers.run(solvers.ISTA(0.9 * p.lambda_max()), p, 50).x)


def test_admm_denoises_by_total_variation():
    y = np.concatenate([np.full(10, 1.0), np.full(10, 3.0)]) + 0.2 * np.random.default_rng(1).normal(size=20)
    solver = solvers.ADMM(0.0, 0.7, scale=(1.0,), penalty=1.0)
    got = np.asarray(solvers.run(solver, solvers.Problem(Identity((20,)), jnp.asarray(y)), 3000).x)

    # dual in one dimension: x = y - D^T u with |u| <= beta, a box-constrained least-squares problem
    d = np.diff(np.eye(20), axis=0)
    dual = scipy.optimize.lsq_linear(d.T, y, bounds=(-0.7, 0.7), tol=1e-14)
    np.testing.assert_allclose(got, y - d.T @ dual.x, atol=1e-4)


def test_total_variation_is_isotropic():
    g = jnp.array([[3.0, 0.1], [4.0, 0.1]])
    np.testing.assert_allclose(shrink_vectors(g, 2.5), np.array([[1.5, 0.0], [2.0, 0.0]]), atol=1e-12)
    assert not np.any(Gradient((3, 4), (1.0, 1.0))(jnp.ones((3, 4))))


@pytest.mark.parametrize("solver", [solvers.RichardsonLucy(), solvers.RichardsonLucy(background=0.1), solvers.ISRA()])
def test_multiplicative_updates_go_downhill_to_the_optimum(solver):
    p = problem()
    result = solvers.run(solver, p, 3000)
    assert np.all(np.diff(result.objective) <= 1e-9 * np.abs(result.objective[:-1]))
    x = np.asarray(result.x)
    model = MATRIX @ x + getattr(solver, "background", 0.0)
    residual = 1 - DATA / np.maximum(model, 1e-30) if isinstance(solver, solvers.RichardsonLucy) else model - DATA
    gradient = MATRIX.T @ residual
    assert np.all(x >= 0) and np.all(np.abs(x * gradient) < 2e-3) and np.all(gradient > -2e-2)


def test_richardson_lucy_stays_stable_where_the_operator_is_slightly_negative():
    signed = jnp.asarray(np.where(MATRIX > 0, MATRIX, -0.05))  # lobes, as after an anti-aliasing filter
    p = solvers.Problem(FunctionOperator(lambda x: signed @ x, (12,)), jnp.asarray(DATA))
    objective = solvers.run(solvers.RichardsonLucy(), p, 200).objective
    assert np.all(np.diff(objective) < 0)


def test_richardson_lucy_keeps_the_light():
    op, p, _ = small_light_field()
    result = solvers.run(solvers.RichardsonLucy(), p, 3)
    assert float(result.image.sum()) == pytest.approx(float(p.data.sum()), rel=1e-10)


EVERY = (
    solvers.ISTA(0.01),
    solvers.FISTA(0.01),
    solvers.RichardsonLucy(),
    solvers.FisherScoring(sweeps=2),
    solvers.ISRA(),
    solvers.CG(),
    solvers.ADMM(1e-3, 1e-3),
    solvers.SIRT(),
)
ITERATIONS = 15  # the same everywhere: each number of iterations is a program of its own


def test_no_solver_is_forgotten():
    for module in pkgutil.iter_modules(solvers.__path__, "lfjax.solvers."):
        importlib.import_module(module.name)
    entered = {type(solver) for solver in EVERY}
    ours = {solver for solver in solvers.AbstractSolver.__subclasses__() if solver.__module__.startswith("lfjax.")}
    assert ours <= entered
    assert not any(solver.__subclasses__() for solver in entered)  # abstract or final


@functools.cache
def reconstruction(solver, filtered):
    _, p, smooth = small_light_field()
    return solvers.run(solver, p, ITERATIONS, smooth=smooth if filtered else None)


@pytest.mark.parametrize("solver", EVERY, ids=lambda s: type(s).__name__)
class TestEverySolver:
    def test_it_keeps_the_contract(self, solver):
        op, p, _ = small_light_field()
        assert isinstance(solver.takes_normal_equations, bool) and isinstance(solver.needs_counts, bool)
        state = jax.eval_shape(lambda: solver.init(p, None))
        after, objective = jax.eval_shape(lambda s: solvers.iterate(solver, p, s, 1), state)
        assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), state)
        assert state.x.shape == op.in_shape and state.image.shape == op.out_shape and objective.shape == (1,)

    def test_normal_equations_are_taken_or_refused(self, solver):
        normal = solvers.NormalEquations(OP, DATA)
        if solver.takes_normal_equations:
            assert solvers.run(solver, normal, ITERATIONS).image.shape == OP.out_shape
        else:
            with pytest.raises(LfjaxError, match="solver"):
                solvers.run(solver, normal, ITERATIONS)

    def test_negative_counts_are_taken_or_refused(self, solver):
        negative = problem(data=-DATA)
        if solver.needs_counts:
            with pytest.raises(LfjaxError, match="negative"):
                solvers.run(solver, negative, ITERATIONS)
        else:
            assert np.all(np.isfinite(solvers.run(solver, negative, ITERATIONS).x))

    def test_masked_pixels_carry_nothing(self, solver):
        op, p, _ = small_light_field()
        weights, spoiled = np.ones(p.data.shape), np.array(p.data)
        weights[3:9, 4:8], spoiled[3:9, 4:8] = 0, np.nan
        honest = solvers.run(solver, solvers.Problem(op, p.data, weights), ITERATIONS).x
        np.testing.assert_array_equal(solvers.run(solver, solvers.Problem(op, spoiled, weights), ITERATIONS).x, honest)

    def test_the_image_is_that_of_the_volume(self, solver):
        op, _, _ = small_light_field()
        for filtered in (False, True):
            result = reconstruction(solver, filtered)
            np.testing.assert_allclose(result.image, op(result.x), atol=1e-8 * np.abs(result.image).max())

    def test_chunks_do_not_matter(self, solver):
        _, p, _ = small_light_field()
        seen = []
        whole = reconstruction(solver, False)
        parts = solvers.run(solver, p, ITERATIONS, chunk=7, callback=lambda k, x, o: seen.append((k, o)))
        np.testing.assert_allclose(parts.x, whole.x, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(parts.objective, whole.objective, rtol=1e-9)
        assert [k for k, _ in seen] == [7, 14, 15] and len(whole.objective) == 16
        assert seen[-1][1] == whole.objective[-1] or np.isclose(seen[-1][1], whole.objective[-1])

    def test_it_explains_the_data_better_and_better(self, solver):
        for filtered in (False, True):
            history = reconstruction(solver, filtered).objective
            assert np.all(np.isfinite(history)) and history[-1] < 0.5 * history[0]

    def test_a_warm_start_resumes(self, solver):
        _, p, _ = small_light_field()
        first = reconstruction(solver, False)
        again = solvers.run(solver, p, 1, x0=first.x)
        assert again.objective[0] == pytest.approx(first.objective[-1], rel=1e-9)

    def test_solve_is_run_and_vmaps_over_frames(self, solver):
        op, p, _ = small_light_field()
        frames = np.stack([p.data, 2 * p.data])
        batch = jax.jit(jax.vmap(lambda y: solvers.solve(solver, solvers.Problem(op, y), 3)))(frames)
        alone = solvers.run(solver, solvers.Problem(op, frames[1]), 3).x
        np.testing.assert_allclose(batch[1], alone, rtol=1e-6, atol=1e-9)

    def test_a_second_frame_does_not_compile_again(self, solver):
        op, p, _ = small_light_field()
        traces = []

        def counted(x):
            traces.append(1)
            return op.matvec(x)

        counting = FunctionOperator(counted, op.in_shape)
        solvers.run(solver, solvers.Problem(counting, p.data), 1)
        before = len(traces)
        solvers.run(solver, solvers.Problem(counting, 1.1 * p.data), 1)
        outside = 2  # `Problem` checks shapes by abstract evaluation when it is made
        assert len(traces) - before <= outside


def test_fista_is_four_times_faster_than_ista():
    _, p, _ = small_light_field()
    weight = 1e-3 * p.lambda_max()
    slow = solvers.run(solvers.ISTA(weight), p, 200).objective[-1]
    assert solvers.run(solvers.FISTA(weight), p, 50).objective.min() <= slow


def test_the_stopping_rule_stops():
    result = solvers.run(solvers.FISTA(), problem(), 5000, tolerance=1e-6)
    assert result.converged and result.iterations < 5000 and len(result.objective) == result.iterations + 1


def test_the_step_differentiates_through_iterations():
    _, p, _ = small_light_field()

    @jax.jit
    @jax.value_and_grad
    def energy(weight):
        return jnp.sum(solvers.solve(solvers.ISTA(weight, 0.5), p, 5) ** 2)

    difference = energy(0.02001)[0] - energy(0.01999)[0]
    assert float(energy(0.02)[1]) == pytest.approx(float(difference) / 2e-5, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p: solvers.run(solvers.ISTA(), p, 0), "iterations = 0"),
        (lambda p: solvers.run(solvers.ISTA(), p, 5, x0=jnp.ones(3)), "x0 has shape"),
        (lambda p: solvers.run(solvers.RichardsonLucy(), solvers.Problem(p.op, -p.data), 5), "negative"),
        (lambda p: solvers.Problem(p.op, jnp.ones(4)), "data has shape"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(LfjaxError, match=says):
        call(problem())
