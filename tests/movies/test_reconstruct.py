"""Movies of volumes: the same as frame by frame; warm starts; killed and resumed."""

import signal
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

from lfjax import movies, parallel, solvers
from lfjax.errors import FileError, ParameterError
from lfjax.optics import PSF, LightField, Microscope


def small_operator():
    values = jax.jit(lambda: jax.random.uniform(jax.random.key(0), (2, 2, 2, 15, 15)) ** 6)()
    psf = PSF(values / np.sum(values, (3, 4), keepdims=True), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5), (0.0, 30.0))
    return eqx.filter_jit(LightField)(psf, (6, 6))


@pytest.fixture(scope="module")
def op():
    return small_operator()


@pytest.fixture(scope="module")
def frames(op):
    volume = np.asarray(jax.jit(lambda: jax.random.uniform(jax.random.key(1), op.in_shape) ** 8)())
    light = 1 + 0.3 * np.sin(np.arange(7.0, dtype=np.float32))[:, None, None, None] * (volume > 0.5)
    return np.asarray(jax.jit(jax.vmap(op.matvec))(200 * light * volume))


@eqx.filter_jit
def ista(problem):
    return solvers.ISTA(1e-3 * problem.lambda_max(), 1 / problem.lipschitz())


def volumes(path):
    return np.asarray(zarr.open_group(path, mode="r")["0"][:])


def test_a_movie_is_its_frames_one_by_one(op, frames, tmp_path):
    solve = movies.frame_solver(ista, op, movies.mean_frame(frames), 5)
    path = movies.reconstruct_movie(
        frames, solve, tmp_path / "out.zarr", op.in_shape, (30.0, 2.0, 2.0), frame_s=0.01, size=3, batch=2,
        mesh=parallel.mesh(1),
    )  # fmt: skip
    run = eqx.filter_jit(solve)
    wanted = np.stack([run(jnp.asarray(y)) for y in frames])
    np.testing.assert_allclose(volumes(path), wanted, rtol=1e-4, atol=1e-4 * wanted.max())
    scale = zarr.open_group(path).attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == [0.01, 30.0, 2.0, 2.0]


@pytest.mark.parametrize("make", [ista, lambda problem: solvers.RichardsonLucy()])
def test_warm_starts_are_nearer_the_end(op, frames, make):
    mean, run = movies.mean_frame(frames), eqx.filter_jit(lambda solve, y: op(solve(y)))
    cold, warm = (run(movies.frame_solver(make, op, mean, 4, warm=w), jnp.asarray(frames[3])) for w in (False, True))
    errors = [np.linalg.norm(np.asarray(image) - frames[3]) for image in (cold, warm)]
    assert errors[1] < 0.5 * errors[0]


def test_sequential_frames_start_from_the_volume_before(op, frames, tmp_path):
    solve = movies.frame_solver(ista, op, movies.mean_frame(frames), 5)
    path = movies.reconstruct_movie(
        frames, solve, tmp_path / "turn.zarr", op.in_shape, (30.0, 2.0, 2.0), frame_s=0.01, size=4, start=solve.start
    )
    x, wanted, run = solve.start, [], eqx.filter_jit(solve)
    for t, y in enumerate(frames):
        x = run(jnp.asarray(y), solve.start if t % 4 == 0 else x)
        wanted.append(np.asarray(x))
    np.testing.assert_allclose(volumes(path), np.stack(wanted), rtol=1e-4, atol=1e-4 * wanted[-1].max())


PROGRAM = """
import sys, time
import numpy as np
from tests.movies.test_reconstruct import ista, small_operator
from lfjax import movies
op = small_operator()
frames = np.load(sys.argv[1])
solve = movies.frame_solver(ista, op, movies.mean_frame(frames), 5)
def slowly(items, text):
    for item in items:
        print("go", flush=True)
        time.sleep(0.1)
        yield item
movies.reconstruct_movie(frames, solve, sys.argv[2], op.in_shape, (30., 2., 2.), frame_s=.01, size=1, batch=1, track=slowly)
"""


def test_a_killed_run_resumes_and_ends_the_same(frames, tmp_path):
    np.save(tmp_path / "frames.npy", frames)

    def run(out):
        return subprocess.Popen([sys.executable, "-c", PROGRAM, tmp_path / "frames.npy", out], stdout=subprocess.PIPE)

    process = run(tmp_path / "killed.zarr")
    for _ in range(3):
        process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.zarr").exists()
    for out in ("killed.zarr", "whole.zarr"):
        process = run(tmp_path / out)
        process.communicate(timeout=600)
        assert process.returncode == 0
    np.testing.assert_array_equal(volumes(tmp_path / "killed.zarr"), volumes(tmp_path / "whole.zarr"))


def test_wrong_arguments_are_named(op, frames, tmp_path):
    with pytest.raises(ParameterError, match="frame_s = 0"):
        movies.reconstruct_movie(frames, lambda y: y[None], tmp_path / "x.zarr", (1, 30, 30), (1.0, 1.0, 1.0), frame_s=0)
    with pytest.raises(ParameterError, match="iterations = 0"):
        movies.frame_solver(ista, op, np.ones(op.out_shape), 0)
    (tmp_path / "there.zarr").mkdir()
    with pytest.raises(FileError, match="exists already"):
        movies.reconstruct_movie(frames, lambda y: y[None], tmp_path / "there.zarr", (1, 30, 30), (1.0, 1.0, 1.0), frame_s=1)
