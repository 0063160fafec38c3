"""The command, run as a user runs it: simulate, rectify, reconstruct, and bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from lfjax import activity, io, optics
from lfjax.optics import LightField, preset


def lfjax(*arguments, cwd, cache):
    import os

    environment = os.environ | {"LFJAX_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, "-m", "lfjax.cli.main", *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    depths = ("--z=-1.5:1.5:1", "--voxels", 2)
    made = lfjax(
        "simulate", "--microscope", "60x1.2w", "--lenslets", 8, "--count", 4, *depths, "-o", "sim",
        cwd=folder, cache=folder / "c",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder


def test_a_simulated_frame_becomes_a_volume(folder):
    done = lfjax(
        "reconstruct", "sim/light_field.tif", "--white", "sim/white.tif", "--dark", "sim/dark.tif", "--microscope",
        "sim/microscope.toml", "--z=-1.5:1.5:1", "--voxels", 2, "--withhold", 0.1, "-o", "out/volume.ome.tif",
        cwd=folder, cache=folder / "c",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    volume = tifffile.imread(folder / "out/volume.ome.tif")
    assert volume.shape == (4, 16, 16) and np.all(volume >= 0)
    figures = json.loads((folder / "out/volume.json").read_text())
    assert figures["pitch_px"] == pytest.approx(100 / 6.5, abs=0.03)
    assert figures["correlation"] > 0.9 and figures["withheld_correlation"] > 0.8
    assert (folder / "out/volume.png").stat().st_size > 5000 and (folder / "out/volume.fit.png").exists()


def test_rectify_writes_whole_lenslets(folder):
    done = lfjax(
        "rectify", "sim/light_field.tif", "--white", "sim/white.tif", "--dark", "sim/dark.tif", "-o", "lf.tif",
        cwd=folder, cache=folder / "c",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert tifffile.imread(folder / "lf.tif").shape == (128, 128)


def test_the_psf_is_written_with_its_parameters(folder):
    done = lfjax("psf", "--z=-1.5:1.5:1", "--voxels", 2, "-o", "psf.h5", cwd=folder, cache=folder / "c")
    assert done.returncode == 0, done.stderr
    from lfjax.optics import read_psf

    assert read_psf(folder / "psf.h5").z_um == (-1.5, -0.5, 0.5, 1.5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("reconstruct", "none.tif", "-o", "v.tif"), "none.tif"),
        (("reconstruct", "sim/light_field.tif", "--solver", "magic", "-o", "v.tif"), "richardson_lucy"),
        (("reconstruct", "sim/light_field.tif", "--microscope", "80x", "-o", "v.tif"), "presets"),
        (("psf", "--z", "1:2", "-o", "p.h5"), "first:last:step"),
        (("simulate", "--sample", "cats", "-o", "x"), "one of neurons, cortex, beads"),
        (("reconstruct", "broken.tif", "-o", "v.tif"), "broken.tif"),
        (("info", "20x0.5", "--device", "abacus"), "h100"),
        (("info", "20x0.5", "--device", "cpu", "--tflops", 0.2), "bandwidth"),
        (("reconstruct", "sim/light_field.tif", "--dark", "sim/white.tif", "-o", "v.tif"), "brighter than dark"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(folder, arguments, says):
    (folder / "broken.tif").write_bytes((folder / "sim/light_field.tif").read_bytes()[:300])
    done = lfjax(*arguments, cwd=folder, cache=folder / "c")
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "v.tif").exists()


@pytest.mark.parametrize("command", ["psf", "simulate", "rectify", "reconstruct", "info"])
def test_help_has_an_example(folder, command):
    done = lfjax(command, "--help", cwd=folder, cache=folder / "c")
    assert done.returncode == 0 and "Example: lfjax" in done.stdout


def test_info_prints_a_microscope_that_can_be_read_back(folder):
    done = lfjax("info", "20x0.5", cwd=folder, cache=folder / "c")
    (folder / "m.toml").write_text(done.stdout)
    from lfjax.optics import PRESETS, load_microscope

    assert load_microscope(folder / "m.toml") == PRESETS["20x0.5"]


def test_info_prints_what_reconstruction_costs_on_a_device(folder):
    import tomllib

    from lfjax.pipeline import SOLVERS

    size = ("--z=-20:20:20", "--voxels", 2, "--lenslets", 9, "--batch", 2)
    model = Path(__file__).parents[2] / "lfjax/training/small.h5"
    done = lfjax("info", "20x0.5", "--device", "h100", *size, "--model", model, cwd=folder, cache=folder / "c")
    assert done.returncode == 0, done.stderr
    assert tomllib.loads(done.stdout)["name"] == "20x0.5"
    rows = {line[2:32].strip(): line[32:].split() for line in done.stdout.splitlines() if line.startswith("# ")}
    for name in ("H", "H^T", "small.h5", *(f"{s}, {n} iterations" for s, (_, n) in SOLVERS.items())):
        flops, moved, ms, limit, rate, devices = rows[name]
        assert float(flops) > 0 and float(moved) > 0 and limit in ("memory", "arithmetic")
        assert float(rate) * float(ms) == pytest.approx(1e3, rel=0.02)
        assert float(rate) * float(devices) == pytest.approx(100, rel=0.06)


def test_cryo_em_from_a_map_to_a_map(tmp_path, capsys, monkeypatch):
    from lfjax.cli import main
    from lfjax.tomography import fourier_shells as correlation

    def lfjax(*words):
        monkeypatch.setattr("sys.argv", ["lfjax", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main.run()
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    x = np.arange(24) - 12
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    truth = np.exp(-((x - 2) ** 2 + y**2 + z**2) / 12) + np.exp(-(x**2 + (y + 4) ** 2 + (z - 3) ** 2) / 8)
    io.write_map(tmp_path / "truth.mrc", truth, 4.0)
    stars, found = tmp_path / "p.star", tmp_path / "map.mrc"
    assert lfjax("project", tmp_path / "truth.mrc", "--n", 300, "--snr", 2, "--shift", 1, "-o", stars)[0] == 0
    assert (tmp_path / "p.mrcs").exists() and (tmp_path / "p.png").exists()
    code, out, _ = lfjax("backproject", stars, "-o", found, "--half-maps", "--batch", 128)
    assert code == 0 and "half-maps agree to" in out
    volume, voxel, _ = io.read_map(found)
    assert voxel == (4.0, 4.0, 4.0) and float(correlation.fsc(volume, truth)[:5].min()) >= 0.95
    code, out, _ = lfjax("fsc", tmp_path / "map_half1.mrc", tmp_path / "map_half2.mrc", "--radius", 32)
    assert code == 0 and "A at 0.143" in out and (tmp_path / "map_half1.fsc.csv").exists()
    assert (tmp_path / "map_half1.fsc.png").exists()
    for words, wrong in (
        (("project", tmp_path / "gone.mrc", "-o", stars), "gone.mrc"),
        (("project", tmp_path / "truth.mrc", "--defocus", "high", "-o", stars), "--defocus"),
        (("backproject", tmp_path / "truth.mrc", "-o", found), "suffix"),
    ):
        code, _, err = lfjax(*words)
        assert code == 2 and wrong in err


def test_a_raw_movie_becomes_volumes(folder):
    frame = io.read_frame(folder / "sim/light_field.tif")
    io.write_movie(folder / "raw.h5", np.stack([frame] * 3))
    done = lfjax(
        "movie", "raw.h5", "--microscope", "sim/microscope.toml", "--white", "sim/white.tif", "--dark", "sim/dark.tif",
        "--z=-1.5:1.5:1", "--voxels", 2, "--solver", "richardson_lucy", "--iterations", 5, "--chunk", 2, "--batch", 1,
        "-o", "volumes.zarr", cwd=folder, cache=folder / "c",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 volumes" in done.stdout
    refused = {"--sparsity = -1": ("--sparsity", -1), "--output = 'e.h5'": ("-o", "e.h5"), "devices = 0": ("--devices", 0)}
    for told, wrong in refused.items():
        bad = lfjax("movie", "raw.h5", "--microscope", "60x1.2w", "-o", "w.zarr", *wrong, cwd=folder, cache=folder / "c")
        assert bad.returncode == 2 and told in bad.stderr, bad.stderr
    found = np.asarray(zarr.open_group(folder / "volumes.zarr", mode="r")["0"][:])
    assert found.shape[:2] == (3, 4) and np.isfinite(found).all() and found.max() > 0
    np.testing.assert_allclose(found[0], found[2], rtol=1e-4, atol=1e-4 * found.max())


def test_a_movie_becomes_neurons(folder):
    psf = optics.cached_psf(preset("60x1.2w"), (-1.5, -0.5, 0.5, 1.5), 2, cache=folder / "c", tolerance=0.02)
    op = LightField(psf, (8, 8))
    places = np.array([[1.5, 5.0, 5.0], [2.5, 12.0, 11.0]])
    somata = activity.soma_footprints(places, op.in_shape, psf.voxel_um, diameter_um=2.5)
    light = 2e4 * (1 + np.stack([np.arange(90) % 30 < 5, np.arange(90) % 30 > 25]))
    clean = np.einsum("nt,nyx->tyx", light, np.stack([op(s) for s in somata]))
    io.write_movie(folder / "light.h5", np.random.default_rng(0).poisson(np.maximum(clean, 0)).astype(np.uint16))
    io.write_volume(folder / "red.tif", somata.sum(0), psf.voxel_um)
    done = lfjax(
        "neurons", "light.h5", "--structure", "red.tif", "--rectified", "--microscope", "60x1.2w", "--z=-1.5:1.5:1",
        "--voxels", 2, "--diameter-um", 2.5, "-o", "neurons.h5", "--report", "n.html", "--nwb", "n.nwb",
        "--session-start", "2026-03-04T10:30:00+00:00", cwd=folder, cache=folder / "c",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 neurons, 90 frames" in done.stdout
    found = activity.read_neurons(folder / "neurons.h5")
    assert "light.h5" in (folder / "n.html").read_text() and (folder / "n.nwb").stat().st_size > 0
    order = np.linalg.norm(found.centres_um[:, None] - places, axis=-1).argmin(0)
    for trace, truth in zip(found.dff[order], light, strict=True):
        assert np.corrcoef(trace, truth)[0, 1] > 0.9
    bad = ("neurons", "light.h5", "--nwb", "n.nwb", "--session-start", "today", "-o", "n.h5")
    late = lfjax(*bad, cwd=folder, cache=folder / "c")
    assert late.returncode == 2 and "--session-start = 'today'" in late.stderr
    missing = lfjax(
        "neurons", "light.h5", "--structure", "sim/light_field.tif", "--rectified", "--z=-1.5:1.5:1", "--voxels", 2,
        "-o", "n.h5", cwd=folder, cache=folder / "c",
    )  # fmt: skip
    assert missing.returncode == 2 and "lfjax: sim/light_field.tif" in missing.stderr
