"""NWB files as PyNWB reads them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pynwb
import pytest

from lfjax import activity
from lfjax.activity import Neurons
from lfjax.errors import FileError, ParameterError, ShapeError

START = datetime(2025, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=9)))


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
    np.testing.assert_array_equal(rois["valid"][:], neurons.valid)


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

    with pytest.raises(ParameterError, match="session_start.*2025-03-04.*time zone"):
        write(session_start=datetime(2025, 3, 4))
    with pytest.raises(ParameterError, match="session_start.*2999"):
        write(session_start=datetime(2999, 3, 4, tzinfo=UTC))
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


SESSION = """
[subject]
subject_id = "m17"
species = "Mus musculus"
sex = "F"
age = "P90D"
weight = "21 g"
description = "Mouse with a window over visual cortex"

[session]
start = 2025-03-04T10:30:00+01:00
description = "Visual stimulation"
session_id = "day-3"
institution = "An Institute"
lab = "A Lab"
experimenter = ["Doe, Jane", "Roe, Richard"]
keywords = ["light field", "calcium imaging"]
experiment_description = "Neurons in visual cortex while gratings drift"

[imaging]
location = "VISp"
indicator = "jGCaMP8m"
excitation_nm = 488
emission_nm = 515.0
depth_um = 150.0
"""


@pytest.fixture
def described(tmp_path):
    (tmp_path / "session.toml").write_text(SESSION)
    return activity.read_session(tmp_path / "session.toml")


def test_the_inspector_has_nothing_to_say(neurons, described, tmp_path):
    import nwbinspector  # takes a second

    several = replace(neurons, neuropil=neurons.fluorescence)  # with an event of two spikes at one time
    activity.write_nwb(tmp_path / "a.nwb", several, **described)
    assert not pynwb.validate(path=str(tmp_path / "a.nwb"))
    config = nwbinspector.load_config("dandi")
    said = [*nwbinspector.inspect_nwbfile(nwbfile_path=str(tmp_path / "a.nwb"), config=config)]
    assert not [f"{m.importance.name} {m.check_function_name}: {m.message}" for m in said]


def test_what_the_session_says_stands_in_the_file(neurons, described, tmp_path):
    activity.write_nwb(tmp_path / "a.nwb", neurons, **described)
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        file = io.read()
        assert (file.subject.subject_id, file.subject.age, file.subject.weight) == ("m17", "P90D", "21 g")
        assert file.institution == "An Institute" and file.session_id == "day-3"
        assert list(file.experimenter) == ["Doe, Jane", "Roe, Richard"]
        assert list(file.keywords[:]) == ["light field", "calcium imaging"]
        assert file.session_description == "Visual stimulation"
        assert file.session_start_time == datetime(2025, 3, 4, 9, 30, tzinfo=UTC)
        plane = file.imaging_planes["volume"]
        assert (plane.location, plane.indicator, plane.excitation_lambda) == ("VISp", "jGCaMP8m", 488)
        np.testing.assert_allclose(plane.origin_coords[:], (0, 0, 150e-6))


def test_neuropil_and_undefined_dff_are_written(neurons, tmp_path):
    flagged = replace(neurons, valid=np.array([True, False, True]), neuropil=2 * neurons.fluorescence)
    activity.write_nwb(tmp_path / "a.nwb", flagged, session_start=START)
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        ophys = io.read().processing["ophys"]
        assert ophys["ImageSegmentation"]["neurons"]["valid"][:].tolist() == [True, False, True]
        np.testing.assert_array_equal(ophys["Fluorescence"]["neuropil"].data[:], flagged.neuropil.T)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[subject]", "[animal]", r"unknown animal: expected subject"),
        ("subject_id", "id", r"\[subject\]: unknown id: expected subject_id"),
        ("institution", "institute", r"\[session\]: unknown institute: expected start"),
        ('sex = "F"', 'sex = "female"', "sex = 'female': expected one of M, F, O, U"),
        ('sex = "F"', "", "subject.*also sex"),
        ('age = "P90D"', 'age = "90 days"', "age = '90 days'.*P90D"),
        ('age = "P90D"', "", "also age or date_of_birth"),
        ("Mus musculus", "mouse", "species = 'mouse'"),
        ('weight = "21 g"', 'weight = "21"', "weight = '21'"),
        ('"m17"', '"m/17"', "subject_id"),
        ('"m17"', "17", "subject_id = 17: expected text"),
        ("Doe, Jane", "Jane Doe", "experimenter = 'Jane Doe': expected 'Last, First'"),
        ("10:30:00+01:00", "10:30:00", "session_start.*time zone"),
        ("2025-03", "2999-03", "session_start"),
        ("excitation_nm = 488", 'excitation_nm = "blue"', "excitation_nm = 'blue': expected a number"),
        ('location = "VISp"', "location = 4", "location = 4: expected text"),
        ('lab = "A Lab"', "lab = 4", "lab = 4: expected text"),
    ],
)
def test_wrong_entries_of_the_session_are_named(tmp_path, old, new, said):
    assert old in SESSION
    (tmp_path / "session.toml").write_text(SESSION.replace(old, new, 1))
    with pytest.raises(FileError, match=said):
        activity.read_session(tmp_path / "session.toml")


def test_other_files_are_no_session(tmp_path):
    with pytest.raises(FileError, match="none.toml.*expected .subject., .session. and .imaging. in TOML"):
        activity.read_session(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_bytes(b"\xff = ")
    with pytest.raises(FileError, match="broken.toml"):
        activity.read_session(tmp_path / "broken.toml")
    (tmp_path / "empty.toml").write_text("")
    assert activity.read_session(tmp_path / "empty.toml") == {}
    born = '[subject]\nsubject_id="a"\nspecies="Danio rerio"\nsex="U"\ndate_of_birth=2025-01-02\n'
    (tmp_path / "born.toml").write_text(born)
    subject = activity.read_session(tmp_path / "born.toml")["subject"]
    assert subject["date_of_birth"] == datetime(2025, 1, 2, tzinfo=UTC)
