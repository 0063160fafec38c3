"""NAME.json beside a result: with which instrument, inputs and version it was made, and how far it can be trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lfjax
from lfjax import io

if TYPE_CHECKING:
    from lfjax.cli.options import LensletOptions
    from lfjax.optics import Rectifier


def write_figures(
    path: str | Path, raw: str | Path, options: LensletOptions, rectifier: Rectifier, figures: Mapping[str, Any]
) -> None:
    """Write a JSON of version, inputs, microscope, lattice, field and trusted share, with the figures of a command.

    Args:
        path: NAME.json.
        raw: the recording, as the user named it.
        options: options about camera and lenslets; those given are among the inputs.
        rectifier: the correction of the frames.
        figures: name -> value of what the command found; they take precedence.
    """
    document = {
        "lfjax": lfjax.__version__,
        "inputs": {"raw": str(raw), **{name: str(value) for name, value in vars(options).items() if value is not None}},
        "microscope": rectifier.microscope.to_dict(),
        "lattice": rectifier.lattice._asdict(),
        "pitch_px": rectifier.lattice.pitch_px,
        "rotation_rad": rectifier.lattice.rotation_rad,
        "field": rectifier.field,
        "trusted": rectifier.trusted,
        **figures,
    }
    with io.writing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def beside(output: Path, suffixes: tuple[str, ...]) -> str:
    """The name of a result without its suffix (one of the list, or else the last), but with the dot: NAME.ome.tif -> NAME."""
    suffix = next((suffix for suffix in suffixes if output.name.lower().endswith(suffix)), output.suffix)
    return str(output.with_name(output.name[: len(output.name) - len(suffix)] + "."))
