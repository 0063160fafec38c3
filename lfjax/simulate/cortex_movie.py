"""A raw movie of active cortex behind tilted lenslets, with its calibration frames, its structural volume and the truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key
from numpy.typing import ArrayLike

from lfjax.errors import require
from lfjax.illumination import PointScan, Timing, TwoPhoton
from lfjax.noise import Camera
from lfjax.optics import PSF, LightField, Microscope, compute_psf
from lfjax.optics.camera.rectify import white_tile
from lfjax.optics.microscope import require_square
from lfjax.simulate.calcium import JGCAMP8F, Activity, Indicator, activity, spike_times
from lfjax.simulate.frames import Sensor
from lfjax.simulate.scene import Scene, brain_motion
from lfjax.simulate.tissue import SOMA_UM, Tissue, cortex

BLOCK = 32  # frames whose light one call of the program gives
MARGIN = 2  # lenslets of tissue around the field, whose light enters the frames


class Truth(NamedTuple):
    """What is in a simulated movie.

    Attributes:
        centres_um: (n, 3), centres (z, y, x) of the somata, from the corner of the volume.
        dff: (n, t), dF/F averaged over each frame.
        spikes: n arrays of times in seconds.
        footprints: (n, z, y, x), brightness of each neuron at rest.
        inside: (n,), whether all light of the soma can enter the frame: it lies wholly inside the volume, and at least the blur
            of the farthest plane away from the sides.
        neuropil_dff: (t,), dF/F of the neuropil.
        bleaching: (t,), fluorescence relative to the first frame.
        shifts_um: (t, 3), displacement (z, y, x) of the tissue.
    """

    centres_um: Float[np.ndarray, "n 3"]
    dff: Float[np.ndarray, "n t"]
    spikes: list[Float[np.ndarray, " _"]]
    footprints: Float[np.ndarray, "n z y x"]
    inside: np.ndarray
    neuropil_dff: Float[np.ndarray, " t"]
    bleaching: Float[np.ndarray, " t"]
    shifts_um: Float[np.ndarray, "t 3"]


class RawMovie(NamedTuple):
    """A simulated recording of a light-field microscope.

    Attributes:
        frames: (t, row, col) in digital numbers, simulated as they are read.
        white: raw frame under uniform light.
        dark: raw frame without light.
        structure: (z, y, x), structural volume (tdTomato) of the same neurons by a two-photon microscope, 1 in a typical soma.
        truth: neurons, activity, motion.
        microscope: its parameters, with the camera pixel that gives the pitch.
        frame_s: seconds per frame.
        voxel_um: voxel size (z, y, x) of structure and footprints.
        psf: the PSF that formed the frames.
    """

    frames: LivingFrames
    white: Integer[np.ndarray, "row col"]
    dark: Integer[np.ndarray, "row col"]
    structure: Float[np.ndarray, "z y x"]
    truth: Truth
    microscope: Microscope
    frame_s: float
    voxel_um: tuple[float, float, float]
    psf: PSF


class LivingFrames:
    """Raw frames (t, row, col) that are simulated as they are read; a frame is the same however it is read.

    Without motion the frames are linear in the light sources, so that each source is imaged once:

        frame_t = camera(sum_i c_i(t) B_i),   B_i = sensor H s_i,   c_i(t) = bleaching(t) (1 + dF/F_i(t))

    With motion every frame is the image of its own volume, which is slower. Every frame and pixel has noise of its own.

    Args:
        scene: the tissue as it changes.
        optics: H, from its volume to the rectified light field.
        sensor: lenslets and camera pixels.
        camera: camera that adds noise.
        photons: photons in the brightest pixel of the light field at rest, before vignetting.
        key: random key of the noise.
    """

    def __init__(self, scene: Scene, optics: LightField, sensor: Sensor, camera: Camera, photons: float, key: Array) -> None:
        still = not bool(np.any(np.asarray(scene.shifts_um)))
        tissue = scene.tissue
        brightest = float(_brightest(optics, tissue))
        require(brightest > 0, "sample", "dark", "a sample that gives light")
        self._gain, self._camera = photons / brightest, camera
        self._seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
        self.lattice = sensor.lattice
        self.shape: tuple[int, int, int] = (scene.frames, *sensor.shape)
        self.dtype = np.dtype(np.uint16 if camera.bits <= 16 else np.uint32)
        self._scene, self._optics, self._sensor = scene, optics, sensor
        self._images = _source_images(optics, sensor, tissue) if still else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> Integer[np.ndarray, "*frames row col"]:
        """Frames by number or slice."""
        numbers = np.arange(len(self))[which]
        if np.ndim(numbers) == 0:
            return self._exposed(int(numbers), np.asarray(self.light([int(numbers)]))[0])
        found = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for start in range(0, len(numbers), BLOCK):
            some = numbers[start : start + BLOCK]
            padded = np.pad(some, (0, BLOCK - len(some)), "edge")  # one shape, one program
            for row, number, light in zip(found[start:], some.tolist(), np.asarray(self.light(padded)), strict=False):
                row[:] = self._exposed(number, light)
        return found

    def light(self, numbers: ArrayLike) -> Float[Array, "t row col"]:
        """Expected photons of frames, without noise."""
        t = jnp.asarray(numbers, int)
        if self._images is None:
            return self._gain * _moving(self._scene, self._optics, self._sensor, t)
        return self._gain * _still(self._scene, self._images, t)

    def _exposed(self, number: int, photons: Float[np.ndarray, "row col"]) -> Integer[np.ndarray, "row col"]:
        """`Camera.expose` by NumPy, whose Poisson numbers cost a sixth of JAX's on a CPU and are the same on every device."""
        camera, rng = self._camera, np.random.default_rng([*self._seed, number])
        efficiency, read, gain, offset = (
            float(np.asarray(value))
            for value in (camera.quantum_efficiency, camera.read_noise_e, camera.gain_e_per_dn, camera.offset_dn)
        )
        electrons = rng.poisson(np.maximum(efficiency * photons, 0)).astype(np.float32)
        electrons += read * rng.standard_normal(photons.shape, np.float32)
        return np.clip(np.round(electrons / gain + offset), 0, camera.maximum_dn).astype(self.dtype)


