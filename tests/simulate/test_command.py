"""`lfjax simulate` for movies: the files it writes, and options that contradict each other."""

import h5py
import pytest
from typer.testing import CliRunner

from lfjax.cli.main import app
from lfjax.errors import ParameterError

SIZE = ("--frames", "5", "--lenslets", "12", "--z=-10:10:10", "--count", "3")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LFJAX_CACHE", str(tmp_path / "cache"))


def simulate(*words):
    return CliRunner().invoke(app, ["simulate", *map(str, words)])


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    from lfjax.optics import Microscope

    path = tmp_path_factory.mktemp("scope") / "scope.toml"
    path.write_text(Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5).to_toml())
    return path


def test_a_movie_is_written_with_its_truth(scope, tmp_path):
    done = simulate(*SIZE, "--microscope", scope, "--rate-hz", 50, "--static", "--tolerance", 0.3, "-o", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "5 raw frames" in done.output and "3 neurons, 0 spikes" in done.output
    with h5py.File(tmp_path / "a" / "raw.h5") as raw, h5py.File(tmp_path / "a" / "truth.h5") as truth:
        assert raw["frames"].shape[0] == 5 and raw["frames"].attrs["frame_s"] == truth.attrs["frame_s"] == 0.02
        assert not truth["spike_counts"][:].any()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*SIZE, "--sample", "beads"), "--sample beads: expected cortex with --frames"),
        (("--static",), "--static: expected --frames"),
        (("--rate-hz", "50"), "--rate-hz 50: expected --frames"),
        (("--indicator", "gcamp6s"), "--indicator gcamp6s: expected --frames"),
        ((*SIZE, "--indicator", "ogb1"), "indicator 'ogb1': expected one of jgcamp8f"),
        ((*SIZE, "--rate-hz", "0"), "--rate-hz"),
        ((*SIZE, "--count", "400"), "--count 400: expected fewer neurons"),
        ((*SIZE, "--frames", "0"), "--frames 0"),
    ],
)
def test_contradictions_are_named_before_any_work(scope, tmp_path, words, said):
    done = simulate(*words, "--microscope", scope, "-o", tmp_path / "x")
    assert isinstance(done.exception, ParameterError) and said in str(done.exception)
    assert not (tmp_path / "x").exists()
