"""Spectral cubes: what each format holds is read row by row, and what is ambiguous, broken or no count is refused by name."""

import itertools

import h5py
import numpy as np
import pytest
import tifffile

from lfjax import io
from lfjax.errors import FileError, ParameterError
from lfjax.io.cube_energy import listed_axis, points_axis, polynomial_axis
from tests.io import cube_examples as examples
from tests.io.cube_examples import COUNTS

AXIS = io.EnergyAxis(-100.0, 500.0)


def whole(path, **asked):
    with io.open_cube(path, **asked) as cube:
        return cube.read(range(len(cube)))


def assert_axis(found, wanted=AXIS):
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_what_is_written_is_read_row_by_row(tmp_path):
    live = np.random.default_rng(0).uniform(0.1, 1, (4, 5))
    io.write_cube(tmp_path / "a.h5", COUNTS, AXIS, live_s=live, pixel_um=(500.0, 250.0))
    with io.open_cube(tmp_path / "a.h5") as cube:
        assert cube.shape == (4, 5, 32) and cube.dtype == np.uint16 and cube.pixel_um == (500.0, 250.0)
        np.testing.assert_array_equal(cube.read(range(1, 3)), COUNTS[1:3])
        np.testing.assert_array_equal(cube.live_s, live)
        assert_axis(cube.energy)
        assert [len(block) for _, block in cube.blocks(3)] == [3, 1]
        np.testing.assert_array_equal(np.concatenate([block for _, block in cube.blocks()]), COUNTS)
        with pytest.raises(ParameterError, match="rows = range"):
            cube.read(range(3, 5))
        io.write_cube(tmp_path / "b.h5", cube, None)
    io.write_cube(tmp_path / "c.h5", (COUNTS[k : k + 1] for k in range(4)), AXIS)
    for name in ("b.h5", "c.h5"):
        np.testing.assert_array_equal(whole(tmp_path / name), COUNTS)
    assert_axis(io.open_cube(tmp_path / "b.h5").energy)


def test_counts_that_are_none_are_refused_by_place(tmp_path):
    for value, dtype in ((np.nan, np.float32), (np.inf, np.float64), (-1, np.int32)):
        wrong = COUNTS.astype(dtype)
        wrong[2, 1, 30] = value
        np.save(tmp_path / "a.npy", wrong)
        cube = io.open_cube(tmp_path / "a.npy")
        np.testing.assert_array_equal(cube.read(range(2)), COUNTS[:2])
        with pytest.raises(FileError, match=r"a\.npy: row 2, column 1, channel 30: (nan|inf|-1); expected counts"):
            cube.read(range(1, 4))
        with pytest.raises(FileError, match=r"b\.h5: row 2, column 1, channel 30"):
            io.write_cube(tmp_path / "b.h5", (wrong[k : k + 1] for k in range(4)), None)
        assert not (tmp_path / "b.h5").exists()
    for values in (COUNTS.astype(complex), COUNTS.astype(str), COUNTS.astype(object), COUNTS > 3):
        np.save(tmp_path / "c.npy", values)
        with pytest.raises(FileError, match=r"c\.npy"):
            io.open_cube(tmp_path / "c.npy")


def test_axes_are_told_or_asked(tmp_path):
    def saved(array):
        np.save(tmp_path / "a.npy", array)
        return tmp_path / "a.npy"

    images = saved(COUNTS.transpose(2, 0, 1))
    with pytest.raises(FileError, match=r"shape \(32, 4, 5\): nothing tells which axis is that of energies.*axes="):
        io.open_cube(images)
    np.testing.assert_array_equal(whole(images, axes="eyx"), COUNTS)
    np.testing.assert_array_equal(whole(saved(COUNTS.transpose(1, 0, 2)), axes="xye"), COUNTS)
    flat = saved(COUNTS.reshape(20, 32))
    with pytest.raises(FileError, match="a list of 20 spectra; expected its rows and columns as the grid"):
        io.open_cube(flat)
    with pytest.raises(FileError, match=r"20 spectra; expected rows x columns of the grid \(3, 5\)"):
        io.open_cube(flat, grid=(3, 5))
    np.testing.assert_array_equal(io.open_cube(flat, grid=(4, 5)).read(range(1, 3)), COUNTS[1:3])
    pair = np.stack([COUNTS, 2 * COUNTS], 2)
    with pytest.raises(FileError, match="which axis is that of detectors"):
        io.open_cube(saved(pair))
    with pytest.raises(FileError, match="2 detectors; choose one with detector=0 to 1, or detector='sum'"):
        io.open_cube(saved(pair), axes="yxde")
    np.testing.assert_array_equal(whole(saved(pair), axes="yxde", detector=1), 2 * COUNTS)
    total = whole(saved((pair * 20).astype(np.uint16)), axes="yxde", detector="sum")
    assert total.dtype == np.uint64
    np.testing.assert_array_equal(total, 60 * COUNTS.astype(np.uint64))
    with pytest.raises(ParameterError, match="axes = 'yxz'"):
        io.open_cube(images, axes="yxz")
    with pytest.raises(FileError, match="dataset='a': this format has no dataset"):
        io.open_cube(images, dataset="a")


