"""A light-field and a two-photon microscope at one sample: labelled z-stacks and functional movies to train and test on."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.illumination import PointScan, Timing, TwoPhoton
from lfjax.linop import LinearOperator
from lfjax.noise import Camera
from lfjax.optics import PSF, LightField, Scattering
from lfjax.simulate.calcium import activity
from lfjax.simulate.tissue import Tissue, cortex


class Stack(NamedTuple):
    """A sample moved along the axis, seen by both microscopes.

    Attributes:
        frames: (n, y, x), photons as the camera counts them.
        volumes: (n, z, y, x), two-photon volumes in the same units: what the light field should come from.
    """

    frames: Float[Array, "n y x"]
    volumes: Float[Array, "n z y x"]


class Movie(NamedTuple):
    """A functional recording and the truth behind it.

    Attributes:
        frames: (t, y, x), photons as the camera counts them.
        volumes: (t, z, y, x), the sample without noise, in the same units; only those frames that were asked for.
        shown: numbers of these frames.
        footprints: (n, z, y, x), of the neurons inside of the volume.
        dff: (n, t), their true dF/F.
        centres_um: (n, 3), of their somata, from the corner of the volume.
        outside_um: (m, 3), of neurons whose centre lies outside of the volume; it may cut some of their somata.
    """

    frames: Float[Array, "t y x"]
    volumes: Float[Array, "k z y x"]
    shown: tuple[int, ...]
    footprints: Float[Array, "n z y x"]
    dff: Float[Array, "n t"]
    centres_um: Float[np.ndarray, "n 3"]
    outside_um: Float[np.ndarray, "m 3"]


class Experiment:
    """Scattering tissue larger than the volume of interest, so that light from above, below and beside comes in too.

    Args:
        psf: of the planes of interest and `beyond` more on either side, evenly spaced.
        field: lenslets (Y, X) of the light field.
        beyond: planes above and below that are lit but not wanted.
        margin: lenslets of tissue on each side of the field.
        depth_um: tissue above the middle plane.
        mean_free_path_um: l; at `depth_um` = l the middle plane is one scattering length deep.
        anisotropy: g.
        photons: a pixel, on average, of a sample of brightness 1 at `labelled` = 0.15.
        label_photons: of the two-photon microscope, a voxel as bright as a soma.
        camera: of the light-field microscope.
    """

    def __init__(
        self,
        psf: PSF,
        field: tuple[int, int],
        *,
        beyond: int = 0,
        margin: int = 4,
        depth_um: float = 60.0,
        mean_free_path_um: float = 60.0,
        anisotropy: float = 0.93,
        photons: float = 60.0,
        label_photons: float = 100.0,
        camera: Camera | None = None,
    ) -> None:
        require(2 * beyond < len(psf.z_um), "beyond", beyond, f"fewer than half of the {len(psf.z_um)} planes")
        self.psf, self.field, self.beyond, self.margin = psf, field, beyond, margin
        self.optics = LightField(psf, field, margin=margin)
        self.depth_um, self.mean_free_path_um, self.anisotropy = depth_um, mean_free_path_um, anisotropy
        self.photons, self.label_photons, self.camera = photons, label_photons, camera or Camera()
        self.voxel_um = psf.voxel_um
        sample = cortex(jax.random.key(0), self.optics.in_shape, self.voxel_um, labelled=0.15)
        self.gain = photons / float(jnp.mean(self.operator()(sample.rest)))

    def operator(self, shift_um: float = 0.0) -> LinearOperator:
        """H S of all planes, with the sample moved away from the objective: less tissue above by `shift_um`."""
        z = np.asarray(self.psf.z_um)
        thickness = np.maximum(self.depth_um + z - z.mean() + shift_um, 0)
        options = {"mean_free_path_um": self.mean_free_path_um, "anisotropy": self.anisotropy}
        return self.optics @ Scattering(self.optics.in_shape, self.voxel_um[1], thickness, **options)

    def inside(self, volume: Array) -> Array:
        """The planes of interest and the field, of arrays (..., z, y, x) of all that is lit."""
        (a, b), m = self.optics.cell_voxels, self.margin
        rows, columns = volume.shape[-2:]
        planes = slice(self.beyond, volume.shape[-3] - self.beyond)
        return volume[..., planes, m * a : rows - m * a, m * b : columns - m * b]

    def stack(self, key: Array, steps: int, *, fields: int = 1, labelled: float = 0.15, brightness: float = 1.0) -> Stack:
        """One sample at rest, moved along the axis a plane at a time; light field and two-photon volume at each step.

        Args:
            key: random key.
            steps: planes by which the sample is moved, n = fields * steps.
            fields: of view in the same sample, far enough apart to share no neuron, each with its own stack.
            labelled: share of neurons with indicator, `cortex`.
            brightness: of the sample.
        """
        planes, rows, columns = self.optics.in_shape
        shape = (planes + steps - 1, rows, columns)
        samples, labels, frames, volumes = [], [], [], []
        for one in jax.random.split(key, fields):
            draw, scan = jax.random.split(one)
            samples.append(brightness * cortex(draw, shape, self.voxel_um, labelled=labelled).rest)
            labels.append(self.inside(self.two_photon(scan, samples[-1])))
        wanted = planes - 2 * self.beyond
        for i in range(steps):
            op = self.operator((i - (steps - 1) / 2) * self.voxel_um[0])
            images = jax.lax.map(op.matvec, jnp.stack([sample[i : i + planes] for sample in samples]))
            expose = jax.random.split(jax.random.fold_in(key, i), fields)
            frames.append(jax.lax.map(lambda a: self.record(*a), (expose, images)))
            volumes.append(jnp.stack([label[i : i + wanted] for label in labels]))
        return Stack(jnp.concatenate(frames), self.gain * jnp.concatenate(volumes))

    def movie(
        self,
        key: Array,
        frames: int,
        *,
        labelled: float = 0.15,
        brightness: float = 1.0,
        frame_s: float = 0.01,
        rate_hz: float = 2.0,
        shown: tuple[int, ...] = (),
    ) -> Movie:
        """Another sample, firing: light fields at 100 Hz, and the truth.

        Args:
            key: random key.
            frames: t.
            labelled: share of neurons with indicator.
            brightness: of the sample.
            frame_s: time of a frame.
            rate_hz: of the median neuron, see `activity`.
            shown: frames whose volumes are wanted.
        """
        draw, fire, expose = jax.random.split(key, 3)
        tissue: Tissue = cortex(draw, self.optics.in_shape, self.voxel_um, labelled=labelled)
        n = len(tissue.footprints)
        dff = activity(fire, n, frames, frame_s, rate_hz=rate_hz).dff
        op = self.operator()
        parts = jnp.concatenate([tissue.footprints, tissue.neuropil[None]])
        images = jax.lax.map(op.matvec, brightness * parts)
        light = 1 + jnp.concatenate([dff, dff.mean(0, keepdims=True)])
        clean = jnp.einsum("nt,nyx->tyx", light, images)
        seen = jax.lax.map(lambda a: self.record(*a), (jax.random.split(expose, frames), clean))
        within = self.inside(parts)
        scale = self.gain * brightness
        volumes = [scale * jnp.einsum("n,nzyx->zyx", light[:, t], within) for t in shown]
        (a, b), m = self.optics.cell_voxels, self.margin
        corner = np.array([self.beyond, m * a, m * b]) * np.asarray(self.voxel_um)
        centres = np.asarray(tissue.centres_um) - corner
        size = np.array(within.shape[1:]) * np.asarray(self.voxel_um)
        inner = np.all((centres > 0) & (centres < size), axis=1)
        kept = np.flatnonzero(inner)
        return Movie(
            seen, jnp.stack(volumes) if volumes else jnp.zeros((0, *within.shape[1:])), shown,
            scale * within[kept], dff[kept], centres[kept], centres[~inner],
        )  # fmt: skip

    def record(self, key: Array, image: Float[Array, "y x"]) -> Float[Array, "y x"]:
        """Photons, as the camera counts them."""
        return self.camera.photons(self.camera.expose(key, self.gain * image))

    def two_photon(self, key: Array, sample: Float[Array, "z y x"]) -> Float[Array, "z y x"]:
        """The volume as a raster scan sees it, noisy, in the units of the sample."""
        z, y, x = sample.shape
        microscope = TwoPhoton(PointScan((z, y, x), self.voxel_um, Timing(1e-6)), 1, 1.0, photons=self.label_photons)
        return microscope.expose(key, sample[None])[0].astype(sample.dtype) / self.label_photons
