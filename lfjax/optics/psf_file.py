"""PSFs on disk: one HDF5 file per PSF, and a cache of computed PSFs."""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from lfjax.errors import FileError, LfjaxError, StorageWarning, require_shape
from lfjax.io.arrays import check_array, reading
from lfjax.io.cache import cache_folder
from lfjax.io.checked_numbers import finite_attribute
from lfjax.io.hdf5 import numbers
from lfjax.io.hdf5_attributes import Attributes
from lfjax.io.hdf5_file import new_hdf5
from lfjax.optics.alignment import Alignment
from lfjax.optics.microscope import Microscope
from lfjax.optics.psf.images import PSF, compute_psf
from lfjax.optics.psf.pupil import Pupil

FORMAT = 2
"""Version of the file layout and of the PSF physics; a new number makes older cache files invisible."""


def write_psf(path: str | Path, psf: PSF) -> None:
    """Write a PSF and its parameters.

    Layout: dataset `psf` (z, a, b, y, x), one checksummed chunk per image; attributes format, microscope (JSON), z_um,
    oversampling, and, unless None, convergence_error, pupil and alignment (JSON).

    Args:
        path: HDF5 file.
        psf: the PSF.

    Raises:
        FileError: the values are not finite.
    """
    values = check_array(path, psf.values, "zabyx")
    with new_hdf5(path, values.nbytes) as file:
        dataset = file.create_dataset("psf", data=values, chunks=(1, 1, 1, *values.shape[3:]), fletcher32=True)
        dataset.attrs["format"] = FORMAT
        dataset.attrs["microscope"] = json.dumps(psf.microscope.to_dict())
        dataset.attrs["z_um"] = np.asarray(psf.z_um, np.float64)
        dataset.attrs["oversampling"] = psf.oversampling
        if psf.convergence_error is not None:
            dataset.attrs["convergence_error"] = psf.convergence_error
        for name, part in (("pupil", psf.pupil), ("alignment", psf.alignment)):
            if part is not None:
                dataset.attrs[name] = json.dumps(part.to_dict())


def read_psf(path: str | Path) -> PSF:
    """Read a PSF that `write_psf` wrote.

    Args:
        path: HDF5 file.

    Returns:
        The PSF; its depths are in micrometres.

    Raises:
        FileError: the file is missing, broken, of another format, or not a PSF.
    """
    with reading(path, "PSF"), h5py.File(path, "r") as file:
        values = numbers(path, file, "psf", "zabyx")
        attributes = Attributes(path, file["psf"])
        if attributes.get("format") != FORMAT:
            raise FileError(f"{path}: PSF format {attributes.get('format')}; expected {FORMAT}")
        depths = finite_attribute(path, attributes, "z_um")
        (oversampling,) = finite_attribute(path, attributes, "oversampling", count=1, positive=True)
        error = None
        if "convergence_error" in attributes:
            (error,) = finite_attribute(path, attributes, "convergence_error", count=1)
        try:
            return PSF(
                jnp.asarray(values),
                Microscope.from_dict(json.loads(attributes["microscope"])),
                depths,
                int(oversampling),
                error,
                Pupil.from_dict(json.loads(attributes["pupil"])) if "pupil" in attributes else None,
                Alignment.from_dict(json.loads(attributes["alignment"])) if "alignment" in attributes else None,
            )
        except LfjaxError as wrong:
            raise FileError(f"{path}: {wrong}") from wrong


def write_view_psfs(path: str | Path, psfs: Float[ArrayLike, "v z y x"], z_um: Sequence[float]) -> None:
    """Write the PSFs of a `MultiView`, measured or computed: dataset `view_psfs` (v, z, y, x) with attribute z_um.

    Args:
        path: HDF5 file.
        psfs: (v, z, y, x), images of a point at every depth in every view.
        z_um: depths in micrometres.

    Raises:
        ShapeError: `psfs` does not have four axes, or not one plane per depth.
    """
    require_shape("psfs", np.shape(psfs), ("v", len(z_um), "y", "x"))
    values = check_array(path, np.asarray(psfs), "vzyx")
    with new_hdf5(path, values.nbytes) as file:
        dataset = file.create_dataset("view_psfs", data=values, chunks=(1, 1, *values.shape[2:]), fletcher32=True)
        dataset.attrs["z_um"] = [float(z) for z in z_um]


