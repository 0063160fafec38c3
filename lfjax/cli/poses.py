"""The commands on poses: compare-poses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfjax.cli.groups import grouped
from lfjax.cli.options import OverwriteOption, require_no_input, require_output
from lfjax.cli.particle_options import ParticleOptions, SymmetryOption
from lfjax.errors import FileError, require

if TYPE_CHECKING:
    from lfjax.rotation import PoseComparison
    from lfjax.tomography import ParticleFile

PARTICLE_COLUMNS = ("rlnTomoParticleName", "rlnGroupName")
"""Columns that tell which tilt images show one particle: of RELION, and of Warp and M."""


@grouped
def compare_poses(
    first: Annotated[Path, typer.Argument(help="Found poses: STAR, .cs, or .csg with its passthrough files.")],
    second: Annotated[Path, typer.Argument(help="Poses to compare them with, such as the true ones.")],
    options: ParticleOptions,
    symmetry: SymmetryOption = "C1",
    tilt_pairs: Annotated[
        bool,
        typer.Option(
            "--tilt-pairs",
            help="Tell the hand of FIRST from images of one particle, whose relative tilts SECOND knows.",
        ),
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="PNG of the histogram of angles.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Compare the poses of two files, up to a turn of the map, its mirror image and an offset.

    Images are matched by name, and may be in one file alone. Single views do not tell the hand of a map: "mirror image" tells
    it against SECOND.
    """
    import jax
    import numpy as np

    from lfjax import rotation, tomography, viz

    if output is not None:
        require_output(output, (".png",), options.files([first, second]), overwrite=overwrite)
    group = None if symmetry.upper() == "C1" else tomography.symmetry_group(symmetry)
    files = [_posed(options, path) for path in (first, second)]
    if output is not None:
        require_no_input([output], [stack for file in files for stack in file.known_stacks])
    rows = _common(*files)
    pairs = _pairs(files[1], rows[1]) if tilt_pairs else None
    a, b = (file.particles[row] for file, row in zip(files, rows, strict=True))
    with jax.enable_x64(True):
        pose, known = (np.asarray(p.rotations, float) for p in (a, b))
        found = rotation.compare(pose, known, group=group)
        shifts = [np.asarray(p.shifts, float) * np.asarray(p.pixel_angstrom, float)[:, None] for p in (a, b)]
        moved = tomography.fit_map_offset(*shifts, known)
    typer.echo(f"{len(a)} images in common, of {len(files[0])} in {first} and {len(files[1])} in {second}")
    _tell(found, second, symmetry)
    pixel = files[1].pixel_angstrom
    offset = ", ".join(f"{t:.2f}" for t in np.asarray(moved.offset) / pixel)
    told = f"differ by {float(moved.rms) / pixel:.3g} px rms (of {pixel:.4g} A)"
    typer.echo(f"shifts: {told}, beside an offset of the map of ({offset}) px")
    if pairs is not None:
        typer.echo(f"tilt pairs: {_hand(pairs, pose, known, found, group)}")
    if output is not None:
        viz.pose_errors(found.error_rad, output, null_rad=float(found.null_rad))


def _posed(options: ParticleOptions, path: Path) -> ParticleFile:
    """A particle file with poses; options of one format alone do not concern files of the other, and no CTF is needed."""
    star = path.suffix.lower() == ".star"
    own = dataclasses.replace(options, ctf=False, **({"alignment": None} if star else {"tomograms": None}))
    file = own.open([path])
    if not file.posed:
        raise FileError(f"{path}: no poses; expected rlnAngleRot, rlnAngleTilt, rlnAnglePsi, or alignments of cryoSPARC")
    return file


def _common(first: ParticleFile, second: ParticleFile) -> tuple[Any, Any]:
    """Rows of the images that two files have in common."""
    from lfjax.tomography import same_images

    try:
        rows = same_images(first.names, second.names)
    except FileError as error:
        raise FileError(f"{first.path} and {second.path}: {error}") from None
    if not len(rows[0]):
        names = [f"{number + 1:06d}@{stack}" for number, stack in (first.names[0], second.names[0])]
        both = f"{first.path} begins with {names[0]}, {second.path} with {names[1]}"
        raise FileError(f"{first.path} and {second.path} have no image in common; {both}: expected the same names")
    if len(rows[0]) == 1:
        told = "1 image in common: a turn of the map makes any single pose agree"
        raise FileError(f"{first.path} and {second.path} have {told}; expected 2 or more")
    return rows


def _tell(found: PoseComparison, second: Path, symmetry: str) -> None:
    import numpy as np

    median, mean, null, other = (
        float(np.rad2deg(a)) for a in (found.median_rad, found.mean_rad, found.null_rad, found.other_hand_rad)
    )
    below = float(found.below_10_degrees)
    told = f"median {median:.3g} degrees, mean {mean:.3g}, {100 * below:.1f} % below 10"
    typer.echo(f"poses: {told}; random poses: median {null:.3g} ({symmetry})")
    hand = "the mirror image" if bool(found.mirrored) else "the hand"
    typer.echo(f"hand: {hand} of {second}; median at the other hand {other:.3g} degrees")


def _pairs(file: ParticleFile, rows: Any) -> tuple[Any, Any]:
    """Pairs of images of one particle among the common ones."""
    import numpy as np

    from lfjax.tomography import pairs_within

    table = file.tables["particles"]
    column = next((name for name in PARTICLE_COLUMNS if name in table), None)
    if column is None:
        raise FileError(
            f"{file.path}: no column {' or '.join(PARTICLE_COLUMNS)}; --tilt-pairs needs the particle of each image"
        )
    order = np.argsort(rows)  # of this file: that of a tilt series goes from small tilts to large ones
    first, second = pairs_within(table[column].to_numpy()[rows[order]])
    require(len(first) > 0, "--tilt-pairs", True, f"two images of one particle, by column {column} of {file.path}")
    return order[first], order[second]


def _hand(pairs: tuple[Any, Any], found: Any, known: Any, aligned: PoseComparison, group: Any) -> str:
    """The statement of images of one particle on the hand of found poses."""
    import jax
    import numpy as np

    from lfjax import tomography

    first, second = pairs
    if group is not None:  # in the frame of the found map
        turn = np.asarray(aligned.turn) @ np.diag([1.0, 1.0, -1.0 if bool(aligned.mirrored) else 1.0])
        group = turn.T @ group @ turn
    with jax.enable_x64(True):
        between = known[second] @ known[first].transpose(0, 2, 1)
        return tomography.hand_of_pairs(found[first], found[second], between, group=group).statement
