"""Simulated raw movies: light against the living scene, noise against the photon transfer curve, files against the truth."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import activity, io, optics, simulate
from lfjax.errors import ParameterError
from lfjax.noise import Camera
from lfjax.optics import LightField, Microscope, Rectifier, compute_psf
from lfjax.simulate import LivingFrames, Scene, Sensor

SCOPE = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5)
Z = (-10.0, 0.0, 10.0)
SIDE = 12  # lenslets


@pytest.fixture(scope="module")
def psf():
    return compute_psf(SCOPE, Z, 2, tolerance=0.3)


def make(psf, **options):
    options = {"frames": 70, "lenslets": SIDE, "count": 3, "z_um": Z} | options
    return simulate.raw_movie(0, SCOPE, psf=psf, **options)


@pytest.fixture(scope="module")
def movie(psf):
    return make(psf)


def test_a_frame_is_the_image_of_the_scene(psf):
    tissue = simulate.cortex(jax.random.key(1), (3, 2 * SIDE, 2 * SIDE), psf.voxel_um, count=2)
    dff = jnp.abs(jax.random.normal(jax.random.key(2), (2, 5)))
    optics_, sensor, camera = LightField(psf, (SIDE, SIDE)), Sensor.of((SIDE, SIDE), 5, 4.7, 0.02), Camera()
    scenes = [Scene(tissue, dff, 0.1, bleach_s=3.0, shifts_um=shifts) for shifts in (None, jnp.full((5, 3), 1e-9))]
    by_source, by_volume = (LivingFrames(s, optics_, sensor, camera, 300.0, jax.random.key(0)).light(range(5)) for s in scenes)
    np.testing.assert_allclose(by_source, by_volume, rtol=2e-4, atol=2e-3)
    whole = np.asarray(jax.jit(lambda v: sensor(optics_(v)))(scenes[0].volume(3)))
    assert np.corrcoef(whole.ravel(), np.asarray(by_source)[3].ravel())[0, 1] > 0.999999
    assert np.asarray(by_source)[0].max() < 300 * (1 + dff[:, 0].max()) * 1.5


def test_moving_tissue_moves_in_its_frames(psf):
    moving = make(psf, motion_um=4.0, static=True, bleach_s=np.inf, frames=40)
    light = np.asarray(moving.frames.light(np.arange(40)))
    assert np.ptp(moving.truth.shifts_um, axis=0)[1:].max() > 2
    far = np.linalg.norm(moving.truth.shifts_um[:, 1:] - moving.truth.shifts_um[0, 1:], axis=1)
    change = np.linalg.norm(light - light[0], axis=(1, 2))
    assert np.corrcoef(far, change)[0, 1] > 0.8


def test_a_frame_is_the_same_however_it_is_read(movie):
    whole = movie.frames[:]
    assert whole.shape == movie.frames.shape and whole.dtype == np.uint16 and len(movie.frames) == 70
    np.testing.assert_array_equal(movie.frames[33], whole[33])
    np.testing.assert_array_equal(movie.frames[-1], whole[69])
    np.testing.assert_array_equal(movie.frames[30:67:3], whole[30:67:3])
    with pytest.raises(IndexError):
        movie.frames[70]


def test_noise_is_that_of_the_camera_and_of_each_frame_alone(psf):
    camera = Camera(quantum_efficiency=0.7, read_noise_e=3.0, gain_e_per_dn=0.8, offset_dn=90.0)
    still = make(psf, static=True, bleach_s=np.inf, frames=200, camera=camera)
    frames, light = still.frames[:].astype(float), np.asarray(still.frames.light([0]))[0]
    np.testing.assert_allclose(frames.mean(0), 0.7 * light / 0.8 + 90, atol=5 * np.sqrt((0.7 * light.max() + 9) / 0.64 / 200))
    expected = (0.7 * light + 9) / 0.64 + 1 / 12
    assert (frames.var(0, ddof=1) / expected).mean() == pytest.approx(1, abs=0.01)
    noise = (frames - frames.mean(0)).reshape(200, -1)
    alike = np.corrcoef(noise[:40])[~np.eye(40, dtype=bool)]
    assert np.abs(alike).max() < 6 / np.sqrt(noise.shape[1])
    assert still.dark.mean() == pytest.approx(90, abs=0.5)


def test_static_tissue_only_bleaches(psf):
    still = make(psf, static=True, bleach_s=2.0, frame_s=0.05)
    light = np.asarray(still.frames.light([0, 40]))
    np.testing.assert_allclose(light[1], np.exp(-1) * light[0], rtol=1e-4, atol=1e-3)
    assert not np.any(still.truth.dff) and not any(map(len, still.truth.spikes))
    np.testing.assert_allclose(still.truth.bleaching[[0, 40]], [1, np.exp(-1)], rtol=1e-6)


def test_spikes_explain_the_activity(psf):
    movie = make(psf, frames=300, firing_hz=3.0)
    assert sum(map(len, movie.truth.spikes)) > 5
    for times, dff in zip(movie.truth.spikes, movie.truth.dff, strict=True):
        counts = np.histogram(times + 1e-6, 3000, (0, 3.0))[0][None].astype(float)
        alone = np.asarray(simulate.JGCAMP8F.response(counts, 1e-3)).reshape(300, 10).mean(1)
        before = dff - alone  # what spikes before the first frame left
        assert before.min() > -1e-4 and np.abs(before[100:]).max() < 1e-3


def test_the_truth_comes_back_from_the_raw_frames(psf):
    movie = make(psf, frames=200, firing_hz=4.0)
    truth = movie.truth
    assert truth.inside.all()
    rectifier = Rectifier.calibrate(SCOPE, movie.frames[0], white=movie.white, dark=movie.dark)
    assert abs(rectifier.lattice.pitch_px - movie.frames.lattice.pitch_px) < 0.02
    assert rectifier.field == (SIDE, SIDE)
    frames = jax.jit(lambda raw: jax.lax.map(rectifier, raw))(movie.frames[:].astype(np.float32))
    op = LightField(psf, rectifier.field)
    masks = (truth.footprints > 0.5 * truth.footprints.max((1, 2, 3), keepdims=True)).astype(np.float32)
    rings = activity.neuropil_rings(truth.centres_um, masks, psf.voxel_um)
    images = activity.direct_images(op, truth.footprints, frames.mean(0), neuropil=rings)
    images = activity.Images.of(images.images, images.weights * rectifier.mask)
    dff = activity.dff(np.asarray(images.time_courses(frames))[: len(masks)], movie.frame_s)
    fires = np.ptp(truth.dff, axis=1) > 0.1
    assert fires.sum() >= 2
    for true, got in zip(truth.dff[fires], dff[fires], strict=True):
        assert np.corrcoef(true, got)[0, 1] > 0.95


def test_the_folder_holds_the_recording_and_its_truth(movie, tmp_path):
    simulate.write_raw_movie(tmp_path / "new", movie)
    folder = tmp_path / "new"
    names = {"raw.h5", "white.tif", "dark.tif", "structure.ome.tif", "microscope.toml", "truth.h5"}
    assert {path.name for path in folder.iterdir()} == names
    with h5py.File(folder / "raw.h5") as raw:
        np.testing.assert_array_equal(raw["frames"][:], movie.frames[:])
        assert raw["frames"].attrs["frame_s"] == raw.attrs["frame_s"] == 0.01
    np.testing.assert_array_equal(io.read_frame(folder / "white.tif"), movie.white)
    np.testing.assert_array_equal(io.read_frame(folder / "dark.tif"), movie.dark)
    structure = io.read_volume(folder / "structure.ome.tif")
    np.testing.assert_allclose(structure.array, movie.structure)
    np.testing.assert_allclose(structure.voxel_um, movie.voxel_um, rtol=1e-5)
    scope = optics.load_microscope(folder / "microscope.toml")
    assert scope.raw_pitch_px == pytest.approx(movie.frames.lattice.pitch_px)
    with h5py.File(folder / "truth.h5") as truth:
        np.testing.assert_array_equal(truth["dff"][:], movie.truth.dff)
        assert truth["footprints"].shape == (3, *movie.structure.shape)
        parts = np.split(truth["spikes"][:], np.cumsum(truth["spike_counts"][:])[:-1])
        for part, times in zip(parts, movie.truth.spikes, strict=True):
            np.testing.assert_array_equal(part, times)
        np.testing.assert_allclose(truth.attrs["voxel_um"], movie.voxel_um)


def test_the_structure_shows_the_neurons(movie):
    z, y, x = (np.asarray(movie.truth.centres_um) / movie.voxel_um).astype(int).T
    assert movie.structure[z, y, x].min() > 5 * np.median(movie.structure)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sample": "beads"}, "sample = 'beads'"),
        ({"frames": 0}, "frames = 0"),
        ({"count": 300}, "count = 300.*fewer neurons"),
        ({"z_um": (0.0,)}, "z_um"),
        ({"z_um": (0.0, 10.0, 30.0)}, "z_um.*equal steps"),
        ({"frame_s": 0.0}, "frame_s"),
        ({"photons": -1.0}, "photons"),
        ({"firing_hz": 0.0}, "firing_hz"),
        ({"bleach_s": 0.0}, "bleach_s"),
        ({"motion_um": -1.0}, "motion_um"),
        ({"pitch_px": -4.0}, "pitch_px"),
    ],
)
def test_wrong_arguments_are_named_before_the_psf_is_computed(options, said):
    def never():
        pytest.fail("the PSF is computed before the arguments are checked")

    with pytest.raises(ParameterError, match=said):
        make(never, **options)
