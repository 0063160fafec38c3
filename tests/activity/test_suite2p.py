"""Folders of suite2p, read as its window reads them (suite2p 0.14 and 1.1, gui/io.py, gui/views.py, gui/masks.py)."""

from dataclasses import replace

import numpy as np
import pytest

from lfjax import activity
from lfjax.activity import Neurons
from lfjax.errors import ParameterError, ShapeError

SHAPE, FRAMES = (4, 30, 40), 60


@pytest.fixture(scope="module")
def neurons():
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    centres = np.array([[1, 8, 10], [2, 20, 30], [1, 9, 14]])
    footprints = np.stack([np.exp(-((z - a) ** 2 / 2 + (y - b) ** 2 / 8 + (x - c) ** 2 / 18)) for a, b, c in centres])
    footprints[footprints < 0.05] = 0
    return Neurons(
        centres_um=(centres + 0.5) * np.array([10.0, 3.0, 2.0]),
        footprints=(footprints / footprints.sum((1, 2, 3), keepdims=True)).astype(np.float32),
        fluorescence=(50 + rng.random((3, FRAMES))).astype(np.float32),
        dff=rng.gamma(1.0, size=(3, FRAMES)).astype(np.float32),
        spikes=[np.array([0.0, 0.013, 0.1, 0.1, 0.4, 0.6]), np.zeros(0), np.array([0.25])],
        frame_s=0.01,
        voxel_um=(10.0, 3.0, 2.0),
        noise=rng.random(3),
        valid=np.array([True, True, False]),
        neuropil=rng.random((3, FRAMES)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def plane(neurons, tmp_path_factory):
    folder = tmp_path_factory.mktemp("s2p") / "suite2p"
    activity.write_suite2p(folder, neurons, decay_s=0.1)
    assert [path.name for path in folder.iterdir()] == ["plane0"]
    return folder / "plane0"


def objects(path):
    return np.load(path, allow_pickle=True)  # our own file, as suite2p reads it


def test_arrays_need_no_pickle_and_have_suite2ps_shapes(plane, neurons):
    assert {p.name for p in plane.iterdir()} == {f"{n}.npy" for n in ("F", "Fneu", "spks", "stat", "ops", "iscell")}
    light, around, spikes, cells = (np.load(plane / f"{name}.npy") for name in ("F", "Fneu", "spks", "iscell"))
    assert {a.dtype for a in (light, around, spikes, cells)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(around, neurons.neuropil)
    np.testing.assert_allclose(light - 0.7 * around, neurons.fluorescence, rtol=1e-6)
    np.testing.assert_array_equal(cells, [[1, 1], [1, 1], [0, 0]])
    assert np.flatnonzero(spikes[0]).tolist() == [0, 1, 10, 40, 59] and spikes[0, 10] == 2  # 0.6 s ends the last frame
    assert spikes.sum(1).tolist() == [6, 0, 1] and spikes[2, 25] == 1


def test_rois_are_the_projected_footprints(plane, neurons):
    stat = objects(plane / "stat.npy")
    assert stat.shape == (3,) and stat.dtype == object
    for one, footprint, centre in zip(stat, neurons.footprints, neurons.centres_um, strict=True):
        image = np.zeros(SHAPE[1:])
        image[one["ypix"], one["xpix"]] = one["lam"]
        flat = footprint.sum(0)
        wanted = np.where(flat > 0.1 * flat.max(), flat, 0)
        np.testing.assert_allclose(image, wanted / wanted.sum(), atol=1e-6)
        assert one["npix"] == len(one["ypix"]) and np.issubdtype(one["ypix"].dtype, np.integer)
        np.testing.assert_allclose(one["med"], (centre / neurons.voxel_um)[1:] - 0.5, atol=1)
        assert one["z_um"] == pytest.approx(centre[0])
        # two standard deviations along the longer axis of a Gaussian of 2 by 3 pixels, cut at a tenth of its height
        assert 4 < one["radius"] < 6.1 and 1.1 < one["aspect_ratio"] < 1.3 and 0.9 < one["compact"] < 1.4
    shared = [set(zip(s["ypix"], s["xpix"], strict=True)) for s in stat]
    assert stat[0]["overlap"].sum() == stat[2]["overlap"].sum() == len(shared[0] & shared[2]) > 0
    assert not stat[1]["overlap"].any()


def test_the_window_finds_all_it_asks_for(plane):
    stat, ops = objects(plane / "stat.npy"), objects(plane / "ops.npy").item()
    shown = ("med", "npix", "npix_soma", "npix_norm", "skew", "compact", "footprint", "aspect_ratio", "snr", "std", "solidity")
    for one in stat:
        for key in shown[1:-1]:
            assert f"{one[key]:2.2f}" and np.isfinite(one[key])
        assert "[%d, %d]" % (one["med"][0], one["med"][1])  # noqa: UP031
        one["ypix"] += 0  # the combined view shifts pixels in place
        one["med"][0] += 0
        angles = np.linspace(0, 2 * np.pi, 100)
        circle = (one["radius"] * 1.25 * np.cos(angles) + one["med"][0]).astype(np.int32)
        assert np.ptp(circle) >= 1 and one["iplane"] == 0
    assert max(1, int(ops["tau"] * ops["fs"] / 2)) == 5
    rows, columns = ops["Ly"], ops["Lx"]
    inside = np.zeros((rows, columns))[ops["yrange"][0] : ops["yrange"][1], ops["xrange"][0] : ops["xrange"][1]]
    for name in ("meanImg", "meanImgE", "Vcorr", "max_proj"):
        assert ops[name].shape == inside.shape == SHAPE[1:] and np.percentile(ops[name], 99) > np.percentile(ops[name], 1)
    assert (ops["nframes"], ops["nplanes"], ops["nchannels"], ops["fs"]) == (FRAMES, 1, 1, pytest.approx(100))
    assert isinstance(ops["diameter"], list) and ops["diameter"] == [4, 6]
    for name in ("save_path", "reg_file", "chan2_thres", "neucoeff", "batch_size", "xoff", "yoff", "aspect"):
        assert name in ops
    for value in ops.values():  # plain types and arrays, which unpickle without lfjax
        assert type(value).__module__ in ("builtins", "numpy")


def test_the_structure_is_the_picture_behind(neurons, tmp_path):
    structure = np.random.default_rng(1).random(SHAPE)
    activity.write_suite2p(tmp_path, replace(neurons, neuropil=None), structure=structure)
    ops = objects(tmp_path / "plane0" / "ops.npy").item()
    np.testing.assert_allclose(ops["meanImg"], structure.max(0), rtol=1e-6)
    assert not np.load(tmp_path / "plane0" / "Fneu.npy").any()
    np.testing.assert_array_equal(np.load(tmp_path / "plane0" / "F.npy"), neurons.fluorescence)


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named(neurons, tmp_path):
    def write(neurons=neurons, **options):
        activity.write_suite2p(tmp_path / "x", neurons, **options)

    with pytest.raises(ParameterError, match="threshold"):
        write(threshold=1.0)
    with pytest.raises(ParameterError, match="decay_s"):
        write(decay_s=0.0)
    with pytest.raises(ShapeError, match=r"structure has shape \(4, 30, 41\)"):
        write(structure=np.zeros((4, 30, 41)))
    with pytest.raises(ParameterError, match=r"footprints.*\[1\]"):
        write(replace(neurons, footprints=neurons.footprints * np.array([1, 0, 1])[:, None, None, None]))
    none = Neurons(
        np.zeros((0, 3)), np.zeros((0, 1, 1, 1)), np.zeros((0, 5)), np.zeros((0, 5)), [], 0.01, (1, 1, 1), np.zeros(0)
    )
    with pytest.raises(ParameterError, match="neurons = 0"):
        write(none)
    assert not (tmp_path / "x").exists()
