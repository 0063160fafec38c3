"""Canonical tables from `Particles`: poses, optics and half-sets in the columns of RELION's STAR files."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import ArrayLike
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.errors import require
from lfjax.io.star import Tables
from lfjax.tomography.aberrations import Aberrations
from lfjax.tomography.ctf import Ctf
from lfjax.tomography.particles import Particles
from lfjax.tomography.relion_tables import ANGLES, FLAGS, MAGNIFICATION, ORIGINS, TILT

DEFOCUS = ("rlnDefocusU", "rlnDefocusV")
NO_LENS = {"rlnVoltage": 300.0, "rlnSphericalAberration": 0.0, "rlnAmplitudeContrast": 1.0}
"""A lens whose CTF is 1 at the defocus 0, whatever the voltage."""

Columns = dict[str, NDArray[Any] | list[str]]


def from_particles(particles: Particles, names: list[tuple[int, str]], size: int) -> Tables:
    """Canonical tables of images; those with the same optics, pixel size and `group` are one optics group.

    Args:
        particles: poses, optics, pixel sizes and half-sets of the images.
        names: number, from 0, and file of each image.
        size: pixels per side.
    """
    own = _pose_columns(particles)
    own["rlnImageName"] = [f"{number + 1:06d}@{name}" for number, name in names]
    shared: Columns = {"group": np.asarray(particles.group), "rlnImagePixelSize": _digits(particles.pixel_angstrom)}
    if particles.ctf is not None:
        mine, common = _ctf_columns(particles.ctf)
        own, shared = own | mine, shared | common
    frame = pd.DataFrame(shared)
    optics = frame.drop_duplicates().sort_values("group", kind="stable").reset_index(drop=True)
    number = dict(zip(optics.itertuples(index=False, name=None), range(1, len(optics) + 1), strict=True))
    groups = [number[row] for row in frame.itertuples(index=False, name=None)]
    optics = optics.drop(columns="group")
    optics.insert(0, "rlnOpticsGroup", np.arange(1, len(optics) + 1))
    optics.insert(1, "rlnOpticsGroupName", [f"opticsGroup{i + 1}" for i in range(len(optics))])
    optics = optics.assign(rlnImageSize=size, rlnImageDimensionality=2)
    return {"optics": optics, "particles": pd.DataFrame({"rlnImageName": own["rlnImageName"], **own, "rlnOpticsGroup": groups})}


def with_particles(tables: Tables, particles: Particles) -> Tables:
    """Canonical tables with the poses, shifts and half-sets of `particles`, and all else as it was.

    Raises:
        ParameterError: the number of rows is not that of particles.
    """
    table = tables["particles"]
    require(len(table) == len(particles), "particles", len(particles), f"{len(table)}, one per row of the tables")
    return tables | {"particles": table.assign(**_pose_columns(particles))}


def with_lenses(tables: Tables) -> Tables:
    """Canonical tables of images without a CTF with the columns of a lens, which RELION 3.1 asks of every optics group.

    `relion_refine` refuses an optics table without rlnVoltage and rlnSphericalAberration, with --ctf and without. An amplitude
    contrast of 1 and no aberration make a CTF of 1 at every frequency where the defocus is 0, which is that of images without
    one: a program that takes the columns for a CTF multiplies by 1. Columns that are there stay, and so do tables with a
    defocus: what it needs is for its author to say.

    Args:
        tables: canonical tables.
    """
    optics = tables.get("optics")
    if optics is None or set(DEFOCUS) & set(tables["particles"]):
        return tables
    missing = {name: value for name, value in NO_LENS.items() if name not in optics and name not in tables["particles"]}
    return tables | {"optics": optics.assign(**missing)}


def _digits(values: ArrayLike) -> NDArray[np.float64]:
    """The shortest decimals that name these numbers at their precision: 0.1, not 0.10000000149, so that one group stays one."""
    return np.asarray(values).astype("U32").astype(float)


def _pose_columns(particles: Particles) -> Columns:
    angles = [np.rad2deg(np.asarray(a, float)) for a in jax.jit(rotation.to_euler)(particles.rotations)]
    origin = -np.asarray(particles.shifts, float) * np.asarray(particles.pixel_angstrom, float)[:, None]
    columns: Columns = dict(zip(ANGLES, angles, strict=True)) | dict(zip(ORIGINS, origin.T, strict=True))
    half = np.asarray(particles.half)
    return columns | ({"rlnRandomSubset": half} if half.any() else {})


def _ctf_columns(ctf: Ctf) -> tuple[Columns, Columns]:
    """Columns of the images and of their optics groups."""
    own: Columns = {
        "rlnDefocusU": _digits(ctf.defocus_u_angstrom),
        "rlnDefocusV": _digits(ctf.defocus_v_angstrom),
        "rlnDefocusAngle": np.rad2deg(_digits(ctf.angle_rad)),
        "rlnPhaseShift": np.rad2deg(_digits(ctf.phase_shift_rad)),
        "rlnCtfBfactor": _digits(ctf.b_factor_angstrom2),
        "rlnCtfScalefactor": _digits(ctf.scale),
    }
    if ctf.exposure_per_angstrom2 is not None:
        own["lfjaxExposure"] = _digits(ctf.exposure_per_angstrom2)
    shared: Columns = {
        "rlnVoltage": _digits(ctf.voltage_kv),
        "rlnSphericalAberration": _digits(ctf.cs_mm),
        "rlnAmplitudeContrast": _digits(ctf.amplitude_contrast),
    }
    if ctf.applied is not None:
        applied = np.asarray(ctf.applied)
        shared |= {name: (applied == value).astype(int) for name, value in FLAGS.items() if (applied == value).any()}
    return own, shared | ({} if ctf.aberrations is None else _aberration_columns(ctf.aberrations))


def _aberration_columns(aberrations: Aberrations) -> Columns:
    columns: Columns = {}
    if aberrations.beam_tilt_rad is not None:
        columns |= dict(zip(TILT, 1e3 * _digits(aberrations.beam_tilt_rad).T, strict=True))
    for name, terms in (("rlnOddZernike", aberrations.odd), ("rlnEvenZernike", aberrations.even)):
        if terms is not None:
            columns[name] = [
                "[" + ",".join(f"{value:g}" if value == 0 else repr(float(value)) for value in row) + "]"
                for row in _digits(terms)
            ]
    if aberrations.magnification is not None:
        columns |= dict(zip(MAGNIFICATION, _digits(aberrations.magnification).reshape(-1, 4).T, strict=True))
    return columns
