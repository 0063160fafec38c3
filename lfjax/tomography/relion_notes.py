"""Notes on a particle file for commands to print: its statements on the images, and whether lfjax honours them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lfjax.io.star import Tables
from lfjax.tomography.ctf import PHASE_FLIPPED, PREMULTIPLIED
from lfjax.tomography.particles import Particles
from lfjax.tomography.relion_labels import left_aside

APPLIED = {PHASE_FLIPPED: "phases flipped", PREMULTIPLIED: "CTF premultiplied"}


def group_notes(
    tables: Tables, particles: Particles, sizes: Sequence[int] | None = None, grid: tuple[int, float] | None = None
) -> tuple[str, ...]:
    """One line per optics group with images, then lines on the CTF, signs, half-sets, repeated images, doses and what is left.

    Args:
        tables: canonical tables, see `relion_tables`.
        particles: the particles.
        sizes: pixels per side of the images of each optics group; None: not known.
        grid: size and pixel size of the common grid; None: not known.
    """
    group = np.asarray(particles.group)
    lines = [_line(tables["optics"], particles, int(g), sizes[g] if sizes else None, grid) for g in np.unique(group)]
    doses = _doses(tables["particles"]) if particles.ctf is not None else []
    optics = tables["optics"].iloc[np.unique(group)]
    lenses = _lenses(optics, tables["particles"]) if particles.ctf is not None else []
    names = _repeats(tables["particles"]["rlnImageName"]) if "rlnImageName" in tables["particles"] else []
    return (*lines, *lenses, *_signs(tables["particles"]), *_half_sets(particles), *names, *doses, *left_aside(tables))


def count_of(count: int, one: str) -> str:
    """A number and what it counts: "1 image", "2 images".

    Args:
        count: the number.
        one: the noun for one of them.
    """
    return f"{count} {one}{'s' * (count != 1)}"


def _lenses(optics: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Ranges of the numbers of the CTF, so that one in other units is seen."""
    wanted = {"rlnVoltage": "{} kV", "rlnSphericalAberration": "Cs {} mm", "rlnAmplitudeContrast": "amplitude contrast {}"}
    said = [text.format(_span(optics[name].to_numpy(float))) for name, text in wanted.items() if name in optics]
    if {"rlnDefocusU", "rlnDefocusV"} <= set(table):
        mean = table[["rlnDefocusU", "rlnDefocusV"]].to_numpy(float).mean(axis=1)
        said.append(f"mean defocus {_span(np.rint(mean))} A")
    return [f"CTF: {', '.join(said)}"] if said else []


def _span(values: NDArray[np.float64]) -> str:
    low, high = (f"{value:.6g}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _repeats(names: pd.Series) -> list[str]:
    repeated = len(names) - names.nunique()
    return [f"{repeated} of {count_of(len(names), 'row')} repeat an image: {names.nunique()} distinct"] if repeated else []


def _line(optics: pd.DataFrame, particles: Particles, g: int, size: int | None, grid: tuple[int, float] | None) -> str:
    row, count = optics.iloc[g], int((np.asarray(particles.group) == g).sum())
    pixel = float(row["rlnImagePixelSize"])
    name = f" ({row['rlnOpticsGroupName']})" if "rlnOpticsGroupName" in optics else ""
    said = f"optics group {row['rlnOpticsGroup']}{name}: {count_of(count, 'image')}"
    said += f" of {size} px at {pixel:g} A" if size else f" at {pixel:g} A"
    if grid and not (size == grid[0] and np.isclose(pixel, grid[1], rtol=1e-5)):
        said += f", brought to {grid[0]} px at {grid[1]:g} A"
    ctf = particles.ctf
    if ctf is None:
        return said + ", no CTF"
    first, honoured = int(np.argmax(np.asarray(particles.group) == g)), []
    if ctf.applied is not None and (done := int(np.asarray(ctf.applied)[first])) in APPLIED:
        honoured.append(APPLIED[done])
    if (found := ctf.aberrations) is not None:
        if found.beam_tilt_rad is not None and np.any(tilt := 1e3 * np.asarray(found.beam_tilt_rad)[first]):
            honoured.append(f"beam tilt ({tilt[0]:.3g}, {tilt[1]:.3g}) mrad")
        for terms, kind in ((found.odd, "odd"), (found.even, "even")):
            if terms is not None and np.any(np.asarray(terms)[first]):
                honoured.append(f"{kind} aberrations")
        if found.magnification is not None and np.any(np.asarray(found.magnification)[first] != np.eye(2)):
            honoured.append("anisotropic magnification")
    return said + (f", {', '.join(honoured)}: honoured" if honoured else "")


def _signs(table: pd.DataFrame) -> list[str]:
    dark = int((table["lfjaxImageSign"] == -1).sum()) if "lfjaxImageSign" in table else 0
    return [f"sign -1 of {count_of(dark, 'image')} (dark particles): honoured, multiplied by -1"] if dark else []


def _half_sets(particles: Particles) -> list[str]:
    half = np.asarray(particles.half)
    if not half.any():
        return ["no half-sets in the file"]
    lines = [f"half-sets of the file: {(half == 1).sum()} and {count_of(int((half == 2).sum()), 'image')}"]
    if (none := half == 0).any():
        lines.append(f"{none.sum()} of {count_of(len(half), 'image')} without half-set, first row {int(np.argmax(none)) + 1}")
    return lines


def _doses(table: pd.DataFrame) -> list[str]:
    lines = []
    if "rlnCtfBfactor" in table and (table["rlnCtfBfactor"] <= 0).all() and table["rlnCtfBfactor"].any():
        weakest, strongest = table["rlnCtfBfactor"].max(), table["rlnCtfBfactor"].min()
        lines.append(f"dose weights: rlnCtfBfactor {weakest:g} to {strongest:g}, read as a decay")
    if "lfjaxExposure" in table:
        low, high = table["lfjaxExposure"].min(), table["lfjaxExposure"].max()
        lines.append(f"dose weights: exposures of {low:g} to {high:g} electrons per square angstrom")
    return lines
