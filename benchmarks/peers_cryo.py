"""The cryo-EM packages that `benchmarks.tomography` compares with, each called as its documentation does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lfjax.tomography import Particles


def cryojax_projector(volume: NDArray[np.float32], rotations: NDArray[np.float32], interp: str) -> Callable[[], Any]:
    """Fourier slices of a spectrum padded by 2; padding and transform of the volume are part of the timing."""
    import cryojax.simulator as cxs
    from cryojax.rotations import SO3

    n = volume.shape[0]

    def one(grid: Any, turn: Any) -> Any:
        pose = cxs.QuaternionPose.from_rotation(SO3.from_matrix(turn))
        config = cxs.BasicImageConfig((n, n), 1.0, pad_scale=2.0)
        return cxs.ProjectionImageModel(grid, pose, config).simulate()

    @jax.jit
    def project(volume: Any, rotations: Any) -> Any:
        grid = cxs.FourierVoxelGridVolume.from_real_voxel_grid(volume, pad_scale=2.0, interp=interp)
        return jax.lax.map(lambda turn: one(grid, turn), rotations, batch_size=16)

    args = jnp.asarray(volume), jnp.asarray(rotations)
    return lambda: jax.block_until_ready(project(*args))


def aspire_projector(volume: NDArray[np.float32], rotations: NDArray[np.float32]) -> Callable[[], Any]:
    """ASPIRE's projection by FINUFFT; it takes R^T, and gives 1 / n of the sum."""
    from aspire.utils import Rotation
    from aspire.volume import Volume

    n, turns = volume.shape[0], Rotation(np.ascontiguousarray(np.swapaxes(rotations, 1, 2)))
    field = Volume(volume)
    return lambda: n * field.project(turns).asnumpy()


def aspire_back_projector(images: NDArray[np.float32], rotations: NDArray[np.float32]) -> Callable[[], Any]:
    """ASPIRE's adjoint."""
    from aspire.image import Image

    stack, turns = Image(images), np.ascontiguousarray(np.swapaxes(rotations, 1, 2))
    return lambda: stack.backproject(turns).asnumpy()


def aspire_mean(images: NDArray[np.float32], particles: Particles, pixel_angstrom: float) -> NDArray[np.float32]:
    """ASPIRE's least-squares estimator of a volume at known poses, with its CTFs (no astigmatism, one per defocus group)."""
    from aspire.image import Image
    from aspire.operators import CTFFilter
    from aspire.reconstruction import MeanEstimator
    from aspire.source import ArrayImageSource

    logging.disable(logging.INFO)
    source = ArrayImageSource(Image(images, pixel_size=pixel_angstrom))
    source.rotations = np.swapaxes(np.asarray(particles.rotations), 1, 2)
    source.offsets = -np.asarray(particles.shifts)  # checked on clean images: then it is exact
    source.amplitudes = np.ones(len(particles), np.float32)
    optics = particles.ctf
    assert optics is not None
    groups, index = np.unique(np.asarray(optics.defocus_u_angstrom), return_inverse=True)
    rest = [float(v[0]) for v in (optics.voltage_kv, optics.cs_mm, optics.amplitude_contrast)]
    source.unique_filters = [CTFFilter(rest[0], u, u, 0.0, rest[1], rest[2]) for u in map(float, groups)]
    source.filter_indices = index
    return MeanEstimator(source, checkpoint_iterations=None).estimate().asnumpy()[0]
