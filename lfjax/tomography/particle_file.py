"""Particle files: RELION's STAR (3.0, 3.1, 4, 5) and cryoSPARC's .cs, with the stacks that they name.

RELION's rot, tilt, psi are those of `lfjax.rotation`; its origin offset is minus the displacement of the particle. cryoSPARC's
pose is a rotation vector whose matrix is the transpose of ours, its shift has RELION's sign.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import ArrayLike, Float
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.errors import FileError, require
from lfjax.io.arrays import reading
from lfjax.io.atomic import writing
from lfjax.io.mrc import Stack
from lfjax.io.star import Tables, read_star, write_star
from lfjax.tomography.ctf import Ctf
from lfjax.tomography.particles import Particles

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
Columns = dict[str, NDArray[Any] | list[str]]


@dataclass
class ParticleFile:
    """Contents of a particle file; images are read on request.

    Attributes:
        path: path of the file.
        particles: poses (identity where the file has none), optics, pixel sizes and half-sets.
        posed: whether the file has poses.
        names: number, from 0, and file of each image.
        tables: all tables of the file; a .cs file is one table, "".
        folder: folder that image paths are relative to; None: the folder of the file or one above it.
    """

    path: Path
    particles: Particles
    posed: bool
    names: list[tuple[int, str]]
    tables: Tables
    folder: Path | None = None
    _stacks: dict[str, Stack] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def images(self, index: slice | ArrayLike | Sequence[int] = slice(None)) -> Float[NDArray[np.float32], "m y x"]:
        """Images (m, y, x) of a selection: a slice, a mask or indices. Only these are read.

        Raises:
            FileError: a stack is missing or too short, or the images differ in size.
        """
        found: list[NDArray[np.float32]] = []
        for i in np.atleast_1d(np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]):
            number, name = self.names[i]
            if name not in self._stacks:
                self._stacks[name] = Stack(self._find(name))
            stack = self._stacks[name]
            if not 0 <= number < len(stack):
                raise FileError(f"{stack.path}: {len(stack)} images; expected image {number + 1} among them")
            found.append(stack[number])
        sizes = {image.shape for image in found}
        if len(sizes) > 1:
            raise FileError(f"{self.path}: images of several sizes {sorted(sizes)}; select those of one optics group")
        return np.stack(found) if found else np.zeros((0, 0, 0), np.float32)

    def batches(self, size: int) -> Iterator[tuple[NDArray[np.float32], Particles]]:
        """Images and their particles, `size` at a time, for sets larger than memory."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.images(part), self.particles[part]

    def _find(self, name: str) -> Path:
        """Path of a stack, relative to a project folder, which is often above that of the file."""
        places = [self.folder] if self.folder else [self.path.parent, *self.path.resolve().parents]
        for place in places:
            if (place / name).is_file():
                return place / name
        raise FileError(f"{self.path}: stack {name} is not in {places[0]}{'' if self.folder else ' or above'}; give folder")


def read_particles(path: str | Path, *, folder: str | Path | None = None, pixel_angstrom: float | None = None) -> ParticleFile:
    """Read a particle file.

    Args:
        path: .star of RELION 3.0, 3.1, 4 or 5, or .cs of cryoSPARC.
        folder: folder that image paths are relative to; None: the file's own folder or one above it.
        pixel_angstrom: pixel size that overrides the one in the file; needed where the file has none.

    Raises:
        FileError: the file is missing, broken, of another kind, or has no pixel size.
    """
    path, where = Path(path), None if folder is None else Path(folder)
    kinds = {".star": _from_star, ".cs": _from_cryosparc}
    if path.suffix.lower() not in kinds:
        raise FileError(f"{path}: suffix {path.suffix!r} is not known; expected .star or .cs")
    with reading(path, "particle"):
        particles, posed, names, tables = kinds[path.suffix.lower()](path, pixel_angstrom)
    return ParticleFile(path, particles, posed, names, tables, where)


