"""Options of the cryo-EM commands that several of them share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfjax.cli.options import naming
from lfjax.errors import ParameterError, require

if TYPE_CHECKING:
    from lfjax.tomography import ParticleFile

SYMMETRIES = "Cn, Dn, T (3-fold on z), O (4-fold on z), I1 to I4 (I is I2), in RELION's frames"
"""Point groups, for the help of commands."""


def _point_group(name: str) -> str:
    """The name of a point group, refused with the other options where there is no such group."""
    if name != "C1":
        from lfjax.tomography.symmetry import group_key

        group_key(name, "--symmetry")
    return name


VoxelOption = Annotated[float | None, typer.Option(help="Voxel size in angstroms, instead of that in the file.")]
SymmetryOption = Annotated[
    str, typer.Option(help=f"Point group: {SYMMETRIES}; docs/tomography.md lists the axes.", callback=_point_group)
]
ParticlesArgument = Annotated[
    list[Path], typer.Argument(help="RELION STAR file, or cryoSPARC .cs with its passthrough files.", show_default=False)
]


@dataclasses.dataclass(frozen=True)
class ParticleOptions:
    """How a particle file is read."""

    folder: Annotated[Path | None, typer.Option(help="Folder that image paths are relative to.")] = None
    voxel_angstrom: VoxelOption = None
    ctf: Annotated[bool, typer.Option("--ctf/--no-ctf", help="Whether the images have a CTF.")] = True
    alignment: Annotated[
        str | None, typer.Option(help="Alignments of a .cs file to use, such as class_0, if it holds several.")
    ] = None
    tomograms: Annotated[Path | None, typer.Option(help="tomograms.star of RELION, for its 2-D tilt stacks.")] = None

    def files(self, paths: list[Path]) -> tuple[Path, ...]:
        """The input files among arguments and options."""
        return (*paths, *(() if self.tomograms is None else (self.tomograms,)))

    def open(self, paths: list[Path]) -> ParticleFile:
        """The particles.

        Raises:
            LfjaxError: a file cannot be read, or says something that lfjax does not know.
        """
        from lfjax import tomography

        first, *also = paths
        there = self.folder is None or self.folder.is_dir()
        require(there, "--folder", str(self.folder), "a folder that exists")
        with naming(pixel_angstrom="--voxel-angstrom"):
            return tomography.read_particles(
                first, folder=self.folder, pixel_angstrom=self.voxel_angstrom, ctf=self.ctf, also=also,
                alignment=self.alignment, tomograms=self.tomograms,
            )  # fmt: skip


def cubic_map(path: Path, voxel_angstrom: float | None) -> tuple[Any, float]:
    """Array and voxel size of a cubic map. (The module loads NumPy only with a command: its types cannot name it.)

    Raises:
        FileError: the file cannot be read.
        ParameterError: the map is not a cube of cubic voxels.
    """
    import numpy as np

    from lfjax import io

    found = io.read_map(path, voxel_angstrom=voxel_angstrom)
    if len(set(found.array.shape)) != 1:
        raise ParameterError(f"map {str(path)!r} has shape {found.array.shape}: expected a cube")
    if np.ptp(found.voxel_angstrom) > 1e-3 * min(found.voxel_angstrom):
        raise ParameterError(f"map {str(path)!r} has voxels of {found.voxel_angstrom} A: expected cubes")
    return np.asarray(found.array, np.float32), found.voxel_angstrom[0]
