"""The cryo-EM commands of `lfjax`: project, backproject, fsc."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

VoxelOption = Annotated[float | None, typer.Option(help="Voxel size in angstroms, instead of that in the file.")]


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
) -> None:
    """Simulate particle images of a map at random poses: a stack, and a STAR file with poses, CTF and half-sets."""
    import jax

    from lfjax import io, tomography, viz
    from lfjax.progress import track

    density, voxel = _cubic(volume, voxel_angstrom)
    size = len(density)
    keys = jax.random.split(jax.random.key(seed), 2)
    limits = _pair(defocus) if ctf else None
    particles = tomography.random_particles(keys[0], n, pixel_angstrom=voxel, defocus_angstrom=limits, shift_px=shift_px)
    images = tomography.simulate_stack(keys[1], density, particles, snr=snr, kernel=kernel, track=track)
    stack = output.with_suffix(".mrcs")
    io.write_stack(stack, images, voxel, count=n)
    tomography.write_particles(output, particles, [(i, stack.name) for i in range(n)], size)
    viz.image_grid(io.Stack(stack)[: min(n, 12)], output.with_suffix(".png"))
    typer.echo(f"{output}: {n} images of {size} x {size} px, {voxel:.4g} A/px; stack {stack.name}, picture {output.stem}.png")


def backproject(
    particles: Annotated[Path, typer.Argument(help="RELION STAR or cryoSPARC .cs file with poses.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Map to write, .mrc.")],
    half_maps: Annotated[bool, typer.Option("--half-maps", help="Write NAME_half1.mrc and NAME_half2.mrc too.")] = False,
    symmetry: Annotated[str, typer.Option(help="Point group: C1, Cn, Dn, T, O or I.")] = "C1",
    invert: Annotated[bool, typer.Option("--invert", help="For dark particles on a bright field.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Folder that image paths are relative to.")] = None,
    voxel_angstrom: VoxelOption = None,
    batch: Annotated[int, typer.Option(help="Images per batch.")] = 512,
    seed: Annotated[int, typer.Option(help="Fixes the half-sets where the file has none.")] = 0,
) -> None:
    """Reconstruct a map from particles at known poses; beside it go NAME.png (sections) and NAME.fsc.png."""
    import jax
    import numpy as np

    from lfjax import io, tomography, viz
    from lfjax.errors import ParameterError
    from lfjax.progress import track

    file = tomography.read_particles(particles, folder=folder, pixel_angstrom=voxel_angstrom)
    if not file.posed:
        raise ParameterError(f"particles = {str(particles)!r}: expected poses in the file (rlnAngleRot, or alignments3D/pose)")
    if not np.isin(np.asarray(file.particles.half), (1, 2)).all():
        file.particles = file.particles.with_half_sets(jax.random.key(seed))
    size = file.images(slice(0, 1)).shape[-1]
    sign = -1.0 if invert else 1.0

    starts = track(range(0, len(file), batch), "back-projecting")
    parts = (slice(start, start + batch) for start in starts)
    found = tomography.reconstruct(((sign * file.images(p), file.particles[p]) for p in parts), size, symmetry=symmetry)
    voxel = float(np.asarray(file.particles.pixel_angstrom)[0])
    io.write_map(output, found.volume, voxel)
    if half_maps:
        for i, half in enumerate(found.halves):
            io.write_map(output.with_name(f"{output.stem}_half{i + 1}.mrc"), half, voxel)
    viz.sections(found.volume, output.with_suffix(".png"))
    viz.shell_correlations({"half-maps": found.curve}, size * voxel, output.with_name(f"{output.stem}.fsc.png"))
    typer.echo(f"{output}: {len(file)} images, half-maps agree to {found.resolution_angstrom:.2f} A (FSC 0.143, no mask)")


def fsc(
    first: Annotated[Path, typer.Argument(help="Map.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same size.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="PNG of the curves; FIRST.fsc.png by default.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Mask map from 0 to 1: corrected by phase randomisation.")] = None,
    radius: Annotated[float | None, typer.Option(help="Radius of a soft spherical mask, in angstroms.")] = None,
    voxel_angstrom: VoxelOption = None,
) -> None:
    """Fourier shell correlation of two maps: the resolutions at 0.5 and 0.143, a table of the curve, and a plot."""
    import numpy as np

    from lfjax import io, tomography, viz
    from lfjax.errors import require

    a, voxel = _cubic(first, voxel_angstrom)
    b, _ = _cubic(second, voxel_angstrom or voxel)
    require(mask is None or radius is None, "radius", radius, "None with a mask file")
    box = len(a) * voxel
    weight = tomography.spherical_mask(len(a), radius / voxel) if radius is not None else None
    if mask is not None:
        weight, _ = _cubic(mask, voxel)
    if weight is None:
        curves = {"no mask": tomography.fsc(a, b)}
    else:
        found = tomography.masked_fsc(a, b, weight)
        curves = {"no mask": found.unmasked, "corrected": found.corrected}
        curves |= {"masked": found.masked, "random phases": found.randomised}
    for name in list(curves)[:2]:
        both = ", ".join(f"{tomography.resolution(curves[name], box, t):.2f} A at {t:g}" for t in (0.5, 0.143))
        typer.echo(f"{name}: {both}")
    path = output or first.with_name(f"{first.stem}.fsc.png")
    viz.shell_correlations(curves, box, path)
    table = np.column_stack([np.arange(len(curves["no mask"])) / box, *(np.asarray(c) for c in curves.values())])
    with io.writing(path.with_suffix(".csv")) as temporary:
        np.savetxt(temporary, table, delimiter=",", header="frequency / (1/A)," + ",".join(curves), comments="", fmt="%.6g")
    typer.echo(f"{path}: the plot; {path.with_suffix('.csv').name}: the table")


def _cubic(path: Path, voxel_angstrom: float | None) -> tuple[Any, float]:
    """Array and voxel size of a cubic map. (The module loads NumPy only with a command: its types cannot name it.)"""
    import numpy as np

    from lfjax import io
    from lfjax.errors import ParameterError

    found = io.read_map(path, voxel_angstrom=voxel_angstrom)
    if len(set(found.array.shape)) != 1:
        raise ParameterError(f"map {str(path)!r} has shape {found.array.shape}: expected a cube")
    if np.ptp(found.voxel_angstrom) > 1e-3 * min(found.voxel_angstrom):
        raise ParameterError(f"map {str(path)!r} has voxels of {found.voxel_angstrom} A: expected cubes")
    return np.asarray(found.array, float), found.voxel_angstrom[0]


def _pair(text: str) -> tuple[float, float]:
    from lfjax.errors import ParameterError

    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise ParameterError(f"--defocus {text!r}: expected least:largest in angstroms, for example 8000:20000") from None
    return low, high
