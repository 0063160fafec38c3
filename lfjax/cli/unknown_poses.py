"""The commands on particles of unknown pose: abinitio, orient."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfjax.cli.groups import grouped
from lfjax.cli.options import OverwriteOption, naming, require_no_input, require_output
from lfjax.cli.particle_options import ParticleOptions, ParticlesArgument, SymmetryOption, cubic_map
from lfjax.cli.runs import claim
from lfjax.errors import require
from lfjax.io.disk_space import require_space

if TYPE_CHECKING:
    from lfjax.pipeline import BandLook, FoundPoses, SearchSettings
    from lfjax.tomography import ParticleFile, Pass


NAMES = {
    "radius_angstrom": "--radius", "shift_px": "--shift", "symmetry": "--symmetry", "restarts": "--restarts",
    "devices": "--devices", "seed": "--seed", "voxel_angstrom": "--map-voxel",
}  # fmt: skip
"""Option of each argument, for messages."""


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """How poses are searched."""

    shift_px: Annotated[
        float, typer.Option("--shift", help="Standard deviation of the particles' displacements, pixels; 0: centred.")
    ] = 0.0
    radius_angstrom: Annotated[
        float | None, typer.Option("--radius", help="Radius of the ball that holds the particle. If not given: 0.42 boxes.")
    ] = None
    symmetry: SymmetryOption = "C1"
    normalise: Annotated[bool, typer.Option("--normalise", help="Bring each background to mean 0, deviation 1.")] = False
    invert: Annotated[bool, typer.Option("--invert", help="For dark particles on a bright field.")] = False
    devices: Annotated[int, typer.Option(help="Devices over which the images are spread.")] = 1
    seed: Annotated[int, typer.Option(help="Fixes starts, grids, and the half-sets of images that have none.")] = 0
    cut: Annotated[
        bool | None,
        typer.Option(
            "--cut-neighbours/--whole-boxes",
            help="Search in boxes cut to the ball, although signal beyond may be the particle's, or in whole boxes. "
            "If not given: in cut boxes, and a ball that seems too small is refused.",
        ),
    ] = None

    def settings(self) -> SearchSettings:
        """The settings that these options are.

        Raises:
            ParameterError: an option is out of range.
        """
        from lfjax import pipeline

        radius, shift = self.radius_angstrom, self.shift_px
        require(0 <= shift < math.inf, "--shift", shift, "0 or more pixels")
        require(radius is None or 0 < radius < math.inf, "--radius", radius, "a positive number of angstroms")
        require(self.devices >= 1, "--devices", self.devices, "1 or more")
        return pipeline.SearchSettings(
            radius, self.symmetry, shift, not self.normalise, self.invert, self.seed, self.devices, self.cut
        )


@grouped
def abinitio(
    particles: ParticlesArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Map to write, .mrc.")],
    options: ParticleOptions,
    search: SearchOptions,
    restarts: Annotated[
        int | None, typer.Option(help="Starts that compete by their evidence. If not given: 4, and 8 for up to 100 images.")
    ] = None,
    half_maps: Annotated[bool, typer.Option("--half-maps", help="Write NAME_half1.mrc and NAME_half2.mrc too.")] = False,
    independent: Annotated[
        bool,
        typer.Option(
            "--independent-halves/--joint-halves",
            help="Whether each half-set refines its poses by itself; joint poses flatter the resolution.",
        ),
    ] = True,
    check_overfitting: Annotated[
        bool, typer.Option("--check-overfitting", help="Refine the halves once more with random phases at high frequencies.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Find poses and a map of particles without any pose or map to begin with.

    NAME.mrc is filtered by the correlation of the half-maps, NAME_unfil.mrc is not. NAME.star holds the poses of all images,
    and in rlnParticleFigureOfMerit the probability that each shows the particle; images below 1/2 are left out of the maps and
    listed in NAME_junk.star. Pictures: NAME.png (sections), NAME.fsc.png, NAME.orientations.png, and NAME.bandK.png of the
    search after each band of K cycles per box. Poses in the particle file are ignored, its shifts are taken off.

    The hand of a map cannot be known from single views: the mirrored map explains them as well. `lfjax compare-poses
    --tilt-pairs` tells it from tilted pairs. The search is kept in .NAME.abinitio.h5 after every pass; started again after an
    interruption, the command resumes there.
    """
    from lfjax import io, pipeline, viz
    from lfjax.progress import track
    from lfjax.tomography import resolution

    settings = search.settings()
    require(restarts is None or restarts >= 1, "--restarts", restarts, "1 or more")
    require(independent or not check_overfitting, "--check-overfitting", True, "--independent-halves")
    names = ["", "_unfil", *(("_half1", "_half2") if half_maps else ())]
    maps = [output.with_name(f"{output.stem}{name}.mrc") for name in names]
    star, junk = output.with_suffix(".star"), output.with_name(f"{output.stem}_junk.star")
    pictures = [output.with_suffix(kind) for kind in (".png", ".fsc.png", ".orientations.png")]
    require_output(output, (".mrc",), options.files(particles), overwrite=overwrite, beside=[*maps, star, junk, *pictures])
    claim(output, {output.with_name(f".{output.stem}.abinitio.h5"): "all passes so far"})
    with viz.drawing_soon():
        file = options.open(particles)
        for path in (*maps, star, junk):
            require_output(path, (".mrc", ".star"), (*particles, *file.stacks), overwrite=overwrite, beside=pictures)
        require_space(output, 4 * file.size**3 * len(maps))
    with naming(**NAMES):
        made = pipeline.find_poses(
            file, settings, restarts=restarts, independent=independent, check_overfitting=check_overfitting, output=output,
            overwrite=overwrite, told=lambda note: typer.echo(f"  {note}"), passed=_telling(), track=track,
            looked=lambda look: _draw(look, output),
        )  # fmt: skip
    voxel, found = file.pixel_angstrom, made.maps
    for path, volume in zip(maps, (found.volume, found.unfiltered, *found.halves), strict=False):
        io.write_map(path, volume, voxel)
    bad = pipeline.write_posed(star, file, made.particles, made.search.poses, made.good, junk)
    box = file.size * voxel
    viz.sections(found.volume, output.with_suffix(".png"), voxel_angstrom=voxel)
    mark = resolution(found.curve, box) if made.measured else None
    viz.shell_correlations(made.curves, box, output.with_suffix(".fsc.png"), resolution_angstrom=mark)
    viz.orientations(made.particles.rotations, output.with_suffix(".orientations.png"))
    if made.kept is not None:
        made.kept.remove()
    _conclude(made, file, output, star, junk if bad else None, settings.symmetry, independent=independent)


