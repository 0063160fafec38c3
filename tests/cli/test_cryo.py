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
    back = lfjax("backproject", "p.star", "-o", "map.mrc", "--half-maps", "--views", "--batch", 128, cwd=tmp_path)
    assert back.code == 0 and "half-maps agree to" in back.out and "directions unsampled" in back.out, back.err
    volume, voxel, _ = io.read_map(tmp_path / "map.mrc")
    assert voxel == (4.0, 4.0, 4.0) and float(correlation.fsc(volume, truth)[:5].min()) >= 0.95
    curve = lfjax("fsc", "map_half1.mrc", "map_half2.mrc", "--radius", 32, cwd=tmp_path)
    assert curve.code == 0 and "A (FSC 0.143)" in curve.out and (tmp_path / "map_half1_map_half2.fsc.csv").exists()
    assert (tmp_path / "map_half1_map_half2.fsc.png").exists() and (tmp_path / "map.transfer.png").exists()
    cut = lfjax("mask", "map.mrc", "--lowpass", 20, "--extend", 1, "--soft", 3, "-o", "mask.mrc", cwd=tmp_path)
    assert cut.code == 0 and "threshold" in cut.out, cut.err
    words = ("postprocess", "map_half1.mrc", "map_half2.mrc", "--mask", "mask.mrc", "--fit-from", 40)
    sharp = lfjax(*words, "--local", "--directional", "-o", "sharp.mrc", cwd=tmp_path)
    assert sharp.code == 0 and "B-factor" in sharp.out and "sphericity" in sharp.out, sharp.err
    for name in ("sharp_masked.mrc", "sharp_locres.mrc", "sharp.csv", "sharp.guinier.png", "sharp.directions.png"):
        assert (tmp_path / name).exists()
    there = lfjax(*words, "-o", "sharp.mrc", cwd=tmp_path)
    assert there.code == 2 and "--overwrite" in there.err
    known = lfjax("info", "p.star", cwd=tmp_path)
    assert known.code == 0 and "300 images of 24 px at 4 A" in known.out and "GiB" in known.out
    more = lfjax("expand", "p.star", "--symmetry", "D2", "-o", "more.star", cwd=tmp_path)
    assert more.code == 0 and "1200 rows" in more.out
    for source, target in (("p.star", "p.cs"), ("p.cs", "q.star")):
        done = lfjax("convert", source, "-o", target, cwd=tmp_path)
        assert done.code == 0 and "300 images" in done.out, done.err
    for words, wrong in (
        (("project", "gone.mrc", "-o", "new.star"), "gone.mrc"),
        (("project", "truth.mrc", "--defocus", "high", "-o", "new.star"), "--defocus"),
        (("backproject", "truth.mrc", "-o", "new.mrc"), "suffix"),
        (("backproject", "p.star", "-o", "p.mrcs"), "ends with .mrc"),
        (("fsc", "truth.mrc", "map.mrc", "--radius", "-3"), "--radius"),
    ):
        done = lfjax(*words, cwd=tmp_path)
        assert done.code == 2 and wrong in done.err


def test_a_stack_is_never_overwritten(lfjax, tmp_path):
    """Stacks of cryoSPARC end in .mrc, and may have the name of a map, or of one that goes beside it."""
    io.write_map(tmp_path / "truth.mrc", np.eye(16)[None] * np.ones((16, 1, 1)), 4.0)
    assert lfjax("project", "truth.mrc", "--n", 20, "-o", "p.star", cwd=tmp_path).code == 0
    text = (tmp_path / "p.star").read_text()
    for name in ("a.mrc", "b_unfil.mrc", "c_half2.mrc"):
        (tmp_path / name).write_bytes((tmp_path / "p.mrcs").read_bytes())
        star = f"{name}.star"
        (tmp_path / star).write_text(text.replace("p.mrcs", name))
        output = name.replace("_unfil", "").replace("_half2", "")
        done = lfjax("backproject", star, "-o", output, "--half-maps", "--overwrite", cwd=tmp_path)
        assert done.code == 2 and "never overwritten" in done.err
        assert (tmp_path / name).read_bytes() == (tmp_path / "p.mrcs").read_bytes()
