"""Trained models in HDF5: the recipe as text, the arrays as datasets. Reading one executes no code from the file."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lfjax.errors import FileError, LfjaxError
from lfjax.io.arrays import reading
from lfjax.io.hdf5 import choose_dataset, numbers
from lfjax.io.hdf5_attributes import Attributes
from lfjax.io.hdf5_file import new_hdf5
from lfjax.models import Frozen
from lfjax.training.recipe import Recipe

FORMAT = "lfjax model 1"


class TrainedModel(NamedTuple):
    """A trained network and the recipe that made it.

    Attributes:
        network: light field (row, col) -> volume (z, y, x), an Equinox module.
        recipe: microscope, volume, tissue, data, losses.
    """

    network: PyTree
    recipe: Recipe

    def __call__(self, y: Float[Array, "row col"]) -> Float[Array, "z y x"]:
        """The volume of a rectified light field, compiled."""
        return self.network(y)


def write_model(path: str | Path, model: TrainedModel, *, half: bool = False) -> None:
    """Write a model.

    Args:
        path: file to write, .h5.
        model: the model; `read_model` returns it.
        half: whether to store kernels with 16 instead of 32 bits per number.
    """
    with new_hdf5(path) as file:
        file.attrs.update({"format": FORMAT, "recipe": json.dumps(model.recipe.to_dict())})
        for number, leaf in enumerate(jax.tree.leaves(eqx.filter(model.network, _kept(model.network)))):
            values = np.asarray(leaf, np.float16 if half and leaf.ndim > 2 else np.float32)
            file.create_dataset(f"{number:04d}", data=values, **({"compression": "gzip"} if values.ndim else {}))


def read_model(path: str | Path) -> TrainedModel:
    """Read a model. One of kind "physics" takes its PSF from the cache, or computes it again.

    Raises:
        FileError: the file is missing, broken, or not a model.
    """
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        told = Attributes(path, file)
        if told.get("format") != FORMAT:
            raise FileError(f"{path}: format {told.get('format')!r}; expected {FORMAT!r}")
        try:
            recipe = Recipe.from_dict(json.loads(str(told["recipe"])))
            network = _outline(recipe)
        except (LfjaxError, ValueError, TypeError) as error:
            raise FileError(f"{path}: its recipe cannot be read ({error})") from error
        leaves = jax.tree.leaves(eqx.filter(network, _kept(network)))
        for number, wanted in enumerate(leaves):  # before the network is built: a recipe can ask for one of any size
            shape = choose_dataset(path, file, f"{number:04d}").shape
            if shape != wanted.shape:
                raise FileError(f"{path}: array {number} has shape {shape}; expected {wanted.shape}, as its recipe says")
        found = [numbers(path, file, f"{i:04d}") for i in range(len(leaves))]
    arrays, rest = eqx.partition(network, _kept(network))
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(rest)):  # arrays that the recipe rebuilds
        rest = eqx.partition(recipe.network(), _kept(network))[1]
    new = [jnp.asarray(values, old.dtype) for values, old in zip(found, leaves, strict=True)]
    arrays = jax.tree.unflatten(jax.tree.structure(arrays), new)
    return TrainedModel(eqx.combine(arrays, rest), recipe)


def small_model() -> TrainedModel:
    """The model that comes with the package; `make small-model` trains it by `lfjax/training/small.toml`."""
    return read_model(Path(str(files("lfjax.training") / "small.h5")))


def find_model(name: str | Path) -> TrainedModel:
    """The model called "small" (`small_model`), or the model in a file.

    Raises:
        FileError: the file is missing, broken, or not a model.
    """
    return small_model() if str(name) == "small" else read_model(name)


def _outline(recipe: Recipe) -> PyTree:
    """The network of a recipe with shapes in place of arrays; one of kind "physics" itself, since its PSF is computed."""
    return recipe.network() if recipe.model.kind == "physics" else eqx.filter_eval_shape(recipe.network)


def _kept(network: PyTree) -> PyTree[bool]:
    """True where a file keeps an array: those that are trained, and scalar constants. The recipe rebuilds a fixed H."""

    def inexact(node: PyTree) -> bool:
        return isinstance(node, jax.ShapeDtypeStruct | jax.Array | np.ndarray) and jnp.issubdtype(node.dtype, jnp.inexact)

    def mark(node: PyTree) -> PyTree[bool]:
        if isinstance(node, Frozen):
            return jax.tree.map(lambda a: inexact(a) and a.ndim == 0, node)
        return inexact(node)

    return jax.tree.map(mark, network, is_leaf=lambda node: isinstance(node, Frozen))
