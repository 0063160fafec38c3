"""Options that several commands share. Nothing heavy is imported here, so that `lfjax --help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lfjax.errors import ParameterError

# Names of things whose modules load JAX; a test compares them with these modules.
PRESETS = ("25x1.0w", "40x0.95", "22.2x0.5", "60x1.2w", "20x0.5")
SAMPLES = ("neurons", "cortex", "beads")
WARM = ("none", "background", "previous")
DEVICES = (
    "v100", "a100-40gb", "a100-80gb", "h100", "h100-pcie", "h200", "b200", "l4", "rtx4090", "t4",
    "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e",
)  # fmt: skip
DEPTHS = "-4.5:4.5:1"

DepthsOption = Annotated[
    str, typer.Option("--z", help="Depths in um as first:last:step; 0 is the native focal plane.", metavar="A:B:STEP")
]
VoxelsOption = Annotated[int, typer.Option("--voxels", help="Voxels across a lenslet, s (1 to N).")]
MicroscopeOption = Annotated[
    str, typer.Option(help=f"Preset ({', '.join(PRESETS)}) or TOML file; `lfjax info PRESET` prints one to start from.")
]
ToleranceOption = Annotated[float, typer.Option(help="Largest relative convergence error of the PSF.")]
WhiteOption = Annotated[Path | None, typer.Option(help="Raw white frame.")]
DarkOption = Annotated[Path | None, typer.Option(help="Raw dark frame.")]
SparsityOption = Annotated[float, typer.Option(help="l1 weight, as a fraction of the weight that empties the volume.")]
VariationOption = Annotated[float, typer.Option(help="TV weight of admm, in the same unit.")]
MovieArgument = Annotated[Path, typer.Argument(help="Frames (t, y, x): HDF5 with `frames`, a TIFF stack, or OME-Zarr.")]
MovieWhiteOption = Annotated[Path | None, typer.Option(help="Raw white frame; the mean of the movie if not given.")]
RectifiedOption = Annotated[bool, typer.Option(help="The frames are rectified already, with the dark level subtracted.")]
RegisterOption = Annotated[bool, typer.Option(help="Shift frames onto the first ones: rigid, across the axis.")]
RateOption = Annotated[float, typer.Option(help="Frames per second of the recording.")]
DevicesOption = Annotated[int, typer.Option(help="Devices over which the frames of a chunk are spread.")]


def parse_depths(text: str) -> tuple[float, ...]:
    """Depths in um of "first:last:step", last included.

    Raises:
        ParameterError: not three numbers, or a step that does not lead from the first to the last.
    """
    try:
        first, last, step = (float(part) for part in text.split(":"))
        count = round((last - first) / step) + 1
    except (ValueError, ZeroDivisionError, OverflowError):
        count = 0
    if not 1 <= count <= 1000:
        raise ParameterError(f"--z {text!r}: expected first:last:step in um, for example -4.5:4.5:1")
    return tuple(first + step * number for number in range(count))
