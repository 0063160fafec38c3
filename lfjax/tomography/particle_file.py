"""Particle files: RELION's STAR (3.0, 3.1, 4, 5) and cryoSPARC's .cs, with the stacks that they name.

Tables of either format are canonical (`relion_tables`). The images of all optics groups come on one grid, that of the group
with the finest pixel unless the caller names another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float
from numpy.typing import NDArray

from lfjax.errors import DataWarning, FileError, require
from lfjax.io.arrays import reading
from lfjax.io.mrc import Stack
from lfjax.io.star import Tables, read_star, write_star
from lfjax.tomography import cryosparc, tilts
from lfjax.tomography.images import normalise
from lfjax.tomography.particles import Particles
from lfjax.tomography.relion_checks import check_numbers, check_origins, check_repeats
from lfjax.tomography.relion_labels import finite_numbers
from lfjax.tomography.relion_notes import group_notes
from lfjax.tomography.relion_tables import ANGLES, canonical, lowered, to_particles
from lfjax.tomography.relion_writing import from_particles, with_lenses, with_particles
from lfjax.tomography.resampling import resample_images
from lfjax.tomography.stack_names import find_beside, find_stack, image_labels, image_name

OPEN_STACKS = 32  # each holds a file descriptor


@dataclass
class ParticleFile:
    """Contents of a particle file; images are read on request.

    Attributes:
        path: path of the file.
        particles: poses (identity where the file has none), optics, half-sets, and shifts and pixel size of the common grid.
        posed: whether the file has poses.
        names: number, from 0, and file of each image.
        tables: canonical tables, see `relion_tables`.
        pixel_angstrom: pixel size of the common grid.
        folder: folder that image paths are relative to; None: the folder of the file or one above it.
        box: pixels per side of the common grid; None: those of the group with the finest pixel.
        signs: +1 or -1 of each image: its recorded contrast times this is bright particles; None: +1.
    """

    path: Path
    particles: Particles
    posed: bool
    names: list[tuple[int, str]]
    tables: Tables
    pixel_angstrom: float
    folder: Path | None = None
    box: int | None = None
    signs: NDArray[np.float32] | None = None
    _stacks: dict[str, Stack] = field(default_factory=dict, repr=False)
    _warned: set[int] = field(default_factory=set, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def size(self) -> int:
        """Pixels per side of the common grid.

        Raises:
            FileError: the file does not say it, and the stack that would is missing or has images that are not square.
        """
        used = np.unique(self.particles.group)
        finest = used[np.isclose(self._pixels[used], self._pixels[used].min(), rtol=1e-5)]
        return self.box or max(self._box(int(g)) for g in finest)

    @cached_property
    def shells(self) -> NDArray[np.int64]:
        """Number of shells of the common grid, from frequency 0, below the Nyquist frequency of each optics group's own pixels.

        Beyond them the images of a group hold nothing: give these shells no weight.
        """
        nyquist = self.size * self.pixel_angstrom / (2 * self._pixels)
        return np.minimum(np.floor(nyquist * (1 + 1e-6)).astype(int), self.size // 2) + 1

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Number of each distinct image: rows of one image, as symmetry expansion makes them, share it and its half-set."""
        return image_labels(self.names)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Indices of the images in the order of their files: by stack, then by number."""
        stack = np.unique([name for _, name in self.names], return_inverse=True)[1]
        return np.lexsort((np.array([number for number, _ in self.names]), stack))

    @property
    def stacks(self) -> tuple[Path, ...]:
        """Paths of the stacks.

        Raises:
            FileError: a stack is missing.
        """
        return tuple(find_stack(self.path, name, self.folder) for name in dict.fromkeys(name for _, name in self.names))

    @property
    def known_stacks(self) -> tuple[Path, ...]:
        """Paths of the stacks that are there."""
        found = []
        for name in dict.fromkeys(name for _, name in self.names):
            with suppress(FileError):
                found.append(find_beside(self.path, name, self.folder))
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each statement of the file on its images, and whether lfjax honours it."""
        try:
            sizes = [self._box(g) for g in range(len(self._pixels))]
            return group_notes(self.tables, self.particles, sizes, (self.size, self.pixel_angstrom))
        except FileError:  # a stack that alone knows the size is missing: the other lines stand
            return group_notes(self.tables, self.particles)

    def images(
        self,
        index: slice | ArrayLike | Sequence[int] = slice(None),
        *,
        normalised: bool = False,
        looked: Callable[[NDArray[np.int64], NDArray[np.float32]], None] | None = None,
    ) -> Float[NDArray[np.float32], "m y x"]:
        """Images (m, y, x) of a selection on the common grid, particles bright; only these are read.

        Args:
            index: a slice, a mask or indices.
            normalised: whether to normalise each image by its background, before it comes to the common grid.
            looked: called with the indices of some images and these images on the grid of their stack.

        Raises:
            FileError: a stack is missing or too short, or its images differ in size from what the file says.
        """
        chosen = self._indices(index)
        found = np.empty((len(chosen), self.size, self.size), np.float32)
        for group, at, images in self.recorded(chosen):
            pixel = self._pixels[group]
            if looked is not None:
                looked(chosen[at], images)
            images = np.asarray(normalise(images)) if normalised else images
            if images.shape[-1] != self.size or not np.isclose(pixel, self.pixel_angstrom, rtol=1e-5):
                images = np.asarray(resample_images(images, float(pixel), self.size, self.pixel_angstrom))
            found[at] = images
        return found

    def recorded(
        self, index: slice | ArrayLike | Sequence[int] = slice(None)
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
        """Images of a selection on the grids of their stacks, particles bright, one optics group after the other.

        Yields:
            Number of the group, places of its images in the selection, and the images (m, y, x).
        """
        chosen = self._indices(index)
        group = np.asarray(self.particles.group)[chosen]
        for g in np.unique(group):
            at = np.flatnonzero(group == g)
            images = self._raw(chosen[at], int(g))
            yield int(g), at, images if self.signs is None else images * self.signs[chosen[at], None, None]

    def _indices(self, index: slice | ArrayLike | Sequence[int]) -> NDArray[np.int64]:
        return np.atleast_1d(np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)])

    def batches(self, size: int) -> Iterator[tuple[NDArray[np.float32], Particles]]:
        """Images and their particles, `size` at a time, in the `order` of the files, for sets larger than memory."""
        for start in range(0, len(self), size):
            part = self.order[start : start + size]
            yield self.images(part), self.particles[part]

    def check(self) -> None:
        """Open every stack once and compare its header with the file, before any work.

        Raises:
            FileError: a stack is missing or too short, its images have another size than the file says, or an origin is
                outside them.
        """
        last: dict[tuple[str, int], int] = {}
        for (number, name), g in zip(self.names, np.asarray(self.particles.group).tolist(), strict=True):
            last[name, g] = max(last.get((name, g), 0), number)
        for (name, g), number in last.items():
            self._checked(self._stack(name), number, g)
        sizes = [self._box(g) for g in range(len(self._pixels))]
        check_origins(self.path, self.tables, np.asarray(self.particles.group), sizes)

    @cached_property
    def _pixels(self) -> NDArray[np.float64]:
        return finite_numbers(self.path, self.tables["optics"], "rlnImagePixelSize", "optics")

    def _box(self, group: int) -> int:
        """Pixels per side of the images of an optics group; 0: it has no images and no size."""
        optics, mine = self.tables["optics"], np.flatnonzero(np.asarray(self.particles.group) == group)
        if "rlnImageSize" in optics:
            return int(finite_numbers(self.path, optics, "rlnImageSize", "optics")[group])
        return self._stack(self.names[mine[0]][1]).shape[-1] if len(mine) else 0

    def _gridded(self, index: NDArray[np.int64], group: int) -> NDArray[np.float32]:
        """Images of one optics group on the common grid."""
        images, pixel = self._raw(index, group), float(self._pixels[group])
        if images.shape[-1] == self.size and np.isclose(pixel, self.pixel_angstrom, rtol=1e-5):
            return images
        return np.asarray(resample_images(images, pixel, self.size, self.pixel_angstrom), np.float32)

    def _raw(self, index: NDArray[np.int64], group: int) -> NDArray[np.float32]:
        """Images of one optics group as their stacks have them, read in the order of the files."""
        size = self._box(group)
        found = np.empty((len(index), size, size), np.float32)
        by_stack: dict[str, list[int]] = {}
        for at, i in enumerate(index):
            by_stack.setdefault(self.names[i][1], []).append(at)
        for name in sorted(by_stack):
            rows = sorted(by_stack[name], key=lambda at: self.names[index[at]][0])
            numbers = [self.names[index[at]][0] for at in rows]
            stack = self._stack(name)
            self._checked(stack, numbers[-1], group)
            found[rows] = stack[numbers]
        return found

    def _checked(self, stack: Stack, number: int, group: int) -> None:
        size, pixel = self._box(group), self._pixels[group]
        if number >= len(stack):
            raise FileError(
                f"{stack.path}: {len(stack)} images; expected image {number + 1} among them, which {self.path} names"
            )
        if stack.shape[1:] != (size, size):
            shape = " x ".join(str(n) for n in stack.shape[:0:-1])
            raise FileError(f"{stack.path}: images of {shape} pixels; expected {size} x {size}, see optics group {group + 1}")
        header = stack.pixel_angstrom
        if header is not None and abs(header / pixel - 1) > 0.01 and group not in self._warned:
            self._warned.add(group)
            both = f"pixel size {header:g} A in the header of {stack.path.name}, {pixel:g} A in the particle file"
            warnings.warn(f"{self.path}: {both}; lfjax follows the particle file", DataWarning, stacklevel=3)

    def _stack(self, name: str) -> Stack:
        if name not in self._stacks:
            while len(self._stacks) >= OPEN_STACKS:
                self._stacks.pop(next(iter(self._stacks)))
            self._stacks[name] = Stack(find_stack(self.path, name, self.folder))
        return self._stacks[name]


