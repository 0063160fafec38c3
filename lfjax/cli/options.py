"""Options that several commands share. Nothing heavy is imported here, so that `lfjax --help` answers at once."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfjax import io, optics, pipeline
from lfjax.errors import LfjaxError, ParameterError, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lfjax.optics import Microscope

# Names of things whose modules load JAX; a test compares them with these modules.
PRESETS = ("25x1.0w", "40x0.95", "22.2x0.5", "60x1.2w", "20x0.5")
SAMPLES = ("neurons", "cortex", "beads")
WARM = ("none", "background", "previous")
BAD_FRAMES = ("error", "skip", "interpolate")
INDICATORS = (
    "jgcamp8f", "jgcamp8m", "jgcamp8s", "jgcamp7f", "gcamp6f", "gcamp6s", "jgcamp7s", "jgcamp7c", "jgcamp7b",
)  # fmt: skip
DEVICES = (
    "v100", "a100-40gb", "a100-80gb", "h100", "h100-pcie", "h200", "b200", "l4", "rtx4090", "t4",
    "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e",
)  # fmt: skip

FARTHEST_UM = 1e6  # of a depth: one metre

FollowOption = Annotated[
    bool, typer.Option("--follow-links", help="Read values that lie in other files, which a file names; only if it is trusted.")
]
DepthsOption = Annotated[
    str | None,
    typer.Option(
        "--z",
        help="Depths in um: first:last:step, a list a,b,c, or one; 0 is the native focal plane. "
        "If not given: 11 planes over the usable range, which `lfjax info` prints.",
        metavar="A:B:STEP",
    ),
]
VoxelsOption = Annotated[int, typer.Option("--voxels", help="Voxels across a lenslet, s (1 to N).")]
MicroscopeOption = Annotated[
    str | None,
    typer.Option(help=f"Preset ({', '.join(PRESETS)}) or TOML file; `lfjax info PRESET` prints one to start from."),
]
ToleranceOption = Annotated[float, typer.Option(help="Largest relative convergence error of the PSF.")]
SparsityOption = Annotated[float, typer.Option(help="l1 weight, as a fraction of the weight that empties the volume.")]
VariationOption = Annotated[float, typer.Option(help="TV weight of admm, in the same unit.")]
MovieArgument = Annotated[
    str, typer.Argument(help="Frames: HDF5, TIFF, Zarr, a folder or a quoted pattern of files; see `lfjax check`.")
]
RegisterOption = Annotated[bool, typer.Option(help="Shift frames onto the first ones: rigid, across the axis.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")]
DevicesOption = Annotated[int, typer.Option(help="Devices over which the frames of a chunk are spread.")]


@dataclasses.dataclass(frozen=True)
class LensletOptions:
    """Camera and lenslets, beside the white frame."""

    dark: Annotated[str | None, typer.Option(help="Raw dark frame, or the camera's offset in counts.")] = None
    background: Annotated[
        str | None, typer.Option(help="Raw frame without the sample, or its light in counts, to subtract.")
    ] = None
    pitch: Annotated[float | None, typer.Option(help="Raw pixels per lenslet, if known.")] = None
    rotation: Annotated[float | None, typer.Option(help="Rotation of the lenslets in degrees, if known.")] = None
    offset: Annotated[str | None, typer.Option(help="Raw pixel Y,X of a lenslet's centre, if known.", metavar="Y,X")] = None
    saturation: Annotated[
        float | None, typer.Option(help="Counts at and above which a pixel is saturated. If not given: found in the values.")
    ] = None

    def numbers(self) -> dict[str, Any]:
        """The arguments of `pipeline.Calibration` and of `Rectifier.calibrate` that these options are.

        Raises:
            LfjaxError: a file cannot be read, or an option is out of range.
        """
        return {
            "dark": _frame_or_level("--dark", self.dark),
            "background": _frame_or_level("--background", self.background),
            "pitch_px": self.pitch,
            "rotation_rad": None if self.rotation is None else math.radians(self.rotation),
            "offset_px": None if self.offset is None else _pair("--offset", self.offset),
            "saturation": self.saturation,
        }

    def files(self) -> tuple[Path, ...]:
        """The input files among the options."""
        return tuple(Path(text) for text in (self.dark, self.background) if text is not None and _level(text) is None)


@dataclasses.dataclass(frozen=True)
class CameraOptions(LensletOptions):
    """How raw frames become light fields."""

    white: Annotated[Path | None, typer.Option(help="Raw white frame: a homogeneous fluorescent slide.")] = None
    calibration: Annotated[Path | None, typer.Option(help="File of `lfjax calibrate`, in place of these options.")] = None
    rectified: Annotated[
        bool | None,
        typer.Option("--rectified/--raw", help="Whether frames have N whole pixels per lenslet. If not given: found."),
    ] = None

    def read(self) -> pipeline.Calibration:
        """The calibration with its frames.

        Raises:
            LfjaxError: a file cannot be read, or an option is out of range.
        """
        return pipeline.Calibration(
            white=None if self.white is None else io.read_frame(self.white),
            rectified=self.rectified,
            rectifier=None if self.calibration is None else optics.read_calibration(self.calibration),
            **self.numbers(),
        )

    def microscope(self, name: str | None) -> Microscope | None:
        """The microscope of this name; None where the calibration file holds it.

        Raises:
            ParameterError: neither a microscope nor a calibration is given.
        """
        if name is None:
            require(self.calibration is not None, "--microscope", None, "a preset or a TOML file, or --calibration")
            return None
        require(self.calibration is None, "--microscope", name, "nothing beside --calibration, which holds the microscope")
        return optics.load_microscope(name)

    def files(self) -> tuple[Path, ...]:
        """The input files among the options."""
        arrays = None if self.calibration is None else self.calibration.with_suffix(".h5")
        return (*super().files(), *input_files(self.white, self.calibration, arrays))


@dataclasses.dataclass(frozen=True)
class TissueOptions:
    """Scattering tissue above the sample."""

    tissue_um: Annotated[
        float | None, typer.Option(help="Scattering tissue above the plane z = 0, with --mean-free-path-um.")
    ] = None
    mean_free_path_um: Annotated[float | None, typer.Option(help="Its scattering mean free path.")] = None
    anisotropy: Annotated[float, typer.Option(help="Mean cosine of its scattering angle.")] = 0.93

    def read(self) -> pipeline.Tissue | None:
        """The tissue; None: clear.

        Raises:
            ParameterError: one of two numbers is missing.
        """
        given = (self.tissue_um, self.mean_free_path_um)
        if self.tissue_um is None or self.mean_free_path_um is None:
            require(given == (None, None), "--tissue-um, --mean-free-path-um", given, "both, or none")
            return None
        return pipeline.Tissue(self.tissue_um, self.mean_free_path_um, self.anisotropy)


@dataclasses.dataclass(frozen=True)
class MovieOptions:
    """How a movie is read."""

    rate_hz: Annotated[float | None, typer.Option(help="Frames per second. If not given: that of the file.")] = None
    bad_frames: Annotated[
        str, typer.Option(help=f"Treatment of missing, black, doubled and broken frames: {', '.join(BAD_FRAMES)}.")
    ] = "error"
    dataset: Annotated[str | None, typer.Option(help="Dataset or array with the frames, for HDF5 and Zarr.")] = None
    axes: Annotated[str | None, typer.Option(help="Letters of the axes, if the file does not tell: tyx, or tcyx.")] = None
    channel: Annotated[int | None, typer.Option(help="Channel to use, from 0, if the file holds several.")] = None
    series: Annotated[int | None, typer.Option(help="Image series to use, from 0, if the TIFF file holds several.")] = None
    follow_links: FollowOption = False

    def open(self, path: str) -> io.Movie:
        """The movie at a path.

        Raises:
            LfjaxError: it cannot be read, or an option is out of range.
        """
        require(self.bad_frames in BAD_FRAMES, "--bad-frames", self.bad_frames, f"one of {', '.join(BAD_FRAMES)}")
        return io.open_movie(
            path, dataset=self.dataset, axes=self.axes, channel=self.channel, series=self.series, follow_links=self.follow_links
        )

    @property
    def frame_s(self) -> float | None:
        """Seconds per frame; None: those of the file."""
        return None if self.rate_hz is None else 1 / self.rate_hz


def parse_depths(text: str | None) -> tuple[float, ...] | None:
    """Depths in um of "first:last:step", last included, of "a,b,c", or of one number; None: the usable range.

    Raises:
        ParameterError: not numbers, not ascending, or a step that does not lead from the first to the last.
    """
    if text is None:
        return None
    wanted = "expected first:last:step in um, for example -4.5:4.5:1, a list such as -4,0,4, or one depth"
    try:
        depths = tuple(float(part) for part in text.split(",")) if ":" not in text else ()
        first, last, step = (float(part) for part in text.split(":")) if ":" in text else (0.0, 0.0, 1.0)
        count = (last - first) / step
    except (ValueError, ZeroDivisionError):
        raise ParameterError(f"--z {text!r}: {wanted}") from None
    if ":" in text:
        require(0 <= count < 1000, "--z", text, f"at most 1000 ascending planes; {wanted}")
        if abs(count - round(count)) > 1e-3:
            end = first + step * int(count)
            raise ParameterError(f"--z {text!r}: steps of {step:g} from {first:g} reach {end:g}, not {last:g}; {wanted}")
        depths = tuple(first + step * number for number in range(round(count) + 1))
    ascending = all(a < b for a, b in zip(depths, depths[1:], strict=False))
    require(ascending and all(map(math.isfinite, depths)), "--z", text, f"ascending depths; {wanted}")
    require(all(abs(z) <= FARTHEST_UM for z in depths), "--z", text, f"depths within {FARTHEST_UM:g} um; {wanted}")
    return depths


def require_output(
    output: Path,
    suffixes: tuple[str, ...],
    inputs: Iterable[Path] = (),
    *,
    overwrite: bool = False,
    option: str = "--output",
    beside: Iterable[Path] = (),
) -> None:
    """Refuse the name of a result before any work is done.

    Args:
        output: file or folder to write.
        suffixes: endings that the name may have.
        inputs: input files, none of which may be written, under any of its names.
        overwrite: whether a result that exists may be replaced.
        option: its option, for messages.
        beside: further files that go beside it, and take the place of earlier ones.

    Raises:
        ParameterError: another ending, an input file, a file that exists, or a folder in which nothing can be written.
    """
    fits = output.name.lower().endswith(suffixes)
    require(fits, option, str(output), f"a name that ends with {' or '.join(suffixes)}")
    beside = tuple(beside)
    for path in (output, *beside):
        taken = path.is_dir() and (path != output or path.suffix.lower() != ".zarr")
        require(not taken, option, str(path), "another name: a folder has this one")
    require_no_input((output, *beside), inputs, option=option)
    dangling = output.is_symlink() and not output.exists()
    require(not dangling, option, str(output), "a new name: this is a link to nothing, or to itself")
    require(overwrite or not output.exists(), option, str(output), "a new name, or --overwrite: this file exists")
    _require_writable(output, option)


def require_folder(output: Path, option: str = "--output") -> None:
    """Refuse the name of a folder for results in which nothing can be written, before any work is done.

    Args:
        output: the folder; it may exist.
        option: its option, for messages.

    Raises:
        ParameterError: it is a file, or a folder in which nothing can be written.
    """
    require(output.is_dir() or not output.exists(), option, str(output), "a folder: this is a file")
    _require_writable(output / "file", option)


def _require_writable(output: Path, option: str) -> None:
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):  # permissions alone do not tell
            pass
    except OSError:
        require(False, option, str(output), f"a folder in which files can be written, which {folder} is not")


@contextmanager
def naming(**options: str) -> Iterator[None]:
    """Name options instead of the arguments that they become, in the messages of the errors raised inside.

    >>> with naming(radius_angstrom="--radius"):
    ...     require(False, "radius_angstrom", 70.0, "less than 60")
    Traceback (most recent call last):
    lfjax.errors.ParameterError: --radius 70: expected less than 60

    Args:
        options: option of each argument.

    Raises:
        LfjaxError: that of the block.
    """
    try:
        yield
    except LfjaxError as error:
        text = str(error)
        for argument, option in options.items():
            text = re.sub(rf"(\b{argument} = -?\d+)\.0\b", r"\1", text)  # 70.0 was typed as 70
            text = re.sub(rf"\b{argument} = ", f"{option} ", text)
        raise type(error)(text) from error


def require_no_input(outputs: Iterable[Path], inputs: Iterable[Path], *, option: str = "--output") -> None:
    """Refuse outputs that are input files, also through a symbolic or hard link.

    Raises:
        ParameterError: an output is an input, and would be overwritten.
    """
    known = [path.stat() for path in inputs if path.exists()]
    for output in outputs:
        same = output.exists() and any(os.path.samestat(output.stat(), status) for status in known)
        require(not same, option, str(output), "another name than that of an input file, which is never overwritten")


def input_files(*given: str | Path | None) -> tuple[Path, ...]:
    """The files among arguments that may also be names of presets, or not given."""
    return tuple(Path(one) for one in given if one is not None and Path(one).is_file())


def _level(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _frame_or_level(option: str, text: str | None) -> ArrayLike | None:
    """A frame from a file, or a number of counts."""
    if text is None:
        return None
    level = _level(text)
    if level is None:
        return io.read_frame(text)
    require(0 <= level < math.inf, option, text, "a file, or zero or more counts")
    return level


def _pair(option: str, text: str) -> tuple[float, float]:
    """Two numbers of "Y,X"."""
    try:
        y, x = (float(part) for part in text.split(","))
    except ValueError:
        y = x = math.nan
    require(math.isfinite(y) and math.isfinite(x), option, text, "two numbers Y,X in raw pixels")
    return y, x


def parse_voxel_um(option: str, text: str | None) -> tuple[float, float, float] | None:
    """A voxel size (z, y, x) of "Z,Y,X" in micrometres.

    Raises:
        ParameterError: not three positive numbers.
    """
    if text is None:
        return None
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        z = y = x = -1.0
    size = (z, y, x)
    require(all(0 < side < math.inf for side in size), option, text, "three positive numbers Z,Y,X in micrometres")
    return size
