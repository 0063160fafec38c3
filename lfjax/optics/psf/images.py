"""Wave-optics point-spread function of a light-field microscope.

Debye field on the native image plane -> phase of one lenslet tile -> Fresnel propagation over f_ml -> intensity -> pixels
(Broxton et al., Opt. Express 21, 25418 (2013), section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from lfjax import fourier
from lfjax.errors import ParameterError, require, require_shape
from lfjax.io.limits import require_memory
from lfjax.optics.alignment import Alignment
from lfjax.optics.microscope import Microscope
from lfjax.optics.psf import debye
from lfjax.optics.psf.lenslets import grid_middle, lenslet_transmission
from lfjax.optics.psf.offsets import cell_offsets, probe_offsets, sub_lenslet_offsets
from lfjax.optics.psf.pupil import Pupil, native_field, padded_side

Track = Callable[[Iterable[Any], str], Iterable[Any]]
"""Wraps a loop to show its progress: `track(items, description)`."""

Probes = dict[tuple[int, float], Array]
"""Images of probe sources, by oversampling and depth."""

OVERSAMPLINGS = (1, 3, 5, 7, 9, 11, 13, 15)
SAMPLES_PER_WAVE = 32  # radial samples per lambda/NA: cubic interpolation is then right to 4e-5
PROPAGATION_MARGIN = 2  # lenslets around the PSF that keep the periodic propagation from wrapping into it
MEMORY_GIB = 1.0  # for fields that an accelerator computes at once; one at a time fits a CPU's caches better
FARTHEST_UM = 1e6
BYTES_PER_SAMPLE = 64  # of a field and of the intermediate results of its computation


class PSF(eqx.Module):
    """Images of point sources at every sub-lenslet voxel and depth.

    Attributes:
        values: (z, a, b, y, x): image of the source at voxel (a, b) of a lenslet and depth z, on K x K lenslets of
            N x N pixels with that lenslet in the middle. Each image sums to 1; behind a mask, to the share of its light that
            passes.
        microscope: the parameters of the computation.
        z_um: depths in micrometres, sign as Prevedel et al. 2014.
        oversampling: field samples per pixel (1 for a measured PSF).
        convergence_error: relative L2 distance to the PSF at about twice the oversampling, the worst of the probed sources.
            None: not measured.
        pupil: aberrations. None: none.
        alignment: position of the lenslet array. None: on the native plane, f_ml from the sensor.
    """

    values: Float[Array, "z a b y x"]
    microscope: Microscope
    z_um: tuple[float, ...] = eqx.field(static=True)
    oversampling: int = eqx.field(static=True, default=1)
    convergence_error: float | None = eqx.field(static=True, default=None)
    pupil: Pupil | None = None
    alignment: Alignment | None = None

    def __check_init__(self) -> None:
        if not hasattr(self.values, "shape"):
            return
        require_shape("PSF values", self.values.shape, (len(self.z_um), "a", "b", "y", "x"))
        _, a, b, y, x = self.values.shape
        rows, columns = self.microscope.cell_pixels
        voxels = self.microscope.cell_voxels(self.voxels_per_lenslet)
        fits = (a, b) == voxels and x % columns == 0 and (y, x) == (x // columns * rows, x)
        odd = fits and (x // columns) % 2 == 1
        cell = f"{rows}-pixel lenslets" if rows == columns else f"cells of {rows} x {columns} pixels"
        require(odd, "PSF values of shape", self.values.shape, f"s x s images of an odd number of {cell}")

    @property
    def voxels_per_lenslet(self) -> int:
        """s, voxels across a lenslet."""
        return self.values.shape[2] // self.microscope.units[1]

    @property
    def lenslets(self) -> int:
        """K, the side of the support in lenslets or cells."""
        return self.values.shape[-1] // self.microscope.cell_pixels[1]

    @property
    def voxel_um(self) -> tuple[float, float, float]:
        """Voxel size (z, y, x) in micrometres; z is the step of the depths (1 if there is one depth only)."""
        sizes = zip(self.microscope.cell_um, self.values.shape[1:3], strict=True)
        y, x = (float(size / self.microscope.magnification) / n for size, n in sizes)
        step = (self.z_um[-1] - self.z_um[0]) / (len(self.z_um) - 1) if len(self.z_um) > 1 else 1.0
        return (abs(step), y, x)


def support_lenslets(
    microscope: Microscope, z_um: Sequence[float], pupil: Pupil | None = None, alignment: Alignment | None = None
) -> int:
    """K: the odd number of lenslets that holds the rays of every source of a lenslet, and one lenslet of margin.

    Of a multi-focal array K counts cells, along the shorter side of the cell.
    """
    if pupil is None and alignment is None:
        blur = max(microscope.blur_radius_lenslets(z) for z in z_um)
    else:
        rays, behind = Pupil() if pupil is None else pupil, 0.0 if alignment is None else float(alignment.native_plane_um)
        blur = max(rays.blur_radius_lenslets(microscope, z, behind) for z in z_um)
    return 2 * math.ceil((blur + 1.0) / min(microscope.units)) + 1


class Sampling(NamedTuple):
    """Sizes of the computation at one depth: static, hence fixed before JAX traces.

    Attributes:
        lenslets: K, side of the image in lenslets.
        oversampling: field samples per pixel.
        nodes: Gauss-Legendre nodes of the Debye integral.
        radii: samples of its radial profile.
        side: samples of the field: the image, `PROPAGATION_MARGIN` lenslets more, rounded up to a fast FFT size.
        batch: sources computed at once.
    """

    lenslets: int
    oversampling: int
    nodes: int
    radii: int
    side: int
    batch: int

    @classmethod
    def of(
        cls, microscope: Microscope, z_um: float, lenslets: int, oversampling: int, *, memory_gib: float | None = None
    ) -> Sampling:
        """The sizes that resolve the field of sources at depth `z_um` and nearer.

        Args:
            microscope: the parameters.
            z_um: the largest |z|; one size for all depths needs one compilation.
            lenslets: K.
            oversampling: field samples per pixel.
            memory_gib: memory for fields that are computed at once. None: one field at a time on a CPU, 1 GiB elsewhere.
        """
        samples = max(microscope.cell_pixels) * oversampling
        side = fourier.good_centred_size((lenslets + PROPAGATION_MARGIN) * samples)
        reach_um = float(_reach_um(microscope, side, oversampling))
        wave_um = float(microscope.wavelength_um) / float(microscope.numerical_aperture)
        nodes = debye.quadrature_nodes(microscope, reach_um, z_um)
        radii = math.ceil(reach_um / wave_um * SAMPLES_PER_WAVE) + 1
        if memory_gib is None:
            memory_gib = 0.0 if jax.default_backend() == "cpu" else MEMORY_GIB
        batch = max(1, int(memory_gib * 2**30 // (BYTES_PER_SAMPLE * side**2)))
        return cls(lenslets, oversampling, nodes, radii, side, batch)


def _steps_um(microscope: Microscope, oversampling: int) -> tuple[Any, Any]:
    """Distances (y, x) between field samples, on the array."""
    y, x = (size / (n * oversampling) for size, n in zip(microscope.cell_um, microscope.cell_pixels, strict=True))
    return y, x


def _reach_um(microscope: Microscope, side: int, oversampling: int) -> Any:
    """Largest distance of a field sample from a source, in the sample: half a diagonal of the field and one cell."""
    sizes = zip(_steps_um(microscope, oversampling), microscope.cell_pixels, strict=True)
    y, x = ((side + n * oversampling) * step / 2 for step, n in sizes)
    return jnp.hypot(y, x) / microscope.magnification


@partial(jax.jit, static_argnames="sampling")
def psf_images(
    microscope: Microscope,
    z_um: Array | float,
    offsets: Float[Array, "source 2"],
    *,
    sampling: Sampling,
    pupil: Pupil | None = None,
    alignment: Alignment | None = None,
) -> Float[Array, "source y x"]:
    """Images on K x K lenslets of sources at one depth; pure, and differentiable in everything but the sizes.

    U(x) = Debye field at |x / M - p|;  V = Fresnel_f_ml { U * lenslet phase };  image = sum of |V|^2 over each pixel.
    The image is upright, as in the reference code; a real microscope rotates it by 180 degrees.

    Args:
        microscope: the parameters.
        z_um: depth of the sources.
        offsets: source positions (y, x) in pitches from the centre of the middle lenslet, or of the middle cell.
        sampling: sizes, see `Sampling.of`.
        pupil: aberrations. None: none.
        alignment: position of the array. None: on the native plane, f_ml from the sensor.

    Returns:
        (source, K N_y, K N_x), each image summing to 1; behind a mask, to the share of its light that passes.

    Raises:
        ParameterError: the array is multi-focal, and `alignment` does not state the distance to the sensor.
    """
    (rows, columns), os, side = microscope.cell_pixels, sampling.oversampling, sampling.side
    sample_um = _steps_um(microscope, os)
    step_um = (sample_um[0] / microscope.magnification, sample_um[1] / microscope.magnification)
    axes = zip(step_um, (rows * os, columns * os), strict=True)
    y_um, x_um = ((jnp.arange(side) - grid_middle(side, samples)) * step for step, samples in axes)
    pitch_um = microscope.object_pitch_um

    fresnel = partial(fourier.transfer_fresnel, side, sample_um, microscope.wavelength_um)
    array = lenslet_transmission(microscope, (rows * os, columns * os), side, alignment)
    transfer = fresnel(_sensor_um(microscope, alignment))
    if pupil is None:
        spacing_um = _reach_um(microscope, side, os) / (sampling.radii - 1)
        radii_um = jnp.arange(sampling.radii) * spacing_um
        profile = debye.debye_field(radii_um, z_um, microscope, nodes=sampling.nodes)
    else:
        spectrum = pupil.native_spectrum(microscope, z_um, padded_side(side), step_um)
    high, wide = sampling.lenslets * rows, sampling.lenslets * columns
    top, left = (side - high * os) // 2, (side - wide * os) // 2

    def native(offset: Float[Array, "2"]) -> Complex[Array, "side side"]:
        if pupil is not None:
            return native_field(spectrum, step_um, jnp.stack([y_um[0], x_um[0]]) - offset * pitch_um, side)
        dy, dx = y_um[:, None] - offset[0] * pitch_um, x_um[None, :] - offset[1] * pitch_um
        radius_um = jnp.sqrt(dy**2 + dx**2 + 1e-12)  # the small number keeps the gradient finite at the source
        return debye.interpolate_profile(profile, spacing_um, radius_um)

    def inner(intensity: Float[Array, "side side"]) -> Float[Array, "high_os wide_os"]:
        return intensity[top : top + high * os, left : left + wide * os]

    def image(offset: Float[Array, "2"]) -> Float[Array, "y x"]:
        field = native(offset)
        if alignment is not None:  # on to the array, if it stands behind the native plane
            field = jnp.fft.ifft2(jnp.fft.fft2(field) * fresnel(alignment.native_plane_um))
        intensity = jnp.abs(jnp.fft.ifft2(jnp.fft.fft2(field * array) * transfer)) ** 2
        binned = inner(intensity).reshape(high, os, wide, os).sum((1, 3))
        masked = alignment is not None and alignment.mask is not None
        return binned / (inner(jnp.abs(field) ** 2).sum() if masked else binned.sum())

    return jax.lax.map(image, offsets, batch_size=min(sampling.batch, len(offsets)))


def _sensor_um(microscope: Microscope, alignment: Alignment | None) -> float | Array:
    """Distance from the lenslets to the sensor."""
    if alignment is not None and alignment.array_to_sensor_um is not None:
        return alignment.array_to_sensor_um
    focal_um = microscope.lenslet_focal_length_um
    if isinstance(focal_um, tuple):
        raise ParameterError("alignment.array_to_sensor_um = None: expected the distance to the sensor of a multi-focal array")
    return focal_um


def psf_plane(
    microscope: Microscope,
    z_um: float,
    s: int,
    sampling: Sampling,
    pupil: Pupil | None = None,
    alignment: Alignment | None = None,
) -> np.ndarray:
    """PSFs of all s x s voxels of a lenslet at one depth, (a, b, y, x).

    Square lenslets and a round pupil have the symmetry of the square: one octant of voxels is computed, and the others are
    mirror images of it. With an alignment, hexagons, several focal lengths, or a pupil that is not round, all voxels are
    computed.
    """
    if alignment is not None or not microscope.repeats_square or (pupil is not None and not pupil.round):
        offsets = cell_offsets(microscope, s)
        flat = jnp.asarray(offsets.reshape(-1, 2))
        images = psf_images(microscope, z_um, flat, sampling=sampling, pupil=pupil, alignment=alignment)
        return np.asarray(images).reshape(*offsets.shape[:2], *images.shape[1:])
    half = [(a, b) for a in range((s + 1) // 2) for b in range(a, (s + 1) // 2)]
    offsets = sub_lenslet_offsets(s)[np.array(half)]
    octant = np.asarray(psf_images(microscope, z_um, jnp.asarray(offsets), sampling=sampling, pupil=pupil))
    known = {}
    for (a, b), image in zip(half, octant, strict=True):  # sources on an axis: rounding must not break the symmetry
        image = (image + image[::-1]) / 2 if 2 * a == s - 1 else image
        known[a, b] = (image + image[:, ::-1]) / 2 if 2 * b == s - 1 else image
    plane = np.empty((s, s, *octant.shape[1:]), octant.dtype)
    for a in range(s):
        for b in range(s):
            near = (min(a, s - 1 - a), min(b, s - 1 - b))
            image = known[near] if near[0] <= near[1] else known[near[::-1]].T
            plane[a, b] = image[:: 1 if a == near[0] else -1, :: 1 if b == near[1] else -1]
    return plane


def convergence_error(
    microscope: Microscope,
    z_um: Sequence[float],
    s: int,
    lenslets: int,
    oversampling: int,
    known: Probes | None = None,
    *,
    pupil: Pupil | None = None,
    alignment: Alignment | None = None,
) -> float:
    """Relative L2 distance between the PSF at an oversampling and at about twice that, the worst of the probed sources.

    The probes are those of `probe_offsets`, at the depths nearest to and farthest from z = 0.

    Args:
        microscope: the parameters.
        z_um: depths in micrometres.
        s: voxels across a lenslet.
        lenslets: K.
        oversampling: field samples per pixel.
        known: images of the probes by oversampling and depth; the function reads them and adds to them.
        pupil: aberrations. None: none.
        alignment: position of the array, see `psf_images`.
    """
    known = {} if known is None else known
    probes = jnp.asarray(probe_offsets(microscope, s))
    deepest = max(z_um, key=abs)
    worst = 0.0
    for z in {min(z_um, key=abs), deepest}:
        for os in (oversampling, 2 * oversampling + 1):
            if (os, z) not in known:
                sampling = Sampling.of(microscope, deepest, lenslets, os)
                known[os, z] = psf_images(microscope, z, probes, sampling=sampling, pupil=pupil, alignment=alignment)
        coarse, fine = known[oversampling, z], known[2 * oversampling + 1, z]
        error = jnp.linalg.norm(coarse - fine, axis=(1, 2)) / jnp.linalg.norm(fine, axis=(1, 2))
        worst = max(worst, float(error.max()))
    return worst


def _bytes(microscope: Microscope, depths: int, s: int, lenslets: int, oversampling: int) -> int:
    """Bytes of one field, about 32 per sample where it is computed alone, and of the PSF: its planes, and their stack."""
    field = 32 * ((lenslets + PROPAGATION_MARGIN) * max(microscope.cell_pixels) * oversampling) ** 2
    return field + 8 * depths * math.prod((*microscope.cell_voxels(s), *microscope.cell_pixels)) * lenslets**2


def compute_psf(
    microscope: Microscope,
    z_um: Sequence[float] | np.ndarray,
    voxels_per_lenslet: int,
    *,
    tolerance: float = 0.02,
    oversampling: int | None = None,
    lenslets: int | None = None,
    pupil: Pupil | None = None,
    alignment: Alignment | None = None,
    memory_gib: float | None = None,
    track: Track | None = None,
) -> PSF:
    """PSF of a microscope for a stack of depths; `lfjax.optics.cached_psf` is the same with a disk cache.

    Args:
        microscope: the parameters.
        z_um: depths of the planes in micrometres; 0 is the native focal plane.
        voxels_per_lenslet: s, voxels across a lenslet, from 1 to N.
        tolerance: largest convergence error; the smallest oversampling that reaches it is chosen.
        oversampling: field samples per pixel. The convergence error is then only reported. None: chosen by `tolerance`.
        lenslets: K, odd side of the support in lenslets. None: `support_lenslets`.
        pupil: aberrations of the objective. None: none. The mean tilt of a pupil moves the image sideways.
        alignment: position of the array. None: that of the microscope, by default on the native plane, f_ml from the sensor.
            A rotation is refused, since H is periodic in the array's own axes: `Rectifier` removes it from frames.
        memory_gib: memory for fields that are computed at once. None: one field at a time on a CPU, 1 GiB elsewhere.
        track: wraps the loop over depths to show progress, see `lfjax.progress.track`.

    Returns:
        The PSF, with its oversampling and its measured convergence error.

    Raises:
        ParameterError: a value is out of range, the memory does not suffice, or no oversampling up to 15 reaches the tolerance.
    """
    n = microscope.pixels_per_lenslet
    alignment = microscope.alignment if alignment is None else alignment
    depths = tuple(float(z) for z in np.asarray(z_um).ravel())
    require(len(depths) > 0 and all(map(math.isfinite, depths)), "z_um", z_um, "one or more finite depths")
    require(max(map(abs, depths)) <= FARTHEST_UM, "z_um", z_um, f"depths within {FARTHEST_UM:g} um")
    require(voxels_per_lenslet in range(1, n + 1), "voxels_per_lenslet", voxels_per_lenslet, f"1 to N = {n}")
    require(0 < tolerance < 1, "tolerance", tolerance, "a number between 0 and 1")
    whole = oversampling is None or (oversampling >= 1 and int(oversampling) == oversampling)
    require(whole, "oversampling", oversampling, "a whole number, 1 or more, or None")
    require(lenslets is None or (lenslets > 0 and lenslets % 2 == 1), "lenslets", lenslets, "an odd number, or None")
    straight = alignment is None or not isinstance(alignment.rotation_rad, (int, float)) or alignment.rotation_rad == 0
    require(straight, "alignment.rotation_rad", alignment and alignment.rotation_rad, "0: see `Rectifier` for turned arrays")
    index = None if pupil is None else pupil.sample_index
    inside = index is None or float(index) > float(microscope.numerical_aperture)
    require(inside, "pupil.sample_index", index, f"more than the aperture, {microscope.numerical_aperture}")
    k = lenslets or support_lenslets(microscope, depths, pupil, alignment)

    known: Probes = {}
    for os in (oversampling,) if oversampling else OVERSAMPLINGS:
        require_memory("z_um (--z)", max(depths, key=abs), _bytes(microscope, len(depths), voxels_per_lenslet, k, 2 * os + 1))
        error = convergence_error(microscope, depths, voxels_per_lenslet, k, os, known, pupil=pupil, alignment=alignment)
        if error <= tolerance or oversampling:
            break
    else:
        raise ParameterError(f"tolerance = {tolerance}: oversampling {os} leaves {error:.1e}; expected a larger one")

    loop = track(depths, "PSF, depth by depth") if track else depths
    sampling = Sampling.of(microscope, max(depths, key=abs), k, os, memory_gib=memory_gib)
    planes = [psf_plane(microscope, z, voxels_per_lenslet, sampling, pupil, alignment) for z in loop]
    return PSF(jnp.asarray(np.stack(planes)), microscope, depths, os, error, pupil, alignment)
