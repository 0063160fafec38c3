"""The commands on maps: fsc, mask, postprocess."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfjax.cli.options import OverwriteOption, naming, require_output
from lfjax.cli.particle_options import VoxelOption, cubic_map
from lfjax.errors import DataWarning, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MAPS = (".mrc", ".map")


def fsc(
    first: Annotated[Path, typer.Argument(help="Map.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same size.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="PNG of the curves; by default FIRST_SECOND.fsc.png.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Mask map from 0 to 1: corrected by phase randomisation.")] = None,
    radius: Annotated[float | None, typer.Option(help="Radius of a soft spherical mask, in angstroms.")] = None,
    directional: Annotated[
        bool, typer.Option("--directional", help="Also in cones about many directions, with an anisotropy figure.")
    ] = False,
    voxel_angstrom: VoxelOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Fourier shell correlation of two maps: the resolutions at 0.5 and 0.143, a table of the curve, and a plot."""
    from lfjax import tomography, viz

    require(mask is None or radius is None, "--radius", radius, "nothing beside --mask")
    files = {path: cubic_map(path, voxel_angstrom) for path in (first, second, mask) if path is not None}
    voxel = tomography.same_grid({str(path): found for path, found in files.items()})
    a, b = files[first][0], files[second][0]
    box = len(a) * voxel
    path = output or first.with_name(f"{first.stem}_{second.stem}.fsc.png")
    inputs = [one for one in (first, second, mask) if one is not None]
    drawn = [path.with_suffix("").with_suffix(".directions.png")] if directional else []
    require_output(path, (".png",), inputs, overwrite=overwrite, beside=drawn)
    require_output(path.with_suffix(".csv"), (".csv",), inputs, overwrite=overwrite)
    weight: Any = None if mask is None else tomography.check_mask(files[mask][0], str(mask))
    if radius is not None:
        require(0 < radius <= box / 2, "--radius", radius, f"more than 0 and at most half the box, {box / 2:g} A")
        weight = tomography.spherical_mask(len(a), radius / voxel)
    if weight is None:
        curves = {"no mask": tomography.fsc(a, b)}
    else:
        found = tomography.masked_fsc(a, b, weight)
        curves = {"no mask": found.unmasked, "corrected": found.corrected}
        curves |= {"masked": found.masked, "random phases": found.randomised}
        for doubt in tomography.mask_doubts(found, box):
            warnings.warn(doubt, DataWarning, stacklevel=2)
    if tomography.same_map(a, b, curves["no mask"]):
        warnings.warn(f"{first} and {second} are the same map", DataWarning, stacklevel=2)
    for name in list(curves)[:2]:
        both = ", ".join(f"{tomography.resolution_text(curves[name], box, t)} (FSC {t:g})" for t in (0.5, 0.143))
        typer.echo(f"{name}: {both}")
    if directional:
        _by_direction(a, b, weight, voxel, path.with_suffix(""))
    viz.shell_correlations(curves, box, path)
    _write_curves(path.with_suffix(".csv"), curves, box)
    typer.echo(f"{path}: the plot; {path.with_suffix('.csv').name}: the table")