def raw_movie(
    seed: int,
    microscope: Microscope,
    *,
    sample: str = "cortex",
    frames: int = 300,
    lenslets: int = 25,
    z_um: Sequence[float],
    voxels_per_lenslet: int = 2,
    frame_s: float = 0.01,
    count: int = 20,
    pitch_px: float | None = None,
    rotation_rad: float = 0.004,
    photons: float = 200.0,
    white_photons: float = 20000.0,
    camera: Camera | None = None,
    indicator: Indicator = JGCAMP8F,
    firing_hz: float = 2.0,
    static: bool = False,
    bleach_s: float = 60.0,
    motion_um: float = 0.0,
    label_photons: float = 100.0,
    psf: PSF | Callable[[], PSF] | None = None,
) -> RawMovie:
    """Simulate a raw movie of cortical neurons: their frames, white and dark frame, structural volume, and the truth.

    The neurons lie apart from each other inside the field, far enough from its sides that all their light is recorded; their
    dendrites and the neuropil fill the field and two lenslets of tissue around it. The neuropil is active as the mean of the
    neurons is.

    Args:
        seed: fixes sample and noise.
        microscope: parameters of the microscope, whose lenslets must be square.
        sample: "cortex", the only living sample.
        frames: t.
        lenslets: lenslets per side of the field, 6 or more.
        z_um: depths of the volume's planes, 2 or more, evenly spaced.
        voxels_per_lenslet: s.
        frame_s: seconds per frame.
        count: number of neurons.
        pitch_px: raw pixels per lenslet; None: the pitch given by the microscope's camera pixel, or 0.96 N without one.
        rotation_rad: rotation of the lenslets, see `optics.Lattice`.
        photons: photons in the brightest pixel of a frame at rest, before vignetting.
        white_photons: the same of the white frame.
        camera: camera that adds noise; None: `Camera()`, an ordinary sCMOS camera.
        indicator: calcium indicator, one of `INDICATORS` or your own.
        firing_hz: firing rate of the median neuron, see `activity`.
        static: whether nothing fires: all that changes is the noise, the bleaching, and the motion if there is any.
        bleach_s: time in which the fluorescence fades to 1/e (60 s: assumed); infinity: no bleaching.
        motion_um: amplitude of the motion with the breath, see `brain_motion`, which moves half as far with the heart; 0: none.
        label_photons: photons that the two-photon microscope detects per voxel of a typical soma.
        psf: PSF of the microscope, or a function that computes it once the arguments are checked; None: it is computed.

    Raises:
        ParameterError: a number out of range, lenslets that are not square or not of one focal length, or neurons that
            do not fit into the field.
    """
    require(sample == "cortex", "sample", sample, "'cortex', the only sample of a movie")
    require_square(microscope)
    for name, whole, least in (("frames", frames, 1), ("lenslets", lenslets, 6), ("count", count, 1), ("seed", seed, 0)):
        require(isinstance(whole, (int, np.integer)) and whole >= least, name, whole, f"a whole number, {least} or more")
    positive = {"frame_s": frame_s, "photons": photons, "white_photons": white_photons, "label_photons": label_photons}
    for name, value in (positive | {"firing_hz": firing_hz}).items():
        require(0 < value < math.inf, name, value, "a positive number")
    require(bleach_s > 0, "bleach_s", bleach_s, "a positive number, or infinity")
    require(0 <= motion_um < math.inf, "motion_um", motion_um, "zero or more")
    steps = np.diff(np.asarray(z_um, float))
    even = len(steps) > 0 and bool(np.all(steps > 0)) and bool(np.ptp(steps) <= 1e-6 * np.max(steps))
    require(even, "z_um", tuple(z_um), "two or more depths that rise in equal steps")
    camera = Camera() if camera is None else camera
    pitch = pitch_px or microscope.raw_pitch_px or 0.96 * microscope.pixels_per_lenslet
    sensor = Sensor.of((lenslets, lenslets), microscope.pixels_per_lenslet, pitch, rotation_rad)

    draw, fire, move, label, expose, white_key, dark_key = jax.random.split(jax.random.key(seed), 7)
    cell_um, s = float(microscope.object_pitch_um), voxels_per_lenslet
    require(isinstance(s, int) and s >= 1, "voxels_per_lenslet", s, "a whole number, 1 or more")
    voxel_um = (float(steps.mean()), cell_um / s, cell_um / s)
    side = (lenslets + 2 * MARGIN) * s
    blur_um = cell_um * math.ceil(max(float(microscope.blur_radius_lenslets(z)) for z in z_um))
    border_um = MARGIN * cell_um + blur_um
    tissue = cortex(draw, (len(z_um), side, side), voxel_um, count=count, border_um=border_um, apart_um=sum(SOMA_UM) / 2)

    fired = activity(fire, count, frames, frame_s, indicator=indicator, rate_hz=firing_hz)
    if static:
        fired = Activity(0 * fired.spikes, 0 * fired.dff, fired.step_s, frame_s)
    half = 0.5 * motion_um
    shifts = brain_motion(move, frames, frame_s, heart_um=half, breath_um=motion_um, drift_um=half) if motion_um else None
    scene = Scene(tissue, fired.dff, frame_s, bleach_s=bleach_s, shifts_um=shifts)
    made = psf() if callable(psf) else psf
    made = compute_psf(microscope, z_um, s) if made is None else made
    optics = LightField(made, (lenslets, lenslets), margin=MARGIN)
    living = LivingFrames(scene, optics, sensor, camera, photons, expose)
    white, dark = sensor.calibration_frames(white_key, dark_key, white_tile(made), white_photons, camera)
    rows = slice(MARGIN * s, side - MARGIN * s)
    structure = np.asarray(_two_photon(tissue, label_photons, label))[:, rows, rows]
    scope = microscope
    if microscope.camera_pixel_um is None or pitch_px:
        scope = _with_pitch(microscope, pitch)
    return RawMovie(
        living, np.asarray(white), np.asarray(dark), structure, _truth(scene, fired, rows, blur_um), scope, frame_s, voxel_um,
        made,
    )  # fmt: skip