def write_particles(
    path: str | Path,
    particles: Particles,
    names: list[tuple[int, str]],
    size: int,
    *,
    tables: Tables | None = None,
    version: str = "3.1",
) -> None:
    """Write a RELION STAR file, which RELION, cryoSPARC, EMAN2, ASPIRE and cryoDRGN read, or a .cs file of cryoSPARC.

    Args:
        path: .star or .cs.
        particles: poses, optics, pixel sizes and half-sets of the images.
        names: number, from 0, and file of each image.
        size: pixels per side.
        tables: tables of a STAR file; `particles` replace its poses and half-sets, its other columns stay.
        version: "3.1" (with an optics table; RELION 4 and 5 read it) or "3.0".

    Raises:
        ParameterError: the version is unknown, or the number of names is not that of particles.
        FileError: the tables have no block of particles.
    """
    require(version in ("3.0", "3.1"), "version", version, '"3.0" or "3.1"')
    require(len(names) == len(particles), "names", len(names), f"{len(particles)}, one per particle")
    if Path(path).suffix.lower() == ".cs":
        _write_cryosparc(path, particles, names, size)
        return
    if tables is not None:
        kept = {key: table.copy() for key, table in tables.items()}
        main = kept[_main(path, kept)]
        pixels = "rlnOriginXAngst" not in main and "optics" not in kept
        for column, values in _pose_columns(particles, pixels).items():
            main[column] = values
        write_star(path, kept)
        return
    columns: Columns = {"rlnImageName": [f"{number + 1:06d}@{name}" for number, name in names]}
    columns |= _pose_columns(particles, version == "3.0")
    optics = _optics_columns(particles)
    if version == "3.0":
        apart = {"rlnMagnification": np.full(len(names), 10000.0), "rlnDetectorPixelSize": optics.pop("rlnImagePixelSize")}
        write_star(path, {"": pd.DataFrame(columns | optics | apart)})
        return
    shared = pd.DataFrame({name: optics.pop(name) for name in list(optics) if name in OPTICS})
    groups = shared.groupby(list(shared.columns), sort=False, dropna=False).ngroup().to_numpy() + 1
    table = shared.drop_duplicates().reset_index(drop=True)
    table.insert(0, "rlnOpticsGroup", np.arange(1, len(table) + 1))
    table.insert(1, "rlnOpticsGroupName", [f"opticsGroup{i + 1}" for i in range(len(table))])
    table["rlnImageSize"], table["rlnImageDimensionality"] = size, 2
    write_star(path, {"optics": table, "particles": pd.DataFrame(columns | optics | {"rlnOpticsGroup": groups})})


OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize")


def _main(path: str | Path, tables: Tables) -> str:
    for name in ("particles", "images", ""):
        if name in tables:
            return name
    names = [name for name, table in tables.items() if "rlnImageName" in table]
    if len(names) != 1:
        raise FileError(f"{path}: blocks {list(tables)}; expected a single block with rlnImageName")
    return names[0]


