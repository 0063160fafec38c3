"""Single spectra in text files (.mca, .spe) as cubes of one point.

| kind | first line | energies | live time |
|---|---|---|---|
| Amptek | `<<PMCA SPECTRUM>>` | points of `<<CALIBRATION>>`, unit of LABEL | LIVE_TIME, or else REAL_TIME |
| CARS and larch | `VERSION:` | CAL_OFFSET, CAL_SLOPE, CAL_QUAD in keV, per element | LIVE_TIME |
| IAEA, ORTEC | `$SPEC_ID:` or other `$...:` | `$MCA_CAL:` with its unit, or `$ENER_FIT:` in keV | `$MEAS_TIM:`, first number |
| a column | a number, or remarks that start with # | none | none |

(Amptek, "Spectrum file format"; M. Rivers, "MCA file format"; GBS Elektronik, "MCA spectral data format", 2012.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lfjax.errors import FileError
from lfjax.io.cube import Cube, EnergyAxis
from lfjax.io.cube_energy import EV, points_axis, polynomial_axis
from lfjax.io.cube_layout import Ask, CubeLayout, lay_out
from lfjax.io.texts import read_text

MOST_CHANNELS = 2**24


def open_spectrum(path: Path, ask: Ask) -> Cube:
    """Open a .mca or .spe file as a cube of one point; see `lfjax.io.open_cube`."""
    ask.only(path, "detector")
    text = read_text(path, f"spectrum ({path.suffix})", encoding="latin-1")
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line), "")
    if first.startswith("<<"):
        return _amptek(path, lines, ask)
    if first.startswith("$"):
        return _iaea(path, lines, ask)
    if first.upper().startswith("VERSION:"):
        return _cars(path, lines, ask)
    if any(line.startswith("@A") for line in lines):
        raise FileError(f"{path}: a SPEC file (@A); expected a column, or an Amptek, CARS or IAEA spectrum")
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    if any(len(row) != 1 for row in rows):
        raise FileError(f"{path}: {max(map(len, rows))} columns; expected one column of counts")
    return _cube(path, _numbers(path, [row[0] for row in rows], "counts"), None, None, ask)


def _cube(path: Path, counts: np.ndarray, axis: EnergyAxis | None, live_s: float | None, ask: Ask) -> Cube:
    """Counts (channels,) or (channels, detectors) as a cube of one point."""
    if not counts.size:
        raise FileError(f"{path}: no counts; expected a number per channel")
    names = ("energy", "detector")[: counts.ndim]
    layout: CubeLayout = lay_out(path, f"counts of shape {counts.shape}", counts.shape, ask, names)
    whole = (counts == np.floor(counts)).all() and (np.abs(counts) < 2**53).all()
    kept = counts.astype(np.int64) if whole else counts
    return Cube(
        layout.cube_shape,
        layout.sum_type(kept.dtype),
        lambda rows: layout.load(lambda index: kept[index], rows),
        energy=ask.energy or axis,
        live_s=None if live_s is None else np.full((1, 1), live_s),
        files=(path,),
    )


def _numbers(path: Path, words: Sequence[str], what: str) -> np.ndarray:
    if len(words) > MOST_CHANNELS:
        raise FileError(f"{path}: {len(words)} {what}; expected at most {MOST_CHANNELS}")
    numbers = np.empty(len(words))
    for k, word in enumerate(words):
        try:
            numbers[k] = float(word)
        except ValueError:
            raise FileError(f"{path}: number {k + 1} of its {what} is no number; expected a text of numbers") from None
    return numbers


def _seconds(path: Path, numbers: np.ndarray) -> float | None:
    """The first time that is not 0."""
    if not ((numbers >= 0) & (numbers < np.inf)).all():
        raise FileError(f"{path}: a time of {numbers.min():g} s; expected 0 s or more")
    return next((float(number) for number in numbers if number > 0), None)


def _amptek(path: Path, lines: list[str], ask: Ask) -> Cube:
    parts: dict[str, list[str]] = {}
    part = ""
    for line in lines:
        if line.startswith("<<"):
            part = line.strip("<>").upper()
            parts.setdefault(part, [])
        elif line:
            parts[part].append(line)
    if "DATA" not in parts or "END" not in parts:
        raise FileError(f"{path}: no <<{'END' if 'DATA' in parts else 'DATA'}>>; expected a whole Amptek spectrum")
    counts = _numbers(path, " ".join(parts["DATA"]).split(), "counts")
    head = [row.partition(" - ") for row in parts[next(iter(parts))]]
    fields = {name.strip().upper(): value.strip() for name, _, value in head}
    times = [fields[name] for name in ("LIVE_TIME", "REAL_TIME") if name in fields]
    about = parts.get("CALIBRATION", [])
    label = " ".join(line for line in about if line.upper().startswith("LABEL")).partition("-")[2].strip().lower()
    points = [_numbers(path, line.split(), "calibration") for line in about if not line.upper().startswith("LABEL")]
    unit = next((one for one in ("kev", "ev") if one in label), "")
    axis = None
    if ask.energy is None and label not in ("channel", "channels"):
        axis = points_axis(path, [tuple(point) for point in points], len(counts), unit, "<<CALIBRATION>>")
    return _cube(path, counts, axis, _seconds(path, _numbers(path, times, "times")), ask)


def _iaea(path: Path, lines: list[str], ask: Ask) -> Cube:
    parts: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("$"):
            part = line.partition(":")[0].upper()
            if part in parts and part in ("$DATA", "$MCA_CAL", "$ENER_FIT"):
                raise FileError(f"{path}: {part}: is there twice; expected it once")
            parts[part] = []
        elif line:
            parts[part].append(line)
    if not parts.get("$DATA"):
        raise FileError(f"{path}: no $DATA:; expected the counts of a spectrum")
    ends = _numbers(path, parts["$DATA"][0].split(), "channel numbers")
    counts = _numbers(path, " ".join(parts["$DATA"][1:]).split(), "counts")
    if len(ends) != 2 or len(counts) != ends[1] - ends[0] + 1:
        told = "no range of channels" if len(ends) != 2 else f"channels {ends[0]:g} to {ends[1]:g}"
        raise FileError(f"{path}: {len(counts)} counts in $DATA:, which tells {told}; expected one per channel")
    times = _numbers(path, " ".join(parts.get("$MEAS_TIM", [])).split(), "times")
    axis = None if ask.energy else _iaea_axis(path, parts, ends[0], len(counts))
    return _cube(path, counts, axis, _seconds(path, times[:1]), ask)


def _iaea_axis(path: Path, parts: dict[str, list[str]], first: float, channels: int) -> EnergyAxis | None:
    """Energies of the channels from `first`."""
    words = " ".join(parts.get("$MCA_CAL", [])).split()
    if words:
        unit = words.pop() if words[-1].lower() in EV or words[-1].isalpha() else ""
        numbers = _numbers(path, words, "coefficients of $MCA_CAL:")
        if not len(numbers) or numbers[0] != len(numbers) - 1:
            raise FileError(f"{path}: $MCA_CAL: tells another number of coefficients than it has; expected that many")
        numbers, what = numbers[1:], "$MCA_CAL:"
    else:
        numbers, unit, what = _numbers(path, " ".join(parts.get("$ENER_FIT", [])).split(), "$ENER_FIT:"), "keV", "$ENER_FIT:"
    if not numbers.any():
        return None
    shifted = np.polynomial.Polynomial(numbers)(np.polynomial.Polynomial([first, 1.0])).coef
    return polynomial_axis(path, shifted if first else numbers, channels, unit, what)


def _cars(path: Path, lines: list[str], ask: Ask) -> Cube:
    start = next((k for k, line in enumerate(lines) if line.upper().startswith("DATA:")), None)
    if start is None:
        raise FileError(f"{path}: no DATA:; expected the counts of a CARS spectrum")
    fields = {name.strip().upper(): value.split() for name, _, value in (line.partition(":") for line in lines[:start])}
    sizes = [_numbers(path, fields.get(name, [default]), name) for name, default in (("ELEMENTS", "1"), ("CHANNELS", "nan"))]
    elements, channels = (float(size[0]) if len(size) else np.nan for size in sizes)
    counts = _numbers(path, " ".join(lines[start:]).split()[1:], "counts")
    if not elements >= 1 or len(counts) != elements * channels:
        raise FileError(f"{path}: {len(counts)} counts; expected ELEMENTS ({elements:g}) per channel (CHANNELS {channels:g})")
    count = int(elements)
    axes, lives = [], []
    for k in range(count):
        line = [_of(path, fields, name, k) for name in ("CAL_OFFSET", "CAL_SLOPE", "CAL_QUAD")]
        known = ask.energy is None and line[1] != 0
        axes.append(polynomial_axis(path, line, int(channels), "keV", "CAL_OFFSET, CAL_SLOPE, CAL_QUAD") if known else None)
        lives.append(_of(path, fields, "LIVE_TIME", k))
    chosen = ask.detector if isinstance(ask.detector, int) and 0 <= ask.detector < count else 0
    if ask.detector == "sum" and len(set(axes)) > 1:
        raise FileError(f"{path}: {count} detectors of different calibrations; expected one to be chosen by detector=")
    same = ask.detector != "sum" or len(set(lives)) == 1
    live = _seconds(path, np.array([lives[chosen]])) if same else None
    return _cube(path, counts.reshape(-1, count) if count > 1 else counts, axes[chosen], live, ask)


def _of(path: Path, fields: dict[str, list[str]], name: str, element: int) -> float:
    """A number of an element; 0 where there is none."""
    words = fields.get(name, [])
    return float(_numbers(path, words[element : element + 1], name)[0]) if element < len(words) else 0.0