def _with_pitch(microscope: Microscope, pitch_px: float) -> Microscope:
    """The microscope with the camera pixel that gives this pitch."""
    return dataclasses.replace(microscope, camera_pixel_um=float(microscope.lenslet_pitch_um) / pitch_px)


def _truth(scene: Scene, fired: Activity, rows: slice, blur_um: float) -> Truth:
    tissue = scene.tissue
    voxel = np.asarray(tissue.voxel_um)
    footprints = np.asarray(tissue.transmission * tissue.footprints)[..., rows, rows]
    centres = np.asarray(tissue.centres_um) - rows.start * voxel * np.array([0, 1, 1])
    size = np.array(footprints.shape[1:]) * voxel
    room = np.asarray(tissue.soma_um)[:, None] / 2 + blur_um * np.array([0, 1, 1])
    inside = np.all((centres >= room) & (centres <= size - room), axis=1)
    t = np.arange(scene.frames) * scene.frame_s
    return Truth(
        centres, np.asarray(fired.dff), spike_times(fired), footprints, inside, np.asarray(scene.neuropil_dff),
        np.exp(-t / scene.bleach_s), np.asarray(scene.shifts_um),
    )  # fmt: skip


@eqx.filter_jit
def _brightest(optics: LightField, tissue: Tissue) -> Float[Array, ""]:
    return jnp.max(optics(tissue.rest))


@eqx.filter_jit
def _source_images(optics: LightField, sensor: Sensor, tissue: Tissue) -> Float[Array, "n row col"]:
    """Raw images of all sources at rest: neurons, then neuropil."""
    sources = tissue.transmission * jnp.concatenate([tissue.footprints, tissue.neuropil[None]])
    return jax.lax.map(lambda source: sensor(optics(source)), sources)


@eqx.filter_jit
def _still(scene: Scene, images: Float[Array, "n row col"], t: Int[Array, " t"]) -> Float[Array, "t row col"]:
    courses = 1 + jnp.concatenate([scene.dff, scene.neuropil_dff[None]])[:, t]
    faded = courses * jnp.exp(-t * scene.frame_s / scene.bleach_s)
    return jnp.maximum(jnp.einsum("nt,nyx->tyx", faded, images, precision=jax.lax.Precision.HIGHEST), 0)


@eqx.filter_jit
def _moving(scene: Scene, optics: LightField, sensor: Sensor, t: Int[Array, " t"]) -> Float[Array, "t row col"]:
    return jnp.maximum(jax.lax.map(lambda one: sensor(optics(scene.volume(one))), t), 0)


@eqx.filter_jit
def _two_photon(tissue: Tissue, photons: float, key: Key[Array, ""]) -> Float[Array, "z y x"]:
    """Structural volume of a raster scan, noisy, 1 in a typical soma."""
    z, y, x = tissue.structure.shape
    scope = TwoPhoton(PointScan((z, y, x), tissue.voxel_um, Timing(1e-6)), 1, 1.0, photons=photons)
    return scope.expose(key, tissue.structure[None])[0].astype(tissue.structure.dtype) / photons
