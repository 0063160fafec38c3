"""Counts, and files of them as other programs write them, for tests of readers and for the fuzzer. No count is zero."""

import h5py
import numpy as np

COUNTS = np.random.default_rng(25).integers(1, 900, (4, 5, 32)).astype(np.uint16)
OFFSET_KEV, GAIN_KEV = -0.1, 0.5  # 32 channels that end at 15.4 keV
AMPTEK = """\
<<PMCA SPECTRUM>>
TAG - panel
GAIN - 2
LIVE_TIME - 58.25
REAL_TIME - 60.0
START_TIME - 10/20/2020 12:17:17
<<CALIBRATION>>
LABEL - Energy (keV)
4 1.9
24 11.9
<<ROI>>
3 9
<<DATA>>
{counts}
<<END>>
<<DPP STATUS>>
Temperature: 230 K \xb5
"""
SPE = """\
$SPEC_ID:
panel
$MCA_CAL:
3
-1.0E-01 5.0E-01 0.0E+00 keV
$MEAS_TIM:
58 60
$DATA:
0 {last}
{counts}
$ENDRECORD:
"""
RIPPLE = {
    "width": 5, "height": 4, "depth": 32, "offset": 0, "ev-per-chan": 20, "data-length": 2, "data-type": "unsigned",
    "byte-order": "little-endian", "record-by": "vector",
}  # fmt: skip
ENVI = """\
ENVI
description = {{a panel,
  of four rows}}
samples = 5
lines = 4
bands = 32
header offset = 0
data type = {kind}
interleave = {interleave}
byte order = {order}
pixel size = {{0.25, 0.5, units=Millimeters}}
wavelength units = keV
wavelength = {{{energies}}}
"""


def energies_kev(channels=32):
    return OFFSET_KEV + GAIN_KEV * np.arange(channels)


def write_ripple(folder, counts=COUNTS, **changed):
    """`changed`: other values of keys; their underscores are hyphens."""
    fields = RIPPLE | {name.replace("_", "-"): value for name, value in changed.items()}
    kind = {"signed": "i", "unsigned": "u", "float": "f"}.get(fields["data-type"], "u")
    order = {"big-endian": ">"}.get(fields["byte-order"], "<")
    values = counts.transpose(2, 0, 1) if fields["record-by"] == "image" else counts
    data = bytes(int(fields["offset"])) + values.astype(f"{order}{kind}{fields['data-length']}").tobytes()
    (folder / "c.raw").write_bytes(data)
    (folder / "c.rpl").write_text("key\tvalue\n" + "".join(f"{k}\t{v}\n" for k, v in fields.items() if v is not None))
    return folder / "c.rpl"


def write_envi(folder, kind=12, interleave="bil", order=0, energies=None, name="c.img"):
    codes = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
    axes = {"bsq": (2, 0, 1), "bsp": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}[interleave]
    values = COUNTS % 200 + 1 if kind == 1 else COUNTS
    (folder / name).write_bytes(values.transpose(axes).astype("<>"[order] + codes[kind]).tobytes())
    listed = ", ".join(f"{one:.6g}" for one in (energies_kev() if energies is None else energies))
    header = (folder / name).with_suffix(".hdr")
    header.write_text(ENVI.format(kind=kind, interleave=interleave, order=order, energies=listed))
    return header, values


def write_amptek(folder):
    (folder / "c.mca").write_text(AMPTEK.format(counts="\n".join(map(str, COUNTS[0, 0]))), encoding="latin-1")
    return folder / "c.mca"


def write_spe(folder):
    rows = "\n".join("".join(f"{n:10d}." for n in row) for row in COUNTS[0, 0].reshape(4, 8))
    (folder / "c.spe").write_text(SPE.format(last=31, counts=rows))
    return folder / "c.spe"


def edf_header(shape, size, kind="UnsignedShort", order="LowByteFirst", **fields):
    """A header of 512 bytes or a multiple, as ESRF writes it."""
    sizes = {"Size": size, **{f"Dim_{k + 1}": n for k, n in enumerate(shape[::-1])}}
    lines = {"HeaderID": "EH:000001:000000:000000", "Image": 1, "ByteOrder": order, "DataType": kind, **sizes, **fields}
    text = "{\n" + "".join(f"{name} = {value} ;\n" for name, value in lines.items())
    return text.ljust(-(-(len(text) + 2) // 512) * 512 - 2).encode() + b"}\n"


def write_edf(path, *images, kind="UnsignedShort", order="LowByteFirst", dtype="<u2", **fields):
    stored = [(one.shape, one.astype(dtype).tobytes()) for one in images]
    path.write_bytes(b"".join(edf_header(shape, len(data), kind, order, **fields) + data for shape, data in stored))
    return path


def write_edf_rows(folder):
    """A file per row, as PyMca reads stacks."""
    told = {"MCA a": OFFSET_KEV, "MCA b": GAIN_KEV, "MCA c": 0.0}
    for k, row in enumerate(COUNTS):
        write_edf(folder / f"panel_0001_{k:04d}.edf", row, **told)
    return folder / "panel_0001_0000.edf"


def write_nexus(path):
    """A file as beamlines write it: the NXdata group leads by a soft link to a detector."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "scan1"
        file.create_group("scan1").attrs.update({"NX_class": "NXentry", "default": "plot"})
        detector = file.create_group("scan1/instrument/fluo/data_group")
        file["scan1/instrument/fluo"].attrs["NX_class"] = "NXdetector"
        detector.create_dataset("data", data=COUNTS, chunks=(1, 5, 32), compression="gzip")
        file["scan1/instrument/fluo/live_time"] = np.full((4, 5), 250.0)
        file["scan1/instrument/fluo/live_time"].attrs["units"] = "ms"
        plot = file.create_group("scan1/plot")
        plot.attrs.update({"NX_class": "NXdata", "signal": "xrf", "axes": ["sample_y", "sample_x", "mca_energy"]})
        plot["xrf"] = h5py.SoftLink("/scan1/instrument/fluo/data_group/data")
        plot["mca_energy"] = energies_kev()
        plot["mca_energy"].attrs["units"] = "keV"
        plot["sample_y"], plot["sample_x"] = 0.5 * np.arange(4), 7 - 0.25 * np.arange(5)
        for name in ("sample_y", "sample_x"):
            plot[name].attrs["units"] = "mm"
        file["scan1/sum"] = COUNTS.sum(2)
    return path
