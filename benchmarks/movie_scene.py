"""A simulated functional recording with its ground truth: scattering tissue, neuropil, bleaching, motion, photon noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np

from lfjax import io, simulate
from lfjax.optics import PSF, LightField, Microscope, Scattering, cached_psf
from lfjax.progress import track

FRAME_S = 0.01


class Size(NamedTuple):
    """The numbers that set the size of the experiment."""

    pixels: int = 9
    voxels: int = 3
    depths: int = 11
    step_um: float = 3.0
    beyond: int = 2
    lenslets: int = 57
    margin: int = 4
    border: int = 3
    labelled: float = 0.25
    frames: int = 3000
    shown: int = 400  # frames of which volumes are computed
    rate_hz: float = 1.0
    photons: float = 60.0
    aperture: float = 1.0  # numerical
    tolerance: float = 0.05  # of the PSF
    iterations: int = 20  # of solvers
    moments: int = 96  # that are searched for neurons without structure
    folder: str = "movies"


class Recording(NamedTuple):
    """Frames on disk, and their ground truth.

    Attributes:
        path: HDF5, `frames` (t, y, x): rectified light fields, in photons.
        op: H S for the planes of interest, without the tissue above, below and beside them.
        structure: (z, y, x), the tdTomato volume of a two-photon microscope.
        voxel_um: voxel size (z, y, x).
        centres_um: (n, 3), centres of the somata inside the border.
        dff: (n, t), their true dF/F.
        spikes: their true spike times.
        masks: (n, z, y, x), voxels above half of the maximum of each soma.
    """

    path: Path
    op: Any
    structure: np.ndarray
    voxel_um: tuple[float, float, float]
    centres_um: np.ndarray
    dff: np.ndarray
    spikes: list[np.ndarray]
    masks: np.ndarray


def record(size: Size, folder: Path) -> Recording:
    """Simulate a recording; frames that exist already are reused."""
    scope = Microscope(25, size.aperture, 1.33, 0.515, 125, 1250, size.pixels)
    half = size.depths // 2 + size.beyond
    z_um = tuple(size.step_um * i for i in range(-half, half + 1))
    psf = cached_psf(scope, z_um, size.voxels, tolerance=size.tolerance)
    field = (size.lenslets, size.lenslets)
    made = simulate.Experiment(psf, field, beyond=size.beyond, margin=size.margin, photons=size.photons)
    key = jax.random.key(8)
    tissue = simulate.cortex(jax.random.fold_in(key, 0), made.optics.in_shape, made.voxel_um, labelled=size.labelled)
    n = len(tissue.footprints)
    active = simulate.activity(jax.random.fold_in(key, 1), n, size.frames, FRAME_S, rate_hz=size.rate_hz)
    motion = simulate.brain_motion(
        jax.random.fold_in(key, 2), size.frames, FRAME_S, heart_um=0.25, breath_um=0.5, drift_um=0.25
    )
    scene = simulate.Scene(tissue, active.dff, FRAME_S, shifts_um=motion, bleach_s=60.0)
    path = folder / f"{size.folder}.h5"
    if not path.exists():
        _expose(made, scene, size, jax.random.fold_in(key, 3), path)
    inside = slice(size.beyond, len(z_um) - size.beyond)
    inner = PSF(psf.values[inside], scope, z_um[inside], psf.oversampling, psf.convergence_error)
    optics = eqx.filter_jit(LightField)(inner, field)
    thickness = made.depth_um + np.asarray(inner.z_um)
    op = optics @ Scattering(
        optics.in_shape, made.voxel_um[1], thickness, mean_free_path_um=made.mean_free_path_um, anisotropy=made.anisotropy
    )
    structure = made.two_photon(jax.random.fold_in(key, 4), made.inside(tissue.structure))
    corner = np.array([size.beyond, size.margin * size.voxels, size.margin * size.voxels]) * np.asarray(made.voxel_um)
    centres = np.asarray(tissue.centres_um) - corner
    extent = np.array(structure.shape) * np.asarray(made.voxel_um)
    edge = np.array([0, 1, 1]) * size.border * size.voxels * np.asarray(made.voxel_um)
    kept = np.flatnonzero(np.all((centres > edge) & (centres < extent - edge), axis=1))
    prints = np.asarray(made.inside(tissue.footprints))[kept]
    masks = prints > 0.5 * prints.max((1, 2, 3), keepdims=True)
    spikes = np.asarray(active.spikes)[kept]
    times = [(np.repeat(np.arange(s.size), s.astype(int)) + 0.5) * active.step_s for s in spikes]
    return Recording(path, op, np.asarray(structure), made.voxel_um, centres[kept], np.asarray(active.dff)[kept], times, masks)


def _expose(made: simulate.Experiment, scene: simulate.Scene, size: Size, key: Any, path: Path) -> None:
    op = made.operator()

    @jax.jit
    def frames(scene: simulate.Scene, numbers: Any) -> Any:
        def one(t: Any) -> Any:
            return made.record(jax.random.fold_in(key, t), op(scene.volume(t)))

        return jax.lax.map(one, numbers)

    with io.writing(path) as temporary, h5py.File(temporary, "w") as file:
        shape = (size.frames, *op.out_shape)
        dataset = file.create_dataset("frames", shape, np.float16, chunks=(1, *shape[1:]))
        block = 50
        for first in track(range(0, size.frames, block), "recording"):
            numbers = jnp.arange(first, min(first + block, size.frames))
            dataset[first : first + len(numbers)] = np.asarray(frames(scene, numbers), np.float16)
