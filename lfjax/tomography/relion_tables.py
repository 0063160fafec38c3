"""Particle tables in RELION 3.1's terms, whatever the version of the file, and `Particles` from them and back.

A canonical file is {"optics": ..., "particles": ...}: the first table has one row per optics group with the columns that its
images share (`OPTICS`), the second one row per image. RELION's rot, tilt, psi are those of `lfjax.rotation`; its origin offset
is minus the displacement of the particle, in angstroms. RELION 3.0 has one table; it is parted as `relion_convert_star` does,
and its origins go from pixels to angstroms. (Zivanov et al., eLife 7, e42166 (2018); src/jaz/io/star_converter.cpp of RELION
3.1.3.)
"""

from __future__ import annotations

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.errors import DataWarning, FileError, require
from lfjax.io.star import Tables
from lfjax.tomography.aberrations import Aberrations
from lfjax.tomography.ctf import AS_RECORDED, PHASE_FLIPPED, PREMULTIPLIED, Ctf
from lfjax.tomography.particles import Particles
from lfjax.tomography.relion_checks import (
    check_defoci,
    check_lenses,
    check_origins,
    check_second_origin,
    check_second_pixel,
    half_set_numbers,
    number_lists,
)
from lfjax.tomography.relion_labels import all_or_none, finite_numbers, refuse_labels

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
"""Columns of a pose, in degrees."""
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
"""Columns of minus the displacement of the particle, in angstroms."""
COMA = slice(3, 5)  # terms of rlnOddZernike that a beam tilt replaces
TILT, MAGNIFICATION = ("rlnBeamTiltX", "rlnBeamTiltY"), ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
LENSES = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
FLAGS = {"rlnCtfDataArePhaseFlipped": PHASE_FLIPPED, "rlnCtfDataAreCtfPremultiplied": PREMULTIPLIED}
NEW = (*TILT, "rlnOddZernike", "rlnEvenZernike", *MAGNIFICATION, *FLAGS, "rlnCtfDataAreCtfCorrected", "rlnMtfFileName")
OPTICS = (*LENSES, "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality", *NEW)
"""Columns that the images of an optics group share."""
GIVE_PIXEL = "give a pixel size (--voxel-angstrom, pixel_angstrom=)"
DETECTOR = ("rlnDetectorPixelSize", "rlnMagnification")
TEXTS = ("rlnOddZernike", "rlnEvenZernike", "rlnMtfFileName")


def canonical(path: str | Path, tables: Tables, *, pixel_angstrom: float | None = None) -> Tables:
    """Canonical tables of a file of RELION 3.0, 3.1, 4 or 5; canonical ones come back as they are.

    Args:
        path: path of the file, for messages.
        tables: its tables by name. Columns without a meaning here stay, and so do other tables.
        pixel_angstrom: pixel size that replaces the one in the file, with a `DataWarning` where it differs: shifts keep their
            pixels, so origins in angstroms are scaled by the ratio of the sizes.

    Raises:
        FileError: there is no table of images, no row in it or no pixel size, an optics group is not defined or defined twice,
            the two tables contradict each other, or an entry that is read is no number.
        ParameterError: `pixel_angstrom` would replace several pixel sizes.
    """
    key = _main(path, tables)
    particles = tables[key].reset_index(drop=True)
    if "rlnImageName" not in particles:
        raise FileError(f"{path}: columns {list(particles.columns)}; expected rlnImageName among them")
    if not len(particles):
        raise FileError(f"{path}: block {key!r} has no row; expected one per image")
    if "optics" in tables:
        optics, particles = _linked(path, tables["optics"].reset_index(drop=True), particles)
    else:
        optics, particles = _parted(path, particles)
    optics, ratio = _with_pixel(path, optics, pixel_angstrom)
    particles = _in_angstroms(path, optics, particles, ratio)
    return {"optics": optics, "particles": particles} | {k: t for k, t in tables.items() if k not in ("optics", key)}


def _main(path: str | Path, tables: Tables) -> str:
    for name in ("particles", "images", ""):
        if name in tables:
            return name
    names = [name for name, table in tables.items() if "rlnImageName" in table]
    if len(names) != 1:
        raise FileError(f"{path}: blocks {list(tables)}; expected a single block with rlnImageName")
    return names[0]


