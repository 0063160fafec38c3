"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

from lfjax import io, optics, pipeline, simulate
from lfjax.optics import preset

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8"), re.S)


@pytest.fixture
def recording(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LFJAX_CACHE", str(tmp_path / "cache"))
    z_um = pipeline.default_depths(preset("60x1.2w"))
    psf = optics.cached_psf(preset("60x1.2w"), z_um, 4)
    frames = simulate.raw_recording(0, preset("60x1.2w"), lenslets=8, z_um=z_um, count=3, psf=psf).frames
    for name, frame in (("raw", frames.light_field), ("white", frames.white), ("dark", frames.dark)):
        io.write_frame(f"{name}.tif", np.asarray(frame))
    return tmp_path


def test_from_a_frame_to_a_volume(recording):
    names: dict = {}
    exec(BLOCKS[0], names)
    volume, voxel_um = io.read_volume(recording / "volume.ome.tif")
    assert volume.shape == (11, 32, 32)
    np.testing.assert_allclose(voxel_um, (1.3, 100 / 240, 100 / 240), rtol=1e-5)
    assert names["result"].correlation > 0.95


def test_from_particles_to_a_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    io.write_map("map.mrc", np.ones((64, 64, 64)), 3.0)
    names: dict = {}
    exec(BLOCKS[1], names)
    assert names["A"].out_shape == (1000, 64, 64) and names["voxel_angstrom"] == (3.0, 3.0, 3.0)
    assert names["A"].in_shape == names["volume"].shape


def test_the_pieces():
    names: dict = {}
    exec(BLOCKS[2], names)
    x = np.asarray(names["result"].x)
    assert np.unravel_index(x.argmax(), x.shape) == (3, 40, 40)
