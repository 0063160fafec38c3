"""Neurons of raw camera frames with a white frame, whose rectified pixels are not all to be trusted."""

import numpy as np
import pytest

from lfjax import activity, io, movies, optics
from lfjax.optics import LightField

DEPTHS = tuple(range(-30, 31, 10))


@pytest.fixture(scope="module")
def recorded(shared):
    """A recording whose neurons had no light: 8 frames, white and dark frame, structure (shared/data/cases/movies)."""
    folder = shared / "data/cases/movies"
    scope = optics.load_microscope(folder / "scope.toml")
    psf = optics.compute_psf(scope, DEPTHS, 2, tolerance=0.2)
    white, dark = (io.read_frame(folder / f"{name}.h5") for name in ("white", "dark"))
    movie = io.open_movie(folder / "raw8.h5")
    rectifier = optics.Rectifier.calibrate(scope, movies.survey(movie).mean, white=white, dark=dark)
    ready = movies.light_fields(movie, rectifier, psf)
    return ready, LightField(psf, ready.field), psf.voxel_um, io.read_volume(folder / "tdtomato.tif")


def test_neurons_of_raw_frames_have_light(recorded):
    ready, op, voxel_um, structure = recorded
    volume = activity.resample_structure(structure.array, structure.voxel_um, op.in_shape, voxel_um)
    assert volume.dtype == structure.array.dtype
    np.testing.assert_array_equal(volume, structure.array)
    somata = activity.segment_somata(volume, voxel_um)
    footprints = somata.masks() * np.maximum(volume, 0)
    rings = activity.neuropil_rings(somata.centres_um, somata.masks(), voxel_um)
    mask, frames = np.asarray(ready.mask), np.asarray(ready.frames[:])
    assert 0.5 < mask.mean() < 0.9 and not frames[:, ~mask].any()
    images = activity.direct_images(op, footprints, ready.mean, weights=mask.astype(np.float32), neuropil=rings)
    courses = np.asarray(images.time_courses(frames))
    light = courses[: len(footprints)].mean(1)
    assert len(light) >= 15 and np.all(light > 0.05 * np.median(light))
    model = np.tensordot(courses.T, np.asarray(images.images), 1)[:, mask]
    assert np.corrcoef(model.mean(0), frames.mean(0)[mask])[0, 1] > 0.97
    blind = activity.direct_images(op, footprints, ready.mean, neuropil=rings)  # zeros taken for dark pixels: no light at all
    assert np.asarray(blind.time_courses(frames))[: len(footprints)].mean() < 1e-2 * light.mean()
