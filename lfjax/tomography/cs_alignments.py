"""Poses, half-sets and classes of cryoSPARC's particles, in RELION's terms and back.

A refinement writes `alignments3D/*`. A job with several classes writes a set of poses for each, `alignments_class_N/*` or,
since version 4.5, `alignments3D_multi/*` with an axis of classes, and the posterior of each class.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.errors import DataWarning, FileError
from lfjax.io.checked_numbers import finite_column, require_rows
from lfjax.tomography.cs_fields import Fields, field_values, whole_values
from lfjax.tomography.relion_tables import ANGLES, ORIGINS


def choose_alignment(name: str, fields: Fields, alignment: str | None) -> tuple[Fields, Fields, str]:
    """The rows and the set of poses that the caller chose.

    Args:
        name: of the files, for messages.
        fields: all fields.
        alignment: as `cryosparc.read_cs` explains it.

    Returns:
        The fields of the rows kept; the fields of the chosen set without its prefix, none where there is no pose in 3-D; the
        prefix.

    Raises:
        FileError: several sets of poses are there and none is chosen, or the choice is not one of them.
    """
    sets = _sets(fields)
    posterior = {
        c: finite_column(name, f"class_posterior of {c}", part["class_posterior"])
        for c, part in sets.items()
        if c != "alignments3D" and "class_posterior" in part
    }
    choices = [*sorted(sets), *(["best"] if len(posterior) > 1 else [])]
    if alignment is None and len(sets) > 1:
        raise FileError(f"{name}: several sets of poses; choose one with alignment= (--alignment): {', '.join(choices)}")
    if alignment is not None and alignment not in choices:
        raise FileError(f"{name}: no poses {alignment!r}; expected {', '.join(choices) or 'none, the files have no 3-D poses'}")
    if not sets:
        return fields, {}, ""
    chosen = alignment or choices[0]
    prefix = "alignments3D_multi/" if "alignments3D_multi/pose" in fields else f"alignments_{chosen}/"
    if chosen == "alignments3D" or (len(posterior) < 2 and chosen != "best"):
        return fields, sets[chosen], prefix if chosen.startswith("class") else "alignments3D/"
    names = list(posterior)
    best = np.argmax(np.stack([posterior[c] for c in names]), axis=0)
    if chosen == "best":
        shared = set.intersection(*(set(sets[c]) for c in names))
        part = {f: np.stack([sets[c][f] for c in names])[best, np.arange(len(best))] for f in shared}
        return fields, part | {"class": np.asarray([int(c.removeprefix("class_")) for c in names])[best]}, prefix
    keep = best == names.index(chosen) if chosen in names else np.ones(len(best), bool)
    if not keep.any():
        raise FileError(f"{name}: no image has its largest posterior in {chosen}; expected some")
    warnings.warn(
        f"{name}: {keep.sum()} of {len(keep)} images have their largest posterior in {chosen}; the others are left out",
        DataWarning,
        stacklevel=5,
    )
    part = {f: v[keep] for f, v in sets[chosen].items()}
    part["class"] = np.full(keep.sum(), int(chosen.removeprefix("class_")))
    return {f: v[keep] for f, v in fields.items()}, part, prefix


def _sets(fields: Fields) -> dict[str, Fields]:
    """Each set of poses, its fields without their prefix: "alignments3D", "class_0", ..."""
    found: dict[str, Fields] = {}
    for key in (f.removesuffix("/pose") for f in fields if f.endswith("/pose")):
        part = {f.removeprefix(f"{key}/"): values for f, values in fields.items() if f.startswith(f"{key}/")}
        if key == "alignments3D_multi":
            several = {f for f in ("pose", "shift", "class_posterior", "alpha", "error") if f in part}
            for i in range(part["pose"].shape[1]):
                found[f"class_{i}"] = {f: v[:, i] if f in several else v for f, v in part.items()}
        elif key == "alignments3D" or key.startswith("alignments_class_"):
            found[key.replace("alignments_class_", "class_")] = part
    return found


def pose_columns(name: str, poses: Fields, prefix: str, fields: Fields, pixel_angstrom: NDArray[np.float64]) -> dict[str, Any]:
    """Columns of angles, origins, half-set and class of a chosen set of poses.

    Args:
        name: of the files, for messages.
        poses: fields of the set without their prefix.
        prefix: their prefix, for messages.
        fields: all fields; their 2-D classes count where there is no pose in 3-D.
        pixel_angstrom: pixel size of the images, in which a shift without psize_A is.

    Raises:
        FileError: a value is NaN, or a half-set is not 0 or 1.
    """
    if not poses:
        if "alignments2D/class" not in fields:
            return {}
        warnings.warn(
            f"{name}: alignments2D only: these are classes and poses in 2-D, from which no map can be made; give the files "
            "of a 3-D job for poses",
            DataWarning,
            stacklevel=5,
        )
        return {"rlnClassNumber": whole_values(name, fields, "alignments2D/class") + 1}
    turns = field_values(name, poses, "pose", prefix=prefix)
    with jax.enable_x64(True):  # host-side work on tables: angles keep the precision of the file
        angles = rotation.to_euler(rotation.from_vector(-turns))
        found: dict[str, Any] = {c: np.rad2deg(np.asarray(a)) for c, a in zip(ANGLES, angles, strict=True)}
    if "shift" in poses:
        unit = field_values(name, poses, "psize_A", prefix=prefix) if "psize_A" in poses else pixel_angstrom
        require_rows(name, f"{prefix}psize_A", unit, unit > 0, "a positive number")
        found |= dict(zip(ORIGINS, (field_values(name, poses, "shift", prefix=prefix) * unit[:, None]).T, strict=True))
    if "split" in poses:
        split = whole_values(name, poses, "split", prefix=prefix)
        require_rows(name, f"{prefix}split", split, (split == 0) | (split == 1), "0 or 1")
        if split.any():  # jobs without half-sets write 0 everywhere
            found["rlnRandomSubset"] = split + 1
    if "class" in poses:
        found["rlnClassNumber"] = whole_values(name, poses, "class", prefix=prefix) + 1
    if "alpha" in poses and np.abs(alpha := field_values(name, poses, "alpha", prefix=prefix) - 1).max() > 1e-3:
        warnings.warn(
            f"{name}: {prefix}alpha, a scale per image, is from {1 + alpha.min():.3g} to {1 + alpha.max():.3g}; lfjax "
            "gives all images the scale of ctf/scale",
            DataWarning,
            stacklevel=5,
        )
    return found


def pose_fields(name: str, table: pd.DataFrame) -> dict[str, Any]:
    """Fields of alignments3D, or of 2-D classes, of tables in RELION's terms.

    Args:
        name: of the file to write, for messages.
        table: particles, each row with the columns of its optics group.

    Raises:
        FileError: one or two of the three angles are missing, or some rows have no half-set.
    """
    classes = table["rlnClassNumber"].to_numpy(int) - 1 if "rlnClassNumber" in table else None
    classes = None if classes is None or (classes < 0).any() else classes
    missing = [c for c in ANGLES if c not in table]
    if "rlnAngleRot" not in table and "rlnAngleTilt" not in table:
        return {} if classes is None else {"alignments2D/class": classes}
    if missing:
        raise FileError(f"{name}: no column {', '.join(missing)}; expected all of {', '.join(ANGLES)}")
    pixel = table["rlnImagePixelSize"].to_numpy(float)
    with jax.enable_x64(True):
        turns = rotation.from_euler(*(np.deg2rad(table[c].to_numpy(float)) for c in ANGLES))
        pose = -np.asarray(rotation.to_vector(turns))
    origin = np.stack([table[c].to_numpy(float) if c in table else np.zeros(len(table)) for c in ORIGINS], axis=1)
    found: dict[str, Any] = {
        "alignments3D/psize_A": pixel,
        "alignments3D/pose": pose,
        "alignments3D/shift": origin / pixel[:, None],
        "alignments3D/alpha": np.ones(len(table)),
    }
    if "rlnRandomSubset" in table:
        half = table["rlnRandomSubset"].to_numpy(float)
        wanted = "1 or 2: cryoSPARC has no image outside the half-sets"
        require_rows(name, "rlnRandomSubset", half, (half == 1) | (half == 2), wanted)
        found["alignments3D/split"] = half.astype(int) - 1
    return found | ({} if classes is None else {"alignments3D/class": classes})
