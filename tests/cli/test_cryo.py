"""The cryo-EM commands, from a map to a map."""

import numpy as np

from lfjax import io
from lfjax.tomography import fourier_shells as correlation


def test_from_a_map_to_a_map(lfjax, tmp_path):
    x = np.arange(24) - 12
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    truth = np.exp(-((x - 2) ** 2 + y**2 + z**2) / 12) + np.exp(-(x**2 + (y + 4) ** 2 + (z - 3) ** 2) / 8)
    io.write_map(tmp_path / "truth.mrc", truth, 4.0)
    made = lfjax("project", "truth.mrc", "--n", 300, "--snr", 2, "--shift", 1, "-o", "p.star", cwd=tmp_path)
    assert made.code == 0, made.err
    assert (tmp_path / "p.mrcs").exists() and (tmp_path / "p.png").exists()
    back = lfjax("backproject", "p.star", "-o", "map.mrc", "--half-maps", "--batch", 128, cwd=tmp_path)
    assert back.code == 0 and "half-maps agree to" in back.out, back.err
    volume, voxel, _ = io.read_map(tmp_path / "map.mrc")
    assert voxel == (4.0, 4.0, 4.0) and float(correlation.fsc(volume, truth)[:5].min()) >= 0.95
    curve = lfjax("fsc", "map_half1.mrc", "map_half2.mrc", "--radius", 32, cwd=tmp_path)
    assert curve.code == 0 and "A at 0.143" in curve.out and (tmp_path / "map_half1.fsc.csv").exists()
    assert (tmp_path / "map_half1.fsc.png").exists()
    for words, wrong in (
        (("project", "gone.mrc", "-o", "p.star"), "gone.mrc"),
        (("project", "truth.mrc", "--defocus", "high", "-o", "p.star"), "--defocus"),
        (("backproject", "truth.mrc", "-o", "map.mrc"), "suffix"),
    ):
        done = lfjax(*words, cwd=tmp_path)
        assert done.code == 2 and wrong in done.err
