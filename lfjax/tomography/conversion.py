"""Particle files from RELION's format to cryoSPARC's and back; the images stay where they are.

Both formats say poses, shifts, half-sets, classes, defocus, optics groups, pixel and box sizes, anisotropic magnification, and
the names of stacks and micrographs: these survive the way there and back, rotations and lengths to the rounding of 32-bit
floats, in which a .cs file holds them. The result lists what the target cannot say.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lfjax.errors import DataWarning, FileError, require
from lfjax.io.mrc import Stack
from lfjax.io.star import Tables, read_star
from lfjax.tomography.cryosparc import CENTRES, DEFOCUS, ENVELOPE, MICROSCOPE, SIZES, UNAPPLIED, tables_of
from lfjax.tomography.cs_fields import Fields, merge_cs
from lfjax.tomography.particle_file import write_tables
from lfjax.tomography.relion_checks import check_numbers
from lfjax.tomography.relion_labels import finite_numbers
from lfjax.tomography.relion_tables import ANGLES, FLAGS, MAGNIFICATION, ORIGINS, TILT, canonical, group_index
from lfjax.tomography.stack_names import find_beside, names_from

KEPT = tuple(column for column, _ in UNAPPLIED.values())
SAID = {
    *("rlnImageName", "rlnMicrographName", "rlnRandomSubset", "rlnClassNumber", "rlnOpticsGroup", "rlnImagePixelSize"),
    *("rlnImageSize", "rlnImageDimensionality", "lfjaxUid", "lfjaxImageSign", "lfjaxExposureGroup"),
    *(*ANGLES, *ORIGINS, *MAGNIFICATION, *KEPT, *SIZES, *MICROSCOPE.values(), *DEFOCUS.values(), *ENVELOPE.values()),
}
"""Columns of canonical tables that a .cs file says too."""
READ = {
    *("uid", "blob/path", "blob/idx", "blob/shape", "blob/psize_A", "blob/sign", "ctf/anisomag"),
    *("ctf/exp_group_id", "location/exp_group_id", "location/micrograph_path", "location/micrograph_shape"),
    *(*MICROSCOPE, *DEFOCUS, *ENVELOPE, *UNAPPLIED, *CENTRES),
}
"""Fields of a .cs file, but for those of poses, that canonical tables say too."""
POSES = ("pose", "shift", "psize_A", "split", "class")
COPIED = ("rlnClassNumber", *CENTRES.values())
"""Columns of numbers, beside those of the images, that a .cs file has too."""


class Conversion(NamedTuple):
    """What a conversion carried over.

    Attributes:
        images: number of images.
        groups: number of optics groups.
        posed: whether the images have poses.
        half_sets: number of images in half-set 1 and in half-set 2.
        lost: what the target does not say, one line each: table or file, column or field, and the reason.
    """

    images: int
    groups: int
    posed: bool
    half_sets: tuple[int, int]
    lost: tuple[str, ...]


def convert_particles(
    source: str | Path,
    target: str | Path,
    *,
    version: str = "3.1",
    also: Sequence[str | Path] = (),
    alignment: str | None = None,
    ctf: bool = True,
    folder: str | Path | None = None,
) -> Conversion:
    """Write a particle file in another format; a `DataWarning` names whatever is lost.

    Args:
        source: .star of RELION 3.0 to 5, or .cs or .csg of cryoSPARC.
        target: .star or .cs.
        version: of a STAR file: "3.1" (RELION 4 reads it), "5" (the same), or "3.0".
        also: further .cs files of the job, merged by uid: passthrough files.
        alignment: which poses of .cs files with several sets, see `cryosparc.read_cs`.
        ctf: False: .cs files without CTF are converted too.
        folder: folder that names of stacks are relative to; only a STAR file without box sizes needs its stacks.

    Raises:
        FileError: a file is broken, of another kind, or says something that the target would turn into its opposite: a .cs file
            cannot say that images are premultiplied by their CTF, phase-flipped, or outside both half-sets, and RELION 3.0
            reads no column that says one of the first two.
        ParameterError: an argument does not fit the kind of file.
    """
    source, target = Path(source), Path(target)
    kinds = {".star": "star", ".cs": "cs", ".csg": "cs"}
    for path, known in ((source, (".star", ".cs", ".csg")), (target, (".star", ".cs"))):
        if path.suffix.lower() not in known:
            raise FileError(f"{path}: suffix {path.suffix!r} is not known; expected {', '.join(known)}")
    require(version in ("3.0", "3.1", "5"), "version", version, '"3.0", "3.1" or "5"')
    require(source.resolve() != target.resolve(), "target", str(target), "another file than the source")
    lost: list[str] = []
    if kinds[source.suffix.lower()] == "cs":
        fields = merge_cs([source, *also])
        tables = tables_of(str(source), fields, alignment=alignment, ctf=ctf)
        lost += _lost_fields(fields, alignment)
    else:
        require(not also, "also (further files)", [str(p) for p in also], "no further file beside a STAR file")
        require(alignment is None, "alignment (--alignment)", alignment, "None for a STAR file")
        tables = canonical(source, read_star(source))
    check_numbers(source, tables)
    for name in (n for n in COPIED if n in tables["particles"]):
        finite_numbers(source, tables["particles"], name)
    if target.suffix.lower() == ".cs":
        tables, unsized = _sized(source, tables, None if folder is None else Path(folder))
        lost += unsized + _lost_columns(tables)
    else:
        _refuse_lowering(target, tables, version)
        lost += _unread(tables, version)
    tables = names_from(tables, source, target, folder)
    write_tables(target, tables, version=version)
    if lost:
        warnings.warn(f"{target}: not carried over: {'; '.join(lost)}", DataWarning, stacklevel=2)
    table = tables["particles"]
    half = table["rlnRandomSubset"].to_numpy(float) if "rlnRandomSubset" in table else np.zeros(len(table))
    sizes = (int((half == 1).sum()), int((half == 2).sum()))
    return Conversion(len(table), table["rlnOpticsGroup"].nunique(), set(ANGLES) <= set(table), sizes, tuple(lost))


def _sized(source: Path, tables: Tables, folder: Path | None) -> tuple[Tables, list[str]]:
    """The tables with rlnImageSize, from the headers of stacks where the file does not say it."""
    optics = tables["optics"]
    if "rlnImageSize" in optics:
        return tables, []
    names = [str(name).partition("@")[2] for name in tables["particles"]["rlnImageName"]]
    sizes = np.zeros(len(optics), int)
    for group, name in dict(zip(group_index(optics, tables["particles"])[::-1], names[::-1], strict=True)).items():
        try:
            sizes[group] = Stack(find_beside(source, name, folder)).shape[-1]
        except FileError as error:
            return tables, [f"blob/shape: the file has no rlnImageSize, and its stacks are not at hand ({error})"]
    return tables | {"optics": optics.assign(rlnImageSize=sizes)}, []


def _lost_columns(tables: Tables) -> list[str]:
    """What a .cs file does not say of canonical tables."""
    optics, particles = tables["optics"], tables["particles"]
    used = np.unique(group_index(optics, particles))
    lost = [f"table {name!r}" for name in tables if name not in ("optics", "particles")]
    if len(used) < len(optics):
        empty = optics["rlnOpticsGroup"].drop(index=used).tolist()
        lost.append(f"optics groups without images: {', '.join(str(g) for g in empty)}")
    if "rlnRandomSubset" in particles and (particles["rlnRandomSubset"].astype(float) == 1).all():
        lost.append(
            "particles, rlnRandomSubset: all images are in half-set 1, as cryoSPARC writes it where there are no half-sets"
        )
    said = SAID | (set(CENTRES.values()) if set(SIZES) <= set(particles) else set())
    for block, table in (("optics", optics.iloc[used]), ("particles", particles)):
        for column in (c for c in table if c not in said):
            values = table[column]
            if column == "rlnOpticsGroupName":
                if [str(v) for v in values] == [f"opticsGroup{i + 1}" for i in range(len(values))]:
                    continue
                reason = "cryoSPARC numbers its exposure groups"
            elif column in (*TILT, *FLAGS) and not values.astype(float).any():
                continue
            elif column in TILT:
                reason = "the sign of ctf/tilt_A is not public"
            elif column in ("rlnOddZernike", "rlnEvenZernike"):
                if not any(float(n) for text in values for n in str(text).strip("[]").split(",") if n):
                    continue
                reason = "the signs of cryoSPARC's aberrations are not public"
            elif column in CENTRES.values():
                reason = "the size of the micrographs is not in the file"
            else:
                reason = "no such field"
            lost.append(f"{block}, {column}: {reason}")
    return lost


def _lost_fields(fields: Fields, alignment: str | None) -> list[str]:
    """What canonical tables do not say of the fields of .cs files."""
    sets = [f.removesuffix("/pose") for f in fields if f.endswith("/pose") and not f.startswith("alignments2D")]
    chosen = [key for key in sets if alignment in (None, "best", key, key.replace("alignments_class_", "class_"))]
    read = READ | {f"{key}/{name}" for key in chosen or sets for name in POSES} | (set() if sets else {"alignments2D/class"})
    lost = []
    for name, values in fields.items():
        plain = 1 if name.endswith("/alpha") else 0
        if name in read or (values.dtype.kind in "fiub" and (values == plain).all()):
            continue
        if name == "ctf/type" and set(values.tolist()) <= {b"imported", b""}:
            continue
        lost.append(f"{name}: no such column")
    return lost


def _refuse_lowering(target: Path, tables: Tables, version: str) -> None:
    """RELION 3.0 has options for such images (--ctf_multiplied, --ctf_phase_flipped), which no particle file sets."""
    optics = tables["optics"].iloc[np.unique(group_index(tables["optics"], tables["particles"]))]
    for name in (n for n in FLAGS if version == "3.0" and n in optics and optics[n].astype(float).any()):
        told = "RELION 3.0 does not read it in a particle file and would apply the CTF again"
        raise FileError(f"{target}: column {name} is set; {told}: write version 3.1")


def _unread(tables: Tables, version: str) -> list[str]:
    """What RELION does not read, though lfjax does."""
    optics, particles = tables["optics"], tables["particles"]
    lost = [f"optics, {c}: the sign is not public; RELION does not read this column" for c in KEPT if c in optics]
    if "lfjaxImageSign" in particles and (particles["lfjaxImageSign"].astype(float) < 0).any():
        lost.append(
            "blob/sign = -1: RELION has no such column and would make the map with inverted contrast; lfjax reads "
            "lfjaxImageSign; for RELION invert the stacks"
        )
    if any(str(name).lower().endswith(".mrc") for name in particles["rlnImageName"]):
        lost.append("stacks named .mrc: RELION reads stacks whose names end in .mrcs; link them under such names")
    if version == "3.0" and "rlnOpticsGroupName" in optics and len(optics) > 1:
        lost.append(f"optics, rlnOpticsGroupName: RELION 3.0 has no groups; {len(optics)} groups are one table")
    return lost
