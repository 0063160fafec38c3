"""Data and scores of `benchmarks.unfolded`: one labelled sample, unlabelled movies, held-out samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np

from lfjax import simulate, training
from lfjax.optics import LightField, Microscope, Scattering, cached_psf
from lfjax.simulate import Movie
from lfjax.training.evaluation import Scores, evaluate, inside

UNLABELLED = ((0.1, 1.3), (0.15, 1.0), (0.25, 0.7))
"""Fraction of labelled neurons, and brightness, of the unlabelled movies' samples; the labelled sample has (0.15, 1)."""
HELD_OUT = ((0.08, 1.6), (0.15, 1.0), (0.3, 0.6))


@dataclasses.dataclass(frozen=True)
class Size:
    """The numbers that set the size of the experiment."""

    pixels: int = 9
    voxels: int = 3
    depths: int = 11
    step_um: float = 3.0
    beyond: int = 2
    lenslets: int = 21
    border: int = 3
    fields: int = 16
    windows: int = 5
    psf_tolerance: float = 0.05
    photons: float = 60.0  # per pixel
    movie: int = 60
    test: int = 36
    shown: tuple[int, ...] = (0, 12, 24)
    seeds: int = 3
    steps: tuple[int, int, int, int] = (40, 300, 1200, 1200)  # physics, convolutional, compressed, U-Net
    batch: tuple[int, int, int, int] = (1, 2, 4, 4)  # labelled samples per batch, in the same order
    one_field: tuple[int, int] = (400, 2)  # steps and labelled samples per batch where the label has one field
    layers: int = 6
    physics_layers: int = 10
    width: int = 51
    compress: int = 11  # the PSF is 11 lenslets wide; 15 at full size


TOY = Size(
    pixels=5, voxels=2, depths=7, step_um=3, beyond=1, lenslets=11, border=1, fields=2, windows=2, psf_tolerance=0.3, movie=4,
    test=40, shown=(0, 20), seeds=2, steps=(4, 4, 4, 4), batch=(2, 2, 2, 2), one_field=(4, 2), layers=2, physics_layers=3,
    width=4, compress=3,
)  # fmt: skip
LARGE = Size(
    pixels=19, depths=53, step_um=1.0, beyond=6, lenslets=51, border=8, windows=50, movie=200, test=200,
    steps=(2000, 20_000, 20_000, 20_000), compress=15,
)  # fmt: skip
"""The microscope of the TCI 2023 paper, for accelerators: LFJAX_SIZE=large."""


class Within(eqx.Module):
    """A reconstruction cut to the planes of interest."""

    reconstruct: Callable[[Any], Any]
    beyond: int = eqx.field(static=True)

    def __call__(self, y: Any) -> Any:
        x = self.reconstruct(y)
        return x[self.beyond : len(x) - self.beyond]


class Study:
    """One labelled sample, three unlabelled movies, validation and held-out samples."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.scope = Microscope(25, 1.0, 1.33, 0.515, 125, 1250, size.pixels)
        half = size.depths // 2 + size.beyond
        self.planes_um = tuple(size.step_um * i for i in range(-half, half + 1))
        self.z_um = self.planes_um[size.beyond : len(self.planes_um) - size.beyond]
        field = (size.lenslets, size.lenslets)
        psf = cached_psf(self.scope, self.planes_um, size.voxels, tolerance=size.psf_tolerance)
        self.experiment = simulate.Experiment(psf, field, beyond=size.beyond, photons=size.photons)
        self.voxel_um = self.experiment.voxel_um
        self.cells = {"cell_voxels": (size.voxels,) * 2, "cell_pixels": (size.pixels,) * 2}
        # Networks, their H and the label have all illuminated planes: light from beyond is explained where it comes from.
        optics = LightField(self.experiment.psf, field)
        thickness = self.experiment.depth_um + np.asarray(self.planes_um)
        tissue = {"mean_free_path_um": self.experiment.mean_free_path_um, "anisotropy": self.experiment.anisotropy}
        self.op = optics @ Scattering(optics.in_shape, self.voxel_um[1], thickness, **tissue)
        self.unscattered = optics
        whole = simulate.Experiment(self.experiment.psf, field, photons=size.photons)
        key = partial(jax.random.fold_in, jax.random.key(2026))
        stack = whole.stack(key(0), size.windows, fields=size.fields)
        movies = [
            self.experiment.movie(key(1 + i), size.movie, labelled=share, brightness=light)
            for i, (share, light) in enumerate(UNLABELLED)
        ]
        self.data = training.TrainingSet(
            np.asarray(stack.frames), np.asarray(stack.volumes), [np.asarray(m.frames) for m in movies],
            self.cells["cell_pixels"], self.cells["cell_voxels"],
        )  # fmt: skip
        self.movies = movies
        self.validation = [self.experiment.movie(key(10), size.test, shown=size.shown)]
        self.held_out = [
            self.experiment.movie(key(20 + i), size.test, labelled=share, brightness=light, shown=size.shown)
            for i, (share, light) in enumerate(HELD_OUT)
        ]
        self.border = (size.border * size.voxels,) * 2

    def beside(self, volume: Any) -> Any:
        """The field, cut from all illuminated tissue."""
        (a, b), m = self.cells["cell_voxels"], self.experiment.margin
        return volume[:, m * a : -m * a, m * b : -m * b]

    def within(self, reconstruct: Callable[[Any], Any]) -> Within:
        """The reconstruction, cut to the planes of interest."""
        return Within(reconstruct, self.size.beyond)

    def score(self, reconstruct: Callable[[Any], Any], movies: list[Movie] | None = None) -> Scores:
        """Scores of a method on the held-out samples."""
        return evaluate(self.within(reconstruct), movies or self.held_out, self.voxel_um, border=self.border)

    def error(self, reconstruct: Callable[[Any], Any]) -> float:
        """Validation error: mean relative squared error of the volumes inside the border."""
        movie, values = self.validation[0], []
        for number, t in enumerate(movie.shown):
            truth = np.asarray(inside(movie.volumes[number], self.border))
            x = np.asarray(inside(apply(self.within(reconstruct), movie.frames[t]), self.border))
            values.append(np.sum((x - truth) ** 2) / np.sum(truth**2))
        return float(np.mean(values))


@eqx.filter_jit
def apply(reconstruct: Callable[[Any], Any], frame: Any) -> Any:
    """The volume of a frame; reconstructions of one structure share the program."""
    return reconstruct(frame)
