"""Simulated experiments, one sample under two microscopes: labelled z-stacks and functional movies for training and tests."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from lfjax.errors import require
from lfjax.illumination import PointScan, Timing, TwoPhoton
from lfjax.linop import LinearOperator
from lfjax.noise import Camera
from lfjax.optics import PSF, LightField, Scattering
from lfjax.simulate.calcium import activity
from lfjax.simulate.tissue import Tissue, cortex


class Stack(NamedTuple):
    """A sample moved along the optical axis, imaged by both microscopes.

    Attributes:
        frames: (n, row, col), photons counted by the light-field camera.
        volumes: (n, z, y, x), two-photon volumes in the same units, the labels of the frames.
    """

    frames: Float[Array, "n row col"]
    volumes: Float[Array, "n z y x"]


ArrayT = TypeVar("ArrayT", Array, np.ndarray)
BUCKET = 16  # movies with equal numbers of neurons, rounded up to a multiple of this, share one compiled program


class Movie(NamedTuple):
    """A functional recording and its ground truth.

    Attributes:
        frames: (t, row, col), photons counted by the camera.
        volumes: (k, z, y, x), the sample without noise, in the same units, at the frames `shown`.
        shown: numbers of these frames.
        footprints: (n, z, y, x), footprints of the neurons inside the volume.
        dff: (n, t), their true dF/F.
        centres_um: (n, 3), centres of their somata, measured from the corner of the volume.
        outside_um: (m, 3), centres of neurons outside the volume, whose somata it may cut.
    """

    frames: Float[Array, "t row col"]
    volumes: Float[Array, "k z y x"]
    shown: tuple[int, ...]
    footprints: Float[Array, "n z y x"]
    dff: Float[Array, "n t"]
    centres_um: Float[np.ndarray, "n 3"]
    outside_um: Float[np.ndarray, "m 3"]


class Experiment:
    """Scattering tissue larger than the volume of interest, so that light from above, below and beside enters the frames.

    Args:
        psf: PSF of the planes of interest and `beyond` more on either side, evenly spaced.
        field: lenslets (Y, X) of the light field.
        beyond: illuminated planes above and below the planes of interest.
        margin: lenslets of tissue on each side of the field.
        depth_um: thickness of tissue above the middle plane.
        mean_free_path_um: l; at `depth_um` = l the middle plane is one scattering length deep.
        anisotropy: g.
        photons: mean photons per pixel for a sample of brightness 1 with 15 % of the neurons labelled.
        label_photons: photons that the two-photon microscope detects per voxel as bright as a soma.
        camera: light-field camera; None: `Camera()`.
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
        self.gain = photons / float(np.mean(_images(self.operator(), _rest(sample)[None])))

    def operator(self, shift_um: float = 0.0) -> LinearOperator:
        """H S of all illuminated planes.

        Args:
            shift_um: displacement of the sample along z; the tissue above each plane is thicker by it.
        """
        z = np.asarray(self.psf.z_um)
        thickness = np.maximum(self.depth_um + z - z.mean() + shift_um, 0)
        options = {"mean_free_path_um": self.mean_free_path_um, "anisotropy": self.anisotropy}
        return self.optics @ Scattering(self.optics.in_shape, self.voxel_um[1], thickness, **options)

    def inside(self, volume: Float[ArrayT, "... z y x"]) -> Float[ArrayT, "... d h w"]:
        """The planes of interest within the field, from volumes of all illuminated tissue."""
        (a, b), m = self.optics.cell_voxels, self.margin
        rows, columns = volume.shape[-2:]
        planes = slice(self.beyond, volume.shape[-3] - self.beyond)
        return volume[..., planes, m * a : rows - m * a, m * b : columns - m * b]

    def stack(self, key: Array, steps: int, *, fields: int = 1, labelled: float = 0.15, brightness: float = 1.0) -> Stack:
        """One sample at rest, moved along the axis plane by plane, with a light field and a two-photon volume at each step.

        Args:
            key: random key.
            steps: planes by which the sample is moved; the stack has n = fields * steps frames.
            fields: fields of view in the same sample, far enough apart to share no neuron, each with a stack of its own.
            labelled: fraction of neurons with the indicator, see `cortex`.
            brightness: brightness of the sample.
        """
        planes, rows, columns = self.optics.in_shape
        shape = (planes + steps - 1, rows, columns)
        samples, labels, frames, volumes = [], [], [], []
        for one in jax.random.split(key, fields):
            draw, scan = jax.random.split(one)
            samples.append(brightness * np.asarray(_rest(cortex(draw, shape, self.voxel_um, labelled=labelled))))
            labels.append(np.asarray(self.inside(self.two_photon(scan, jnp.asarray(samples[-1])))))
        wanted = planes - 2 * self.beyond
        for i in range(steps):
            op = self.operator((i - (steps - 1) / 2) * self.voxel_um[0])
            images = _images(op, np.stack([sample[i : i + planes] for sample in samples]))
            expose = jax.random.split(jax.random.fold_in(key, i), fields)
            frames.append(np.asarray(_record(self.camera, expose, self.gain * np.asarray(images))))
            volumes.append(np.stack([label[i : i + wanted] for label in labels]))
        return Stack(jnp.asarray(np.concatenate(frames)), jnp.asarray(self.gain * np.concatenate(volumes)))

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
        """Another, active sample: its light fields at 100 frames per second, and the ground truth.

        Args:
            key: random key.
            frames: t.
            labelled: fraction of neurons with the indicator.
            brightness: brightness of the sample.
            frame_s: time per frame.
            rate_hz: firing rate of the median neuron, see `activity`.
            shown: frames whose volumes are returned.
        """
        draw, fire, expose = jax.random.split(key, 3)
        tissue = cortex(draw, self.optics.in_shape, self.voxel_um, labelled=labelled)
        n = len(tissue.footprints)
        dff = np.asarray(activity(fire, n, frames, frame_s, rate_hz=rate_hz).dff)
        parts = np.concatenate([tissue.footprints, np.asarray(tissue.neuropil)[None]])
        light = 1 + np.concatenate([dff, dff.mean(0, keepdims=True)])
        empty = -len(parts) % BUCKET
        images = _images(self.operator(), brightness * np.pad(parts, [(0, empty), (0, 0), (0, 0), (0, 0)]))
        clean = np.einsum("nt,nyx->tyx", light, np.asarray(images)[: len(parts)], optimize=True)
        seen = _record(self.camera, jax.random.split(expose, frames), self.gain * clean)
        within = self.inside(parts)
        scale = self.gain * brightness
        volumes = scale * np.einsum("nk,nzyx->kzyx", light[:, list(shown)], within, optimize=True)
        (a, b), m = self.optics.cell_voxels, self.margin
        corner = np.array([self.beyond, m * a, m * b]) * np.asarray(self.voxel_um)
        centres = np.asarray(tissue.centres_um) - corner
        size = np.array(within.shape[1:]) * np.asarray(self.voxel_um)
        inner = np.all((centres > 0) & (centres < size), axis=1)
        kept = np.flatnonzero(inner)
        return Movie(
            seen, jnp.asarray(volumes), shown, jnp.asarray(scale * within[kept]), jnp.asarray(dff[kept]),
            centres[kept], centres[~inner],
        )  # fmt: skip

    def record(self, key: Array, image: Float[Array, "row col"]) -> Float[Array, "row col"]:
        """Photons counted by the camera for an image by `operator`."""
        return self.camera.photons(self.camera.expose(key, self.gain * image))

    def two_photon(self, key: Array, sample: Float[Array, "z y x"]) -> Float[Array, "z y x"]:
        """The volume recorded by a raster scan, noisy, in the units of the sample."""
        planes, rows, columns = sample.shape
        scan = PointScan((planes, rows, columns), self.voxel_um, Timing(1e-6))
        return _scan(TwoPhoton(scan, 1, 1.0, photons=self.label_photons), key, sample)


@eqx.filter_jit
def _images(op: LinearOperator, volumes: Float[ArrayLike, "n z y x"]) -> Float[Array, "n row col"]:
    return jax.lax.map(op.matvec, jnp.asarray(volumes))


@eqx.filter_jit
def _record(camera: Camera, keys: Key[Array, " n"], photons: Float[ArrayLike, "n row col"]) -> Float[Array, "n row col"]:
    return jax.lax.map(lambda a: camera.photons(camera.expose(*a)), (keys, jnp.asarray(photons)))


@eqx.filter_jit
def _rest(tissue: Tissue) -> Float[Array, "z y x"]:
    return tissue.rest


@eqx.filter_jit
def _scan(microscope: TwoPhoton, key: Array, sample: Float[Array, "z y x"]) -> Float[Array, "z y x"]:
    return microscope.expose(key, sample[None])[0].astype(sample.dtype) / microscope.photons
