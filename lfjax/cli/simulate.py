"""The command `lfjax simulate`: simulates a raw frame, or a raw movie with --frames, together with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lfjax import io, optics, pipeline, simulate
from lfjax.cli.options import (
    INDICATORS,
    PRESETS,
    SAMPLES,
    DepthsOption,
    OverwriteOption,
    ToleranceOption,
    input_files,
    naming,
    parse_depths,
    require_folder,
    require_no_input,
)
from lfjax.errors import require
from lfjax.io.atomic import together
from lfjax.progress import track

# What a frame and a movie have in common but not by default: (frame, movie).
DEFAULTS: dict[str, tuple[Any, Any]] = {
    "microscope": ("60x1.2w", "20x0.5"),
    "sample": ("neurons", "cortex"),
    "voxels": (4, 2),
    "photons": (2000.0, 200.0),
    "count": (12, 20),
}
MOVIE_DEFAULTS: dict[str, Any] = {
    "rate_hz": 100.0, "firing_hz": 2.0, "indicator": "jgcamp8f", "rise_ms": None, "decay_ms": None, "static": False,
    "bleach_s": 60.0, "motion_um": 0.0,
}  # fmt: skip


def simulate_frame(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    frames: Annotated[int | None, typer.Option(help="Frames of a movie of active neurons; one frame if not given.")] = None,
    microscope: Annotated[
        str | None, typer.Option(help=f"Preset ({', '.join(PRESETS)}) or TOML file. [default: 60x1.2w; movie: 20x0.5]")
    ] = None,
    sample: Annotated[str | None, typer.Option(help=f"One of {', '.join(SAMPLES)}. [default: neurons; movie: cortex]")] = None,
    lenslets: Annotated[int, typer.Option(help="Side of the light field in lenslets.")] = 25,
    z: DepthsOption = None,
    voxels: Annotated[
        int | None, typer.Option("--voxels", help="Voxels across a lenslet, s (1 to N). [default: 4; movie: 2]")
    ] = None,
    pitch_px: Annotated[
        float | None, typer.Option(help="Raw pixels per lenslet; by default that of the microscope's camera, or 0.96 N.")
    ] = None,
    rotation_rad: Annotated[float, typer.Option(help="Rotation of the lenslets in radians.")] = 0.004,
    photons: Annotated[
        float | None, typer.Option(help="Photons in the brightest pixel, at rest. [default: 2000; movie: 200]")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Neurons or beads in the volume. [default: 12; movie: 20]")] = None,
    seed: Annotated[int, typer.Option(help="Fixes all random numbers.")] = 0,
    tolerance: ToleranceOption = 0.02,
    rate_hz: Annotated[float, typer.Option(help="Movie: frames per second.")] = 100.0,
    firing_hz: Annotated[float, typer.Option(help="Movie: spikes per second of the median neuron.")] = 2.0,
    indicator: Annotated[str, typer.Option(help=f"Movie: calcium indicator, one of {', '.join(INDICATORS)}.")] = "jgcamp8f",
    rise_ms: Annotated[float | None, typer.Option(help="Movie: half-rise time of another indicator.")] = None,
    decay_ms: Annotated[float | None, typer.Option(help="Movie: half-decay time of another indicator.")] = None,
    static: Annotated[bool, typer.Option("--static", help="Movie: nothing fires.")] = False,
    bleach_s: Annotated[float, typer.Option(help="Movie: seconds in which the light fades to 1/e; inf: never.")] = 60.0,
    motion_um: Annotated[float, typer.Option(help="Movie: amplitude of the motion with the breath; slower.")] = 0.0,
    overwrite: OverwriteOption = False,
) -> None:
    """Simulate a raw frame: tilted, of non-integer pitch, vignetted and noisy, with its white and dark frames and the truth.

    With --frames, a raw movie of active neurons: raw.h5, white.tif, dark.tif, structure.ome.tif, microscope.toml, and truth.h5
    with places, dF/F, spikes and footprints.
    """
    given: dict[str, Any] = {
        "microscope": microscope,
        "sample": sample,
        "voxels": voxels,
        "photons": photons,
        "count": count,
    }
    chosen = {name: DEFAULTS[name][frames is not None] if value is None else value for name, value in given.items()}
    living = {
        "rate_hz": rate_hz, "firing_hz": firing_hz, "indicator": indicator, "rise_ms": rise_ms, "decay_ms": decay_ms,
        "static": static, "bleach_s": bleach_s, "motion_um": motion_um,
    }  # fmt: skip
    require(chosen["sample"] in SAMPLES, "--sample", chosen["sample"], "one of " + ", ".join(SAMPLES))
    more = ("raw.h5", "structure.ome.tif", "truth.h5") if frames else ("light_field.tif", "truth.ome.tif")
    names = [output / name for name in (*more, "white.tif", "dark.tif", "microscope.toml")]
    require_no_input(names, input_files(microscope))
    for name in names:
        require(overwrite or not name.exists(), "--output", str(name), "a new folder, or --overwrite: this file exists")
    require_folder(output)
    scope = optics.load_microscope(chosen["microscope"])
    optics.microscope.require_square(scope)
    depths = pipeline.Grid(parse_depths(z), chosen["voxels"]).of(scope).depths
    common: dict[str, Any] = {
        "lenslets": lenslets, "z_um": depths, "voxels_per_lenslet": chosen["voxels"], "pitch_px": pitch_px,
        "rotation_rad": rotation_rad, "photons": chosen["photons"], "count": chosen["count"],
    }  # fmt: skip

    def computed() -> optics.PSF:
        return optics.cached_psf(scope, depths, chosen["voxels"], tolerance=tolerance, track=track)

    if frames is None:
        for name, value in living.items():
            option = f"--{name.replace('_', '-')}"
            require(value == MOVIE_DEFAULTS[name], option, value, "--frames with it: a single frame has no time")
        with naming(count="--count"):
            made = simulate.raw_recording(seed, scope, sample=chosen["sample"], psf=computed, **common)
        with together(*names):
            _write_frame(output, made, scope)
        return
    require(chosen["sample"] == "cortex", "--sample", chosen["sample"], "cortex with --frames: nothing else is active")
    with naming(count="--count"):
        movie = simulate.raw_movie(
            seed, scope, frames=frames, frame_s=1 / rate_hz, firing_hz=firing_hz, static=static, bleach_s=bleach_s,
            motion_um=motion_um, indicator=simulate.find_indicator(indicator, rise_ms=rise_ms, decay_ms=decay_ms),
            psf=computed, **common,
        )  # fmt: skip
    with together(*names):
        simulate.write_raw_movie(output, movie, track=track)
    lattice, n, spikes = movie.frames.lattice, len(movie.truth.dff), sum(map(len, movie.truth.spikes))
    typer.echo(
        f"{output}: {frames} raw frames {movie.frames.shape[1:]}, pitch {lattice.pitch_px:.3f} px, white, dark, structure; "
        f"truth: {n} neurons, {spikes} spikes"
    )


def _write_frame(output: Path, made: simulate.Recording, scope: optics.Microscope) -> None:
    for name in ("light_field", "white", "dark"):
        io.write_frame(output / f"{name}.tif", getattr(made.frames, name))
    io.write_volume(output / "truth.ome.tif", made.volume, made.voxel_um)
    with io.writing(output / "microscope.toml") as temporary:
        temporary.write_text(scope.to_toml(), encoding="utf-8")
    lattice = made.frames.lattice
    typer.echo(f"{output}: raw frame {made.frames.light_field.shape}, pitch {lattice.pitch_px:.3f} px, white, dark, truth")