def mask(
    volume: Annotated[Path, typer.Argument(help="Map, .mrc or .map, cubic.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Mask to write, .mrc.")],
    threshold: Annotated[
        float | None, typer.Option(help="Density of the surface in the low-passed map. If not given: found.")
    ] = None,
    lowpass_angstrom: Annotated[float, typer.Option("--lowpass", help="Low-pass before the threshold, angstroms.")] = 15.0,
    extend_px: Annotated[float, typer.Option("--extend", help="Voxels by which the mask exceeds the surface.")] = 3.0,
    soft_px: Annotated[float, typer.Option("--soft", help="Voxels of its soft edge.")] = 6.0,
    islands: Annotated[float, typer.Option(help="Drop pieces smaller than this fraction of the largest.")] = 0.0,
    voxel_angstrom: VoxelOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a soft mask of a map: low-pass, threshold, extension, raised-cosine edge. Beside it goes NAME.png."""
    from lfjax import io, tomography, viz

    require_output(output, MAPS, (volume,), overwrite=overwrite, beside=[output.with_suffix(".png")])
    density, voxel = cubic_map(volume, voxel_angstrom)
    with naming(threshold="--threshold", lowpass_angstrom="--lowpass", extend_px="--extend", soft_px="--soft"):
        made = tomography.density_mask(
            density, voxel_angstrom=voxel, threshold=threshold, lowpass_angstrom=lowpass_angstrom, extend_px=extend_px,
            soft_px=soft_px, islands=islands,
        )  # fmt: skip
    io.write_map(output, made.mask, voxel)
    viz.sections(made.mask, output.with_suffix(".png"), voxel_angstrom=voxel)
    found = "" if threshold is not None else ", found; --threshold sets another"
    typer.echo(f"{output}: {made.fraction:.1%} of the box, threshold {made.threshold:.4g}{found}")


def postprocess(
    first: Annotated[Path, typer.Argument(help="Unfiltered half-map.")],
    second: Annotated[Path, typer.Argument(help="The other half-map.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Map to write, .mrc.")],
    mask: Annotated[Path | None, typer.Option(help="Mask map from 0 to 1, as `lfjax mask` makes it.")] = None,
    b_factor: Annotated[
        float | None, typer.Option(help="B-factor in square angstroms, negative to sharpen. If not given: from a Guinier fit.")
    ] = None,
    fit_from: Annotated[float, typer.Option(help="Longest period of the Guinier fit, angstroms.")] = 10.0,
    mtf: Annotated[Path | None, typer.Option(help="STAR file with the MTF of the detector.")] = None,
    mtf_pixel_angstrom: Annotated[float | None, typer.Option(help="Pixel of the detector; by default the voxel.")] = None,
    lowpass: Annotated[float | None, typer.Option(help="Low-pass beside the weighting by the FSC, angstroms.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Local resolution and locally filtered map too.")] = False,
    directional: Annotated[bool, typer.Option("--directional", help="Resolution by direction too.")] = False,
    voxel_angstrom: VoxelOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Sharpen and weight the mean of two half-maps, and measure its resolution inside the mask.

    NAME.mrc is the map, NAME_masked.mrc the map inside the mask, NAME.csv the curves, NAME.fsc.png and NAME.guinier.png the
    plots. With --local, NAME_locres.mrc holds the resolution in angstroms at each voxel (ChimeraX: surface color by volume).
    """
    from lfjax import io, tomography, viz

    named = {"_masked": mask is not None, "_locres": local, "_locfilt": local}
    paths = {key: output.with_name(f"{output.stem}{key}.mrc") for key, wanted in named.items() if wanted}
    inputs = tuple(path for path in (first, second, mask, mtf) if path is not None)
    kinds = [".png", ".fsc.png", ".guinier.png", ".csv"]
    kinds += [kind for kind, wanted in ((".directions.png", directional), (".locres.png", local)) if wanted]
    for path in (output, *paths.values()):
        require_output(path, MAPS, inputs, overwrite=overwrite, beside=[output.with_suffix(kind) for kind in kinds])
    files = {path: cubic_map(path, voxel_angstrom) for path in (first, second, mask) if path is not None}
    voxel = tomography.same_grid({str(path): found for path, found in files.items()})
    a, b = files[first][0], files[second][0]
    weight = None if mask is None else files[mask][0]
    table = None if mtf is None else tomography.read_mtf(mtf)
    made = tomography.postprocess(
        a, b, voxel, mask=weight, b_factor=b_factor, fit_range_angstrom=(fit_from, None), mtf=table,
        mtf_pixel_angstrom=mtf_pixel_angstrom, lowpass_angstrom=lowpass,
    )  # fmt: skip
    io.write_map(output, made.volume, voxel)
    if mask is not None:
        io.write_map(paths["_masked"], made.masked, voxel)
    box = len(a) * voxel
    curves: dict[str, ArrayLike] = {"used": made.curve, "no mask": made.curves.unmasked}
    if mask is not None:
        curves |= {"masked": made.curves.masked, "random phases": made.curves.randomised}
    viz.sections(
        made.masked, output.with_suffix(".png"), voxel_angstrom=voxel, title=None if mask is None else "inside the mask"
    )
    viz.shell_correlations(curves, box, output.with_suffix(".fsc.png"), resolution_angstrom=made.resolution_angstrom)
    viz.guinier_plot(made.guinier, output.with_suffix(".guinier.png"))
    _write_curves(output.with_suffix(".csv"), curves, box)
    if directional:
        _by_direction(a, b, weight, voxel, output)
    if local:
        found = tomography.resolution_map(a, b, voxel, mask=weight)
        io.write_map(paths["_locres"], found.resolution_angstrom, voxel)
        io.write_map(paths["_locfilt"], tomography.local_filter(made.volume, found.resolution_angstrom, voxel), voxel)
        viz.local_resolutions(made.volume, found.resolution_angstrom, output.with_suffix(".locres.png"), mask=weight)
        low, middle, high = found.percentiles[0], found.percentiles[2], found.percentiles[4]
        typer.echo(f"local resolution (FSC 0.5): {low:.2f} A in the best 5 %, {middle:.2f} A in half, {high:.2f} A in 95 %")
    typer.echo(f"{output}: {tomography.agreement(made.curve, box)}, B-factor {made.b_factor:.1f} A^2")


def _by_direction(a: ArrayLike, b: ArrayLike, weight: ArrayLike | None, voxel: float, path: Path) -> None:
    """Print and draw the resolution by direction of two half-maps inside a mask."""
    import numpy as np

    from lfjax import tomography, viz

    inside = 1.0 if weight is None else np.asarray(weight)
    cones = tomography.directional_fsc(np.asarray(a) * inside, np.asarray(b) * inside, voxel)
    viz.directional_correlations(cones, len(np.asarray(a)) * voxel, path.with_suffix(".directions.png"))
    found = cones.resolution_angstrom[np.isfinite(cones.resolution_angstrom)]
    span = f"{found.min():.2f} to {found.max():.2f} A" if len(found) else "no agreement"
    missing = len(cones.resolution_angstrom) - len(found)
    none = f", none in {missing} of {len(cones.resolution_angstrom)}" if missing else ""
    typer.echo(
        f"by direction: {span}{none}, sphericity {cones.sphericity:.3f}, area ratio {cones.area_ratio:.2f} (1: isotropic)"
    )


def _write_curves(path: Path, curves: Mapping[str, ArrayLike], box_angstrom: float) -> None:
    import numpy as np

    from lfjax import io

    columns = [np.asarray(curve) for curve in curves.values()]
    table = np.column_stack([np.arange(len(columns[0])) / box_angstrom, *columns])
    with io.writing(path) as temporary:
        np.savetxt(temporary, table, delimiter=",", header="frequency / (1/A)," + ",".join(curves), comments="", fmt="%.6g")
