"""The commands for scans of paintings: from counts without energies to a detector, elements and maps, and how they refuse."""

import json
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lfjax import io, pipeline, xrf
from lfjax.errors import FileError

TRUTH = xrf.Detector(1024, 20.0, -95.0, noise_ev=80.0)
TUBE = xrf.Instrument(40000.0, "Rh")
TOLD = ("--tube", "Rh", "--kv", 40)
NAMES = ("Pb L", "Fe K", "Cu K", "Ca K")
SIZE = (6, 8)


class Scan(NamedTuple):
    """Counts (rows, columns, channels) and the maps of `NAMES` (families, rows, columns) that they were drawn from."""

    counts: np.ndarray
    maps: np.ndarray


@pytest.fixture(scope="module")
def scan() -> Scan:
    """Poisson counts of four elements, 100 to 300 each per pixel in a pattern of its own, over a weak smooth background."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    maps = 200 + 100 * np.stack([np.sin(3 * y), np.cos(3 * x), np.sin(4 * x), np.cos(4 * y) * x])
    model = xrf.spectrum(TRUTH, xrf.parse_families(f"{', '.join(NAMES)}, Pb M", TUBE.highest_ev), TUBE)
    amplitudes = np.zeros((model.in_shape[0], *SIZE))
    amplitudes[:4], amplitudes[4] = maps, 0.3 * maps[0]
    amplitudes[[name.startswith("background") for name in model.names]] = 4.0
    expected = np.einsum("nc,cyx->yxn", np.asarray(model.columns, float), amplitudes)
    return Scan(np.random.default_rng(5).poisson(expected).astype(np.uint16), maps)


@pytest.fixture(scope="module")
def place(scan, tmp_path_factory):
    """The scan without and with energies, its detector, and files that no command can use."""
    folder = tmp_path_factory.mktemp("xrf")
    io.write_cube(folder / "bare.h5", scan.counts, None)
    io.write_cube(folder / "scan.h5", scan.counts, io.EnergyAxis(-95.0, 20.0), pixel_um=(500.0, 250.0))
    xrf.write_detector(folder / "detector.toml", TRUTH, TUBE)
    xrf.write_detector(folder / "short.toml", xrf.Detector(512, 20.0), TUBE)
    (folder / "other.toml").write_text("[volume]\nz_um = 3.0\n", encoding="utf-8")
    io.write_cube(folder / "empty.h5", np.zeros_like(scan.counts), None)
    wrong = scan.counts.astype(np.int32)
    wrong[4, 7, 300] = -2
    np.save(folder / "negative.npy", wrong)
    np.save(folder / "list.npy", scan.counts.reshape(-1, 1024))
    (folder / "again.h5").symlink_to("scan.h5")
    (folder / "nothing.toml").symlink_to("gone.toml")
    (folder / "loop.toml").symlink_to("loop.toml")
    (folder / "maps_spectrum.png").hardlink_to(folder / "scan.h5")
    return folder


def correlation(found: io.ElementMaps, scan: Scan, name: str) -> float:
    return float(np.corrcoef(found.maps[found.names.index(name)].ravel(), scan.maps[NAMES.index(name)].ravel())[0, 1])


@pytest.mark.parametrize("cube", ["bare.h5", "scan.h5"])
def test_calibrate_finds_gain_and_offset(lfjax, place, tmp_path, cube):
    done = lfjax("xrf", "calibrate", place / cube, *TOLD, "-o", "detector.toml", cwd=tmp_path)
    assert done.code == 0 and "eV per channel" in done.out, done.err
    detector, instrument = xrf.read_detector(tmp_path / "detector.toml")
    assert instrument == TUBE and detector.channels == 1024
    assert float(detector.gain_ev) == pytest.approx(20.0, abs=0.02) and float(detector.offset_ev) == pytest.approx(-95, abs=10)
    assert (tmp_path / "detector.png").exists()


def test_elements_names_what_is_there_and_nothing_else(lfjax, place, tmp_path):
    done = lfjax("xrf", "elements", place / "bare.h5", "--detector", place / "detector.toml", "-o", "found.json", cwd=tmp_path)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert {each["symbol"] for each in found["elements"]} == {"Pb", "Fe", "Cu", "Ca"}
    assert found["detector"]["gain_ev"] == 20.0 and found["instrument"]["anode"] == "Rh"
    assert (tmp_path / "found.png").exists() and (tmp_path / "found_table.png").exists()


def test_a_list_of_spectra_becomes_a_map_on_its_grid(lfjax, place, scan, tmp_path):
    words = ("--axes", "pe", "--grid", "6x8", "--detector", place / "detector.toml", "--elements", "Fe K, Pb L", "-o", "m.h5")
    done = lfjax("xrf", "maps", place / "list.npy", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    assert correlation(io.read_maps(tmp_path / "m.h5"), scan, "Fe K") > 0.9


@pytest.mark.parametrize("suffix", [".ome.tif", ".h5"])
def test_maps_follow_the_truth(lfjax, place, scan, tmp_path, suffix):
    output = f"m{suffix}"
    done = lfjax("xrf", "maps", place / "scan.h5", "--detector", place / "detector.toml", "-o", output, cwd=tmp_path)
    assert done.code == 0, done.err
    found = io.read_maps(tmp_path / output)
    assert set(NAMES) <= set(found.names) and found.pixel_um == (500.0, 250.0)
    assert all(correlation(found, scan, name) > 0.9 for name in NAMES)
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"m.png", "m_spectrum.png", output}


def test_maps_of_named_elements_alone(lfjax, place, scan, tmp_path):
    words = ("--detector", place / "detector.toml", "--elements", "Fe K, Pb L, Cu, Ca K, Pb M, Zn K", "-o", "named.h5")
    done = lfjax("xrf", "maps", place / "bare.h5", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    found = io.read_maps(tmp_path / "named.h5")
    assert found.names == ("Fe K", "Pb L", "Cu K", "Ca K", "Pb M", "Zn K")
    assert correlation(found, scan, "Fe K") > 0.9
    assert found.maps[-1].mean() < 10  # there is no zinc


def test_an_interrupted_map_resumes(place, tmp_path):
    """A scan whose last rows fail at first, as Ctrl-C or a lost disk has it; rows that are kept are not read again."""
    read: list[int] = []

    def mapped(last: int, path: Path | None, *, upside_down: bool = False) -> xrf.Maps:
        with io.open_cube(place / "bare.h5") as cube:
            identified = pipeline.identify_scan(cube, TRUTH, TUBE, families=", ".join(NAMES))

            def load(rows: range) -> np.ndarray:
                if len(rows) == 2:  # a chunk; single rows tell this scan from others
                    if rows.stop > last:
                        raise KeyboardInterrupt
                    read.extend(rows)
                counts = cube.load(range(cube.shape[0]))
                return (counts[::-1] if upside_down else counts)[rows.start : rows.stop]

            failing = io.Cube(cube.shape, cube.dtype, load, files=cube.files)
            return pipeline.map_scan(failing, identified, rows=2, path=path)

    whole, kept = mapped(6, None), tmp_path / "rows.zarr"
    with pytest.raises(KeyboardInterrupt):
        mapped(4, kept)
    assert not kept.exists()
    with pytest.raises(FileError, match="inputs"):
        mapped(6, kept, upside_down=True)  # the same sum of spectra, but another scan
    read.clear()
    resumed = mapped(6, kept)
    assert {4, 5} <= set(read) and 0 not in read
    np.testing.assert_array_equal(resumed.counts, whole.counts)
    np.testing.assert_array_equal(resumed.errors, whole.errors)


KNOWN = "--detector detector.toml"
BAD = {
    "calibrate bare.h5 --tube Xx -o d.toml": ("Xx", "element"),
    "calibrate bare.h5 --kv 40 --beam-kev 20 -o d.toml": ("--kv", "--beam-kev"),
    "calibrate bare.h5 --kv 0.5 -o d.toml": ("500",),
    "calibrate bare.h5 --detector detector.toml -o d.toml": ("--detector",),
    "calibrate bare.h5 -o d.json": ("--output", ".toml"),
    "calibrate empty.h5 -o d.toml": ("empty.h5", "counts"),
    "calibrate negative.npy -o d.toml": ("negative.npy", "row 4, column 7, channel 300"),
    "calibrate gone.h5 -o d.toml": ("gone.h5",),
    "calibrate bare.h5 -o nothing.toml": ("nothing.toml", "link"),
    "calibrate bare.h5 -o loop.toml --overwrite": ("loop.toml", "link"),
    "calibrate list.npy --axes pe -o d.toml": ("list.npy", "48 spectra", "--grid"),
    "calibrate list.npy --axes pe --grid 6x9 -o d.toml": ("list.npy", "48 spectra", "(6, 9)"),
    "calibrate list.npy --axes pe --grid 6by8 -o d.toml": ("--grid", "6by8", "40x60"),
    f"elements bare.h5 --tube Rh {KNOWN} -o e.json": ("--tube", "--detector"),
    "elements bare.h5 --detector short.toml -o e.json": ("1024", "512"),
    "elements bare.h5 --detector other.toml -o e.json": ("other.toml", "detector"),
    "elements bare.h5 --detector scan.h5 -o e.json": ("scan.h5",),
    f"elements bare.h5 {KNOWN} -o e.txt": ("--output", ".json"),
    f"elements empty.h5 {KNOWN} -o e.json": ("empty.h5", "counts"),
    f"elements bare.h5 --detector-element first {KNOWN} -o e.json": ("--detector-element", "sum"),
    f"maps scan.h5 {KNOWN} -o scan.h5 --overwrite": ("--output", "input"),
    f"maps scan.h5 {KNOWN} -o again.h5 --overwrite": ("--output", "input"),
    f"maps scan.h5 {KNOWN} -o maps.h5 --overwrite": ("--output", "input"),
    f"maps scan.h5 {KNOWN} -o m.tif": ("--output", ".ome.tif"),
    f"maps scan.h5 {KNOWN} --elements Xx -o m.h5": ("--elements", "Xx"),
    f"maps scan.h5 {KNOWN} --elements 'Fe Q' -o m.h5": ("--elements", "Fe Q"),
    f"maps scan.h5 {KNOWN} --elements ' , ' -o m.h5": ("--elements",),
    f"maps scan.h5 {KNOWN} --smooth -1 -o m.h5": ("--smooth",),
    f"maps scan.h5 {KNOWN} --rows 0 -o m.h5": ("--rows",),
    f"maps scan.h5 {KNOWN} --devices 64 -o m.h5": ("devices",),
    "maps bare.h5 --detector short.toml -o m.h5": ("1024", "512"),
    f"maps negative.npy {KNOWN} -o m.h5": ("negative.npy", "row 4, column 7, channel 300"),
}


@pytest.mark.parametrize("line", BAD)
@pytest.mark.usefixtures("unchecked")
def test_a_bad_call_is_refused_in_one_line(lfjax, place, line):
    before = {path: path.lstat().st_mtime_ns for path in place.iterdir() if path.name != "cache"}
    done = lfjax("xrf", *shlex.split(line), cwd=place)
    progress, told = [], done.err.strip().splitlines()
    if line.split()[1] in ("empty.h5", "negative.npy"):  # which only reading them shows
        progress, told = told[:-1], told[-1:]
    assert done.code == 2 and len(told) == 1 and all(each.startswith("sum of all spectra") for each in progress), done.err
    assert all(word in done.err for word in BAD[line]), done.err
    assert {path: path.lstat().st_mtime_ns for path in place.iterdir() if path.name != "cache"} == before