def read_particles(
    path: str | Path,
    *,
    folder: str | Path | None = None,
    pixel_angstrom: float | None = None,
    ctf: bool = True,
    grid: tuple[int, float] | None = None,
    also: Sequence[str | Path] = (),
    alignment: str | None = None,
    tomograms: str | Path | None = None,
) -> ParticleFile:
    """Read a particle file. Stacks are opened when images are asked for, or by `ParticleFile.check`.

    Args:
        path: .star of RELION 3.0, 3.1, 4 or 5, or .cs of cryoSPARC, or a .csg that names .cs files.
        folder: folder that image paths are relative to; None: the file's own folder or one above it. Absolute paths and paths
            with ".." are followed, as RELION's projects need; see `stack_names.find_stack` for which files they may name.
        pixel_angstrom: pixel size that overrides the one in the file; needed where the file has none.
        ctf: whether to read the CTF; False: the images have none.
        grid: size and pixel size of the common grid; None: those of the optics group with the finest pixel.
        also: further .cs files of the same images (passthrough, CTF, alignments), joined by uid.
        alignment: which alignment of a .cs file to read, for example "alignments3D"; None: the only one.
        tomograms: tomograms.star of RELION 4 or 5; needed where the particles are 2-D stacks of a tilt series.

    Raises:
        FileError: the file is missing, broken, of another kind, lacks a column, states a thing that lfjax does not know (see
            `relion_tables.to_particles`), or has an image in both half-sets.
        ParameterError: an argument does not fit the kind of file or is out of range.
    """
    path, where = Path(path), None if folder is None else Path(folder)
    suffix = ".cs" if path.suffix.lower() == ".csg" else path.suffix.lower()
    if suffix not in (".star", ".cs"):
        raise FileError(f"{path}: suffix {path.suffix!r} is not known; expected .star, .cs or .csg")
    require(
        suffix == ".cs" or not also, "also (further files)", ", ".join(map(str, also)), "no further file beside a STAR file"
    )
    require(suffix == ".cs" or alignment is None, "alignment (--alignment)", alignment, "None for a STAR file")
    require(suffix == ".star" or tomograms is None, "tomograms (--tomograms)", tomograms, "None for a .cs file")
    with reading(path, "particle"):
        if suffix == ".cs":
            given = [path, *also] if also else path
            tables = cryosparc.read_cs(given, alignment=alignment, ctf=ctf, pixel_angstrom=pixel_angstrom)
        else:
            tables = tilts.with_tilts(path, read_star(path), tomograms, find=lambda name: find_beside(path, name, where))
        tables = canonical(path, tables, pixel_angstrom=pixel_angstrom)
        check_numbers(path, tables)
        names = [image_name(path, row, name) for row, name in enumerate(tables["particles"]["rlnImageName"])]
        own = to_particles(path, tables, ctf=ctf)
        check_repeats(path, tables["particles"], image_labels(names), np.asarray(own.half))
    pixels = np.asarray(tables["optics"]["rlnImagePixelSize"], float)[np.unique(own.group)]
    size, pixel = grid or (None, float(pixels.min()))
    require(pixel > 0 and (size is None or size >= 2), "grid", grid, "(pixels per side, positive pixel size)")
    signs, posed = _signs(path, tables), ANGLES[0] in tables["particles"]
    found = ParticleFile(path, _on_grid(own, pixel), posed, names, tables, pixel, where, size, signs)
    if pixel_angstrom is not None:  # the caller knows that the headers say something else
        found._warned.update(range(len(tables["optics"])))
    return found


