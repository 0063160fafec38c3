"""Sub-tomograms of RELION 4 and 5 that are 2-D stacks of a tilt series, as one row per tilt image.

A particle p with orientation A_p in its sub-tomogram, which itself lies with A_s in the tomogram, and a tilt image with the
projection P (3 x 3) of the tomogram give

    R = P A_s A_p,    origin = (P A_s o)_xy,    defocus + h a s (P (x - c - A_s o / a))_z,
    weight = exp(-d / (2 (0.245 |k|^-1.665 + 2.81)))    or    exp(-b d |k|^2 / 4)

with A the matrix of `lfjax.rotation` (rot, tilt, psi), o the offset in angstroms, x and c the positions of the particle and of
the tomogram's centre in pixels of the tilt series, a their size, h the hand, s the slope of the defocus, d the exposure before
the image in electrons per square angstrom, and b rlnCtfBfactorPerElectronDose. RELION 5 has P = Z(zrot) Y(ytilt) X(xtilt) with
right-handed rotations of columns, RELION 4 the rows rlnTomoProjX, Y, Z. (src/jaz/tomography/tomogram.cpp, particle_set.cpp and
src/exp_model.cpp of RELION 5.0.1; Grant & Grigorieff, eLife 4, e06980 (2015).)

Tilt images of Warp and M have a row each, with their own poses, and need none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.errors import FileError, require
from lfjax.io.star import Tables, read_star
from lfjax.tomography.relion_labels import all_or_none, finite_numbers
from lfjax.tomography.relion_tables import ANGLES, LENSES, ORIGINS

SUBTOMOGRAM = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
PROJECTION = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ")
ALIGNMENT = ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot")
ODD = ("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike")


def with_tilts(
    path: str | Path, tables: Tables, tomograms: str | Path | None = None, *, find: Callable[[str], Path] | None = None
) -> Tables:
    """The tables of a particle file with one row per tilt image; those of other files come back as they are.

    The rows have the columns of their particle, its name as rlnTomoParticleName, poses, offsets, optics of the tilt image, and
    its exposure as lfjaxExposure.

    Args:
        path: path of the file, for messages.
        tables: its tables.
        tomograms: tomograms.star with the tilt series of RELION 4 (a block per tomogram) or 5 (a file per tomogram).
        find: finds the file of a tilt series by its name; None: the name is its path.

    Raises:
        FileError: the particles are 3-D sub-tomograms, `tomograms` is missing or lacks a tomogram or a column, or there are
            odd aberrations, which RELION has removed from sub-tomograms.
        ParameterError: `tomograms` is given for a file without such stacks.
    """
    table = tables.get("particles", pd.DataFrame())
    plain = f"none: {path} has a row per image, not 2-D stacks of tilts"
    if not {"rlnTomoVisibleFrames", "rlnTomoSubtomogramRot", "rlnTomoName"} & set(table) or not len(table):
        require(tomograms is None, "tomograms (--tomograms)", str(tomograms), plain)
        return tables
    single = table["rlnImageName"].astype(str).str.contains("@").all() if "rlnImageName" in table else False
    if single and not {"rlnTomoVisibleFrames", "rlnTomoSubtomogramRot"} & set(table):
        require(tomograms is None, "tomograms (--tomograms)", str(tomograms), plain)
        return tables
    general = tables.get("general", pd.DataFrame())
    flag = "rlnTomoSubTomosAre2DStacks"
    if flag not in general or float(general[flag].iloc[0]) != 1 or "rlnTomoVisibleFrames" not in table:
        missing = f"expected 2-D stacks, {flag} = 1 and rlnTomoVisibleFrames"
        raise FileError(f"{path}: sub-tomograms (rlnTomoName) that are not 2-D stacks; {missing}: extract them with --stack2d")
    if tomograms is None:
        raise FileError(
            f"{path}: 2-D stacks of sub-tomograms; expected tomograms (--tomograms tomograms.star) with their tilts"
        )
    return tables | _expanded(path, tables, _Series(Path(tomograms), find))


class _Series:
    """Tilt series by the name of their tomogram, each read once."""

    def __init__(self, path: Path, find: Callable[[str], Path] | None) -> None:
        self.path, self.find, self.blocks = path, find, read_star(path)
        if "global" not in self.blocks or "rlnTomoName" not in self.blocks["global"]:
            raise FileError(f"{path}: blocks {list(self.blocks)}; expected a block 'global' with rlnTomoName")
        self.world = self.blocks["global"]

    def row(self, name: str) -> int:
        """Row of a tomogram in the global table."""
        rows = np.flatnonzero(self.world["rlnTomoName"].astype(str) == name)
        if len(rows) != 1:
            raise FileError(f"{self.path}: {len(rows)} rows for tomogram {name!r}; expected one")
        return int(rows[0])

    def value(self, row: int, name: str, default: float | None = None) -> float:
        """A number of a tomogram."""
        if name not in self.world:
            if default is None:
                raise FileError(f"{self.path}: no column {name}; expected it in block 'global'")
            return default
        return float(finite_numbers(self.path, self.world, name, "global")[row])

    def tilts(self, row: int, name: str) -> tuple[Path, pd.DataFrame]:
        """File and table of the tilts of a tomogram."""
        link, path, blocks = "rlnTomoTiltSeriesStarFile", self.path, self.blocks
        if link in self.world:
            said = str(self.world[link].iloc[row])
            if Path(said).suffix.lower() != ".star":
                raise FileError(f"{self.path}: {link} is {said!r}; expected the name of a STAR file")
            path = self.find(said) if self.find else Path(said)
            blocks = read_star(path)
        if name not in blocks:
            raise FileError(f"{path}: blocks {list(blocks)}; expected one named {name!r} with the tilts of this tomogram")
        return path, blocks[name]


def _expanded(path: str | Path, tables: Tables, series: _Series) -> Tables:
    optics, table = tables.get("optics"), tables["particles"].reset_index(drop=True)
    if optics is None or "rlnOpticsGroup" not in table:
        raise FileError(f"{path}: no optics groups; expected a block 'optics' and rlnOpticsGroup, as RELION writes them")
    for name in set(ODD) & set(optics):
        if np.any([float(v) != 0 for text in optics[name] for v in str(text).strip("[]").split(",") if v]):
            raise FileError(
                f"{path}: optics, column {name}: RELION has removed odd aberrations from sub-tomograms; set it to 0"
            )
    shared = [name for name in LENSES if name not in optics]
    place = _placed(path, table)
    parts: dict[int, pd.DataFrame] = {}
    lenses: dict[str, list[float]] = {name: [] for name in shared}
    for tomogram in dict.fromkeys(table["rlnTomoName"].astype(str)):
        row = series.row(tomogram)
        for name in shared:
            lenses[name].append(series.value(row, name))
        frame = _Tilts(series, row, tomogram)
        for p in np.flatnonzero(table["rlnTomoName"].astype(str) == tomogram):
            seen = _visible(path, int(p), table["rlnTomoVisibleFrames"].iloc[p], len(frame.projections))
            columns = frame.images(seen, place, int(p))
            stack = table["rlnImageName"].iloc[p]
            columns["rlnImageName"] = [f"{i + 1}@{stack}" for i in range(len(seen))]
            repeated = table.iloc[np.full(len(seen), p)].drop(columns=[*columns, *SUBTOMOGRAM], errors="ignore")
            parts[int(p)] = repeated.reset_index(drop=True).assign(**columns)
    for name, values in lenses.items():
        if np.ptp(values):
            raise FileError(
                f"{series.path}: {name} from {min(values)} to {max(values)}; expected it per group in block 'optics'"
            )
        optics = optics.assign(**{name: values[0]})
    rows = pd.concat([parts[p] for p in sorted(parts)], ignore_index=True)
    dropped = ["rlnTomoVisibleFrames", "rlnOriginZAngst"]
    if not {*ANGLES, *SUBTOMOGRAM} & set(table):
        dropped += ANGLES
    return {"optics": optics, "particles": rows.drop(columns=dropped, errors="ignore")}


class _Place(NamedTuple):
    """Particles in their tomograms, (n, 3) each."""

    pose: NDArray[np.float64]  # rot, tilt, psi in degrees
    frame: NDArray[np.float64]  # the same of the sub-tomogram
    offset: NDArray[np.float64]  # in angstroms
    position: NDArray[np.float64]  # in angstroms from the centre, or in pixels from the corner of the tomogram
    centred: bool


def _placed(path: str | Path, table: pd.DataFrame) -> _Place:
    corner = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
    centred = all_or_none(path, table, CENTRED)
    if not centred and not all_or_none(path, table, corner):
        raise FileError(f"{path}: no column {CENTRED[0]}; expected positions of the particles, for their defocus")

    def columns(names: tuple[str, ...]) -> NDArray[np.float64]:
        zero = np.zeros(len(table))
        return np.stack([finite_numbers(path, table, name) if name in table else zero for name in names], axis=-1)

    for names in (ANGLES, SUBTOMOGRAM, ORIGINS):
        all_or_none(path, table, names)
    offset = columns((*ORIGINS, "rlnOriginZAngst"))
    return _Place(columns(ANGLES), columns(SUBTOMOGRAM), offset, columns(CENTRED if centred else corner), centred)


def _visible(path: str | Path, row: int, text: Any, count: int) -> NDArray[np.int64]:
    """Tilts that the stack of a particle has, from a text such as "[1,0,1]"."""
    try:
        flags = [int(part) for part in str(text).strip("[] ").split(",")]
    except ValueError:
        flags = []
    if len(flags) != count or not any(flags):
        raise FileError(f"{path}: row {row + 1}, rlnTomoVisibleFrames {text!r}; expected 0 or 1 for each of {count} tilts")
    return np.flatnonzero(np.asarray(flags) > 0)


def _matrix(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix of rot, tilt, psi."""
    return np.asarray(jax.jit(rotation.from_euler)(*np.deg2rad(degrees)), float)


