"""A simulated functional recording with its ground truth: scattering tissue, neuropil, bleaching, motion, photon noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np

from lfjax import io, movies, pipeline, simulate
from lfjax.optics import PSF, LightField, Microscope, cached_psf, load_microscope
from lfjax.optics.camera.rectify import white_tile
from lfjax.progress import track
from lfjax.simulate.frames import Sensor

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
    """A folder of raw files, as a user has them, and the ground truth.

    Attributes:
        folder: raw.h5 (camera frames of tilted lenslets, uint16), white.tif, dark.tif, scope.toml, structure.ome.tif.
        arguments: how the commands are told about it: microscope, calibration frames, grid, tissue.
        grid: depths and voxels.
        op: H S for the planes of interest, without the tissue above, below and beside them.
        structure: (z, y, x), the tdTomato volume of a two-photon microscope.
        voxel_um: voxel size (z, y, x).
        centres_um: (n, 3), centres of the somata inside the border.
        dff: (n, t), their true dF/F.
        spikes: their true spike times.
        masks: (n, z, y, x), voxels above half of the maximum of each soma.
    """

    folder: Path
    arguments: tuple[str, ...]
    grid: pipeline.Grid
    op: Any
    structure: np.ndarray
    voxel_um: tuple[float, float, float]
    centres_um: np.ndarray
    dff: np.ndarray
    spikes: list[np.ndarray]
    masks: np.ndarray

    @property
    def path(self) -> Path:
        """The raw movie."""
        return self.folder / "raw.h5"

    def ready(self, tolerance: float) -> movies.LightFields:
        """Its frames rectified and flattened, as the command prepares them."""
        frames = {name: io.read_frame(self.folder / f"{name}.tif") for name in ("white", "dark")}
        opened = pipeline.open_recording(
            io.open_movie(self.path), load_microscope(self.folder / "scope.toml"), pipeline.Calibration(**frames), self.grid
        )
        return opened.light_fields(opened.psf(tolerance))


def record(size: Size, folder: Path) -> Recording:
    """Simulate a recording; frames that exist already are reused."""
    scope = Microscope(25, size.aperture, 1.33, 0.515, 125, 1250, size.pixels, camera_pixel_um=125 / (0.96 * size.pixels))
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
    inside = slice(size.beyond, len(z_um) - size.beyond)
    inner = PSF(psf.values[inside], scope, z_um[inside], psf.oversampling, psf.convergence_error)
    structure = np.asarray(made.two_photon(jax.random.fold_in(key, 4), made.inside(tissue.structure)))
    here = folder / size.folder
    if not (here / "raw.h5").exists():
        _write(made, scene, inner, structure, size, jax.random.fold_in(key, 3), here)
    optics = eqx.filter_jit(LightField)(inner, field)
    tissue_above = pipeline.Tissue(made.depth_um, made.mean_free_path_um, made.anisotropy)
    corner = np.array([size.beyond, size.margin * size.voxels, size.margin * size.voxels]) * np.asarray(made.voxel_um)
    centres = np.asarray(tissue.centres_um) - corner
    extent = np.array(structure.shape) * np.asarray(made.voxel_um)
    edge = np.array([0, 1, 1]) * size.border * size.voxels * np.asarray(made.voxel_um)
    kept = np.flatnonzero(np.all((centres > edge) & (centres < extent - edge), axis=1))
    prints = np.asarray(made.inside(tissue.footprints))[kept]
    masks = prints > 0.5 * prints.max((1, 2, 3), keepdims=True)
    spikes = np.asarray(active.spikes)[kept]
    times = [(np.repeat(np.arange(s.size), s.astype(int)) + 0.5) * active.step_s for s in spikes]
    calibration = ("--white", str(here / "white.tif"), "--dark", str(here / "dark.tif"))
    depths = f"--z={inner.z_um[0]:g}:{inner.z_um[-1]:g}:{size.step_um:g}"
    about = ("--tissue-um", f"{made.depth_um:g}", "--mean-free-path-um", f"{made.mean_free_path_um:g}")
    arguments = (
        "--microscope", str(here / "scope.toml"), *calibration, depths, "--voxels", str(size.voxels), *about,
        "--tolerance", str(size.tolerance),
    )  # fmt: skip
    return Recording(
        here, arguments, pipeline.Grid(inner.z_um, size.voxels), tissue_above.before(optics, inner), structure,
        made.voxel_um, centres[kept], np.asarray(active.dff)[kept], times, masks,
    )  # fmt: skip


def _write(
    made: simulate.Experiment, scene: simulate.Scene, psf: PSF, structure: np.ndarray, size: Size, key: Any, folder: Path
) -> None:
    """The files of a recording: frames on a camera behind lenslets that are tilted, of a pitch of 0.96 N pixels."""
    camera, scope = made.camera, psf.microscope
    pitch = scope.raw_pitch_px
    assert pitch is not None
    sensor = Sensor.of(made.field, scope.pixels_per_lenslet, pitch, rotation_rad=0.004, vignetting=0.2)
    op = made.operator()

    @jax.jit
    def frames(scene: simulate.Scene, numbers: Any) -> Any:
        def one(t: Any) -> Any:
            light = jnp.maximum(sensor(made.gain * op(scene.volume(t))), 0)
            return camera.expose(jax.random.fold_in(key, t), light)

        return jax.lax.map(one, numbers, batch_size=10)  # ten at once read footprints and matrices of H once

    white, dark = sensor.calibration_frames(*jax.random.split(key), white_tile(psf), 20000.0, camera)
    io.write_frame(folder / "white.tif", np.asarray(white))
    io.write_frame(folder / "dark.tif", np.asarray(dark))
    io.write_volume(folder / "structure.ome.tif", structure, psf.voxel_um)
    (folder / "scope.toml").write_text(scope.to_toml())
    with io.writing(folder / "raw.h5") as temporary, h5py.File(temporary, "w") as file:
        shape = (size.frames, *sensor.shape)
        dataset = file.create_dataset("frames", shape, np.uint16, chunks=(1, *shape[1:]))
        dataset.attrs["frame_s"] = FRAME_S
        block = 50
        for first in track(range(0, size.frames, block), "recording"):
            numbers = jnp.arange(first, min(first + block, size.frames))
            dataset[first : first + len(numbers)] = np.asarray(frames(scene, numbers))
