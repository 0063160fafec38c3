"""The commands as a user runs them: simulate, rectify, reconstruct, movies, neurons, and bad input."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from lfjax import __version__ as lfjax_version, activity, io, optics
from lfjax.optics import LightField, preset, read_psf
from lfjax.pipeline import SOLVERS

FRAMES = ("--white", "sim/white.tif", "--dark", "sim/dark.tif", "--microscope", "sim/microscope.toml")
GRID = ("--z=-1.5:1.5:1", "--voxels", 2)
SCOPE = ("--microscope", "60x1.2w")


def test_a_simulated_frame_becomes_a_volume(lfjax, folder):
    done = lfjax(
        "reconstruct", "sim/light_field.tif", *FRAMES, *GRID, "--withhold", 0.1, "-o", "out/volume.ome.tif", cwd=folder
    )
    assert done.code == 0, done.err
    volume = tifffile.imread(folder / "out/volume.ome.tif")
    assert volume.shape == (4, 16, 16) and np.all(volume >= 0)
    figures = json.loads((folder / "out/volume.json").read_text())
    assert figures["pitch_px"] == pytest.approx(100 / 6.5, abs=0.03)
    assert figures["correlation"] > 0.9 and figures["withheld_correlation"] > 0.8
    assert figures["z_um"] == [-1.5, -0.5, 0.5, 1.5] and figures["field"] == [8, 8] and figures["saturated"] == 0
    assert 0.4 < figures["trusted"] < 0.9 and figures["microscope"]["name"] == "60x1.2w"
    assert figures["inputs"]["raw"] == "sim/light_field.tif" and figures["inputs"]["white"] == "sim/white.tif"
    assert figures["lfjax"] == lfjax_version
    assert (folder / "out/volume.png").stat().st_size > 5000 and (folder / "out/volume.fit.png").exists()


def test_a_volume_of_zeros_is_warned_of(lfjax, folder):
    some = ("--solver", "ista", "--sparsity", 1, "--iterations", 2, "--withhold", 0.1)
    done = lfjax("reconstruct", "sim/light_field.tif", *FRAMES, *GRID, *some, "-o", "out/zero.h5", cwd=folder)
    assert done.code == 0 and "nan" not in done.out.lower() and "explains nothing of the frame" in done.out, done.out
    assert "warning: the volume explains nothing" in done.err
    figures = json.loads((folder / "out/zero.json").read_text())
    assert figures["correlation"] is None and figures["withheld_correlation"] is None


def test_rectify_writes_whole_lenslets(lfjax, folder):
    done = lfjax("rectify", "sim/light_field.tif", *FRAMES, "-o", "lf.tif", cwd=folder)
    assert done.code == 0, done.err
    assert tifffile.imread(folder / "lf.tif").shape == (128, 128)


def test_the_psf_is_written_with_its_parameters(lfjax, folder):
    done = lfjax("psf", *GRID, "-o", "psf.h5", cwd=folder)
    assert done.code == 0, done.err
    assert read_psf(folder / "psf.h5").z_um == (-1.5, -0.5, 0.5, 1.5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("reconstruct", "none.tif", *SCOPE, "-o", "v.tif"), "none.tif"),
        (("reconstruct", "none.tif", "-o", "v.tif"), "--microscope: expected a preset or a TOML file, or --calibration"),
        (("reconstruct", "sim/light_field.tif", *SCOPE, "--solver", "magic", "-o", "v.tif"), "richardson_lucy"),
        (("reconstruct", "none.tif", *SCOPE, "--iterations", 0, "-o", "v.tif"), "--iterations 0: expected 1 or more"),
        (("reconstruct", "none.tif", *SCOPE, "--voxels", 40, "-o", "v.tif"), "voxels = 40: expected 1 to 16"),
        (("reconstruct", "none.tif", *SCOPE, "--pitch", -3, "-o", "v.tif"), "--pitch -3"),
        (("reconstruct", "none.tif", *SCOPE, "--offset", "3", "-o", "v.tif"), "two numbers Y,X"),
        (("reconstruct", "none.tif", *SCOPE, "--tissue-um", 60, "-o", "v.tif"), "--tissue-um, --mean-free-path-um"),
        (("reconstruct", "sim/white.tif", *SCOPE, "-o", "sim/white.tif"), "never overwritten"),
        (
            ("reconstruct", "sim/light_field.tif", *SCOPE, "--sparsity", -1, "-o", "v.tif"),
            "--sparsity -1: expected zero or more",
        ),
        (("reconstruct", "sim/light_field.tif", "--microscope", "80x", "-o", "v.tif"), "presets"),
        (("reconstruct", "none.tif", *SCOPE, "-o", "v.xyz"), "--output v.xyz: expected a name that ends with .ome.tif"),
        (("rectify", "none.tif", *SCOPE, "-o", "v.xyz"), "--output v.xyz: expected a name that ends with .tif"),
        (("psf", "--z", "1:2", "-o", "p.h5"), "first:last:step"),
        (("simulate", "--sample", "cats", "-o", "x"), "one of neurons, cortex, beads"),
        (("reconstruct", "broken.tif", *SCOPE, "-o", "v.tif"), "broken.tif"),
        (("reconstruct", "clipped.tif", *FRAMES, "-o", "v.tif"), "all of its pixels have 4095 counts: expected an image"),
        (
            ("reconstruct", "nan.tif", *FRAMES, "-o", "v.tif"),
            "nan.tif: 1 of 17424 values are NaN or infinite, the first at [3, 4]",
        ),
        (("reconstruct", "sim/light_field.tif", *FRAMES, "--sparsity", "nan", "-o", "v.tif"), "--sparsity nan: expected zero"),
        (("info", "20x0.5", "--device", "abacus"), "h100"),
        (("info", "20x0.5", "--device", "cpu", "--tflops", 0.2), "bandwidth"),
        (
            (
                "reconstruct",
                "sim/light_field.tif",
                *SCOPE,
                "--white",
                "sim/white.tif",
                "--dark",
                "sim/white.tif",
                "-o",
                "v.tif",
            ),
            "dark",
        ),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(lfjax, folder, arguments, says):
    (folder / "broken.tif").write_bytes((folder / "sim/light_field.tif").read_bytes()[:300])
    frame = np.float32(io.read_frame(folder / "sim/light_field.tif"))
    tifffile.imwrite(folder / "clipped.tif", np.full(frame.shape, 4095, np.uint16))
    frame[3, 4] = np.nan
    tifffile.imwrite(folder / "nan.tif", frame)
    done = lfjax(*arguments, cwd=folder)
    assert done.code == 2
    assert says in done.err and len(done.err.strip().splitlines()) == 1
    assert not (folder / "v.tif").exists()


@pytest.mark.parametrize("command", ["psf", "simulate", "calibrate", "check", "rectify", "reconstruct", "info", "neurons"])
def test_help_has_an_example(lfjax, folder, command):
    done = lfjax(command, "--help", cwd=folder)
    assert done.code == 0 and f"Example: lfjax {command}" in done.out


def test_inputs_that_do_not_belong_together_are_refused(lfjax, folder):
    white, raw = (io.read_frame(folder / f"sim/{name}.tif") for name in ("white", "light_field"))
    io.write_frame(folder / "moved.tif", np.roll(white, 3, (0, 1)))
    io.write_frame(folder / "bytes.tif", (raw // 64).astype(np.uint8))
    made = lfjax("calibrate", "sim/white.tif", "--dark", "sim/dark.tif", *SCOPE, "-o", "sim/c.toml", cwd=folder)
    assert made.code == 0 and (folder / "sim/c.grid.png").stat().st_size > 5000, made.err
    run = ("--iterations", 1, *GRID, "-o", "not.tif")
    moved = lfjax(
        "reconstruct", "sim/light_field.tif", "--white", "moved.tif", "--dark", "sim/dark.tif", *SCOPE, *run, cwd=folder
    )
    assert moved.code == 2 and "are not those of the calibration" in moved.err and "pitches" in moved.err, moved.err
    faint = lfjax("reconstruct", "bytes.tif", "--calibration", "sim/c.toml", *run, cwd=folder)
    assert faint.code == 2 and "darker than the dark frame" in faint.err, faint.err
    both = lfjax("reconstruct", "sim/light_field.tif", "--calibration", "sim/c.toml", *SCOPE, *run, cwd=folder)
    assert both.code == 2 and "nothing beside --calibration" in both.err
    again = lfjax("simulate", *SCOPE, "-o", "sim", cwd=folder)
    assert again.code == 2 and "--overwrite: this file exists" in again.err
    assert not (folder / "not.tif").exists()


def test_info_prints_a_microscope_that_can_be_read_back(lfjax, folder):
    (folder / "m.toml").write_text(lfjax("info", "20x0.5", cwd=folder).out)
    assert optics.load_microscope(folder / "m.toml") == optics.PRESETS["20x0.5"]


def test_info_prints_what_reconstruction_costs_on_a_device(lfjax, folder):
    size = ("--z=-20:20:20", "--voxels", 2, "--lenslets", 9, "--batch", 2)
    model = Path(__file__).parents[2] / "lfjax/training/small.h5"
    done = lfjax("info", "20x0.5", "--device", "h100", *size, "--model", model, cwd=folder)
    assert done.code == 0, done.err
    assert tomllib.loads(done.out)["name"] == "20x0.5"
    rows = {line[2:32].strip(): line[32:].split() for line in done.out.splitlines() if line.startswith("# ")}
    for name in ("H", "H^T", "small.h5", *(f"{s}, {n} iterations" for s, (_, n) in SOLVERS.items())):
        flops, moved, ms, limit, rate, devices = rows[name]
        assert float(flops) > 0 and float(moved) > 0 and limit in ("memory", "arithmetic")
        assert float(rate) * float(ms) == pytest.approx(1e3, rel=0.02)
        assert float(rate) * float(devices) == pytest.approx(100, rel=0.06)


def test_a_raw_movie_becomes_volumes(lfjax, folder):
    frame = io.read_frame(folder / "sim/light_field.tif")
    io.write_movie(folder / "raw.h5", np.stack([frame] * 3), frame_s=0.01)
    run = ("--solver", "richardson_lucy", "--iterations", 5, "--chunk", 2, "--batch", 1)
    done = lfjax("movie", "raw.h5", *FRAMES, *GRID, *run, "-o", "volumes.zarr", cwd=folder)
    assert done.code == 0, done.err
    assert "3 volumes" in done.out
    refused = {
        "--sparsity -1": ("--sparsity", -1),
        "--output e.h5": ("-o", "e.h5"),
        "--devices 0": ("--devices", 0),
        "--rate-hz -1": ("--rate-hz", -1),
    }
    for told, wrong in refused.items():
        bad = lfjax("movie", "raw.h5", "--microscope", "60x1.2w", "-o", "w.zarr", *wrong, cwd=folder)
        assert bad.code == 2 and told in bad.err, bad.err
    found = np.asarray(zarr.open_group(folder / "volumes.zarr", mode="r")["0"][:])
    assert found.shape[:2] == (3, 4) and np.isfinite(found).all() and found.max() > 0
    np.testing.assert_allclose(found[0], found[2], rtol=1e-4, atol=1e-4 * found.max())


def test_a_movie_becomes_neurons(lfjax, folder):
    psf = optics.cached_psf(preset("60x1.2w"), (-1.5, -0.5, 0.5, 1.5), 2, cache=folder / "cache", tolerance=0.02)
    op = LightField(psf, (8, 8))
    places = np.array([[1.5, 5.0, 5.0], [2.5, 12.0, 11.0]])
    somata = activity.soma_footprints(places, op.in_shape, psf.voxel_um, diameter_um=2.5)
    light = 2e4 * (1 + np.stack([np.arange(90) % 30 < 5, np.arange(90) % 30 > 25]))
    clean = np.einsum("nt,nyx->tyx", light, np.stack([op(s) for s in somata]))
    io.write_movie(folder / "light.h5", np.random.default_rng(0).poisson(np.maximum(clean, 0)).astype(np.uint16), frame_s=0.01)
    io.write_volume(folder / "red.tif", somata.sum(0), psf.voxel_um)
    pages = ("--report", "n.html", "--nwb", "n.nwb", "--session-start", "2026-03-04T10:30:00+00:00")
    rectified = ("light.h5", "--rectified", "--microscope", "60x1.2w", *GRID, "--diameter-um", 2.5)
    done = lfjax("neurons", *rectified, "--structure", "red.tif", "-o", "neurons.h5", *pages, cwd=folder)
    assert done.code == 0, done.err
    assert "2 neurons, 90 frames" in done.out
    found = activity.read_neurons(folder / "neurons.h5")
    assert "light.h5" in (folder / "n.html").read_text() and (folder / "n.nwb").stat().st_size > 0
    figures = json.loads((folder / "neurons.json").read_text())
    assert figures["neurons"] == 2 and figures["frames"] == 90 and figures["bad_frames"] == {}
    assert 0.4 < figures["trusted"] < 1 and figures["inputs"]["rectified"] == "True"
    order = np.linalg.norm(found.centres_um[:, None] - places, axis=-1).argmin(0)
    for trace, truth in zip(found.dff[order], light, strict=True):
        assert np.corrcoef(trace, truth)[0, 1] > 0.9
    late = lfjax("neurons", *rectified, "--nwb", "late.nwb", "--session-start", "today", "-o", "n.h5", cwd=folder)
    assert late.code == 2 and "--session-start today" in late.err
    missing = lfjax("neurons", *rectified, "--structure", "sim/light_field.tif", "-o", "n.h5", cwd=folder)
    assert missing.code == 2 and "lfjax: structure has shape (1, " in missing.err and "(4, 16, 16)" in missing.err