def test_nexus_is_followed_to_the_detector(tmp_path):
    cube = io.open_cube(examples.write_nexus(tmp_path / "a.h5"))
    np.testing.assert_array_equal(cube.read(range(4)), COUNTS)
    assert_axis(cube.energy)
    np.testing.assert_allclose(cube.live_s, 0.25)
    np.testing.assert_allclose(cube.pixel_um, (500, 250))


@pytest.mark.parametrize(
    ("unit", "scale", "expected"), [("keV", 1, 1), ("eV", 1e3, 1), (None, 1, 1), (None, 1e3, 1), ("eV", 1, 1e-3)]
)
def test_channels_first_with_energies_in_any_unit(tmp_path, unit, scale, expected):
    """The layout of MAPS: mca_arr (channels, rows, columns), and energy."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["MAPS/mca_arr"] = COUNTS.transpose(2, 0, 1)
        file["MAPS/other"] = COUNTS[..., :3]
        file["MAPS/energy"] = scale * examples.energies_kev()
        if unit:
            file["MAPS/energy"].attrs["units"] = unit
    cube = io.open_cube(tmp_path / "a.h5")
    np.testing.assert_array_equal(cube.read(range(1, 4)), COUNTS[1:])
    assert_axis(cube.energy, io.EnergyAxis(-100 * expected, 500 * expected))


def test_calibrations_and_lists_of_points_in_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        spectra = file.create_dataset("detector/spectra", data=COUNTS.reshape(20, 32))
        spectra.attrs.update({"CALIB": [-0.1, 0.5, 0.0], "grid_shape": [4, 5]})
        file["detector/dwell_time"] = np.arange(20.0)
    cube = io.open_cube(tmp_path / "a.h5")
    np.testing.assert_array_equal(cube.read(range(2, 4)), COUNTS[2:])
    np.testing.assert_array_equal(cube.live_s, np.arange(20.0).reshape(4, 5))
    assert_axis(cube.energy)
    cube.close()
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["detector/spectra"].attrs["CALIB"] = [-0.1, 0.5, 1e-2]
    with pytest.raises(FileError, match=r"a\.h5: attribute calib: channel \d+ is .* off a straight line \(a quadratic"):
        io.open_cube(tmp_path / "a.h5")
    assert io.open_cube(tmp_path / "a.h5", energy=AXIS).energy == AXIS


def test_ambiguous_hdf5_is_refused_by_name(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one/counts"], file["two/counts"] = COUNTS, COUNTS + 1
    with pytest.raises(FileError, match=r"'one/counts' \(4, 5, 32\), 'two/counts' \(4, 5, 32\); choose one with dataset="):
        io.open_cube(tmp_path / "a.h5")
    np.testing.assert_array_equal(whole(tmp_path / "a.h5", dataset="two/counts"), COUNTS + 1)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["counts"] = COUNTS
        file["counts"].attrs.update({"interpretation": "spectrum", "axes": "energy:y:x"})
    with pytest.raises(FileError, match="the spectrum is axis 2 by its interpretation, axis 0 by the names of the axes"):
        io.open_cube(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["counts"] = h5py.ExternalLink("b.h5", "counts")
        file.create_dataset("never", (400, 500, 2048), np.uint16, chunks=(1, 500, 2048))
    with pytest.raises(FileError, match=r"link into the file 'b\.h5'"):
        io.open_cube(tmp_path / "c.h5", dataset="counts")
    np.testing.assert_array_equal(whole(tmp_path / "c.h5", dataset="counts", follow_links=True, axes="yxe"), COUNTS)
    with pytest.raises(FileError, match="'/never' .* was never written"):
        io.open_cube(tmp_path / "c.h5")


@pytest.mark.parametrize("record", ["vector", "image"])
@pytest.mark.parametrize("order", ["little-endian", "big-endian"])
@pytest.mark.parametrize(("kind", "length"), [("unsigned", 2), ("unsigned", 8), ("signed", 4), ("float", 4), ("float", 8)])
def test_ripples_of_all_types(tmp_path, record, order, kind, length):
    told = {"record_by": record, "byte_order": order, "data_type": kind, "data_length": length, "offset": 7}
    header = examples.write_ripple(tmp_path, **told)
    for path in (header, header.with_suffix(".raw")):
        cube = io.open_cube(path)
        np.testing.assert_array_equal(cube.read(range(1, 4)), COUNTS[1:])
        assert cube.dtype == np.dtype(f"{dict(unsigned='u', signed='i', float='f')[kind]}{length}")
        assert cube.energy == (0.0, 20.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"width": None}, "width is missing"),
        ({"height": "-4"}, "height is -4; expected a whole number"),
        ({"depth": 33}, r"c\.raw: 1280 bytes; expected 1320 by c\.rpl"),
        ({"data_length": 3}, "data-length is 3"),
        ({"data_type": "text"}, "data-type is text"),
        ({"byte_order": "dont-care"}, "byte-order is dont-care; expected one of big-endian, little-endian"),
        ({"record_by": "dont-care"}, "record-by is dont-care"),
        ({"ev_per_chan": "x"}, "ev-per-chan is x"),
    ],
)
def test_wrong_ripples_are_refused(tmp_path, changed, said):
    examples.write_ripple(tmp_path)
    counts = (tmp_path / "c.raw").read_bytes()
    path = examples.write_ripple(tmp_path, **changed) if "data_length" not in changed else tmp_path / "c.rpl"
    if "data_length" in changed:
        path.write_text(path.read_text().replace("data-length\t2", "data-length\t3"))
    (tmp_path / "c.raw").write_bytes(counts)
    with pytest.raises(FileError, match=said):
        io.open_cube(path)


def test_a_ripple_without_its_values_says_so(tmp_path):
    examples.write_ripple(tmp_path)
    (tmp_path / "c.raw").unlink()
    with pytest.raises(FileError, match=r"c\.rpl: the file of values is missing; expected c\.raw beside it"):
        io.open_cube(tmp_path / "c.rpl")


@pytest.mark.parametrize(
    ("kind", "interleave", "order"),
    [*itertools.product((1, 2, 3, 4, 5, 12, 13, 14, 15), ("bil",), (0, 1)), (12, "bsq", 0), (4, "bip", 1), (12, "bsp", 1)],
)
def test_envi_of_all_types(tmp_path, kind, interleave, order):
    header, values = examples.write_envi(tmp_path, kind, interleave, order)
    for path in (header, tmp_path / "c.img"):
        cube = io.open_cube(path)
        np.testing.assert_array_equal(cube.read(range(1, 4)), values[1:])
        assert_axis(cube.energy)
        assert cube.pixel_um == (500.0, 250.0)


def test_wrong_envi_is_refused(tmp_path):
    header, _ = examples.write_envi(tmp_path)
    good = header.read_text()
    for old, new, said in (
        ("data type = 12", "data type = 6", r"data type is 6 \(complex"),
        ("lines = 4", "lines = 5", "1280 bytes; expected 1600"),
        ("units = keV", "units = Nanometers", "energies in 'Nanometers'; expected eV or keV"),
        ("-0.1, ", "", "31 values of wavelength; expected one per band, 32"),
        ("wavelength = {", "wavelength = ", "braces"),
        ("ENVI\n", "ENVY\n", "first line"),
    ):
        assert old in good
        header.write_text(good.replace(old, new, 1))
        with pytest.raises(FileError, match=said):
            io.open_cube(header)
    header, _ = examples.write_envi(tmp_path, energies=examples.energies_kev() + 0.01 * np.arange(32) ** 2)
    with pytest.raises(FileError, match=r"wavelength: channel \d+ is .* off a straight line"):
        io.open_cube(header)


def test_edf_rows_in_one_file_or_many(tmp_path):
    (tmp_path / "rows").mkdir()
    first = examples.write_edf_rows(tmp_path / "rows")
    for asked in (first, tmp_path / "rows", tmp_path / "rows/panel*.edf", sorted((tmp_path / "rows").iterdir())[::-1]):
        cube = io.open_cube(asked)
        np.testing.assert_array_equal(cube.read(range(1, 4)), COUNTS[1:])
        assert_axis(cube.energy)
    np.testing.assert_array_equal(whole([first]), COUNTS[:1])
    np.testing.assert_array_equal(whole(examples.write_edf(tmp_path / "all.edf", *COUNTS)), COUNTS)
    np.testing.assert_array_equal(whole(examples.write_edf(tmp_path / "cube.edf", COUNTS)), COUNTS)
    line = examples.write_edf(tmp_path / "line.edf", COUNTS[0, 0], mca_calib="-0.1 0.5 0")
    np.testing.assert_array_equal(whole(line), COUNTS[:1, :1])
    assert_axis(io.open_cube(line).energy)
    first.with_name("panel_0001_0002.edf").unlink()
    with pytest.raises(FileError, match=r"no file after number 1 in panel_0001_\*\.edf"):
        io.open_cube(tmp_path / "rows")
    examples.write_edf(tmp_path / "rows/xiast_0000.edf", COUNTS[0])
    with pytest.raises(FileError, match=r"2 series of files, panel_0001_\*\.edf, xiast_\*\.edf"):
        io.open_cube(tmp_path / "rows")


def test_wrong_edf_is_refused(tmp_path):
    good = examples.write_edf(tmp_path / "a.edf", *COUNTS).read_bytes()
    for old, new, said in (
        (b"UnsignedShort", b"Text", "DataType is Text"),
        (b"Dim_1 = 32", b"Dim_1 = 33", "Size is 320; expected 330 bytes"),
        (b"LowByteFirst", b"Middle", "ByteOrder is Middle"),
        (b"Image = 1", b"Compression = GzipCompression", "Compression is GzipCompression"),
        (b"Size = 320", b"Size = 7", "Size is 7; expected 320 bytes"),
    ):
        (tmp_path / "a.edf").write_bytes(good.replace(old, new))
        with pytest.raises(FileError, match=said):
            io.open_cube(tmp_path / "a.edf")
    (tmp_path / "a.edf").write_bytes(good[:-1])
    with pytest.raises(FileError, match="truncated, image 3"):
        io.open_cube(tmp_path / "a.edf")


def test_amptek_and_spe_spectra(tmp_path):
    for path in (examples.write_amptek(tmp_path), examples.write_spe(tmp_path)):
        cube = io.open_cube(path)
        assert cube.shape == (1, 1, 32)
        np.testing.assert_array_equal(cube.read(range(1)), COUNTS[:1, :1])
        assert_axis(cube.energy)
        assert round(float(cube.live_s[0, 0])) == 58
    text = (tmp_path / "c.mca").read_text("latin-1")
    for old, new, said in (
        ("<<END>>", "", "no <<END>>; expected a whole Amptek"),
        ("<<DATA>>", "<<DATA>>\n1,5", "number 1 of its counts is no number"),
        ("24 11.9", "4 11.9", "pairs of different channels"),
        ("<<PMCA SPECTRUM>>", "#S 1\n@A 1 2 3", "a SPEC file"),
        ("<<PMCA SPECTRUM>>", "1 2\n3 4", "columns; expected one column"),
    ):
        (tmp_path / "c.mca").write_text(text.replace(old, new), "latin-1")
        with pytest.raises(FileError, match=said):
            io.open_cube(tmp_path / "c.mca")


def test_cars_spectra_of_two_elements(tmp_path):
    head = "VERSION: 3.1\nELEMENTS: 2\nCHANNELS: 32\nLIVE_TIME: 9.5 9.0\n"
    head += "CAL_OFFSET: -0.1 -0.2\nCAL_SLOPE: 0.5 0.5\nCAL_QUAD: 0 0\n"
    (tmp_path / "c.mca").write_text(head + "DATA:\n" + "\n".join(f"{a} {b}" for a, b in COUNTS[0, :2].T))
    with pytest.raises(FileError, match="2 detectors; choose one"):
        io.open_cube(tmp_path / "c.mca")
    cube = io.open_cube(tmp_path / "c.mca", detector=1)
    np.testing.assert_array_equal(cube.read(range(1))[0], COUNTS[0, 1:2])
    assert_axis(cube.energy, (-200.0, 500.0))
    assert cube.live_s == 9.0
    with pytest.raises(FileError, match="different calibrations"):
        io.open_cube(tmp_path / "c.mca", detector="sum")
    total = io.open_cube(tmp_path / "c.mca", detector="sum", energy=AXIS)
    np.testing.assert_array_equal(total.read(range(1))[0, 0], COUNTS[0, 0].astype(int) + COUNTS[0, 1])


def test_energy_axes_from_closed_forms():
    n = np.arange(2048)
    assert_axis(listed_axis("f", np.round(-0.05 + 0.01 * n, 3), "keV", "w"), (-50.0, 10.0))
    assert polynomial_axis("f", [0.0, 1.0, 0.0], 2048, None, "w") is None
    assert polynomial_axis("f", [0.0, 1.0], 2048, "eV", "w") == (0.0, 1.0)
    assert_axis(points_axis("f", [(100, 6.4)], 2048, "keV", "w"), (0.0, 64.0))
    assert_axis(points_axis("f", [(10, 1.0), (20, 2.1), (30, 2.9)], 512, "keV", "w"), (100.0, 95.0))
    for coefficients, said in (([0.0, -1.0], "increase"), ([0.0, np.nan], "finite"), ([0.0, 0.2], "end at 409.4, without a")):
        with pytest.raises(FileError, match=said):
            polynomial_axis("f", coefficients, 2048, None, "w")


MAPS = np.random.default_rng(1).uniform(0, 9, (3, 6, 7)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.tiff", ".h5"])
@pytest.mark.parametrize("about", [True, False])
def test_maps_are_read_as_they_are_written(tmp_path, suffix, about):
    told = {"energies_ev": [6404.0, 2984.3, 10551.5], "errors": MAPS / 7, "pixel_um": (500.0, 250.0)} if about else {}
    names = ("Fe K", "Ag L", "Pb L")
    io.write_maps(tmp_path / f"m{suffix}", MAPS, names, **told)
    found = io.read_maps(tmp_path / f"m{suffix}")
    np.testing.assert_array_equal(found.maps, MAPS)
    assert found.names == names and found.pixel_um == told.get("pixel_um")
    if about:
        np.testing.assert_array_equal(found.energies_ev, told["energies_ev"])
        np.testing.assert_array_equal(found.errors, MAPS / 7)
    else:
        assert found.energies_ev is None and found.errors is None
    if suffix != ".h5":
        with tifffile.TiffFile(tmp_path / f"m{suffix}") as file:
            assert file.series[0].axes == "CYX" and file.series[0].shape == MAPS.shape
            assert all(f'Name="{name}"' in file.ome_metadata for name in names)


def test_maps_that_cannot_be_written_are_refused(tmp_path):
    for names in (("a", "b"), ("a", "a", "b"), ("a", "b/c", "d"), ("a", "x", "c")):
        with pytest.raises(ParameterError, match="names = "):
            io.write_maps(tmp_path / "m.h5", MAPS, names)
    with pytest.raises(FileError, match="NaN or infinite"):
        io.write_maps(tmp_path / "m.h5", np.where(MAPS > 8, np.nan, MAPS), "abc")
    with pytest.raises(FileError, match="suffix"):
        io.write_maps(tmp_path / "m.tif", MAPS, "abc")
    io.write_maps(tmp_path / "one.ome.tif", MAPS[:1], ["Fe"])
    np.testing.assert_array_equal(io.read_maps(tmp_path / "one.ome.tif").maps, MAPS[:1])