def _from_star(path: Path, pixel: float | None) -> tuple[Particles, bool, list[tuple[int, str]], Tables]:
    tables = read_star(path)
    table = tables[_main(path, tables)]
    if "rlnImageName" not in table:
        raise FileError(f"{path}: columns {list(table.columns)}; expected rlnImageName among them")
    if "optics" in tables:
        table = table.merge(tables["optics"], on="rlnOpticsGroup", how="left", suffixes=("", "_optics"), validate="m:1")

    def column(name: str, default: float = 0.0) -> NDArray[np.float64]:
        return table[name].to_numpy(float) if name in table else np.full(len(table), default)

    if pixel is not None:
        size = np.full(len(table), float(pixel))
    elif "rlnImagePixelSize" in table:
        size = column("rlnImagePixelSize")
    elif {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table):
        size = 1e4 * column("rlnDetectorPixelSize") / column("rlnMagnification")
    else:
        raise FileError(f"{path}: no pixel size in the file; expected rlnImagePixelSize, or give pixel_angstrom")
    if not np.all(np.isfinite(size) & (size > 0)):
        raise FileError(f"{path}: pixel sizes from {size.min()} to {size.max()}; expected positive numbers")
    origin = [column(f"rlnOrigin{a}Angst") / size if f"rlnOrigin{a}Angst" in table else column(f"rlnOrigin{a}") for a in "XY"]
    ctf = None
    if "rlnDefocusU" in table:
        b_factor = column("rlnCtfBfactor")
        if (b_factor < 0).any():
            warnings.warn(f"{path}: rlnCtfBfactor is negative; lfjax reads it as a decay of that size", stacklevel=4)
        ctf = Ctf(
            column("rlnDefocusU"),
            column("rlnDefocusV" if "rlnDefocusV" in table else "rlnDefocusU"),
            np.deg2rad(column("rlnDefocusAngle")),
            voltage_kv=column("rlnVoltage", 300.0),
            cs_mm=column("rlnSphericalAberration", 2.7),
            amplitude_contrast=column("rlnAmplitudeContrast", 0.1),
            phase_shift_rad=np.deg2rad(column("rlnPhaseShift")),
            b_factor_angstrom2=np.abs(b_factor),
            scale=column("rlnCtfScalefactor", 1.0),
        )
    particles = Particles(
        jax.jit(rotation.from_euler)(*(jnp.asarray(np.deg2rad(column(name))) for name in ANGLES)),
        shifts=-np.stack(origin, axis=-1),
        ctf=ctf,
        pixel_angstrom=size,
        half=column("rlnRandomSubset").astype(int),
    )
    return particles, ANGLES[1] in table, [_image_name(path, name) for name in table["rlnImageName"]], tables


def _image_name(path: Path, name: str) -> tuple[int, str]:
    number, at, stack = str(name).partition("@")
    if not (at and number.isdigit() and int(number) >= 1 and stack):
        raise FileError(f"{path}: image name {name!r}; expected NUMBER@STACK with numbers from 1")
    return int(number) - 1, stack


def _from_cryosparc(path: Path, pixel: float | None) -> tuple[Particles, bool, list[tuple[int, str]], Tables]:
    rows = np.load(path, allow_pickle=False)
    have = set(rows.dtype.names or ())
    if not {"blob/path", "blob/idx"} <= have:
        raise FileError(f"{path}: fields {sorted(have)}; expected blob/path and blob/idx among them")

    def column(name: str, default: float = 0.0) -> NDArray[np.float64]:
        return rows[name].astype(float) if name in have else np.full(len(rows), default)

    if pixel is None and "blob/psize_A" not in have:
        raise FileError(f"{path}: no pixel size in the file; expected blob/psize_A, or give pixel_angstrom")
    size = column("blob/psize_A") if pixel is None else np.full(len(rows), float(pixel))
    ctf = None
    if "ctf/df1_A" in have:
        ctf = Ctf(
            column("ctf/df1_A"),
            column("ctf/df2_A"),
            column("ctf/df_angle_rad"),
            voltage_kv=column("ctf/accel_kv", 300.0),
            cs_mm=column("ctf/cs_mm", 2.7),
            amplitude_contrast=column("ctf/amp_contrast", 0.1),
            phase_shift_rad=column("ctf/phase_shift_rad"),
            b_factor_angstrom2=column("ctf/bfactor"),
            scale=column("ctf/scale", 1.0),
        )
    posed = "alignments3D/pose" in have
    turns = column("alignments3D/pose") if posed else np.zeros((len(rows), 3))
    shift = column("alignments3D/shift") if "alignments3D/shift" in have else np.zeros((len(rows), 2))
    ratio = column("alignments3D/psize_A") / size if "alignments3D/psize_A" in have else np.ones(len(rows))
    split = column("alignments3D/split").astype(int) + 1 if "alignments3D/split" in have else np.zeros(len(rows), int)
    particles = Particles(
        jax.jit(rotation.from_vector)(jnp.asarray(-turns)),
        shifts=-shift * ratio[:, None],
        ctf=ctf,
        pixel_angstrom=size,
        half=split,
    )
    names = [(int(i), bytes(p).decode().lstrip(">")) for i, p in zip(rows["blob/idx"], rows["blob/path"], strict=True)]
    table = pd.DataFrame({name: list(rows[name]) for name in rows.dtype.names})
    return particles, posed, names, {"": table}


