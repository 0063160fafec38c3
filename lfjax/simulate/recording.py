"""A whole simulated recording: sample, light field, raw frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.noise import Camera
from lfjax.optics import PSF, LightField, Microscope, compute_psf
from lfjax.optics.camera.rectify import white_tile
from lfjax.optics.microscope import require_square
from lfjax.simulate.frames import RawFrames, check_frame, raw_frames
from lfjax.simulate.samples import beads, check_volume, neurons
from lfjax.simulate.tissue import cortex

SAMPLES = ("neurons", "cortex", "beads")
"""Names of the samples that `raw_recording` simulates."""


class Recording(NamedTuple):
    """A simulated sample and its raw frames.

    Attributes:
        volume: the truth, (z, y, x).
        voxel_um: voxel size (z, y, x).
        frames: raw light field, white and dark frames, and the true lattice.
        psf: the PSF that formed the light field.
    """

    volume: Float[Array, "z y x"]
    voxel_um: tuple[float, float, float]
    frames: RawFrames
    psf: PSF


def raw_recording(
    seed: int,
    microscope: Microscope,
    *,
    sample: str = "neurons",
    lenslets: int = 25,
    z_um: Sequence[float],
    voxels_per_lenslet: int = 4,
    pitch_px: float | None = None,
    rotation_rad: float = 0.004,
    photons: float = 2000.0,
    count: int = 12,
    camera: Camera | None = None,
    psf: PSF | Callable[[], PSF] | None = None,
) -> Recording:
    """Simulate a raw frame of a sample, with its white and dark frames.

    Args:
        seed: fixes sample and noise.
        microscope: parameters of the microscope, whose lenslets must be square.
        sample: "neurons", with somata as wide as three lenslets, so that any microscope resolves them; "cortex", neurons of
            natural size with neuropil; or "beads".
        lenslets: lenslets per side of the light field, 6 or more.
        z_um: depths of the volume's planes.
        voxels_per_lenslet: s.
        pitch_px: raw pixels per lenslet; None: the pitch given by the microscope's camera pixel, or 0.96 N without one.
        rotation_rad: rotation of the lenslets, see `optics.Lattice`.
        photons: expected photons in the brightest pixel.
        count: number of neurons or beads.
        camera: camera that adds noise; None: `Camera()`, an ordinary sCMOS camera.
        psf: PSF of the microscope, or a function that computes it once the arguments are checked; None: it is computed.

    Raises:
        ParameterError: an unknown sample, lenslets that are not square or not of one focal length, too few of them, or a number
            out of range.
    """
    require(sample in SAMPLES, "sample", sample, "one of " + ", ".join(SAMPLES))
    require_square(microscope)
    require(lenslets >= 6, "lenslets", lenslets, "6 or more, so that the lattice can be found")
    require(0 < photons < math.inf, "photons", photons, "a positive number")
    pitch = pitch_px or microscope.raw_pitch_px or 0.96 * microscope.pixels_per_lenslet
    check_frame((lenslets, lenslets), pitch, rotation_rad)
    side = lenslets * voxels_per_lenslet
    check_volume((len(z_um), side, side), (1.0, 1.0, 1.0), count)
    psf = psf() if callable(psf) else psf
    psf = compute_psf(microscope, z_um, voxels_per_lenslet) if psf is None else psf
    op = LightField(psf, (lenslets, lenslets))
    sample_key, frame_key = jax.random.split(jax.random.key(seed))
    if sample == "cortex":
        volume = cortex(sample_key, op.in_shape, psf.voxel_um, count=count).rest
    elif sample == "neurons":
        volume = neurons(sample_key, op.in_shape, psf.voxel_um, count=count, soma_um=3 * float(microscope.object_pitch_um))
    else:
        volume = beads(sample_key, op.in_shape, psf.voxel_um, count=count, diameter_um=2 * psf.voxel_um[1])
    frames = raw_frames(
        frame_key, op(volume), white_tile(psf), pitch_px=pitch, rotation_rad=rotation_rad, photons=photons,
        camera=camera or Camera(),
    )  # fmt: skip
    return Recording(volume, psf.voxel_um, frames, psf)