def _parted(path: str | Path, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables from the one of RELION 3.0: images with the same optics are a group."""
    names = [name for name in (*OPTICS, *DETECTOR, "rlnOpticsGroup") if name in table]
    for name in names:
        if name not in TEXTS:
            finite_numbers(path, table, name)
    number = table.groupby(names, sort=False).ngroup().to_numpy() if names else np.zeros(len(table), int)
    first = np.unique(number, return_index=True)[1]
    optics = table.iloc[first][[n for n in names if n != "rlnOpticsGroup"]].reset_index(drop=True)
    optics.insert(0, "rlnOpticsGroup", np.arange(1, len(first) + 1))
    optics.insert(1, "rlnOpticsGroupName", [f"opticsGroup{i + 1}" for i in range(len(first))])
    return optics, table.drop(columns=names).assign(rlnOpticsGroup=number + 1)


def _linked(path: str | Path, optics: pd.DataFrame, particles: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of RELION 3.1 with every shared column in the first."""
    if not len(optics):
        raise FileError(f"{path}: block 'optics' has no row; expected one per optics group")
    if "rlnOpticsGroup" not in optics:
        raise FileError(f"{path}: columns {list(optics.columns)} of block 'optics'; expected rlnOpticsGroup among them")
    if "rlnOpticsGroup" not in particles:
        if len(optics) > 1:
            raise FileError(f"{path}: no column rlnOpticsGroup in the table of images; expected it, with {len(optics)} groups")
        particles = particles.assign(rlnOpticsGroup=optics["rlnOpticsGroup"].iloc[0])
    known = finite_numbers(path, optics, "rlnOpticsGroup", "optics")
    if len(twice := known[pd.Series(known).duplicated()]):
        raise FileError(f"{path}: optics group {twice[0]:g} is defined twice; expected one row per group in block 'optics'")
    named = finite_numbers(path, particles, "rlnOpticsGroup")
    if (lost := ~np.isin(named, known)).any():
        row, groups = int(np.argmax(lost)), ", ".join(f"{g:g}" for g in known)
        where = f"row {row + 1} names optics group {named[row]:g} ({int((named == named[row]).sum())} rows do)"
        raise FileError(f"{path}: {where}; expected one that block 'optics' defines: {groups}")
    index = np.searchsorted(np.sort(known), named)
    index = np.argsort(known)[index]
    for name in [n for n in (*OPTICS, *DETECTOR) if n in particles]:
        if name in DETECTOR and "rlnImagePixelSize" in optics:  # RELION 3.1 does not look at them
            continue
        values = particles[name] if name in TEXTS else pd.Series(finite_numbers(path, particles, name))
        if name not in optics:
            first = values.groupby(index).first().reindex(range(len(optics)))
            optics = optics.assign(**{name: first.to_numpy()})
        shared = optics[name].to_numpy()[index]
        same = values == shared if name in TEXTS else np.isclose(values.to_numpy(), np.asarray(shared, float), rtol=1e-5)
        if not np.all(same):
            row = int(np.argmin(same))
            found = f"row {row + 1}, column {name}: {values.iloc[row]}, but {shared[row]} in optics group {named[row]:g}"
            raise FileError(f"{path}: {found}; expected one value for the images of a group")
        particles = particles.drop(columns=name)
    return optics, particles


def _with_pixel(path: str | Path, optics: pd.DataFrame, new: float | None) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """The optics with rlnImagePixelSize, and its ratio to the pixel size in the file."""
    optics = optics.copy()
    if set(DETECTOR) <= set(optics):
        detector, magnification = (finite_numbers(path, optics, name, "optics") for name in DETECTOR)
        for name, values in zip(DETECTOR, (detector, magnification), strict=True):
            if not (values > 0).all():
                raise FileError(f"{path}: column {name}: {values.min():g}; expected a positive number")
        size = 1e4 * detector / magnification
        if "rlnImagePixelSize" not in optics:
            optics["rlnImagePixelSize"] = size
        elif not np.allclose(finite_numbers(path, optics, "rlnImagePixelSize", "optics"), size, rtol=0.01):
            both = f"rlnImagePixelSize {optics['rlnImagePixelSize'].iloc[0]}, but {size[0]:g} from {' and '.join(DETECTOR)}"
            raise FileError(f"{path}: {both}; expected the same pixel size")
    optics = optics.drop(columns=[name for name in DETECTOR if name in optics])
    if "rlnImagePixelSize" not in optics:
        if new is None:
            raise FileError(f"{path}: no pixel size in the file; expected rlnImagePixelSize, or {GIVE_PIXEL}")
        return optics.assign(rlnImagePixelSize=float(new)), np.ones(len(optics))
    old = finite_numbers(path, optics, "rlnImagePixelSize", "optics")
    if not (old > 0).all():
        raise FileError(f"{path}: rlnImagePixelSize {old.min():g}; expected positive numbers")
    if new is None:
        return optics, np.ones(len(optics))
    require(bool(np.isfinite(new)) and new > 0, "pixel_angstrom", new, "a positive number")
    require(
        bool(np.ptp(old) < 1e-4 * old.min()),
        "pixel_angstrom",
        new,
        f"None: {path} has pixels of {old.min():g} to {old.max():g} A",
    )
    if not np.allclose(old, new, rtol=1e-6):
        told = f"pixel size {new:g} A given instead of {old.min():g} A"
        kept = f"shifts keep their pixels, so origins in angstroms are multiplied by {new / old.min():.4g}"
        warnings.warn(f"{path}: {told}; {kept}", DataWarning, stacklevel=4)
    return optics.assign(rlnImagePixelSize=float(new)), new / old


def _in_angstroms(path: str | Path, optics: pd.DataFrame, particles: pd.DataFrame, ratio: NDArray[np.float64]) -> pd.DataFrame:
    """Lengths in angstroms that RELION 3.0 has in pixels."""
    group = group_index(optics, particles)
    pixel = optics["rlnImagePixelSize"].to_numpy(float)[group]
    if not set(ORIGINS) & set(particles):
        all_or_none(path, particles, ("rlnOriginX", "rlnOriginY"))
    origins = [f"rlnOrigin{axis}{prior}" for axis in "XYZ" for prior in ("", "Prior")]
    for name in (*origins, "rlnHelicalTrackLength"):
        angstroms = f"{name}Angst"
        if name in particles and angstroms not in particles:
            values = pd.to_numeric(particles[name], errors="coerce").to_numpy(float)
            if not name.endswith("Prior"):
                values = finite_numbers(path, particles, name)
            particles = particles.rename(columns={name: angstroms}).assign(**{angstroms: values * pixel})
        elif angstroms in particles:
            if name in particles and not name.endswith("Prior"):
                check_second_origin(path, particles, name, pixel / ratio[group])
            particles = particles.drop(columns=name, errors="ignore")
            if (ratio != 1).any():
                particles = particles.assign(**{angstroms: pd.to_numeric(particles[angstroms], errors="coerce") * ratio[group]})
    return particles


def group_index(optics: pd.DataFrame, particles: pd.DataFrame) -> NDArray[np.int64]:
    """Row of the optics table, from 0, of each image of canonical tables."""
    return pd.Index(optics["rlnOpticsGroup"].astype(float)).get_indexer(particles["rlnOpticsGroup"].astype(float))


def lowered(tables: Tables, version: str) -> Tables:
    """Canonical tables in the form of a version of RELION, with every column.

    Args:
        tables: canonical tables.
        version: "3.0": one table, origins in pixels. "3.1" and "5": as they are.

    Raises:
        ParameterError: the version is unknown.
    """
    require(version in ("3.0", "3.1", "5"), "version", version, '"3.0", "3.1" or "5"')
    if version != "3.0":
        return tables
    optics, particles = tables["optics"], tables["particles"]
    group = group_index(optics, particles)
    if unknown := [name for name in NEW if name in optics and name not in (*TILT, "rlnMtfFileName")]:
        said = f"RELION 3.0 does not know {', '.join(unknown)}; the columns are kept, and lfjax reads them"
        warnings.warn(said, DataWarning, stacklevel=2)
    shared = optics.iloc[group].reset_index(drop=True)
    pixel = shared["rlnImagePixelSize"].to_numpy(float)
    table = particles.drop(columns=["rlnOpticsGroup", *(name for name in DETECTOR if name in particles)]).reset_index(drop=True)
    for name in list(table):
        plain = name.removesuffix("Angst")
        if plain != name and plain.startswith(("rlnOrigin", "rlnHelicalTrackLength")):
            table = table.rename(columns={name: plain}).assign(**{plain: table[name].to_numpy(float) / pixel})
    dropped = ["rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageDimensionality"]
    shared = shared.drop(columns=[name for name in shared if name in dropped or name in table])
    shared = shared.assign(rlnMagnification=10000.0, rlnDetectorPixelSize=pixel)
    return {"": pd.concat([table, shared], axis=1)} | {k: t for k, t in tables.items() if k not in ("optics", "particles")}


def to_particles(path: str | Path, tables: Tables, *, ctf: bool = True, pixel_angstrom: float | None = None) -> Particles:
    """Poses, optics, pixel sizes, half-sets and optics groups of images, each in its own pixels.

    An image without half-set has 0. `Ctf.applied`, a program's treatment of an image, is that of its optics
    group. Poses are the identity where the file has none.

    Args:
        path: path of the file, for messages.
        tables: its tables, canonical or not.
        ctf: whether to read the CTF; the images of a file without one have `ctf=False`.
        pixel_angstrom: see `canonical`.

    Raises:
        FileError: a column is missing that others need, has an entry that is no finite number, or changes the meaning of the
            images in a way that lfjax does not know (`relion_labels`). The message names file, row and column.
    """
    tables = canonical(path, tables, pixel_angstrom=pixel_angstrom)
    optics, particles = tables["optics"], tables["particles"]
    refuse_labels(path, tables, ctf=ctf)
    check_second_pixel(path, optics, particles, DETECTOR)
    group, zero = group_index(optics, particles), np.zeros(len(particles))
    pixel = finite_numbers(path, optics, "rlnImagePixelSize", "optics")[group]
    posed, placed = all_or_none(path, particles, ANGLES), all_or_none(path, particles, ORIGINS)
    angles = [np.deg2rad(finite_numbers(path, particles, name)) if posed else zero for name in ANGLES]
    origins = [finite_numbers(path, particles, name) if placed else zero for name in ORIGINS]
    if "rlnImageSize" in optics:
        check_origins(path, tables, group, finite_numbers(path, optics, "rlnImageSize", "optics").astype(int).tolist())
    if not ctf:
        _check_dropped(path, optics, group)
    found = _ctf(path, optics, particles, group) if ctf else None
    return Particles(
        jax.jit(rotation.from_euler)(*(jnp.asarray(angle) for angle in angles)),
        shifts=-np.stack(origins, axis=-1) / pixel[:, None],
        ctf=found,
        pixel_angstrom=pixel,
        half=half_set_numbers(path, particles),
        group=group,
    )


def _check_dropped(path: str | Path, optics: pd.DataFrame, group: NDArray[np.int64]) -> None:
    """Refuse to leave out the CTF of premultiplied images; warn of what else is left out with it."""
    used = np.unique(group)
    applied, found = _applied(path, optics)[used], _aberrations(path, optics, group)
    if (applied == PREMULTIPLIED).any():
        told = "the images are multiplied by their CTF, and a map made without it (ctf=False, --no-ctf) would be too"
        raise FileError(f"{path}: column rlnCtfDataAreCtfPremultiplied: {told}; expected images as recorded, or the CTF")
    dropped = ["rlnCtfDataArePhaseFlipped"] if (applied == PHASE_FLIPPED).any() else []
    parts = {
        "beam_tilt_rad": TILT[:1],
        "odd": ("rlnOddZernike",),
        "even": ("rlnEvenZernike",),
        "magnification": MAGNIFICATION[:1],
    }
    dropped += [name for key, names in parts.items() if found and getattr(found, key) is not None for name in names]
    if dropped:
        said = f"{', '.join(dropped)}: dropped together with the CTF (ctf=False, --no-ctf)"
        warnings.warn(f"{path}: {said}", DataWarning, stacklevel=3)


def _ctf(path: str | Path, optics: pd.DataFrame, particles: pd.DataFrame, group: NDArray[np.int64]) -> Ctf:
    needed = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    if not set(needed) & set(particles):
        raise FileError(f"{path}: no column rlnDefocusU; expected a CTF, or say that the images have none: ctf=False, --no-ctf")
    for name in (*needed, *LENSES):
        if name not in (particles if name in needed else optics):
            raise FileError(f"{path}: no column {name}; expected it with the columns of the CTF")

    def column(name: str, default: float = 0.0) -> NDArray[np.float64]:
        return finite_numbers(path, particles, name) if name in particles else np.full(len(particles), default)

    check_lenses(path, optics, np.unique(group))
    check_defoci(path, particles)
    voltage, cs, contrast = (finite_numbers(path, optics, name, "optics")[group] for name in LENSES)
    b_factor = _b_factor(path, column("rlnCtfBfactor"))
    applied = _applied(path, optics)[group]
    return Ctf(
        column("rlnDefocusU"),
        column("rlnDefocusV"),
        np.deg2rad(column("rlnDefocusAngle")),
        voltage_kv=voltage,
        cs_mm=cs,
        amplitude_contrast=contrast,
        phase_shift_rad=np.deg2rad(column("rlnPhaseShift")),
        b_factor_angstrom2=b_factor,
        scale=column("rlnCtfScalefactor", 1.0),
        exposure_per_angstrom2=column("lfjaxExposure") if "lfjaxExposure" in particles else None,
        aberrations=_aberrations(path, optics, group),
        applied=applied if applied.any() else None,
    )


def _b_factor(path: str | Path, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """B of exp(-B s^2 / 4). Warp writes its dose weights with the other sign; RELION's own fits scatter about 0."""
    low, high = values.min(), values.max()
    if low >= 0:
        return values
    kind = "as a decay of that size, as Warp writes it" if high <= 0 else "as RELION does: a negative one raises the CTF"
    warnings.warn(f"{path}: rlnCtfBfactor from {low:g} to {high:g}; lfjax reads it {kind}", DataWarning, stacklevel=4)
    return np.abs(values) if high <= 0 else values


def _applied(path: str | Path, optics: pd.DataFrame) -> NDArray[np.int64]:
    """AS_RECORDED, PHASE_FLIPPED or PREMULTIPLIED, per optics group."""
    found = np.full(len(optics), AS_RECORDED)
    for name, value in FLAGS.items():
        flag = finite_numbers(path, optics, name, "optics") if name in optics else np.zeros(len(optics))
        if not np.isin(flag, (0, 1)).all():
            raise FileError(f"{path}: optics, column {name}: {flag[~np.isin(flag, (0, 1))][0]:g}; expected 0 or 1")
        if (both := (found != AS_RECORDED) & (flag == 1)).any():
            group = optics["rlnOpticsGroup"].iloc[int(np.argmax(both))]
            raise FileError(f"{path}: optics group {group} is flagged {' and '.join(FLAGS)}; expected one of them")
        found = np.where(flag == 1, value, found)
    return found


def _aberrations(path: str | Path, optics: pd.DataFrame, group: NDArray[np.int64]) -> Aberrations | None:
    found: dict[str, NDArray[np.float64]] = {}

    def columns(names: tuple[str, ...], plain: tuple[float, ...]) -> NDArray[np.float64]:
        have = [
            finite_numbers(path, optics, n, "optics") if n in optics else np.full(len(optics), p)
            for n, p in zip(names, plain, strict=True)
        ]
        return np.stack(have, axis=-1)

    if (tilt := columns(TILT, (0.0, 0.0))).any():
        found["beam_tilt_rad"] = 1e-3 * tilt
    matrix = columns(MAGNIFICATION, (1.0, 0.0, 0.0, 1.0)).reshape(-1, 2, 2)
    if (matrix != np.eye(2)).any():
        if not (np.abs(matrix - np.eye(2)) < 0.5).all():
            raise FileError(
                f"{path}: {', '.join(MAGNIFICATION)}: {matrix.reshape(-1, 4).tolist()}; expected matrices close to 1"
            )
        found["magnification"] = matrix
    for key, name in (("odd", "rlnOddZernike"), ("even", "rlnEvenZernike")):
        if name in optics and (terms := number_lists(path, optics, name)).any():
            found[key] = terms
    if "odd" in found and set(TILT) & set(optics) and found["odd"][:, COMA].any():
        told = f"{path}: rlnOddZernike has the coma terms of rlnBeamTiltX and Y too"
        warnings.warn(f"{told}; the beam tilt counts, as in RELION, and these terms do not", DataWarning, stacklevel=4)
        found["odd"][:, COMA] = 0.0
    return Aberrations(**{key: value[group] for key, value in found.items()}) if found else None
