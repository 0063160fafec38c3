"""NWB files as PyNWB reads them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pynwb
import pytest

from lfjax import activity
from lfjax.activity import Neurons
from lfjax.errors import FileError, ParameterError, ShapeError

START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=9)))


@pytest.fixture
def neurons():
    rng = np.random.default_rng(0)
    footprints = rng.random((3, 4, 5, 6)) ** 4
    return Neurons(
        centres_um=20 * rng.random((3, 3)),
        footprints=(footprints / footprints.sum((1, 2, 3), keepdims=True)).astype(np.float32),
        fluorescence=rng.random((3, 50)).astype(np.float32),
        dff=rng.normal(size=(3, 50)).astype(np.float32),
        spikes=[np.array([0.013, 0.1, 0.1, 0.4]), np.zeros(0), np.array([0.25])],
        frame_s=0.01,
        voxel_um=(5.0, 1.5, 1.25),
        noise=rng.random(3),
    )


@pytest.fixture
def written(neurons, tmp_path):
    path = tmp_path / "new" / "a.nwb"
    activity.write_nwb(path, neurons, session_start=START, description="A session", depth_um=120, location="V1", threshold=0.2)
    with pynwb.NWBHDF5IO(path, "r") as io:
        yield io.read()


def test_files_are_valid(neurons, tmp_path):
    activity.write_nwb(tmp_path / "a.nwb", neurons, session_start=START)
    assert not pynwb.validate(path=str(tmp_path / "a.nwb"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.nwb"]


def test_session_and_volume(written):
    assert written.session_start_time == START
    assert written.session_description == "A session"
    plane = written.imaging_planes["volume"]
    np.testing.assert_allclose(plane.grid_spacing[:], (1.25e-6, 1.5e-6, 5e-6))
    np.testing.assert_allclose(plane.origin_coords[:], (0, 0, 120e-6))
    assert plane.grid_spacing_unit == plane.origin_coords_unit == "meters"
    assert (plane.indicator, plane.location) == ("jGCaMP8f", "V1")
    assert plane.imaging_rate == pytest.approx(100)


def test_masks_are_the_footprints_above_the_threshold(written, neurons):
    rois = written.processing["ophys"]["ImageSegmentation"]["neurons"]
    assert list(rois.id[:]) == [0, 1, 2]
    for i, footprint in enumerate(neurons.footprints):
        volume = np.zeros_like(footprint)
        for x, y, z, weight in rois["voxel_mask"][i]:
            volume[z, y, x] = weight
        np.testing.assert_array_equal(volume, np.where(footprint > 0.2 * footprint.max(), footprint, 0))
    np.testing.assert_allclose(rois["centre"][:], 1e-6 * neurons.centres_um[:, ::-1])
    np.testing.assert_array_equal(rois["noise"][:], neurons.noise)


@pytest.mark.parametrize("container, name", [("Fluorescence", "fluorescence"), ("DfOverF", "dff")])
def test_traces(written, neurons, container, name):
    series = written.processing["ophys"][container]["neurons"]
    np.testing.assert_array_equal(series.data[:], getattr(neurons, name).T)
    assert (series.starting_time, series.rate) == (0, pytest.approx(100))
    assert list(series.rois.data[:]) == [0, 1, 2]
    assert series.rois.table is written.processing["ophys"]["ImageSegmentation"]["neurons"]


def test_spikes_point_to_their_neurons(written, neurons):
    units = written.units
    assert list(units.id[:]) == list(units["roi"].data[:]) == [0, 1, 2]
    assert units["roi"].table is written.processing["ophys"]["ImageSegmentation"]["neurons"]
    for i, times in enumerate(neurons.spikes):
        np.testing.assert_array_equal(units["spike_times"][i], times)
        np.testing.assert_allclose(units["obs_intervals"][i], [[0, 0.5]])


def test_silent_neurons(neurons, tmp_path):
    quiet = replace(neurons, spikes=[np.zeros(0)] * 3)
    activity.write_nwb(tmp_path / "a.nwb", quiet, session_start=START)
    assert not pynwb.validate(path=str(tmp_path / "a.nwb"))
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        assert [len(times) for times in io.read().units["spike_times"][:]] == [0, 0, 0]


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named(neurons, tmp_path):
    def write(neurons=neurons, name="a.nwb", session_start=START, **options):
        activity.write_nwb(tmp_path / name, neurons, session_start=session_start, **options)

    with pytest.raises(ParameterError, match="session_start.*2026-03-04.*time zone"):
        write(session_start=datetime(2026, 3, 4))
    with pytest.raises(FileError, match=r"a\.h5.*expected \.nwb"):
        write(name="a.h5")
    with pytest.raises(ParameterError, match="threshold"):
        write(threshold=1.0)
    with pytest.raises(ParameterError, match="emission_nm"):
        write(emission_nm=0.0)
    with pytest.raises(ParameterError, match=r"footprints.*\[1\]"):
        write(replace(neurons, footprints=neurons.footprints * np.array([1, 0, 1])[:, None, None, None]))
    with pytest.raises(ShapeError, match="noise"):
        write(replace(neurons, noise=np.ones(2)), session_start=datetime.now(UTC))
    none = Neurons(
        np.zeros((0, 3)), np.zeros((0, 1, 1, 1)), np.zeros((0, 5)), np.zeros((0, 5)), [], 0.01, (1, 1, 1), np.zeros(0)
    )
    with pytest.raises(ParameterError, match="neurons = 0"):
        write(none)
    assert not list(tmp_path.iterdir())