def _telling() -> Any:
    """A function that prints the line of a pass."""

    def tell(line: Pass) -> None:
        kind = f"start {line.start + 1}" if line.kind == "coarse" else line.kind
        band = f"band {line.limit:3d} ({line.period_angstrom:5.1f} A)"
        spread = f"spread {math.degrees(line.spread_rad):6.2f} degrees"
        typer.echo(
            f"pass {line.step + 1:3d}  {kind:8s} {band}  evidence {line.evidence:10.2f}  {spread}  stuck {line.stuck:6.1%}"
        )

    return tell


def _draw(look: BandLook, output: Path) -> None:
    from lfjax import viz

    line = look.line
    box, evidence = look.box_angstrom, f"evidence {line.evidence:.2f}"
    title = f"{output.name} after pass {line.step + 1}: {line.limit} cycles per box, {box / line.limit:.1f} A; {evidence}"
    curves = {"share of the map that is resolved": look.resolved}
    path = output.with_suffix(f".band{line.limit:02d}.png")
    viz.search_page(look.volume, *look.views, look.rotations, curves, box, path, title=title)


def _conclude(
    made: FoundPoses, file: ParticleFile, output: Path, star: Path, junk: Path | None, symmetry: str, *, independent: bool
) -> None:
    """Print what came out, and how far to trust it."""
    from lfjax.tomography import agreement, resolution_text

    box, evidence = file.size * file.pixel_angstrom, made.search.evidence
    if len(evidence) > 1:
        typer.echo(f"evidence of the starts: {', '.join(f'{e:.2f}' for e in evidence)}; the best went on")
    if not independent:
        halves = "half-maps at the joint poses, which flatter it; --independent-halves tells the resolution"
    else:
        joint = resolution_text(made.curves["joint poses"], box)
        halves = f"half-sets refined independently, no mask (at the joint poses, which flatter it: {joint})"
    if made.randomised_from:
        from_shell, noise = made.randomised_from, made.curves["random phases"]
        beyond = noise[from_shell + 2 :]
        told = f"at most {beyond.max():.3f}, mean {beyond.mean():.3f}" if len(beyond) else "none"
        typer.echo(
            f"overfitting: phases random beyond {box / from_shell:.1f} A; correlation left beyond it {told}; corrected "
            f"resolution {resolution_text(made.curves['corrected'], box)}"
        )
    _tell_explained(made.search.explained)
    count = int(made.junk.sum())
    listed = f", listed in {junk.name}" if junk else ""
    typer.echo(f"{star}: poses of {len(file)} images; {count} fit nothing and are left out of the maps{listed}")
    typer.echo("hand: single views do not tell it; the mirror image of this map explains them as well")
    images = f"{len(file) - count} images of {file.size} px at {file.pixel_angstrom:.4g} A, {symmetry}"
    if made.measured:
        typer.echo(f"{output}: {images}; {agreement(made.maps.curve, box)}: {halves}")
    else:
        few = "half-maps of {} and {} images, too few to tell a resolution, and the map is not filtered".format(
            *made.half_counts
        )
        typer.echo(f"{output}: {images}; {few}: expected 10 images or more in each")


