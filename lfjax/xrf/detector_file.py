"""The file of a calibrated detector: TOML, with the numbers of the detector and what is known of the scanner."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lfjax.errors import require
from lfjax.io.atomic import writing
from lfjax.io.toml import naming, of_table, read_toml, require_keys, toml_lines
from lfjax.xrf.detector import Detector
from lfjax.xrf.instrument import Instrument


class _Numbers(NamedTuple):
    channels: int
    gain_ev: float
    offset_ev: float
    noise_ev: float
    fano: float
    tail: float = 0.0
    tail_ev: float = 300.0


def write_detector(path: str | Path, detector: Detector, instrument: Instrument) -> None:
    """Write a detector and its instrument as TOML, tables [detector] and [instrument].

    Args:
        path: file to write.
        detector: numbers of the detector.
        instrument: what is known of the scanner.
    """
    numbers = {name: getattr(detector, name) for name in _Numbers._fields}
    numbers = {name: value if name == "channels" else float(value) for name, value in numbers.items()}
    known = {name: value for name, value in instrument._asdict().items() if value is not None}
    with writing(path) as temporary:
        temporary.write_text(f"[detector]\n{toml_lines(numbers)}\n[instrument]\n{toml_lines(known)}", encoding="utf-8")


def read_detector(path: str | Path) -> tuple[Detector, Instrument]:
    """Read what `write_detector` wrote.

    Raises:
        FileError: the file is missing or not TOML, or a number is missing, unknown, of another type or out of range; the
            message names file, table and key.
    """
    with naming(path):
        tables = read_toml(path, "a detector")
        require_keys("tables", tables, ("detector", "instrument"), ("detector",))
        numbers = of_table(_Numbers, "detector", tables["detector"])
        require(numbers.channels <= 2**20, "[detector] channels", numbers.channels, "2 to 1,048,576")
        detector = Detector(numbers.channels, **{k: v for k, v in numbers._asdict().items() if k != "channels"})
        return detector, of_table(Instrument, "instrument", tables.get("instrument", {})).checked()