def read_view_psfs(path: str | Path) -> tuple[Float[Array, "v z y x"], tuple[float, ...]]:
    """Read PSFs (v, z, y, x) and depths in micrometres that `write_view_psfs` wrote.

    Raises:
        FileError: the file is missing, broken, or holds no PSFs of views.
    """
    with reading(path, "PSF"), h5py.File(path, "r") as file:
        values = numbers(path, file, "view_psfs", "vzyx")
        depths = finite_attribute(path, Attributes(path, file["view_psfs"]), "z_um")
        if len(depths) != values.shape[1]:
            raise FileError(f"{path}: {len(depths)} depths; expected {values.shape[1]}, one per plane")
        return jnp.asarray(values), depths


def cached_psf(
    microscope: Microscope,
    z_um: Sequence[float] | np.ndarray,
    voxels_per_lenslet: int,
    *,
    cache: str | Path | None = None,
    **options: Any,
) -> PSF:
    """The PSF of `compute_psf`, read from the disk if an earlier call computed it.

    The file name is the SHA-256 of all parameters, so a changed parameter never finds an old PSF. A broken cache file
    is replaced.

    Args:
        microscope: the parameters.
        z_um: depths of the planes in micrometres.
        voxels_per_lenslet: s, voxels across a lenslet.
        cache: folder. None: `lfjax.io.cache_folder`.
        **options: options of `compute_psf`, for example tolerance, oversampling, lenslets, track.

    Returns:
        The PSF.

    Raises:
        ParameterError: a value is out of range.
        TypeError: `compute_psf` has no such option.
    """
    bound = inspect.signature(compute_psf).bind(microscope, z_um, voxels_per_lenslet, **options)
    path = (cache_folder() if cache is None else Path(cache).expanduser()) / f"psf-{_key(bound)}.h5"
    try:
        known = read_psf(path)
        # the caller's microscope, whose numbers may be JAX arrays
        alignment = bound.arguments.get("alignment")
        own = (bound.arguments.get("pupil"), microscope.alignment if alignment is None else alignment)
        return PSF(known.values, microscope, known.z_um, known.oversampling, known.convergence_error, *own)
    except LfjaxError:
        psf = compute_psf(microscope, z_um, voxels_per_lenslet, **options)
    try:
        write_psf(path, psf)
    except OSError as error:  # a full or read-only disk must not cost the PSF that was just computed
        warnings.warn(f"the PSF was not cached: {error}", StorageWarning, stacklevel=2)
    return psf


def _key(bound: inspect.BoundArguments) -> str:
    """SHA-256 of the canonical JSON of all parameters that the values of the PSF depend on."""
    bound.apply_defaults()
    parameters = {name: value for name, value in bound.arguments.items() if name not in ("track", "memory_gib")}
    parameters["microscope"] = bound.arguments["microscope"].to_dict()
    for name in ("pupil", "alignment"):
        if parameters.get(name) is not None:
            parameters[name] = parameters[name].to_dict()
    parameters["z_um"] = [float(z) for z in np.ravel(bound.arguments["z_um"])]
    high, wide = bound.arguments["microscope"].cell_pixels
    if (high - wide) % 2:  # such hexagons were half a field sample off; only their files are made anew
        parameters["centred"] = True
    parameters |= {"format": FORMAT, "x64": bool(jax.config.read("jax_enable_x64"))}
    text = json.dumps(parameters, sort_keys=True, separators=(",", ":"), default=lambda number: number.item())
    return hashlib.sha256(text.encode()).hexdigest()