def _on_grid(particles: Particles, pixel: float) -> Particles:
    """The same particles in pixels of the common grid; in numpy, so that nothing is compiled for it."""
    own = np.asarray(particles.pixel_angstrom)
    shifts = np.asarray(particles.shifts) * (own / pixel)[:, None]
    fields = (jnp.asarray(shifts, float), jnp.asarray(np.full(len(own), pixel), float))
    return eqx.tree_at(lambda p: (p.shifts, p.pixel_angstrom), particles, fields)


def _signs(path: Path, tables: Tables) -> NDArray[np.float32] | None:
    if "lfjaxImageSign" not in tables["particles"]:
        return None
    signs = finite_numbers(path, tables["particles"], "lfjaxImageSign")
    if not np.isin(signs, (-1, 1)).all():
        raise FileError(f"{path}: sign of an image {signs[~np.isin(signs, (-1, 1))][0]:g}; expected 1 or -1")
    return None if (signs == 1).all() else signs.astype(np.float32)


def write_particles(
    path: str | Path,
    particles: Particles,
    names: list[tuple[int, str]],
    size: int,
    *,
    tables: Tables | None = None,
    version: str = "3.1",
) -> None:
    """Write a RELION STAR file, which RELION, cryoSPARC, EMAN2, ASPIRE and cryoDRGN read, or a .cs file of cryoSPARC.

    Args:
        path: .star or .cs.
        particles: poses, optics, pixel sizes and half-sets of the images.
        names: number, from 0, and file of each image.
        size: pixels per side.
        tables: canonical tables; `particles` replace their poses, shifts and half-sets, all else stays.
        version: "3.1" (with an optics table), "5" (the same) or "3.0".

    Raises:
        ParameterError: the version is unknown, or the number of names or of rows is not that of particles.
        FileError: the tables have no block of particles.
    """
    require(len(names) == len(particles), "names", len(names), f"{len(particles)}, one per particle")
    if tables is None:
        tables = from_particles(particles, names, size)
    else:
        tables = with_particles(canonical(path, tables), particles)
    write_tables(path, tables, version=version)


def write_tables(path: str | Path, tables: Tables, *, version: str = "3.1") -> None:
    """Write canonical tables, digit by digit, as a STAR or .cs file: conversion without loss.

    A STAR file of images without a CTF gets the columns of a lens without effect, without which RELION refuses it, see
    `relion_writing.with_lenses`.

    Args:
        path: .star or .cs.
        tables: canonical tables.
        version: "3.1", "5" or "3.0", see `relion_tables.lowered`; a .cs file has none.

    Raises:
        ParameterError: the version is unknown.
    """
    if Path(path).suffix.lower() == ".cs":
        cryosparc.write_cs(path, tables)
    else:
        write_star(path, lowered(with_lenses(tables), version))
