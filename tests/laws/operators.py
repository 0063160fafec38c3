"""Every operator of the package, by one line each: what stands here has to keep the laws of `test_laws`."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from lfjax import linop, parallel
from lfjax.illumination import PointScan, Timing, TwoPhoton, Widefield
from lfjax.models import LinearForwardNet
from lfjax.optics import PSF, Alignment, AntiAlias, LightField, Microscope, MultiView, Resample, Scattering
from lfjax.solvers.admm import Gradient
from lfjax.tomography.aberrations import Aberrations
from lfjax.tomography.ctf import AS_RECORDED, PHASE_FLIPPED, PREMULTIPLIED, ApplyCtf, Ctf
from lfjax.tomography.fourier_slice import FourierSlice
from lfjax.tomography.images import Shift
from lfjax.tomography.normal_equations import ViewNormal
from lfjax.tomography.rays import Rays
from lfjax.tomography.sharding import Sharded
from lfjax.xrf import Detector, parse_families, spectrum


def noise(*shape: int) -> jax.Array:
    """Uniform between 0 and 1, the same numbers for the same shape."""
    return jnp.asarray(np.random.default_rng(shape).random(shape), jnp.result_type(float))


def poses(count: int) -> jax.Array:
    return jnp.asarray(Rotation.random(count, np.random.default_rng(count)).as_matrix(), jnp.result_type(float))


def scope(n: int) -> Microscope:
    return Microscope(20, 0.5, 1.33, 0.52, 125, 2500, n)


def random_psf(n: int, s: int, lenslets: int = 3, depths: int = 2) -> PSF:
    return PSF(noise(depths, s, s, lenslets * n, lenslets * n), scope(n), tuple(10.0 * d for d in range(depths)))


def hexagonal_psf() -> PSF:
    return PSF(noise(2, 3, 2, 21, 12), dataclasses.replace(scope(4), lenslet_lattice="hexagonal"), (0.0, 10.0))


def multifocal_psf() -> PSF:
    array = {"lenslet_focal_length_um": ((2500.0, 3000.0),), "alignment": Alignment(array_to_sensor_um=2600.0)}
    return PSF(noise(2, 2, 4, 12, 24), dataclasses.replace(scope(4), **array), (0.0, 10.0))


def mirrored_psf(n: int, s: int, lenslets: int = 3, depths: int = 2) -> PSF:
    psf = random_psf(n, s, lenslets, depths)
    values = np.asarray(psf.values)
    values = values + np.flip(values, (1, 3))
    return dataclasses.replace(psf, values=jnp.asarray(values + np.flip(values, (2, 4))))


def blur(shape: tuple[int, ...] = (4, 6)) -> linop.FunctionOperator:
    return linop.FunctionOperator(lambda x: x + 0.5 * jnp.roll(x, 1, axis=-1), shape)


def positions() -> np.ndarray:
    return np.random.default_rng(0).uniform(-2, 12, (5, 7, 2))


def aberrations(*tilt: list[float]) -> Aberrations:
    """Aberrations of every kind, at frequencies about 0.2 / angstrom; one image for each tilt in mrad, none: one for all."""
    return Aberrations(
        beam_tilt_rad=1e-3 * np.array(tilt or [3.0, -5.0]),
        odd=[1.0, -2.0, 50.0, 0.0, 30.0, -60.0],
        even=[0.3, 10.0, 2.0, -5.0, 200.0, 0.0, 50.0],
        magnification=[[1.05, 0.06], [-0.04, 0.95]],
    )


OPERATORS: dict[str, Callable[[], linop.LinearOperator]] = {
    "Identity": lambda: linop.Identity((3, 4)),
    "Diagonal": lambda: linop.Diagonal(noise(3, 4)),
    "FunctionOperator": blur,
    "Compose": lambda: linop.Diagonal(noise(4, 6)) @ blur(),
    "Sum": lambda: linop.Diagonal(noise(4, 6)) + blur(),
    "Scale": lambda: 2.5 * blur(),
    "Transpose": lambda: blur().T,
    "LightField": lambda: LightField(random_psf(5, 3), (4, 6)),
    "LightField with margin": lambda: LightField(random_psf(4, 2), (3, 5), margin=2),
    "LightField, margin beyond the PSF": lambda: LightField(random_psf(5, 2, lenslets=1), (4, 3), margin=3),
    "LightField, volume within the field": lambda: LightField(random_psf(4, 2), (5, 6), margin=-1),
    "LightField, even N and s": lambda: LightField(random_psf(6, 4, lenslets=5), (3, 3)),
    "LightField, hexagons": lambda: LightField(hexagonal_psf(), (3, 4), margin=1),
    "LightField, multi-focal": lambda: LightField(multifocal_psf(), (4, 3), margin=1, tile=(2, 3)),
    "LightField in tiles": lambda: LightField(random_psf(4, 2), (5, 7), tile=(3, 4)),
    "LightField in tiles, margin": lambda: LightField(random_psf(4, 2), (5, 7), margin=2, tile=(3, 4)),
    "LightField, mirrored": lambda: LightField(mirrored_psf(5, 3), (4, 6)),
    "LightField, mirrored, even N and s, margin": lambda: LightField(mirrored_psf(6, 4, lenslets=5), (3, 4), margin=1),
    "LightField, mirrored, volume within the field": lambda: LightField(mirrored_psf(5, 2), (5, 6), margin=-1),
    "Scattering": lambda: Scattering((2, 5, 6), 1.5, (20.0, 40.0), mean_free_path_um=30.0, anisotropy=0.9),
    "LightField after Scattering": lambda: (
        LightField(random_psf(5, 3), (4, 6))
        @ Scattering((2, 12, 18), 1.5, (20.0, 40.0), mean_free_path_um=30.0, anisotropy=0.9)
    ),
    "LightField, low rank": lambda: LightField(random_psf(5, 3), (4, 6)).compress(0.3, measure=False),
    "LightField, mirrored, low rank": lambda: LightField(mirrored_psf(5, 3), (4, 6)).compress(0.3, measure=False),
    "LightField, gram": lambda: LightField(random_psf(4, 2), (5, 6), margin=-1, tile=(5, 6)).gram,
    "LightField, mirrored, gram": lambda: LightField(mirrored_psf(5, 2), (5, 6), margin=-1, tile=(5, 6)).gram,
    "LightField, mirrored, in tiles": lambda: LightField(mirrored_psf(5, 2), (7, 5), margin=1, tile=(4, 3)),
    "Resample": lambda: Resample((9, 11), positions()),
    "AntiAlias": lambda: AntiAlias(scope(5), (0.0, 5.0, 40.0), 5, (15, 20)),
    "Gradient": lambda: Gradient((3, 4, 5), (0.5, 1.0, 2.0)),
    "Illumination": lambda: Widefield((2, 4, 5), (2.0, 1.0, 1.0), Timing(0.01), power_mw=0.1).operator(),
    "LinearForwardNet": lambda: LinearForwardNet((noise(3, 3, 8, 6), noise(3, 3, 6, 16)), 2, (5, 4), (2, 2), (4, 4), 0.0),
    "TwoPhoton": lambda: TwoPhoton(PointScan((2, 4, 5), (2.0, 1.0, 1.0), Timing(0.1), pixels=(2, 3, 5)), 3, 2.0, volumes=2),
    "MultiView": lambda: MultiView(noise(3, 2, 5, 4), (6, 7)),
    "MultiView with margin": lambda: MultiView(noise(3, 2, 5, 5), (4, 5), margin=2),
    "MultiView, volume within the views": lambda: MultiView(noise(3, 2, 3, 3), (6, 7), margin=-1),
    "Spectrum": lambda: spectrum(Detector(64, 200.0), parse_families("Pb L, Fe K")),
    "ApplyCtf": lambda: ApplyCtf(Ctf(15000.0, 12000.0, 0.5), (8, 10), 2.0),
    "FourierSlice": lambda: FourierSlice(poses(5), 6, batch=2),
    "FourierSlice, odd, trilinear, cut off": lambda: FourierSlice(poses(4), 7, kernel="trilinear", padding=2.5, cutoff=1.0),
    "FourierSlice with CTF and shifts": lambda: FourierSlice(
        poses(3),
        6,
        shifts=jnp.asarray([[0.5, -2.0], [0.0, 1.5], [3.0, 0.2]]),
        ctf=Ctf(jnp.asarray([9000.0, 12000.0, 15000.0]), 10000.0, 0.3),
        pixel_angstrom=3.0,
        kernel=2,
    ),
    "ViewNormal": lambda: ViewNormal((4, 4, 4), jnp.abs(jnp.fft.rfftn(noise(8, 8, 8))), noise(4, 4, 4)),
    "Sharded": lambda: Sharded(FourierSlice(poses(3), 4, kernel="trilinear"), parallel.mesh(1)),
    "Shift": lambda: Shift(jnp.asarray([1.3, -0.4]), (8, 9)),
    "Rays, parallel": lambda: Rays.parallel(jnp.linspace(0.1, 3.0, 5), 9, batch=2),
    "Rays, fan": lambda: Rays.fan(jnp.linspace(0.1, 6.0, 4), 8, 20.0, 10.0, 9, 1.5),
    "Rays, parallel in space": lambda: Rays.parallel_3d(poses(3), 6),
    "Rays, cone": lambda: Rays.cone(jnp.linspace(0.1, 6.0, 3), (4, 6, 6), 20.0, 10.0, (5, 7)),
    "ApplyCtf, aberrations": lambda: ApplyCtf(Ctf(15000.0, 12000.0, 0.5, aberrations=aberrations()), (8, 10), 2.0),
    "ApplyCtf, aberrations, odd, phases flipped": lambda: ApplyCtf(
        Ctf(15000.0, aberrations=aberrations(), applied=PHASE_FLIPPED), (9, 7), 2.0
    ),
    "FourierSlice, aberrations, as recorded, flipped and premultiplied": lambda: FourierSlice(
        poses(3),
        6,
        shifts=jnp.asarray([[0.5, -2.0], [0.0, 1.5], [3.0, 0.2]]),
        ctf=Ctf(
            jnp.asarray([9000.0, 12000.0, 15000.0]),
            aberrations=aberrations([3.0, 0.0], [0.0, -2.0], [1.0, 1.0]),
            applied=jnp.asarray([AS_RECORDED, PHASE_FLIPPED, PREMULTIPLIED]),
        ),
        pixel_angstrom=2.0,
        kernel=2,
    ),
    "ApplyCtf, odd": lambda: ApplyCtf(Ctf(15000.0, phase_shift_rad=1.0, b_factor_angstrom2=50.0), (9, 7), 2.0),
}
