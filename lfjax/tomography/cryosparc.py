"""cryoSPARC's particles (.cs) as the tables that lfjax shares with RELION 3.1, and back.

    R = exp([pose]x)^T,    rlnOriginAngst = alignments3D/shift * alignments3D/psize_A,    rlnRandomSubset = split + 1,
    rlnMagMat = I + ctf/anisomag,    angles in degrees where cryoSPARC has radians

cryoSPARC's pose is a rotation vector whose matrix is the transpose of R of `lfjax.rotation`; its matrix of anisotropic
magnification, like RELION's, takes coordinates in Fourier space. `blob/sign` becomes the column lfjaxImageSign.

The phases of cryoSPARC's odd and fourth-order aberrations are, for wavelength L and frequency k,

    2 pi L^2 |k|^2 (tilt_A . k),    2 pi / 3 L^2 |k|^3 trefoil_A,    at most 2 pi L^3 |k|^4 tetra_A,    2 pi shift_A . k,

where tilt_A is the spherical aberration times the tilt in radians. No public source states their signs, so lfjax does not apply
them unless the caller gives the sign; it keeps them in columns of its own, says how large they are, and writes them back.

Sources: Zivanov, Nakane & Scheres, IUCrJ 7, 253 (2020); Singer & Sigworth, Annu. Rev. Biomed. Data Sci. 3, 163 (2020);
cryoSPARC's guide and forum; the fields that pyem's csparc2star converts.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lfjax.errors import DataWarning, FileError, require
from lfjax.io.atomic import writing
from lfjax.io.checked_numbers import require_rows
from lfjax.io.star import Tables
from lfjax.tomography.cs_alignments import choose_alignment, pose_columns, pose_fields
from lfjax.tomography.cs_fields import Fields, field_values, merge_cs, short_decimals, whole_values
from lfjax.tomography.relion_tables import MAGNIFICATION, TILT

MICROSCOPE = {
    "ctf/accel_kv": "rlnVoltage",
    "ctf/cs_mm": "rlnSphericalAberration",
    "ctf/amp_contrast": "rlnAmplitudeContrast",
}
"""Fields of the CTF that belong to an optics group, and their columns."""

DEFOCUS = {
    "ctf/df1_A": "rlnDefocusU",
    "ctf/df2_A": "rlnDefocusV",
    "ctf/df_angle_rad": "rlnDefocusAngle",
}
"""Fields of the CTF that every particle needs, and their columns."""

ENVELOPE = {
    "ctf/phase_shift_rad": "rlnPhaseShift",
    "ctf/bfactor": "rlnCtfBfactor",
    "ctf/scale": "rlnCtfScalefactor",
}
"""Fields of the CTF that a file may leave out, and their columns."""

UNAPPLIED = {
    "ctf/tilt_A": ("lfjaxTiltAngst", 2),
    "ctf/trefoil_A": ("lfjaxTrefoilAngst", 2),
    "ctf/tetra_A": ("lfjaxTetrafoilAngst", 4),
    "ctf/shift_A": ("lfjaxBeamShiftAngst", 2),
    "ctf/scale_const": ("lfjaxScaleConst", 1),
}
"""Fields that lfjax keeps without applying them: the column of the optics table, "[a,b]", and the count of numbers."""

SIZES = ("lfjaxMicrographSizeY", "lfjaxMicrographSizeX")
CENTRES = {"location/center_x_frac": "rlnCoordinateX", "location/center_y_frac": "rlnCoordinateY"}


def read_cs(
    paths: str | Path | Sequence[str | Path],
    *,
    alignment: str | None = None,
    ctf: bool = True,
    pixel_angstrom: float | None = None,
    tilt_sign: int | None = None,
) -> Tables:
    """Read particles of a cryoSPARC job as tables in RELION 3.1's terms.

    Args:
        paths: .cs files that are merged by uid, the main one first, as `merge_cs` explains, or a .csg file.
        alignment: which poses, where the files have several sets: "alignments3D"; "class_0" for the poses of that class and the
            images whose largest posterior is there; "best" for the poses of each image's own most probable class.
        ctf: False: files without CTF are read too.
        pixel_angstrom: pixel size of the images where the files have none.
        tilt_sign: 1 or -1: apply ctf/tilt_A as rlnBeamTilt with this sign; None: do not apply it, and warn.

    Returns:
        {"optics": one row per exposure group, pixel size and box, "particles": one row per image}.

    Raises:
        FileError: fields are missing, NaN or not of their kind, or several sets of poses are there and none is chosen; the
            message names file, field and row.
        ParameterError: tilt_sign is not 1, -1 or None.
    """
    require(tilt_sign in (None, 1, -1), "tilt_sign", tilt_sign, "1, -1 or None")
    fields = merge_cs(paths)
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    return tables_of(
        ", ".join(str(p) for p in given),
        fields,
        alignment=alignment,
        ctf=ctf,
        pixel_angstrom=pixel_angstrom,
        tilt_sign=tilt_sign,
    )


def tables_of(
    name: str,
    fields: Fields,
    *,
    alignment: str | None = None,
    ctf: bool = True,
    pixel_angstrom: float | None = None,
    tilt_sign: int | None = None,
) -> Tables:
    """The tables of fields that `merge_cs` has read; arguments and errors are those of `read_cs`, `name` is for messages."""
    missing = {"blob/path", "blob/idx"} - set(fields)
    if missing:
        raise FileError(f"{name}: no field {' and '.join(sorted(missing))}; give the passthrough file of the job as well")
    fields, poses, prefix = choose_alignment(name, fields, alignment)
    count = len(fields["blob/idx"])
    paths = [_text(p) for p in fields["blob/path"]]
    particles: dict[str, Any] = {
        "rlnImageName": [f"{i + 1:06d}@{path}" for i, path in zip(whole_values(name, fields, "blob/idx"), paths, strict=True)]
    }
    optics: dict[str, Any] = {}
    groups = next((f for f in ("ctf/exp_group_id", "location/exp_group_id") if f in fields), None)
    optics["lfjaxExposureGroup"] = whole_values(name, fields, groups) if groups else np.ones(count, int)
    optics |= _frame(name, fields, pixel_angstrom)
    if _has_ctf(name, fields, ctf):
        optics |= {column: short_decimals(field_values(name, fields, f)) for f, column in MICROSCOPE.items()}
        for f, column in (DEFOCUS | ENVELOPE).items():
            if f in fields:
                values = field_values(name, fields, f)
                if f == "ctf/phase_shift_rad" and (largest := np.abs(values).max()) > 2 * np.pi:
                    told = f"{f} is up to {largest:.4g} rad, more than a turn; is it in degrees?"
                    warnings.warn(f"{name}: {told}", DataWarning, stacklevel=4)
                particles[column] = np.rad2deg(values) if f.endswith("_rad") else values
        optics |= _aberrations(name, fields, optics, tilt_sign)
    particles |= pose_columns(name, poses, prefix, fields, optics["rlnImagePixelSize"])
    if "blob/sign" in fields:
        sign = field_values(name, fields, "blob/sign")
        require_rows(name, "blob/sign", sign, np.abs(sign) == 1, "1 or -1")
        if (sign < 0).any():
            particles["lfjaxImageSign"] = sign.astype(int)
    particles |= _location(name, fields)
    if "uid" in fields:
        particles["lfjaxUid"] = fields["uid"].astype(np.uint64)
    table = pd.DataFrame(optics)
    number = table.groupby(list(table.columns), sort=True).ngroup().to_numpy() + 1
    table.insert(0, "rlnOpticsGroup", number)
    table = table.drop_duplicates().sort_values("rlnOpticsGroup", ignore_index=True)
    table.insert(1, "rlnOpticsGroupName", [f"opticsGroup{i}" for i in table["rlnOpticsGroup"]])
    return {"optics": table, "particles": pd.DataFrame(particles | {"rlnOpticsGroup": number})}


def write_cs(path: str | Path, tables: Tables) -> None:
    """Write tables in RELION 3.1's terms as a .cs file with cryoSPARC's names, types and units.

    The uid of an image is that of the column lfjaxUid, or else a hash of its name, so that files about the same images merge.

    Args:
        path: .cs file.
        tables: "optics" and "particles", as `read_cs` returns them.

    Raises:
        FileError: the images are premultiplied by their CTF or phase-flipped, which a .cs file cannot say, or a column that
            cryoSPARC needs is missing or has rows without a value.
    """
    optics, particles = tables["optics"], tables["particles"]
    done = ("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped")
    for column in (c for c in done if c in optics and (optics[c].to_numpy(float) != 0).any()):
        raise FileError(
            f"{path}: {column} is set; cryoSPARC would apply the CTF again: extract the images without CTF correction"
        )
    table = particles.merge(optics, on="rlnOpticsGroup", how="left", suffixes=("", "_optics"), validate="m:1")
    needed = {"rlnImageName", "rlnImagePixelSize"} - set(table)
    if needed:
        raise FileError(f"{path}: no column {', '.join(sorted(needed))}; expected them in the tables")
    values = _blob_fields(path, table) | _ctf_fields(table) | pose_fields(str(path), table) | _location_fields(table)
    kinds = {
        "uid": "<u8",
        "blob/idx": "<u4",
        "blob/shape": "<u4",
        "ctf/exp_group_id": "<u4",
        "location/micrograph_shape": "<u4",
    }
    kinds |= {"alignments3D/split": "<u4", "alignments3D/class": "<u4", "alignments2D/class": "<u4"}
    dtype: list[Any] = []
    for name, value in values.items():
        numbers = np.asarray(value)
        kind = numbers.dtype.str if numbers.dtype.kind == "S" else kinds.get(name, "<f4")
        dtype.append((name, kind, numbers.shape[1:]))
        if numbers.dtype.kind == "f":
            require_rows(str(path), name, numbers, np.isfinite(numbers), "finite numbers")
    rows = np.zeros(len(table), np.dtype(dtype))
    for name, value in values.items():
        rows[name] = value
    with writing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, rows, allow_pickle=False)


def _text(value: bytes | str) -> str:
    text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
    return text.removeprefix(">")


def _frame(name: str, fields: Fields, pixel: float | None) -> dict[str, Any]:
    """Pixel size and side of each image."""
    known = "blob/psize_A" in fields
    if pixel is None and not known:
        told = "give the passthrough file as well, or a pixel size (--voxel-angstrom, pixel_angstrom=)"
        raise FileError(f"{name}: no field blob/psize_A; {told}")
    size = (
        short_decimals(field_values(name, fields, "blob/psize_A"))
        if known or pixel is None
        else np.full(len(fields["blob/idx"]), float(pixel))
    )
    require_rows(name, "blob/psize_A", size, size > 0, "a positive number")
    found: dict[str, Any] = {"rlnImagePixelSize": size}
    if "blob/shape" in fields:
        shape = whole_values(name, fields, "blob/shape")
        require_rows(name, "blob/shape", shape, shape[:, 0] == shape[:, 1], "square images")
        found["rlnImageSize"] = shape[:, 0]
    return found | {"rlnImageDimensionality": np.full(len(size), 2)}


def _has_ctf(name: str, fields: Fields, wanted: bool) -> bool:
    missing = [f for f in (*MICROSCOPE, *DEFOCUS) if f not in fields]
    if missing and wanted:
        none = len(missing) == len(MICROSCOPE) + len(DEFOCUS)
        raise FileError(
            f"{name}: no field {'ctf/*' if none else ', '.join(missing)}; give the passthrough file of the job as well "
            "(..._passthrough_particles.cs), or say that there is no CTF with ctf=False (--no-ctf)"
        )
    return not missing


def _aberrations(name: str, fields: Fields, optics: dict[str, Any], tilt_sign: int | None) -> dict[str, Any]:
    """Magnification, and the columns of aberrations that are kept or, with a sign, applied."""
    found: dict[str, Any] = {}
    if "ctf/anisomag" in fields and (matrix := short_decimals(field_values(name, fields, "ctf/anisomag"))).any():
        found |= dict(zip(MAGNIFICATION, (matrix + [1.0, 0.0, 0.0, 1.0]).T, strict=True))
    cs_angstrom = 1e7 * optics["rlnSphericalAberration"]
    volts = 1e3 * optics["rlnVoltage"]
    wave = 12.2643247 / np.sqrt(volts * (1 + volts * 0.978466e-6))
    k = 0.5 / optics["rlnImagePixelSize"]
    strength = {
        "ctf/tilt_A": 2 * np.pi * wave**2 * k**3,
        "ctf/trefoil_A": 2 * np.pi / 3 * wave**2 * k**3,
        "ctf/tetra_A": 2 * np.pi * wave**3 * k**4,
        "ctf/shift_A": 2 * np.pi * k,
    }
    for field, (column, numbers) in UNAPPLIED.items():
        if field not in fields:
            continue
        values = short_decimals(field_values(name, fields, field)).reshape(len(k), numbers)
        if not values.any():
            continue
        found[column] = ["[" + ",".join(repr(float(v)) for v in row) + "]" for row in values]
        if field == "ctf/tilt_A" and tilt_sign is not None:
            require_rows(name, "ctf/cs_mm", cs_angstrom, cs_angstrom > 0, "more than 0, to turn ctf/tilt_A into an angle")
            angle = 1e3 * tilt_sign * np.arcsin(np.clip(values / cs_angstrom[:, None], -1, 1))
            found |= dict(zip(TILT, angle.T, strict=True))
            continue
        phase = ""
        if field in strength:
            size = (np.linalg.norm(values, axis=1) * strength[field]).max()
            phase = f", a phase of up to {size:.3g} rad at the finest detail of the images ({1 / k.max():.3g} A)"
        choice = "; tilt_sign applies it" if field == "ctf/tilt_A" else ""
        warnings.warn(
            f"{name}: {field} is up to {np.abs(values).max():.4g}{phase}; lfjax does not apply it, because its sign is not "
            f"public, and keeps it as {column}{choice}",
            DataWarning,
            stacklevel=5,
        )
    return found


def _location(name: str, fields: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "location/micrograph_path" in fields:
        found["rlnMicrographName"] = [_text(p) for p in fields["location/micrograph_path"]]
    if "location/micrograph_shape" in fields and set(CENTRES) <= set(fields):
        shape = whole_values(name, fields, "location/micrograph_shape")
        for field, column, side in zip(CENTRES, CENTRES.values(), (shape[:, 1], shape[:, 0]), strict=True):
            found[column] = field_values(name, fields, field) * side
        found |= dict(zip(SIZES, shape.T, strict=True))
    return found


def _blob_fields(path: str | Path, table: pd.DataFrame) -> dict[str, Any]:
    """Where each image is, its identity, size and sign."""
    names = []
    for row, name in enumerate(table["rlnImageName"]):
        number, at, stack = str(name).partition("@")
        if not (at and number.isdigit() and int(number) >= 1 and stack):
            raise FileError(f"{path}: rlnImageName is {name!r} in row {row + 1}; expected NUMBER@STACK with numbers from 1")
        names.append((int(number) - 1, stack.encode()))
    found: dict[str, Any] = {
        "uid": table["lfjaxUid"].astype(np.uint64).to_numpy() if "lfjaxUid" in table else _hashes(names),
        "blob/path": np.asarray([stack for _, stack in names]),
        "blob/idx": [number for number, _ in names],
        "blob/psize_A": table["rlnImagePixelSize"].to_numpy(float),
        "blob/sign": table["lfjaxImageSign"].to_numpy(float) if "lfjaxImageSign" in table else np.ones(len(table)),
    }
    if "rlnImageSize" in table:
        found["blob/shape"] = np.repeat(table["rlnImageSize"].to_numpy(int)[:, None], 2, axis=1)
    return found


def _hashes(names: list[tuple[int, bytes]]) -> NDArray[np.uint64]:
    """A uid for each image from its name, and for repetitions of a name from their number too."""
    seen: dict[tuple[int, bytes], int] = {}
    found = []
    for number, stack in names:
        repeat = seen[number, stack] = seen.get((number, stack), -1) + 1
        digest = hashlib.sha256(b"%d@%s#%d" % (number, stack, repeat)).digest()
        found.append(int.from_bytes(digest[:8], "little"))
    return np.asarray(found, np.uint64)


def _ctf_fields(table: pd.DataFrame) -> dict[str, Any]:
    """Fields of the CTF; none where the table has no CTF."""
    group = "lfjaxExposureGroup" if "lfjaxExposureGroup" in table else "rlnOpticsGroup"
    found: dict[str, Any] = {"ctf/exp_group_id": table[group].to_numpy(int)}
    if "rlnDefocusU" not in table:
        return found
    count = len(table)
    found["ctf/type"] = np.full(count, b"imported")
    for field, column in (MICROSCOPE | DEFOCUS | ENVELOPE).items():
        if column not in table and field not in ENVELOPE:
            continue
        default = 1.0 if field == "ctf/scale" else 0.0
        values = table[column].to_numpy(float) if column in table else np.full(count, default)
        found[field] = np.deg2rad(values) if field.endswith("_rad") else values
    for field, (column, numbers) in UNAPPLIED.items():
        values = np.zeros((count, numbers))
        if column in table:  # few groups, many images: each text is read once
            codes, texts = pd.factorize(table[column])
            values = np.asarray([[float(v) for v in str(text).strip("[]").split(",")] for text in texts])[codes]
        found[field] = values if numbers > 1 else values[:, 0]
    matrix = (
        table[list(MAGNIFICATION)].to_numpy(float)
        if set(MAGNIFICATION) <= set(table)
        else np.tile(np.eye(2).ravel(), (count, 1))
    )
    return found | {"ctf/anisomag": matrix - [1.0, 0.0, 0.0, 1.0]}


def _location_fields(table: pd.DataFrame) -> dict[str, Any]:
    """Micrograph of each image and, where its size is known, the position there."""
    found: dict[str, Any] = {}
    if "rlnMicrographName" in table:
        found["location/micrograph_path"] = np.asarray([str(name).encode() for name in table["rlnMicrographName"]])
    if set(SIZES) | set(CENTRES.values()) <= set(table):
        shape = table[list(SIZES)].to_numpy(int)
        found["location/micrograph_shape"] = shape
        for (field, column), side in zip(CENTRES.items(), (shape[:, 1], shape[:, 0]), strict=True):
            found[field] = table[column].to_numpy(float) / side
    return found
