"""The command `lfjax`: names every command, and turns bad input into one line on standard error."""

from __future__ import annotations

import sys
import warnings
from typing import Any, NoReturn

import typer

from lfjax import io
from lfjax.cli import info, light_field, maps, movie, neurons, particles, poses, recording, simulate, train, unknown_poses, xrf
from lfjax.cli.ranges import ranged
from lfjax.cli.runs import kept_text, one_run, told_when_interrupted
from lfjax.errors import BusyError, LfjaxError, LfjaxWarning, NoSpaceError

app = typer.Typer(
    help="Light-field microscopy: from a raw camera frame to a calibrated 3-D volume. Networks: train, evaluate. "
    "Cryo-EM: project, backproject, convert, abinitio, orient, compare-poses, expand, fsc, mask, postprocess. "
    "Paintings: xrf calibrate, xrf elements, xrf maps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
COMMANDS = (
    ("psf", light_field.write_psf, "--microscope 60x1.2w --z -4.5:4.5:1 --voxels 4 -o psf.h5"),
    ("simulate", simulate.simulate_frame, "--microscope 60x1.2w --lenslets 25 --sample neurons -o demo"),
    ("calibrate", recording.calibrate_camera, "white.tif --dark dark.tif --microscope scope.toml -o calibration.toml"),
    ("check", recording.check_recording, "raw.h5 --calibration calibration.toml --structure tdtomato.tif"),
    ("rectify", light_field.rectify_frame, "raw.tif --white white.tif --dark dark.tif --microscope 60x1.2w -o lf.tif"),
    (
        "reconstruct",
        light_field.reconstruct_frame,
        "raw.tif --white white.tif --dark dark.tif --microscope 60x1.2w --solver richardson_lucy -o volume.ome.tif",
    ),
    ("info", info.print_info, "25x1.0w --device h100 --voxels 3 --lenslets 106"),
    ("project", particles.project, "map.mrc --n 1000 --snr 0.1 -o particles.star"),
    ("backproject", particles.backproject, "particles.star -o map.mrc --half-maps"),
    ("convert", particles.convert, "J42_particles.cs J42_passthrough_particles.cs -o particles.star"),
    ("expand", particles.expand, "particles.star --symmetry D7 -o expanded.star"),
    ("abinitio", unknown_poses.abinitio, "particles.star --shift 3 --radius 130 --symmetry C1 -o map.mrc --half-maps"),
    ("orient", unknown_poses.orient, "particles.star --map map.mrc --shift 3 -o posed.star"),
    ("compare-poses", poses.compare_poses, "found.star truth.star --symmetry D2 -o errors.png"),
    ("fsc", maps.fsc, "map_half1.mrc map_half2.mrc --radius 120"),
    ("mask", maps.mask, "map.mrc -o mask.mrc"),
    ("postprocess", maps.postprocess, "map_half1.mrc map_half2.mrc --mask mask.mrc -o sharp.mrc"),
    (
        "movie",
        movie.reconstruct_movie,
        "raw.h5 --calibration calibration.toml --solver ista -o volumes.zarr",
    ),
    ("neurons", neurons.extract_neurons, "raw.h5 --structure tdtomato.tif --calibration calibration.toml -o neurons.h5"),
    ("train", train.train_model, "recipe.toml -o model.h5 --folder run"),
    ("evaluate", train.evaluate, "small"),
)
"""Name, function and example of each command."""

for name, function, example in COMMANDS:
    app.command(name, epilog=f"Example: lfjax {name} {example}")(told_when_interrupted(ranged(function)))

for name, function, example in xrf.COMMANDS:
    xrf.app.command(name, epilog=f"Example: lfjax xrf {name} {example}")(told_when_interrupted(ranged(function)))
app.add_typer(xrf.app, name="xrf")


UsageError: Any = typer.BadParameter.__base__
"""A command line that cannot be read, of Click or of the copy of it that some versions of Typer bring."""


def run() -> None:
    """Run the command; bad input ends with one line on stderr and exit code 2, a full disk, a busy result or too little memory
    with 1."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    _told.clear()
    io.use_compile_cache()
    with one_run():
        try:
            code = app(standalone_mode=False)  # what it would exit with, or None
        except UsageError as error:
            _end(error.format_message(), 2)
        except typer.Abort:
            _end("interrupted", 1)
        except (LfjaxError, OSError) as error:  # OSError: a full disk, a folder that cannot be written
            kept = kept_text() if isinstance(error, NoSpaceError) else None
            _end(f"{error}" + (f"; {kept}" if kept else ""), 1 if isinstance(error, (BusyError, OSError)) else 2)
        except MemoryError as error:
            _end(f"not enough memory: {error}", 1)
        else:
            if isinstance(code, int) and code:
                sys.exit(code)


def _end(message: str, code: int) -> NoReturn:
    """Say why the command ends, in one line, and end it; a message is empty where Typer has shown the help."""
    if line := " ".join(message.split()):
        typer.echo(f"lfjax: {line}", err=True)
    sys.exit(code)


_told: set[str] = set()


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    if issubclass(category, LfjaxWarning) and str(message) not in _told:
        _told.add(str(message))  # the same from several places is one warning
        typer.echo(f"warning: {message}", err=True)


if __name__ == "__main__":
    run()