def _turn(axis: int, degrees: float) -> NDArray[np.float64]:
    """Right-handed rotation of columns about x, y or z."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn[i, i], turn[j, j], turn[i, j], turn[j, i] = c, c, -s, s
    return turn


class _Tilts:
    """Tilts of one tomogram: projections (n, 3, 3), CTF and exposure of each."""

    def __init__(self, series: _Series, row: int, name: str) -> None:
        path, table = series.tilts(row, name)
        wanted = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnMicrographPreExposure")
        for column in wanted:
            if column not in table:
                raise FileError(f"{path}: block {name!r} has no column {column}; expected it for each tilt")
        self.path, self.name = path, name
        self.u, self.v, self.angle, self.exposure = (finite_numbers(path, table, column, name) for column in wanted)
        self.phase, self.scale = (
            finite_numbers(path, table, column, name) if column in table else np.full(len(table), plain)
            for column, plain in (("rlnPhaseShift", 0.0), ("rlnCtfScalefactor", 1.0))
        )
        self.pixel = series.value(row, "rlnTomoTiltSeriesPixelSize")
        self.slope = series.value(row, "rlnTomoHand") * series.value(row, "rlnTomoDefocusSlope", 1.0)
        self.per_electron = series.value(row, "rlnCtfBfactorPerElectronDose", 0.0)
        self.projections = self._projections(table)
        self.series, self.row = series, row

    def _projections(self, table: pd.DataFrame) -> NDArray[np.float64]:
        if all_or_none(self.path, table, PROJECTION):
            rows = [[str(text).strip("[] ").split(",") for text in table[name]] for name in PROJECTION]
            try:
                found = np.array(rows, float).transpose(1, 0, 2)[:, :, :3]
            except ValueError:
                raise FileError(f"{self.path}: {', '.join(PROJECTION)}; expected four numbers each, as [a,b,c,d]") from None
        elif {"rlnTomoYTilt", "rlnTomoZRot"} <= set(table):
            zero = np.zeros(len(table))
            x, y, z = (finite_numbers(self.path, table, n, self.name) if n in table else zero for n in ALIGNMENT)
            found = np.stack([_turn(2, c) @ _turn(1, b) @ _turn(0, a) for a, b, c in zip(x, y, z, strict=True)])
        else:
            wanted = f"rlnTomoYTilt and rlnTomoZRot (RELION 5), or {', '.join(PROJECTION)} (RELION 4)"
            raise FileError(f"{self.path}: no projections of tomogram {self.name}; expected {wanted}")
        far = np.abs(found @ found.transpose(0, 2, 1) - np.eye(3)).max() if np.isfinite(found).all() else np.inf
        if far > 0.01 or (np.linalg.det(found) < 0).any():
            raise FileError(f"{self.path}: projections of tomogram {self.name} are no rotations (off by {far:.2g})")
        u, _, w = np.linalg.svd(found)
        return np.asarray(u @ w, float)

    def _from_centre(self, position: NDArray[np.float64], centred: bool) -> NDArray[np.float64]:
        """Position (3,) relative to the centre of the tomogram, in pixels of the tilt series."""
        if centred:
            return position / self.pixel
        size = [self.series.value(self.row, f"rlnTomoSize{axis}") for axis in "XYZ"]
        return position - np.array(size) / 2

    def images(self, seen: NDArray[np.int64], place: _Place, p: int) -> dict[str, Any]:
        """Columns of the images of one particle at the tilts that its stack has."""
        projections, inner, offset = self.projections[seen], _matrix(place.frame[p]), place.offset[p]
        turns = projections @ (inner @ _matrix(place.pose[p]))
        angles = [np.rad2deg(np.asarray(a, float)) for a in jax.jit(rotation.to_euler)(turns)]
        shift = projections @ (inner @ offset)
        centre = self._from_centre(place.position[p], place.centred) - inner @ offset / self.pixel
        further = self.slope * self.pixel * (projections @ centre)[:, 2]
        dose = self.exposure[seen]
        weights = {"rlnCtfBfactor": self.per_electron * dose} if self.per_electron > 0 else {"lfjaxExposure": dose}
        return {
            **dict(zip(ANGLES, angles, strict=True)),
            **dict(zip(ORIGINS, shift[:, :2].T, strict=True)),
            "rlnDefocusU": self.u[seen] + further,
            "rlnDefocusV": self.v[seen] + further,
            "rlnDefocusAngle": self.angle[seen],
            "rlnPhaseShift": self.phase[seen],
            "rlnCtfScalefactor": self.scale[seen],
            **weights,
        }
