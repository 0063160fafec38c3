"""From raw files to volumes and neurons, by the commands that a user types.  `make bench-recordings`

Rows on recordings that failed once, and on the vesicle, need the shared data beside a checkout; without it they are left
out, and the run says so. LFJAX_PARTS=cases,masks,vesicle,movie,kills,containers runs only those parts and replaces their rows.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import Report, arguments
from benchmarks.containers import different_frames
from benchmarks.recording_runs import kills, neurons_of_movie, run
from lfjax import activity, io
from lfjax.errors import CalibrationError
from lfjax.optics import Rectifier, load_microscope

SHARED = Path(__file__).parents[2] / "shared/data"
LIGHT_FIELDS, MOVIES = SHARED / "cases/lightfield", SHARED / "cases/movies"


def light_field_cases(report: Report, folder: Path) -> None:
    """Every frame of the folder of cases, by the command, against the right value of its README."""
    sea = ("--microscope", str(LIGHT_FIELDS / "sea.toml"))
    white = ("--white", str(LIGHT_FIELDS / "sea_crop300_white.tif"))
    wide, near = ("--z=-40:40:20", "--voxels", "3"), ("--z=-12:12:3", "--voxels", "5")

    def figures(name: str, *options: str) -> tuple[dict[str, float], str]:
        output = folder / f"{name.split('.')[0]}_{len(list(folder.iterdir()))}.tif"
        done = run("reconstruct", str(LIGHT_FIELDS / name), *options, "--iterations", "30", "-o", str(output))
        return (json.loads(output.with_suffix(".json").read_text()) if done.returncode == 0 else {}), done.stderr

    def pitch(name: str, found: dict[str, float], right: float) -> None:
        value = found.get("pitch_px", 0.0)
        report.row(f"{name}: pitch", value, "px", f"{right:g} +- 0.02", abs(value - right) <= 0.02)

    found, said = figures("sea_crop300_raw.tif", *sea, *white, *wide)
    pitch("sea urchin crop", found, 17.21)
    report.at_least("sea urchin crop: correlation", found.get("correlation", 0), 0.98)
    found, said = figures("sea_crop300_raw.tif", *sea, *wide)
    pitch("sea urchin crop without white", found, 17.21)
    found, said = figures("sea_crop300_raw.tif", "--microscope", "20x0.5", *white, *wide)
    pitch("sea urchin crop, preset 20x0.5", found, 17.21)
    report.at_least("sea urchin crop, preset 20x0.5: both pitches named", "17.21" in said and "11" in said, 1)
    found, said = figures("worm_N15_rectified.tif", "--microscope", str(LIGHT_FIELDS / "worm.toml"), *near)
    pitch("worm without white", found, 15.0)
    report.at_least("worm without white: correlation", found.get("correlation", 0), 0.96)
    refused = run("info", str(LIGHT_FIELDS / "m_nm.toml"))
    report.at_least("wavelength 593 um: refused, with the likely unit", refused.returncode == 2 and "nm" in refused.stderr, 1)
    found, said = figures("saturated_12bit_in_uint16.tif", *sea, *white, *wide)
    share = float(np.mean(io.read_frame(LIGHT_FIELDS / "saturated_12bit_in_uint16.tif") >= 4095))
    off = abs(found.get("saturated", 0) / share - 1)
    report.at_most("12 bits in uint16: saturated share that is reported, relative error", off, 0.01)


def movie_cases(report: Report, folder: Path) -> None:
    """Every movie of the folder of cases."""
    for name, count in (("deflate", 4), ("pages", 2), ("lzw", 12)):
        read = len(io.open_movie(MOVIES / f"{name}.tif")[:])
        report.row(f"{name}.tif: frames read", read, "", f"= {count}", read == count)
    said = run("check", str(MOVIES / "twoseries2.tif"), "--microscope", "20x0.5").stderr
    both = [len(io.open_movie(MOVIES / "twoseries2.tif", series=series)) for series in (0, 1)]
    report.at_least("twoseries2.tif: a question, and either series whole", "--series" in said and both == [5, 7], 1)
    frames = ("--white", str(MOVIES / "white.h5"), "--dark", str(MOVIES / "dark.h5"))
    calibration = (*frames, "--microscope", str(MOVIES / "scope.toml"))
    grid = ("--structure", str(MOVIES / "tdtomato.tif"), "--z=-30:30:10", "--voxels", "2", "--rate-hz", "100")
    done = run("neurons", str(MOVIES / "raw8.h5"), *calibration, *grid, "-o", str(folder / "raw8_neurons.h5"))
    assert done.returncode == 0, done.stderr
    light = activity.read_neurons(folder / "raw8_neurons.h5").fluorescence.mean(1)
    report.at_least("raw8.h5: neurons found with structure", len(light), 15)
    report.at_least("raw8.h5: light of the faintest neuron over that of the median one", light.min() / np.median(light), 0.05)


def masks(report: Report) -> None:
    """Trusted share of a white frame with hot pixels and with vignetting, against the clean one."""
    scope = load_microscope(LIGHT_FIELDS / "sea.toml")
    raw = io.read_frame(LIGHT_FIELDS / "white_one_hot_pixel_600.tif")
    clean = np.minimum(raw, 72)
    share = Rectifier.calibrate(scope, clean, white=clean).trusted
    report.row("white frame, no hot pixel: trusted share", share, "")
    rng = np.random.default_rng(0)
    y, x = (np.linspace(-1, 1, n) for n in clean.shape)
    falloff = np.exp(np.log(0.2) * (y[:, None] ** 2 + x**2) / 2)  # 1 in the middle, 0.2 in the corners
    frames = {"one hot pixel (as recorded)": raw, "vignetting to 20 % in the corners": clean * falloff}
    for count in (1, 10, 100):
        hot = clean.copy()
        hot[tuple(rng.integers(0, clean.shape[0], (2, count)))] = 255
        frames[f"{count} hot pixels"] = hot
    for name, white in frames.items():
        try:
            trusted = Rectifier.calibrate(scope, white, white=white).trusted
        except CalibrationError:
            trusted = 0.0
        report.at_most(f"white frame, {name}: trusted share, relative change", abs(trusted / share - 1), 0.02)


def vesicle(report: Report, folder: Path) -> None:
    """The real vesicle, raw, by the command."""
    guv = SHARED / "guv"
    frames = (str(guv / "light_field.tif"), "--white", str(guv / "white.tif"), "--dark", str(guv / "dark.tif"))
    fista = (
        "--microscope",
        "60x1.2w",
        "--solver",
        "fista",
        "--sparsity",
        "0",
        "--iterations",
        "320",
        "--z=-4.5:4.5:1",
        "--no-anti-alias",
    )
    for name, key, bound, more in (
        ("correlation", "correlation", 0.974, ()),
        ("correlation on withheld pixels", "withheld_correlation", 0.9636, ("--withhold", "0.1")),
    ):
        done = run("reconstruct", *frames, *fista, *more, "-o", str(folder / f"vesicle_{key}.tif"))
        assert done.returncode == 0, done.stderr
        value = json.loads((folder / f"vesicle_{key}.json").read_text())[key]
        report.at_least(f"vesicle, FISTA, 320 iterations: {name}", value, bound)


def main() -> None:
    """Run all parts."""
    report = Report("recordings", arguments(__doc__ or "").toy)
    parts = os.environ.get("LFJAX_PARTS", "cases,masks,vesicle,movie,kills,containers").split(",")
    if not SHARED.exists():
        print("the shared data are not beside this checkout: cases, masks and vesicle are left out")
        parts = [part for part in parts if part not in ("cases", "masks", "vesicle")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "cases" in parts:
            light_field_cases(report, folder)
            movie_cases(report, folder)
        if "masks" in parts:
            masks(report)
        if "vesicle" in parts and not report.toy:
            vesicle(report, folder)
        if "movie" in parts:
            neurons_of_movie(report, folder)
        if "kills" in parts:
            kills(report, folder)
        if "containers" in parts:
            report.at_most("containers whose frames differ from those written", different_frames(report, folder), 0)
    report.write(parts="LFJAX_PARTS" in os.environ)


if __name__ == "__main__":
    main()
