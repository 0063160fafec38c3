"""RELION's programs as peers: `relion_reconstruct`, `relion_postprocess` and others, each run in a temporary folder.

They serve tests and benchmarks, which skip a comparison with a word where `available` says no. RELION resolves the names of
stacks from the folder that it runs in, so a STAR file names them from its own folder here.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lfjax import rotation
from lfjax.io import read_map, read_star, write_map, write_stack, write_star
from lfjax.tomography import Particles

CURVES = {
    "unmasked": "rlnFourierShellCorrelationUnmaskedMaps",
    "masked": "rlnFourierShellCorrelationMaskedMaps",
    "randomised": "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    "corrected": "rlnFourierShellCorrelationCorrected",
}


class PeerError(RuntimeError):
    """A program of RELION is missing or has failed."""


class Reconstructed(NamedTuple):
    """Result of `reconstruct_star`: the map, and the wall time of the program."""

    volume: NDArray[np.float32]
    seconds: float


class Postprocessed(NamedTuple):
    """Result of `postprocess_halves`.

    Attributes:
        volume: the sharpened map, before the mask.
        curves: FSC by shell; the keys of `CURVES`.
        resolution_angstrom: where the final curve falls below 0.143.
        b_factor_angstrom2: B-factor that the map was sharpened by, negative for sharpening.
        guinier: the table of the Guinier plot.
        seconds: wall time of the program.
    """

    volume: NDArray[np.float32]
    curves: dict[str, NDArray[np.float64]]
    resolution_angstrom: float
    b_factor_angstrom2: float
    guinier: pd.DataFrame
    seconds: float


def available(*programs: str) -> bool:
    """Whether RELION's programs (`reconstruct` and `postprocess`, unless others are named) are on this machine."""
    return all(shutil.which(f"relion_{name}") for name in programs or ("reconstruct", "postprocess"))


def run(program: str, *options: Any, folder: str | Path) -> float:
    """Run relion_PROGRAM in a folder; returns the wall time in seconds.

    Raises:
        PeerError: the program is missing or fails; the message has the end of its output.
    """
    if not available(program):
        raise PeerError(f"relion_{program} is not installed (Debian: apt-get install relion)")
    start = time.perf_counter()
    done = subprocess.run(
        [f"relion_{program}", *map(str, options)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise PeerError(f"relion_{program} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return seconds


def write_relion(folder: str | Path, images: ArrayLike, particles: Particles, columns: Mapping[str, Any] | None = None) -> Path:
    """Write particles.mrcs and, beside it, particles.star in RELION 3.1's form with one optics group; returns its path.

    Written by hand, not by `lfjax.tomography.write_particles`: what RELION makes of it then judges lfjax's conventions.

    Args:
        folder: where to write.
        images: images (n, y, x).
        particles: poses, optics and half-sets; pixel size, voltage, Cs and amplitude contrast are those of the first image.
        columns: further columns of the optics table, such as {"rlnBeamTiltX": 1.0}.
    """
    folder, count, optics = Path(folder), len(particles), particles.ctf
    assert optics is not None
    pixel = float(particles.pixel_angstrom[0])
    write_stack(folder / "particles.mrcs", np.asarray(images), pixel)
    group = {
        "rlnOpticsGroup": 1,
        "rlnOpticsGroupName": "one",
        "rlnVoltage": float(optics.voltage_kv[0]),
        "rlnSphericalAberration": float(optics.cs_mm[0]),
        "rlnAmplitudeContrast": float(optics.amplitude_contrast[0]),
        "rlnImagePixelSize": pixel,
        "rlnImageSize": np.shape(images)[1],
        "rlnImageDimensionality": 2,
    }
    angles = np.rad2deg(np.asarray(rotation.to_euler(particles.rotations), float))
    table = pd.DataFrame({"rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(count)]})
    table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]] = angles.T
    table[["rlnOriginXAngst", "rlnOriginYAngst"]] = -pixel * np.asarray(particles.shifts, float)
    table["rlnDefocusU"] = np.asarray(optics.defocus_u_angstrom, float)
    table["rlnDefocusV"] = np.asarray(optics.defocus_v_angstrom, float)
    table["rlnDefocusAngle"] = np.rad2deg(np.asarray(optics.angle_rad, float))
    table["rlnCtfBfactor"] = np.asarray(optics.b_factor_angstrom2, float)
    table["rlnRandomSubset"], table["rlnOpticsGroup"] = np.asarray(particles.half), 1
    path = folder / "particles.star"
    write_star(path, {"optics": pd.DataFrame([group | dict(columns or {})]), "particles": table})
    return path


def reconstruct_star(star: str | Path, *options: Any, ctf: bool = True, subset: int | None = None) -> Reconstructed:
    """Map of a STAR file by `relion_reconstruct`, in the pixel size of its first optics group.

    Args:
        star: particles; their stacks are named from its folder.
        options: further options, such as "--sym", "C4" or "--ctf_phase_flipped".
        ctf: whether to correct for the CTF; without, RELION ignores beam tilt and Zernike coefficients too.
        subset: 1 or 2: images of this half-set only.

    Raises:
        PeerError: the program is missing or fails.
    """
    star = Path(star).resolve()
    chosen = ["--ctf"] * ctf + ([] if subset is None else ["--subset", subset])
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "map.mrc"
        seconds = run("reconstruct", "--i", star.name, "--o", made, *chosen, *options, folder=star.parent)
        return Reconstructed(read_map(made).array, seconds)


def postprocess_halves(
    first: ArrayLike, second: ArrayLike, voxel_angstrom: float, *options: Any, mask: ArrayLike | None = None
) -> Postprocessed:
    """`relion_postprocess` of two half-maps.

    Args:
        first: half-map (z, y, x).
        second: the other half-map.
        voxel_angstrom: voxel size.
        options: further options, such as "--auto_bfac", "--autob_lowres", 10.
        mask: mask with a soft edge; None: ones, since RELION 3.1.3 fails without a mask when it draws its curves.

    Raises:
        PeerError: the program is missing or fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_map(folder / "half1.mrc", first, voxel_angstrom)
        write_map(folder / "half2.mrc", second, voxel_angstrom)
        write_map(folder / "mask.mrc", np.ones_like(first) if mask is None else mask, voxel_angstrom)
        chosen = ["--i", "half1.mrc", "--i2", "half2.mrc", "--mask", "mask.mrc", "--o", folder / "post"]
        chosen += ["--angpix", voxel_angstrom]
        seconds = run("postprocess", *chosen, *options, folder=folder)
        tables = read_star(folder / "post.star")
        volume = read_map(folder / "post.mrc").array
    general, shells = tables["general"].iloc[0], tables["fsc"]
    return Postprocessed(
        volume,
        {key: shells[column].to_numpy(float) for key, column in CURVES.items()},
        float(general["rlnFinalResolution"]),
        float(general["rlnBfactorUsedForSharpening"]),
        tables["guinier"],
        seconds,
    )
