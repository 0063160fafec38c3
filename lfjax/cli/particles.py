"""The commands on particle images: project, backproject, convert, expand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lfjax.cli.groups import grouped
from lfjax.cli.options import OverwriteOption, naming, require_no_input, require_output
from lfjax.cli.particle_options import (
    ParticleOptions,
    ParticlesArgument,
    SymmetryOption,
    VoxelOption,
    cubic_map,
)
from lfjax.errors import ParameterError, require
from lfjax.io.atomic import together
from lfjax.io.disk_space import require_space

if TYPE_CHECKING:
    from lfjax.tomography import ParticleFile, Particles

PARTICLE_FILES = (".star", ".cs")
FARTHEST_ANGSTROM = 1e6  # of a defocus: 0.1 mm


def project(
    volume: Annotated[Path, typer.Argument(help="Map, .mrc or .map, cubic.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="STAR or .cs file to write; the stack goes beside it.")],
    n: Annotated[int, typer.Option("--n", help="Number of images.")] = 1000,
    ctf: Annotated[bool, typer.Option("--ctf/--no-ctf", help="Whether images have a CTF.")] = True,
    defocus: Annotated[str, typer.Option(help="Least and largest mean defocus, angstroms.", metavar="A:B")] = "8000:20000",
    snr: Annotated[float | None, typer.Option(help="Signal-to-noise ratio of variances; no noise by default.")] = None,
    shift_px: Annotated[float, typer.Option("--shift", help="Standard deviation of the shifts in pixels.")] = 0.0,
    voxel_angstrom: VoxelOption = None,
    kernel: Annotated[int, typer.Option(help="Taps of the interpolation, 2 to 8.")] = 5,
    seed: Annotated[int, typer.Option(help="Fixes the random numbers.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Simulate particle images of a map at random poses: a stack, and a STAR file with poses, CTF and half-sets."""
    import jax

    from lfjax import io, tomography, viz
    from lfjax.progress import track

    stack = output.with_suffix(".mrcs")
    require_output(output, PARTICLE_FILES, (volume,), overwrite=overwrite, beside=[output.with_suffix(".png")])
    require_output(stack, (".mrcs",), (volume,), overwrite=overwrite)
    limits = _pair(defocus) if ctf else None
    density, voxel = cubic_map(volume, voxel_angstrom)
    size = len(density)
    require_space(stack, 4 * n * size**2)
    keys = jax.random.split(jax.random.key(seed), 2)
    require(0 <= shift_px < size, "--shift", shift_px, f"0 or more pixels, less than the box of {size}")
    with naming(count="--n", snr="--snr", width="--kernel"):
        particles = tomography.random_particles(keys[0], n, pixel_angstrom=voxel, defocus_angstrom=limits, shift_px=shift_px)
        images = tomography.simulate_stack(keys[1], density, particles, snr=snr, kernel=kernel, track=track)
    with together(stack, output):
        io.write_stack(stack, images, voxel, count=n)
        tomography.write_particles(output, particles, [(i, stack.name) for i in range(n)], size)
    viz.image_grid(io.Stack(stack)[: min(n, 12)], output.with_suffix(".png"))
    typer.echo(f"{output}: {n} images of {size} x {size} px, {voxel:.4g} A/px; stack {stack.name}, picture {output.stem}.png")