def _tell_explained(share: float) -> None:
    """Print how much of the images' signal a map explains."""
    if not math.isnan(share):
        typer.echo(f"signal: the map explains {share:.0%} of that of the images at low frequencies")


@grouped
def orient(
    particles: ParticlesArgument,
    volume: Annotated[Path, typer.Option("--map", help="Map that the images show, .mrc or .map, cubic; any scale.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="STAR file to write.")],
    options: ParticleOptions,
    search: SearchOptions,
    map_voxel: Annotated[
        float | None, typer.Option("--map-voxel", help="Voxel size of the map in angstroms, instead of that in its file.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Find the poses of particles whose map is known.

    The STAR file holds the poses of all images, and in rlnParticleFigureOfMerit the probability that each shows the map; images
    below 1/2 are listed in NAME_junk.star. A map of another voxel or box size than the images is resampled, and a line says so.
    """
    import numpy as np

    from lfjax import pipeline
    from lfjax.progress import track

    settings = search.settings()
    junk = output.with_name(f"{output.stem}_junk.star")
    inputs = (*options.files(particles), volume)
    require_output(output, (".star",), inputs, overwrite=overwrite)
    require_output(junk, (".star",), inputs, overwrite=overwrite)
    with naming(**NAMES):
        density, voxel = cubic_map(volume, map_voxel)
    file = options.open(particles)
    require_no_input((output, junk), file.stacks)
    with naming(**NAMES):
        made = pipeline.orient_particles(
            file, density, voxel, settings, told=lambda note: typer.echo(f"  {note}"), passed=_telling(), track=track
        )
    bad = pipeline.write_posed(output, file, made.particles, made.found.poses, made.found.good, junk)
    spread = math.degrees(float(np.median(made.found.poses.spread_rad)))
    listed = f", listed in {junk.name}" if bad else ""
    _tell_explained(made.found.explained)
    typer.echo(f"{output}: poses of {len(file)} images in {volume}, spread {spread:.2g} degrees; {bad} fit nothing{listed}")
