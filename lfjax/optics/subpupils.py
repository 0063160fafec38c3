"""Microscopes whose views each see the sample through a part of the pupil: Fourier light field, XLFM, camera arrays.

A lenslet in the Fourier plane, or a camera at an angle to the axis, collects the light of a sub-pupil A_v and focuses it:

    h_(v,z)(x) = | int A_v(s) P(s) exp(i k s x - i k z (1 - cos t)) ds |^2

with s the directions (sines) and P the pupil of `optics.Pupil`. Every view is shift-invariant; a point at depth z moves by
about z tan t_v in it. `optics.MultiView` is the operator.

Source: Llavador et al., Opt. Express 24, 20792 (2016); Guo et al., Opt. Express 27, 25573 (2019); XLFM: Cong et al.,
eLife 6, e28158 (2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from lfjax import fourier
from lfjax.errors import require, require_shape
from lfjax.optics.psf.pupil import Pupil, aplanatic, smooth_edge

Aperture = Literal["round", "square"]
PUPIL_SAMPLES = 24  # least number of samples across the radius of a view's pupil: its edge then costs 1 % of the image


class SubPupils(eqx.Module):
    """Directions and apertures of the views; all in units of numerical aperture, n s.

    Attributes:
        directions: (v, 2), position (y, x) of each view in the pupil.
        view_aperture: half width of the pupil of a view.
        numerical_aperture: NA of the common objective; for a camera array, NA of the light that counts as 1.
        medium_index: n of the sample and immersion.
        wavelength_um: emission wavelength in vacuum.
        pixel_um: pixel size of the views, as seen in the sample.
        aperture: shape of the views, "round" or "square".
        objective: whether the views share an objective, whose aperture cuts off all light outside it.

    Raises:
        ShapeError: `directions` does not have two columns.
        ParameterError: a value is out of range.
    """

    directions: Float[Array, "v 2"]
    view_aperture: float | Array
    numerical_aperture: float | Array
    medium_index: float | Array
    wavelength_um: float | Array
    pixel_um: float | Array
    aperture: Aperture = eqx.field(static=True, default="round")
    objective: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        require_shape("directions", np.shape(self.directions), ("v", 2))
        require(self.aperture in get_args(Aperture), "aperture", self.aperture, "round or square")
        for name in ("view_aperture", "numerical_aperture", "medium_index", "wavelength_um", "pixel_um"):
            value = getattr(self, name)
            if isinstance(value, (int, float)):
                require(0 < value < math.inf, name, value, "a positive number")
        apertures = (self.numerical_aperture, self.view_aperture, self.medium_index)
        if all(isinstance(v, (int, float)) for v in apertures) and not isinstance(self.directions, jax.core.Tracer):
            na, view, n = map(float, apertures)
            require(na < n, "numerical_aperture", na, f"less than medium_index = {n}")
            widest = float(np.max(np.linalg.norm(np.asarray(self.directions), axis=1)))
            rim = na + view if self.objective else n - view
            require(widest < rim, "directions", widest, f"views that light reaches, less than {rim:g} from the middle")

    @classmethod
    def fourier(
        cls,
        centres_um: ArrayLike,
        *,
        magnification: float,
        numerical_aperture: float,
        medium_index: float,
        wavelength_um: float,
        fourier_lens_um: float,
        lenslet_um: float,
        lenslet_focal_length_um: float,
        camera_pixel_um: float,
        aperture: Aperture = "round",
    ) -> SubPupils:
        """Lenslets in the Fourier plane of a lens of focal length f_F behind the native image plane.

            n s = X M / f_F,   a pixel in the sample = camera pixel * f_F / (M f_ml)

        Args:
            centres_um: (v, 2), lenslet centres (y, x) from the optical axis; `hexagonal_centres` and `square_centres`
                fill a pupil.
            magnification: M, of objective and tube lens together.
            numerical_aperture: NA of the objective.
            medium_index: n of the sample and immersion.
            wavelength_um: emission wavelength in vacuum.
            fourier_lens_um: f_F.
            lenslet_um: width of a lenslet.
            lenslet_focal_length_um: f_ml, also the distance from the lenslets to the camera.
            camera_pixel_um: size of a camera pixel.
            aperture: shape of the lenslets, "round" or "square".
        """
        unit = magnification / fourier_lens_um
        return cls(
            jnp.asarray(centres_um, jnp.result_type(float)) * unit, lenslet_um / 2 * unit, numerical_aperture, medium_index,
            wavelength_um, camera_pixel_um / (unit * lenslet_focal_length_um), aperture,
        )  # fmt: skip

    @classmethod
    def cameras(
        cls,
        angles_rad: ArrayLike,
        *,
        view_aperture: float,
        wavelength_um: float,
        pixel_um: float,
        medium_index: float = 1.0,
        numerical_aperture: float | None = None,
    ) -> SubPupils:
        """Cameras around a sample, each with its own round lens, focused on the plane z = 0 and resampled to it.

        Args:
            angles_rad: (v, 2), angle to the axis, and azimuth from x to y.
            view_aperture: NA of a camera.
            wavelength_um: emission wavelength in vacuum.
            pixel_um: pixel size, as seen in the sample.
            medium_index: n.
            numerical_aperture: NA of the light that counts as 1; None: the smallest that holds all cameras.
        """
        tilt, azimuth = np.asarray(angles_rad, float).T
        directions = medium_index * np.sin(tilt)[:, None] * np.stack([np.sin(azimuth), np.cos(azimuth)], axis=1)
        if numerical_aperture is None:
            numerical_aperture = float(medium_index * np.sin(tilt).max() + view_aperture)
        return cls(
            jnp.asarray(directions, jnp.result_type(float)), view_aperture, numerical_aperture, medium_index,
            wavelength_um, pixel_um, "round", False,
        )  # fmt: skip

    @property
    def views(self) -> int:
        """Number of views, v."""
        return self.directions.shape[0]

    def reach_um(self, z_um: float) -> float:
        """Distance from the axis within which a point at depth z is seen: |z| tan t of the outermost ray, plus diffraction."""
        corner = math.sqrt(2) if self.aperture == "square" else 1.0
        outermost = float(np.max(np.linalg.norm(np.asarray(self.directions), axis=1))) + corner * float(self.view_aperture)
        limit = float(self.numerical_aperture) if self.objective else 0.99 * float(self.medium_index)
        sine = min(outermost, limit) / float(self.medium_index)
        return abs(z_um) * sine / math.sqrt(1 - sine**2) + 2 * float(self.wavelength_um) / float(self.view_aperture)

    def psfs(
        self,
        z_um: Sequence[float] | ArrayLike,
        *,
        side: int | None = None,
        oversampling: int | None = None,
        pupil: Pupil | None = None,
    ) -> Float[Array, "v z y x"]:
        """Images of a point at each depth in each view, (v, z, K, K), for `MultiView`.

        The images of a view sum to its share of the light, |A_v P|^2 over |P|^2 within `numerical_aperture`, apart from
        the light outside the K x K pixels.

        Args:
            z_um: depths.
            side: K, pixels per side of the images, odd; None: large enough for the farthest ray.
            oversampling: field samples per pixel, odd; None: what the aperture of a view needs, at least 3. Under
                `jax.grad` of apertures or lengths the sizes cannot be found: give both.
            pupil: aberrations; None: no aberrations.

        Raises:
            ParameterError: `side` or `oversampling` is even, or no depth is given.
        """
        depths = [float(z) for z in np.ravel(np.asarray(z_um))]
        require(len(depths) > 0, "z_um", z_um, "at least one depth")
        if side is None:
            side = 2 * math.ceil(max(self.reach_um(z) for z in depths) / float(self.pixel_um)) + 1
        require(isinstance(side, int) and side > 0 and side % 2 == 1, "side", side, "an odd number, or None")
        # the field has the bandwidth of a view, its intensity twice that; the middle of a pixel is on the grid
        if oversampling is None:
            needed = 4 * math.sqrt(2) * float(self.view_aperture) * float(self.pixel_um) / float(self.wavelength_um)
            oversampling = 2 * math.ceil(max(needed - 1, 2) / 2) + 1
        fine = oversampling
        require(isinstance(fine, int) and fine > 0 and fine % 2 == 1, "oversampling", fine, "an odd number, or None")
        resolved = 0
        if not isinstance(self.view_aperture, jax.core.Tracer):  # samples across the radius of a view's pupil
            cells = float(self.wavelength_um) / (float(self.view_aperture) * float(self.pixel_um))
            resolved = math.ceil(PUPIL_SAMPLES * cells) * fine
        grid = fourier.good_centred_size(max(2 * fine * side, resolved) // 2 * 2 + 1)
        return _images(self, Pupil() if pupil is None else pupil, jnp.asarray(depths), side=side, fine=fine, grid=grid)


@partial(jax.jit, static_argnames=("side", "fine", "grid"))
def _images(
    system: SubPupils, pupil: Pupil, z_um: Float[Array, " z"], *, side: int, fine: int, grid: int
) -> Float[Array, "v z y x"]:
    """PSFs of all views, one view at a time."""
    return jax.lax.map(partial(_view_images, system, pupil, z_um, side, fine, grid), system.directions)


def _view_images(
    system: SubPupils, pupil: Pupil, z_um: Array, side: int, fine: int, grid: int, direction: Float[Array, "2"]
) -> Float[Array, "z y x"]:
    """PSFs of one view, from the spectrum about its direction, so that the grid need not resolve the direction itself."""
    n = system.medium_index
    step = system.wavelength_um / (grid * system.pixel_um / fine)  # of n s
    order = (jnp.arange(grid) - grid // 2) * step
    dy, dx = order[:, None], order[None, :]
    sy, sx = (direction[0] + dy) / n, (direction[1] + dx) / n
    s2 = sy**2 + sx**2
    inside = s2 < 0.995  # what propagates
    s2 = jnp.where(inside, s2, 0.0)
    amplitude = inside * aplanatic(s2)
    if system.aperture == "round":
        own = smooth_edge(system.view_aperture - jnp.sqrt(dy**2 + dx**2 + 1e-20), step)
    else:
        own = smooth_edge(system.view_aperture - jnp.abs(dy), step) * smooth_edge(system.view_aperture - jnp.abs(dx), step)
    if system.objective:
        own = own * smooth_edge(system.numerical_aperture - n * jnp.hypot(sy, sx), step)
    aberration = jnp.where(own > 0, pupil.phase(sy, sx, system), 0.0)

    def image(z: Array) -> Float[Array, "y x"]:
        phase = aberration - jnp.where(own > 0, pupil.defocus(s2, system, z), 0.0)
        spectrum = own * amplitude * jnp.exp(1j * phase)
        field = jnp.fft.fftshift(jnp.fft.ifft2(jnp.fft.ifftshift(spectrum)))
        intensity = jnp.abs(field) ** 2 * (grid * step) ** 2  # so that its sum is that of |spectrum|^2 times step^2
        start = grid // 2 - (fine * side) // 2
        cut = jax.lax.dynamic_slice(intensity, (start, start), (fine * side, fine * side))
        return cut.reshape(side, fine, side, fine).sum((1, 3))

    return jax.lax.map(image, z_um) / _all_light(system)


def _all_light(system: SubPupils) -> Array:
    """Integral of |P|^2 over the round pupil.

    2 pi n^2 int (1 + cos)^2 / cos s ds = 2 pi n^2 [c + c^2 + c^3 / 3] from c = cos alpha to 1.
    """
    c = jnp.sqrt(1 - (system.numerical_aperture / system.medium_index) ** 2)
    return 2 * jnp.pi * system.medium_index**2 * (7 / 3 - (c + c**2 + c**3 / 3))


def hexagonal_centres(pitch_um: float, radius_um: float) -> Float[np.ndarray, "v 2"]:
    """Centres (y, x) of a hexagonal lattice within a radius, one of them on the axis.

    Raises:
        ParameterError: no centre lies within the radius.
    """
    reach = math.ceil(2 * radius_um / pitch_um) + 1
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    places = np.stack([rows * math.sqrt(0.75), columns + 0.5 * (rows % 2)], axis=-1).reshape(-1, 2) * pitch_um
    return _inside(places, radius_um)


def square_centres(pitch_um: float, radius_um: float, *, even: bool = False) -> Float[np.ndarray, "v 2"]:
    """Centres (y, x) of a square lattice within a radius; `even` puts the axis between four of them.

    Raises:
        ParameterError: no centre lies within the radius.
    """
    reach = math.ceil(radius_um / pitch_um) + 1
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1] + 0.5 * even
    return _inside(np.stack([rows, columns], axis=-1).reshape(-1, 2) * pitch_um, radius_um)


def _inside(places: np.ndarray, radius_um: float) -> np.ndarray:
    kept = places[np.hypot(*places.T) <= radius_um * (1 + 1e-9)]
    require(len(kept) > 0, "radius_um", radius_um, "room for one lenslet")
    return kept
