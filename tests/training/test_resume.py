"""Checkpoints: a run that is killed and started again ends bit for bit as one that nothing disturbed."""

import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lfjax import training
from lfjax.errors import FileError, StorageWarning

PROGRAM = str(Path(__file__).with_name("toy.py"))


@pytest.fixture(scope="module")
def toy():
    return runpy.run_path(PROGRAM)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Both processes share compiled programs, as those of a user do."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(tmp_path_factory.mktemp("compiled"))
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def test_killed_and_resumed_equals_undisturbed(toy, environment, tmp_path):
    def command(*more):
        return [sys.executable, PROGRAM, str(tmp_path / "killed"), str(tmp_path / "killed.npz"), *more]

    victim = subprocess.Popen(command("slow"), env=environment)
    whole = [np.asarray(a) for a in jax.tree.leaves(toy["train"](tmp_path / "whole"))]
    checkpoints, deadline = tmp_path / "killed" / "checkpoints", time.time() + 240
    while not (checkpoints / "6").exists() and time.time() < deadline:
        time.sleep(0.05)
    victim.kill()
    victim.wait()
    assert (checkpoints / "6").exists() and not (tmp_path / "killed.npz").exists()
    subprocess.run(command(), check=True, timeout=300, env=environment)
    killed = np.load(tmp_path / "killed.npz", allow_pickle=False)
    assert len(whole) == len(killed.files)
    assert all(np.array_equal(a, killed[name]) for a, name in zip(whole, killed.files, strict=True))
    for name in ("log.csv", "log.json", "tensorboard"):
        assert (tmp_path / "killed" / name).exists()


def test_other_settings_are_refused(toy, tmp_path):
    train = {"data": toy["samples"](), "folder": tmp_path}
    training.fit(toy["network"](), **train, options=training.Options(steps=2))
    with pytest.raises(FileError, match="different settings"):
        training.fit(toy["network"](), **train, options=training.Options(steps=3))


def test_checkpoints_name_their_arrays_and_refuse_those_of_another_model(toy, tmp_path):
    train = {"data": toy["samples"](), "folder": tmp_path, "options": training.Options(steps=1)}
    net = toy["network"]()
    training.fit(net, **train)
    metadata = (tmp_path / "checkpoints" / "1" / "default" / "_METADATA").read_text()
    assert ".model.kernel" in metadata and ".average.bias" in metadata

    class Renamed(eqx.Module):
        weights: jax.Array
        bias: jax.Array

        def __call__(self, y):
            return type(net)(self.weights, self.bias)(y)

    with pytest.raises(FileError, match=r"array \.average\.kernel of the checkpoint at step 1 .* expected no such array"):
        training.fit(Renamed(net.kernel, net.bias), **train)
    wide = type(net)(jax.numpy.zeros((5, 5, 1, 2)), net.bias)
    with pytest.raises(FileError, match=r"array \.average\.kernel .* shape \(3, 3, 1, 2\); expected \(5, 5, 1, 2\)"):
        training.fit(wide, **train)


def test_ctrl_c_waits_until_a_checkpoint_is_whole(toy, tmp_path, monkeypatch):
    save, called = ocp.CheckpointManager.save, []

    def interrupted(self, *given, **named):
        signal.raise_signal(signal.SIGINT)
        called.append(save(self, *given, **named))
        return called[-1]

    train = {"data": toy["samples"](), "options": training.Options(steps=2, checkpoint_every=1)}
    monkeypatch.setattr(ocp.CheckpointManager, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.fit(toy["network"](), folder=tmp_path / "a", **train)
    assert called == [True]
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error", StorageWarning)  # the checkpoint is whole, its note as well
        resumed = training.fit(toy["network"](), folder=tmp_path / "a", **train)
    whole = training.fit(toy["network"](), folder=tmp_path / "b", **train)
    for a, b in zip(jax.tree.leaves(resumed.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(a, b)