@grouped
def backproject(
    particles: ParticlesArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Map to write, .mrc.")],
    options: ParticleOptions,
    half_maps: Annotated[bool, typer.Option("--half-maps", help="Write NAME_half1.mrc and NAME_half2.mrc too.")] = False,
    symmetry: SymmetryOption = "C1",
    normalise: Annotated[bool, typer.Option("--normalise", help="Bring each background to mean 0, deviation 1.")] = False,
    invert: Annotated[bool, typer.Option("--invert", help="For dark particles on a bright field.")] = False,
    views: Annotated[bool, typer.Option("--views", help="Draw the orientations, and the transfer that they give.")] = False,
    batch: Annotated[int | None, typer.Option(help="Images per batch. If not given: from their size.")] = None,
    seed: Annotated[int, typer.Option(help="Fixes the half-sets of images that have none.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Reconstruct a map from particles at known poses.

    NAME.mrc is filtered by the correlation of the half-maps, NAME_unfil.mrc is not. Beside them go the pictures NAME.png
    (sections) and NAME.fsc.png; with --views also NAME.orientations.png and NAME.transfer.png.
    """
    from lfjax import io, pipeline, viz
    from lfjax.progress import track
    from lfjax.tomography import agreement, resolution

    require(batch is None or batch >= 1, "--batch", batch, "1 or more")
    names = ["_unfil", *(("_half1", "_half2") if half_maps else ())]
    beside = [output.with_name(f"{output.stem}{name}.mrc") for name in names]
    kinds = (".png", ".fsc.png", *((".orientations.png", ".transfer.png") if views else ()))
    pictures = [output.with_suffix(kind) for kind in kinds]
    for path in (output, *beside):
        require_output(path, (".mrc",), options.files(particles), overwrite=overwrite, beside=pictures)
    with viz.drawing_soon():
        file = options.open(particles)
        require_no_input((output, *beside, *pictures), file.stacks)
        require_space(output, 4 * file.size**3 * (1 + len(beside)))
        made = pipeline.reconstruct_particles(
            file, symmetry=symmetry, normalised=not normalise, invert=invert, seed=seed, batch=batch, track=track,
            told=lambda note: typer.echo(f"  {note}"),
        )  # fmt: skip
    found, voxel = made.found, made.voxel_angstrom
    for path, volume in zip((output, *beside), (found.volume, found.unfiltered, *found.halves), strict=False):
        io.write_map(path, volume, voxel)
    box = file.size * voxel
    viz.sections(found.volume, output.with_suffix(".png"), voxel_angstrom=voxel)
    viz.shell_correlations(
        {"half-maps": found.curve}, box, output.with_suffix(".fsc.png"), resolution_angstrom=resolution(found.curve, box)
    )
    if views:
        _draw_views(made.particles, symmetry, file.size, output)
    images = f"{len(file)} images of {file.size} px at {voxel:.4g} A, {symmetry}"
    typer.echo(f"{output}: {images}; {agreement(found.curve, box)}, no mask")


def _draw_views(particles: Particles, symmetry: str, size: int, output: Path) -> None:
    """Pictures of the orientations and of their transfer, and a line on how evenly they sample the directions."""
    from lfjax import tomography, viz

    every = tomography.expand(particles, symmetry)
    viz.orientations(particles.rotations, output.with_suffix(".orientations.png"))
    viz.transfer(tomography.transfer_sections(every, size), output.with_suffix(".transfer.png"))
    found = tomography.orientation_coverage(every)
    gap = math.degrees(found.empty_half_angle_rad)
    typer.echo(
        f"views: {found.unsampled:.1%} of the directions unsampled, largest empty cone of half-angle {gap:.0f} degrees, "
        f"sampling compensation {found.compensation:.2f} (1: even)"
    )


@grouped
def convert(
    particles: ParticlesArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .star or .cs.")],
    options: ParticleOptions,
    version: Annotated[str, typer.Option(help="Version of a STAR file: 3.0, 3.1 or 5.")] = "3.1",
    overwrite: OverwriteOption = False,
) -> None:
    """Convert a particle file between RELION's STAR and cryoSPARC's .cs; images stay where they are."""
    from lfjax import tomography
    from lfjax.tomography.relion_notes import count_of

    require_output(output, PARTICLE_FILES, options.files(particles), overwrite=overwrite)
    if output.exists() and output.stat().st_nlink > 1:  # perhaps an image stack under another name
        require_no_input([output], options.open(particles).known_stacks)
    first, *also = particles
    done = tomography.convert_particles(
        first, output, version=version, also=also, alignment=options.alignment, ctf=options.ctf, folder=options.folder
    )
    images, groups = count_of(done.images, "image"), count_of(done.groups, "optics group")
    poses, halves = "poses" if done.posed else "no poses", " and ".join(map(str, done.half_sets))
    typer.echo(f"{output}: {images} in {groups}, {poses}, half-sets of {halves}")


@grouped
def expand(
    particles: ParticlesArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="STAR file to write.")],
    symmetry: SymmetryOption,
    options: ParticleOptions,
    overwrite: OverwriteOption = False,
) -> None:
    """Expand the symmetry: every image appears once per element of the group, with the pose turned by it."""
    from lfjax import io, tomography

    require_output(output, (".star",), options.files(particles), overwrite=overwrite)
    file = options.open(particles)
    require_no_input([output], file.known_stacks)
    tables = tomography.names_from(tomography.expand_tables(file.tables, symmetry), file.path, output, options.folder)
    io.write_star(output, tables)
    typer.echo(f"{output}: {len(tables['particles'])} rows from {len(file)} particles, {symmetry}")


def describe(file: ParticleFile) -> list[str]:
    """Lines about a particle file: its groups, flags and half-sets, and the memory that its map takes."""
    from lfjax import tomography
    from lfjax.tomography.relion_notes import count_of

    images = f"{count_of(len(file), 'image')} of {file.size} px at {file.pixel_angstrom:.4g} A"
    return [
        f"{file.path}: {images}, {'with' if file.posed else 'without'} poses",
        *file.notes,
        f"memory of `lfjax backproject`: about {tomography.memory_bytes(file.size) / 2**30:.1f} GiB beside the mapped stacks",
    ]


def _pair(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise ParameterError(f"--defocus {text!r}: expected least:largest in angstroms, for example 8000:20000") from None
    require(low <= high, "--defocus", text, "the least defocus first")
    require(max(abs(low), abs(high)) <= FARTHEST_ANGSTROM, "--defocus", text, f"within {FARTHEST_ANGSTROM:g} angstroms")
    return low, high
