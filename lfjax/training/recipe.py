"""A whole training run as one TOML file: microscope, volume, tissue, data, model, losses, options."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from lfjax import models
from lfjax.errors import require
from lfjax.io import open_movie
from lfjax.io.toml import naming, of_table, read_toml, require_keys, require_table, within
from lfjax.linop import LinearOperator
from lfjax.optics import LightField, Microscope, Scattering, cached_psf, preset
from lfjax.simulate import Experiment, Movie
from lfjax.training.data import TrainingSet, open_pairs
from lfjax.training.loop import Fitted, Options, fit
from lfjax.training.steps import FromNNX, LossWeights


@dataclasses.dataclass(frozen=True)
class VolumeSettings:
    """The reconstructed volume.

    Attributes:
        z_um: depths, evenly spaced.
        voxels_per_lenslet: s.
        lenslets: lenslets per side of the field.
        psf_tolerance: relative error allowed for the PSF.
    """

    z_um: tuple[float, ...]
    voxels_per_lenslet: int
    lenslets: int
    psf_tolerance: float = 0.05

    def __post_init__(self) -> None:
        z = self.z_um
        ascending = len(z) > 0 and all(map(math.isfinite, z)) and all(a < b for a, b in itertools.pairwise(z))
        require(ascending, "z_um", z, "one or more depths in micrometres, ascending")
        for name in ("voxels_per_lenslet", "lenslets"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 < self.psf_tolerance < 1, "psf_tolerance", self.psf_tolerance, "a number between 0 and 1")


@dataclasses.dataclass(frozen=True)
class TissueSettings:
    """Scattering tissue.

    Attributes:
        depth_um: thickness of tissue above the middle plane.
        mean_free_path_um: scattering mean free path; infinite: no scattering.
        anisotropy: g, the mean cosine of the scattering angle.
    """

    depth_um: float = 60.0
    mean_free_path_um: float = 60.0
    anisotropy: float = 0.93

    def __post_init__(self) -> None:
        require(0 <= self.depth_um < math.inf, "depth_um", self.depth_um, "zero or more")
        require(self.mean_free_path_um > 0, "mean_free_path_um", self.mean_free_path_um, "a positive number, or inf")
        require(0 <= self.anisotropy < 1, "anisotropy", self.anisotropy, "0 to below 1")


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Data files (`pairs`, `movies`; see `training.data`), or, without them, a simulated experiment (`simulate.Experiment`).

    Attributes:
        pairs: HDF5 file of labelled pairs; empty: the data are simulated.
        movies: HDF5 or TIFF files of unlabelled light fields.
        fields: simulated fields of view of the one labelled sample.
        windows: steps of the z-stack of each field.
        unlabelled: number of simulated unlabelled movies.
        frames: frames per movie.
        beyond: illuminated planes above and below the volume.
        photons: mean photons per pixel.
        seed: fixes samples and noise.
    """

    pairs: str = ""
    movies: tuple[str, ...] = ()
    fields: int = 9
    windows: int = 9
    unlabelled: int = 3
    frames: int = 60
    beyond: int = 2
    photons: float = 60.0
    seed: int = 2026

    def __post_init__(self) -> None:
        for name, least in (("fields", 1), ("windows", 1), ("unlabelled", 0), ("frames", 1), ("beyond", 0), ("seed", 0)):
            value = getattr(self, name)
            require(least <= value < 2**32, name, value, f"{least} or more, of 32 bits")
        require(0 < self.photons < math.inf, "photons", self.photons, "a positive number")


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The network and its initial parameters.

    Attributes:
        kind: physics, convolutional, compressed, or unet.
        layers: K; levels of the U-Net.
        sparsity: initial lambda, in units of rms(y).
        reach: reach of the convolutional kernels in lenslets.
        width: V of the compressed network, or channels of the U-Net; None: 51, and no more than a compressed network can have.
        compress: side of the compressing kernel in lenslets.
        damping: mu / |H|^2 of the linear inverse from which kernels start; 0: a convolutional network starts at ISTA.
        tied: whether B = A^T (convolutional), which needs damping = 0.
        shared: whether layers share kernels (convolutional).
        momentum: whether the network starts with FISTA's momentum and learns it.
        checkpoint: see `models.UnfoldedISTA`.
    """

    kind: str = "compressed"
    layers: int = 6
    sparsity: float = 0.01
    reach: int = 2
    width: int | None = None
    compress: int = 15
    damping: float = 0.02
    tied: bool = False
    shared: bool = False
    momentum: bool = False
    checkpoint: bool = False

    def __post_init__(self) -> None:
        require(self.kind in KINDS, "kind", self.kind, f"one of {', '.join(KINDS)}")
        for name in ("damping", "sparsity"):
            require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "zero or more")
        for name, least in (("layers", 1), ("reach", 0), ("width", 1), ("compress", 1)):
            value = getattr(self, name)
            whole = isinstance(value, int) and value >= least
            require(whole or (value is None and name == "width"), name, value, f"a whole number, {least} or more")


KINDS = ("physics", "convolutional", "compressed", "unet")
WIDTH = 51  # of a network where the recipe states none


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training run; `Recipe.read` reads it from a TOML file, whose tables have the names of these attributes."""

    microscope: Microscope
    volume: VolumeSettings
    tissue: TissueSettings = TissueSettings()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    losses: LossWeights = LossWeights()
    training: Options = Options()

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a TOML file; file names in it are relative to its folder.

        Raises:
            FileError: the file is missing or not TOML, a table or a name in it is unknown or missing, or a value has another
                type or is out of range; the message names file, table and key.
        """
        with naming(path):
            recipe = cls.from_dict(read_toml(path, "a recipe"))
            recipe.require_trainable()
        here = Path(path).parent
        pairs = str(here / recipe.data.pairs) if recipe.data.pairs else ""
        movies = tuple(str(here / name) for name in recipe.data.movies)
        return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, pairs=pairs, movies=movies))

    @classmethod
    def from_dict(cls, tables: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """Inverse of `to_dict`. The microscope may be {"preset": name}, together with the values that differ from the preset.

        Raises:
            ParameterError: a table or a name in it is unknown or missing, or a value is out of range.
        """
        require_keys("tables of the recipe", tables, [f.name for f in dataclasses.fields(cls)], ("microscope", "volume"))
        require_table("microscope", tables["microscope"])
        numbers = dict(tables["microscope"])
        name = numbers.pop("preset", None)
        require(name is None or isinstance(name, str), "[microscope] preset", name, "the name of a preset")
        base = {} if name is None else preset(name).to_dict()
        parts: dict[str, Any] = {
            name: of_table(SECTIONS[name], name, table) for name, table in tables.items() if name != "microscope"
        }
        with within("microscope"):
            scope = Microscope.from_dict(base | numbers)
        return cls(microscope=scope, **parts)

    def require_trainable(self) -> None:
        """Refuse values that do not fit together, before PSF and data are made.

        Raises:
            ParameterError: a kernel or window is larger than the field, or a network cannot start from H with these numbers;
                the message names table and key.
        """
        model, lenslets, crop = self.model, self.volume.lenslets, self.training.crop
        with within("training"):
            fits = crop is None or (len(crop) == 2 and all(1 <= side <= lenslets for side in crop))
            require(fits, "crop", crop, f"two numbers of lenslets, 1 to the {lenslets} of the field")
            field = min(crop or (lenslets,))
            border = self.training.border
            require(2 * border < field, "border", border, f"less than half of the {field} lenslets of a window")
        with within("model"):
            if model.kind == "compressed":
                require(model.compress % 2 == 1, "compress", model.compress, "an odd number of lenslets")
                require(model.damping > 0, "damping", model.damping, "a positive number for a compressed network")
                most = self.channels
                require((model.width or 1) <= most, "width", model.width, f"at most {most}, the channels of the volume")
            if model.kind == "convolutional":
                room = (lenslets - 1) // 2
                require(model.reach <= room, "reach", model.reach, f"at most {room}, for which the field has room")
                require(not (model.tied and model.damping), "damping", model.damping, "0 where tied = true")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as a dictionary of tables, with plain numbers, strings and lists."""
        parts = {name: dataclasses.asdict(getattr(self, name)) for name in SECTIONS}
        return json.loads(json.dumps({"microscope": self.microscope.to_dict()} | parts))

    @property
    def cells(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Voxels (y, x) and pixels (y, x) per lenslet."""
        return self.microscope.cell_voxels(self.volume.voxels_per_lenslet), self.microscope.cell_pixels

    @property
    def channels(self) -> int:
        """Voxels per lenslet over all depths, the channels of the volume."""
        return len(self.volume.z_um) * math.prod(self.cells[0])

    @property
    def width(self) -> int:
        """Width of the network, as the recipe states it or by default."""
        most = self.channels if self.model.kind == "compressed" else WIDTH
        return self.model.width or min(WIDTH, most)

    @property
    def voxel_um(self) -> tuple[float, float, float]:
        """Voxel size (z, y, x)."""
        z = self.volume.z_um
        lateral = self.microscope.voxel_um(self.volume.voxels_per_lenslet)
        return (abs(z[1] - z[0]) if len(z) > 1 else 1.0, lateral, lateral)

    def operator(self, field: tuple[int, int] | None = None) -> LinearOperator:
        """H S: the light field of a volume in this tissue.

        Args:
            field: lenslets (Y, X); None: the field of the recipe.
        """
        side = self.volume.lenslets
        psf = cached_psf(self.microscope, self.volume.z_um, self.volume.voxels_per_lenslet, tolerance=self.volume.psf_tolerance)
        optics = LightField(psf, field or (side, side))
        if not np.isfinite(self.tissue.mean_free_path_um):
            return optics
        z = np.asarray(self.volume.z_um)
        thickness = np.maximum(self.tissue.depth_um + z - z.mean(), 0)
        options = {"mean_free_path_um": self.tissue.mean_free_path_um, "anisotropy": self.tissue.anisotropy}
        return optics @ Scattering(optics.in_shape, self.voxel_um[1], thickness, **options)

    def network(self, op: LinearOperator | None = None) -> PyTree:
        """The untrained network, an Equinox module.

        Args:
            op: H, from which the kernels start; None: random kernels, and a physics network builds H itself.
        """
        settings, (voxels, pixels) = self.model, self.cells
        key, depths = jax.random.key(self.training.seed), len(self.volume.z_um)
        if settings.kind == "unet":
            size = {"width": self.width, "levels": settings.layers}
            return FromNNX(nnx.jit(lambda: models.ViewUNet(depths, voxels, pixels, **size, rngs=nnx.Rngs(key)))())
        term: models.unfolded.DataTerm
        if settings.kind == "physics":
            term = models.Physics(self.operator() if op is None else op, voxels)
        elif settings.kind == "convolutional":
            damping = settings.damping if settings.damping and op is not None else None
            term = models.Convolutional(
                key, settings.layers, depths, voxels, pixels, op=op, damping=damping,
                reach=settings.reach, tied=settings.tied, shared=settings.shared,
            )  # fmt: skip
        else:
            term = models.Compressed(
                key, settings.layers, depths, voxels, pixels, op=op, damping=settings.damping,
                width=self.width, compress=settings.compress,
            )  # fmt: skip
        momentum = models.unfolded.fista_momentum(settings.layers) if settings.momentum else None
        return models.UnfoldedISTA(
            term, settings.layers, sparsity=settings.sparsity, momentum=momentum, checkpoint=settings.checkpoint
        )

    def experiment(self) -> Experiment:
        """The simulated light-field and two-photon microscopes."""
        z, beyond = self.volume.z_um, self.data.beyond
        step = self.voxel_um[0]
        planes = [z[0] - step * i for i in range(beyond, 0, -1)] + list(z) + [z[-1] + step * (i + 1) for i in range(beyond)]
        psf = cached_psf(self.microscope, tuple(planes), self.volume.voxels_per_lenslet, tolerance=self.volume.psf_tolerance)
        side = self.volume.lenslets
        tissue = dataclasses.asdict(self.tissue)
        return Experiment(psf, (side, side), beyond=beyond, photons=self.data.photons, **tissue)

    def training_set(self, experiment: Callable[[], Experiment]) -> TrainingSet:
        """The training data, from files or simulated.

        Args:
            experiment: makes the experiment; called only if the data are simulated.
        """
        voxels, pixels = self.cells
        if self.data.pairs:
            labelled, volumes = open_pairs(self.data.pairs)
            return TrainingSet(labelled, volumes, [open_movie(name) for name in self.data.movies], pixels, voxels).check()
        simulated, key = experiment(), jax.random.key(self.data.seed)
        stack = simulated.stack(jax.random.fold_in(key, 0), self.data.windows, fields=self.data.fields)
        movies = [simulated.movie(jax.random.fold_in(key, 1 + i), self.data.frames) for i in range(self.data.unlabelled)]
        frames = [np.asarray(m.frames) for m in movies]
        return TrainingSet(np.asarray(stack.frames), np.asarray(stack.volumes), frames, pixels, voxels).check()

    def fit(
        self,
        *,
        folder: str | Path | None = None,
        track: Callable[[Iterable[int], str], Iterable[int]] | None = None,
        mesh: Mesh | None = None,
    ) -> Fitted:
        """Make the data and the network, and train; `folder`, `track` and `mesh` as in `training.fit`."""
        op = self.operator(self.training.crop)
        data = self.training_set(self.experiment)
        network = self.network(op if self.training.crop is None else self.operator())
        return fit(network, data, op=op, weights=self.losses, options=self.training, folder=folder, track=track, mesh=mesh)

    def test_movies(self, experiment: Experiment, frames: int = 60) -> list[Movie]:
        """Held-out samples of other densities and brightness, which no training uses."""
        key, shown = jax.random.key(self.data.seed), tuple(range(0, frames, max(frames // 3, 1)))[:3]
        return [
            experiment.movie(jax.random.fold_in(key, 20 + i), frames, labelled=share, brightness=light, shown=shown)
            for i, (share, light) in enumerate(HELD_OUT)
        ]


HELD_OUT = ((0.08, 1.6), (0.15, 1.0), (0.3, 0.6))
"""Fraction of labelled neurons, and brightness, of the held-out samples; the training sample has (0.15, 1)."""

SECTIONS: dict[str, type] = {
    "volume": VolumeSettings,
    "tissue": TissueSettings,
    "data": DataSettings,
    "model": ModelSettings,
    "losses": LossWeights,
    "training": Options,
}
