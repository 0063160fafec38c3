"""Frames whose lenslets stand elsewhere than those of the calibration are refused; frames that hide them are not judged."""

import warnings

import numpy as np
import pytest

from lfjax import io
from lfjax.errors import CalibrationError
from lfjax.optics import Rectifier, load_microscope, preset
from lfjax.optics.camera.agreement import check_agreement


@pytest.fixture(scope="module", params=["vesicle", "sea urchin"])
def recording(request, shared):
    """A real light field, and the lattice of its white frame."""
    if request.param == "vesicle":
        raw, white, dark = (io.read_frame(shared / f"data/guv/{name}.tif") for name in ("light_field", "white", "dark"))
        return raw.astype(np.float32), Rectifier.calibrate(preset("60x1.2w"), raw, white=white, dark=dark).lattice
    folder = shared / "data/cases/lightfield"
    raw, white = (io.read_frame(folder / f"sea_crop300_{name}.tif") for name in ("raw", "white"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return raw.astype(np.float32), Rectifier.calibrate(load_microscope(folder / "sea.toml"), raw, white=white).lattice


def test_a_recording_agrees_with_its_own_white_frame(recording):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_agreement(*recording)


@pytest.mark.parametrize("pixels", [3, 5, 7])
def test_a_shift_is_measured_and_refused(recording, pixels):
    raw, lattice = recording
    with pytest.raises(CalibrationError, match="are not those of the calibration: .* pitches") as refused:
        check_agreement(np.roll(raw, pixels, 0), lattice)
    told = float(str(refused.value).split("pitches (")[1].split(" px")[0])
    assert told == pytest.approx(pixels, abs=0.5)


@pytest.mark.parametrize("change", [lambda a: a.T, lambda a: a[:, ::-1]])
def test_mirrored_frames_are_refused(recording, change):
    raw, lattice = recording
    with pytest.raises(CalibrationError, match="are not those of the calibration"):
        check_agreement(change(raw), lattice)


def test_frames_without_holes_are_not_judged(recording):
    raw, lattice = recording
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_agreement(np.random.default_rng(0).poisson(100, raw.shape), lattice)
