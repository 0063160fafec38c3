"""Calibrations on disk: NAME.toml to read, with the arrays in NAME.h5 beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lfjax.errors import FileError, require
from lfjax.io.arrays import check_array, reading
from lfjax.io.atomic import writing
from lfjax.io.hdf5 import numbers
from lfjax.io.hdf5_file import new_hdf5
from lfjax.io.toml import naming, of_table, read_toml, require_keys, require_table, toml_lines, within
from lfjax.linop import Identity
from lfjax.optics.camera.lattice_cells import Lattice
from lfjax.optics.camera.pixels import Repair
from lfjax.optics.camera.rectify import Rectifier, lenslet_pixels
from lfjax.optics.camera.resample import Resample
from lfjax.optics.microscope import Microscope

FORMAT = 1
TABLES = ("calibration", "lattice", "microscope")
HEAD = "# Calibration of a light-field microscope, written by lfjax. Its arrays lie beside it in {}.\n"


def write_calibration(path: str | Path, rectifier: Rectifier) -> None:
    """Write a calibration, to be used for other recordings of the same instrument.

    NAME.toml is to be read: the frame's size, the saturation, the trusted share, the lattice and the microscope, each in a
    table. NAME.h5 has the arrays: dark, background and bad in raw pixels, white and mask in rectified ones. A digest of all of
    it ties the two files together. Each is written whole or not at all, the TOML file last.

    Args:
        path: NAME.toml.
        rectifier: the calibration.

    Raises:
        ParameterError: the name does not end with .toml.
        FileError: an array is not finite, or a file of one of the two names exists that is no calibration.
    """
    target = _named(path)
    arrays = {"dark": np.asarray(rectifier.dark), "bad": rectifier.bad.astype(np.uint8)}
    arrays["mask"] = np.asarray(rectifier.mask).astype(np.uint8)
    for name, given in (("background", rectifier.background), ("white", rectifier.white)):
        if given is not None:
            arrays[name] = np.asarray(given)
    scope = rectifier.microscope.to_dict()
    position = scope.pop("alignment", None)
    tables: dict[str, dict[str, Any]] = {
        "calibration": {
            "format": FORMAT,
            "rectified": isinstance(rectifier.resample, Identity),
            "frame_px": list(rectifier.dark.shape),
            "lenslets": list(rectifier.field),
            "trusted": rectifier.trusted,
            "bad_pixels": int(rectifier.bad.sum()),
            "saturation": rectifier.saturation,
            "arrays": sorted(arrays),
        },
        "lattice": dict(rectifier.lattice._asdict()),
        "microscope": scope,
    }
    if position is not None:
        tables["microscope.alignment"] = position
    text = "".join(f"\n[{name}]\n{toml_lines(values)}" for name, values in tables.items())
    digest = _digest(tomllib.loads(text), arrays)
    for array in arrays.values():
        check_array(target, array, "yx")
    beside = target.with_suffix(".h5")
    _require_own(target, beside)
    with new_hdf5(beside) as file:
        file.attrs["calibration"] = digest
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", compression_opts=1, shuffle=True, fletcher32=True)
    with writing(target) as temporary:
        temporary.write_text(f'{HEAD.format(beside.name)}digest = "{digest}"\n{text}', encoding="utf-8")


def read_calibration(path: str | Path) -> Rectifier:
    """Read a calibration that `write_calibration` wrote: NAME.toml, with NAME.h5 beside it.

    The rectifier is the one written, number by number; frames of another size are refused when it is applied.

    Args:
        path: NAME.toml.

    Raises:
        ParameterError: the name does not end with .toml.
        FileError: a file is missing or broken, is of another format, was changed, or the two do not belong together.
    """
    target = _named(path)
    with reading(target, "calibration"), naming(target):
        content = read_toml(target, "a calibration")
        require_keys("calibration", content, ("digest", *TABLES), ("digest", *TABLES))
        digest = content.pop("digest")
        for name in TABLES:
            require_table(name, content[name])
        version = content["calibration"].get("format")
        require(version == FORMAT, "[calibration] format", version, str(FORMAT))
        about = of_table(_About, "calibration", content["calibration"])
        lattice = of_table(Lattice, "lattice", content["lattice"])
        with within("microscope"):
            microscope = Microscope.from_dict(content["microscope"])
        arrays = _arrays(target.with_suffix(".h5"), about, microscope)
        if _digest(content, arrays) != digest:
            raise FileError(
                f"{target}: the digest does not fit: this file or {target.stem}.h5 was changed or replaced; expected the two "
                "as one calibration wrote them; calibrate again"
            )
        return _rectifier(about, lattice, microscope, arrays)


def _named(path: str | Path) -> Path:
    target = Path(path)
    require(target.suffix == ".toml", "path", str(path), "the name of a calibration, NAME.toml")
    return target


def _require_own(target: Path, beside: Path) -> None:
    """Refuse to write over files that are no calibration: NAME.h5 may be a recording, NAME.toml a microscope."""
    own = True
    try:
        if beside.exists():
            with h5py.File(beside, "r") as file:
                own = "calibration" in file.attrs
        if target.exists():
            own = own and "calibration" in tomllib.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        own = False
    if not own:
        raise FileError(f"{target}: this file or {beside.name} exists and is no calibration; expected a new name")


@dataclasses.dataclass(frozen=True)
class _About:
    """The table [calibration]."""

    format: int
    rectified: bool
    frame_px: tuple[int, int]
    lenslets: tuple[int, int]
    trusted: float
    bad_pixels: int
    arrays: tuple[str, ...]
    saturation: float | None = None


def _arrays(path: Path, about: _About, microscope: Microscope) -> dict[str, NDArray[Any]]:
    """The arrays, of the sizes that the TOML file states, checked before they are loaded."""
    raw = about.frame_px
    rectified = tuple(n * cell for n, cell in zip(about.lenslets, microscope.cell_pixels, strict=True))
    shapes = {"dark": raw, "bad": raw, "background": raw, "mask": rectified, "white": rectified}
    with reading(path, "calibration"), h5py.File(path, "r") as file:
        names = list(about.arrays)
        if not {"dark", "bad", "mask"} <= set(names) <= set(shapes):
            raise FileError(f"{path}: arrays {names}; expected dark, bad, mask, and at most background and white")
        for name in names:
            found = getattr(file.get(name), "shape", None)
            if found != shapes[name]:
                by = "frame_px" if shapes[name] is raw else "lenslets and pixels_per_lenslet"
                raise FileError(f"{path}: {name} has shape {found}; expected {shapes[name]} by {by} of {path.stem}.toml")
        return {name: numbers(path, file, name, "yx") for name in names}


def _rectifier(about: _About, lattice: Lattice, microscope: Microscope, arrays: dict[str, NDArray[Any]]) -> Rectifier:
    shape = about.frame_px
    resample: Resample | Identity = Identity(shape)
    if not about.rectified:
        resample = Resample(shape, lenslet_pixels(lattice.grouped(microscope.units), shape, microscope.cell_pixels)[0])
    mask = arrays["mask"].astype(bool)
    if resample.out_shape != mask.shape:
        raise FileError(f"the lattice gives a light field of {resample.out_shape}; the mask has {mask.shape}")
    background, white = (jnp.asarray(arrays[name]) if name in arrays else None for name in ("background", "white"))
    level = None if about.saturation is None else float(about.saturation)
    dark, repair = jnp.asarray(arrays["dark"]), Repair(arrays["bad"].astype(bool))
    return Rectifier(resample, dark, background, repair, white, jnp.asarray(mask), lattice, about.lenslets, level, microscope)


def _digest(tables: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> str:
    """SHA-256 of the tables as canonical JSON and of the arrays with their types and sizes."""
    digest = hashlib.sha256(json.dumps(tables, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