def _pose_columns(particles: Particles, pixels: bool) -> Columns:
    angles = [np.rad2deg(np.asarray(a, float)) for a in jax.jit(rotation.to_euler)(particles.rotations)]
    origin = -np.asarray(particles.shifts, float)
    unit = np.ones(len(particles)) if pixels else np.asarray(particles.pixel_angstrom, float)
    ends = ("rlnOriginX", "rlnOriginY") if pixels else ("rlnOriginXAngst", "rlnOriginYAngst")
    columns: Columns = dict(zip(ANGLES, angles, strict=True))
    columns |= {name: origin[:, i] * unit for i, name in enumerate(ends)}
    half = np.asarray(particles.half)
    return columns | ({"rlnRandomSubset": half} if half.any() else {})


def _optics_columns(particles: Particles) -> Columns:
    columns: Columns = {"rlnImagePixelSize": np.asarray(particles.pixel_angstrom, float)}
    c = particles.ctf
    if c is None:
        return columns
    values = {
        "rlnDefocusU": c.defocus_u_angstrom,
        "rlnDefocusV": c.defocus_v_angstrom,
        "rlnDefocusAngle": np.rad2deg(np.asarray(c.angle_rad, float)),
        "rlnPhaseShift": np.rad2deg(np.asarray(c.phase_shift_rad, float)),
        "rlnCtfBfactor": c.b_factor_angstrom2,
        "rlnCtfScalefactor": c.scale,
        "rlnVoltage": c.voltage_kv,
        "rlnSphericalAberration": c.cs_mm,
        "rlnAmplitudeContrast": c.amplitude_contrast,
    }
    # six digits, as RELION writes them: one optics group stays one
    return columns | {name: np.round(np.asarray(value, float), 6) for name, value in values.items()}


def _write_cryosparc(path: str | Path, particles: Particles, names: list[tuple[int, str]], size: int) -> None:
    longest = max((len(name) for _, name in names), default=1)
    fields: list[Any] = [("uid", "<u8"), ("blob/path", f"S{longest}"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,))]
    values: dict[str, Any] = {
        "uid": np.arange(1, len(names) + 1),
        "blob/path": [name.encode() for _, name in names],
        "blob/idx": [number for number, _ in names],
        "blob/shape": [(size, size)] * len(names),
        "blob/psize_A": particles.pixel_angstrom,
        "alignments3D/psize_A": particles.pixel_angstrom,
        "alignments3D/pose": -np.asarray(jax.jit(rotation.to_vector)(particles.rotations)),
        "alignments3D/shift": -np.asarray(particles.shifts),
        "alignments3D/split": np.maximum(np.asarray(particles.half) - 1, 0),
    }
    if (c := particles.ctf) is not None:
        values |= {
            "ctf/accel_kv": c.voltage_kv,
            "ctf/cs_mm": c.cs_mm,
            "ctf/amp_contrast": c.amplitude_contrast,
            "ctf/df1_A": c.defocus_u_angstrom,
            "ctf/df2_A": c.defocus_v_angstrom,
            "ctf/df_angle_rad": c.angle_rad,
            "ctf/phase_shift_rad": c.phase_shift_rad,
            "ctf/bfactor": c.b_factor_angstrom2,
            "ctf/scale": c.scale,
        }
    known = {name for name, *_ in fields}
    fields += [
        (name, "<u4" if name.endswith("split") else "<f4", np.shape(value)[1:])
        for name, value in values.items()
        if name not in known
    ]
    rows = np.zeros(len(names), np.dtype(fields))
    for name, value in values.items():
        rows[name] = np.asarray(value)
    with writing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, rows, allow_pickle=False)
