"""Movies of volumes: what one call gives frame by frame, streamed; warm starts; killed and gone on with; from raw frames."""

import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

from lfjax import movies, parallel, solvers
from lfjax.errors import FileError, ParameterError
from lfjax.movies import prepare as recordings
from lfjax.optics import PSF, LightField, Microscope


def small_operator():
    values = jax.random.uniform(jax.random.key(0), (2, 2, 2, 15, 15)) ** 6
    psf = PSF(values / values.sum((3, 4), keepdims=True), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5), (0.0, 30.0))
    return LightField(psf, (6, 6))


@pytest.fixture(scope="module")
def op():
    return small_operator()


@pytest.fixture(scope="module")
def frames(op):
    volume = jax.random.uniform(jax.random.key(1), op.in_shape) ** 8
    light = 1 + 0.3 * jnp.sin(jnp.arange(7.0))[:, None, None, None] * (volume > 0.5)
    return np.asarray(jax.vmap(op)(200 * light * volume))


def ista(problem):
    return solvers.ISTA(1e-3 * problem.lambda_max(), 1 / problem.lipschitz())


def volumes(path):
    return np.asarray(zarr.open_group(path, mode="r")["0"][:])


def test_a_movie_is_its_frames_one_by_one(op, frames, tmp_path):
    solve = movies.frame_solver(ista, op, jnp.asarray(recordings.mean_frame(frames)), 5)
    path = movies.reconstruct_movie(
        frames, solve, tmp_path / "out.zarr", op.in_shape, (30.0, 2.0, 2.0), frame_s=0.01, size=3, batch=2,
        mesh=parallel.mesh(1),
    )  # fmt: skip
    wanted = np.stack([solve(jnp.asarray(y)) for y in frames])
    np.testing.assert_allclose(volumes(path), wanted, rtol=1e-4, atol=1e-4 * wanted.max())
    scale = zarr.open_group(path).attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == [0.01, 30.0, 2.0, 2.0]


@pytest.mark.parametrize("make", [ista, lambda problem: solvers.RichardsonLucy()])
def test_warm_starts_are_nearer_the_end(op, frames, make):
    mean = jnp.asarray(recordings.mean_frame(frames))
    cold, warm = (movies.frame_solver(make, op, mean, 4, warm=w)(jnp.asarray(frames[3])) for w in (False, True))
    errors = [float(jnp.linalg.norm(op(x) - frames[3])) for x in (cold, warm)]
    assert errors[1] < 0.5 * errors[0]


def test_frames_in_turn_start_where_the_last_one_ended(op, frames, tmp_path):
    solve = movies.frame_solver(ista, op, jnp.asarray(recordings.mean_frame(frames)), 3)
    path = movies.reconstruct_movie(
        frames, solve, tmp_path / "turn.zarr", op.in_shape, (30.0, 2.0, 2.0), frame_s=0.01, size=4, start=solve.start
    )
    x, wanted = solve.start, []
    for t, y in enumerate(frames):
        x = solve(jnp.asarray(y), solve.start if t % 4 == 0 else x)
        wanted.append(x)
    np.testing.assert_allclose(volumes(path), np.stack(wanted), rtol=1e-4, atol=1e-4 * float(jnp.max(x)))


PROGRAM = """
import sys, time
import numpy as np
from tests.movies.test_reconstruct import ista, small_operator
from lfjax import movies, recordings
import jax.numpy as jnp
op = small_operator()
frames = np.load(sys.argv[1])
solve = movies.frame_solver(ista, op, jnp.asarray(recordings.mean_frame(frames)), 5)
def slowly(items, text):
    for item in items:
        print("go", flush=True)
        time.sleep(0.1)
        yield item
movies.reconstruct_movie(frames, solve, sys.argv[2], op.in_shape, (30., 2., 2.), frame_s=.01, size=1, batch=1, track=slowly)
"""


def test_killed_it_goes_on_and_ends_the_same(frames, tmp_path):
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


def test_what_cannot_be_is_named(op, frames, tmp_path):
    with pytest.raises(ParameterError, match="frame_s = 0"):
        movies.reconstruct_movie(frames, lambda y: y[None], tmp_path / "x.zarr", (1, 30, 30), (1.0, 1.0, 1.0), frame_s=0)
    with pytest.raises(ParameterError, match="iterations = 0"):
        movies.frame_solver(ista, op, jnp.ones(op.out_shape), 0)
    (tmp_path / "there.zarr").mkdir()
    with pytest.raises(FileError, match="is there already"):
        movies.reconstruct_movie(frames, lambda y: y[None], tmp_path / "there.zarr", (1, 30, 30), (1.0, 1.0, 1.0), frame_s=1)
