"""The two-photon microscope as a linear operator: movie of the sample -> images, each pixel at its own time."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from lfjax.errors import require
from lfjax.illumination.scan import PointScan
from lfjax.linop import LinearOperator, floating


class TwoPhoton(LinearOperator):
    """Movie (t, z, y, x) -> images (r, plane, line, pixel) of a raster scan.

        y[r, p] = sum_zyx arrival(z)^2 K_p(z, y, x) X(z, y, x; time(r, p))

    K_p is the squared excitation PSF around pixel p (`focus.squared_psf_widths`), of sum 1; X is the sample, linear in time
    between the frames of the movie and constant outside them; time(r, p) is the middle of the dwell of the pixel. A moving
    sample is sheared, and a spike is seen only while the beam is on the neuron. All fluorescence counts, scattered or not:
    only the excitation fades with depth, hence the square.

    Attributes:
        scan: raster, timing, excitation.
        frames: t, frames of the movie.
        frame_s: time between two frames.
        volumes: r, number of successive images.
        photons: counts per pixel from a uniform sample of brightness 1 at the surface.
        dark: counts per pixel without light.
    """

    scan: PointScan
    frame_s: float | Array
    photons: float | Array
    dark: float | Array
    frames: int = eqx.field(static=True)
    volumes: int = eqx.field(static=True)

    def __init__(
        self,
        scan: PointScan,
        frames: int,
        frame_s: float | Array,
        *,
        volumes: int = 1,
        photons: float | Array = 20.0,
        dark: float | Array = 0.0,
    ) -> None:
        """Build the instrument.

        Args:
            scan: the raster, see `PointScan`; its power, pulses and fluorophore have no effect here.
            frames: frames of the movie; 1: the sample does not change.
            frame_s: time between two frames.
            volumes: number of successive images, with no pauses but those of the scan.
            photons: counts per pixel from a uniform sample of brightness 1.
            dark: counts per pixel without light.

        Raises:
            ParameterError: `scan` is not a point scan, or a number is out of range.
        """
        require(type(scan) is PointScan, "scan", type(scan).__name__, "a PointScan: one detector sees one focus")
        for name, number in (("frames", frames), ("volumes", volumes)):
            require(isinstance(number, (int, np.integer)) and number >= 1, name, number, "a whole number, 1 or more")
        for name, value, low in (("frame_s", frame_s, True), ("photons", photons, True), ("dark", dark, False)):
            if isinstance(value, (int, float)):
                fits = math.isfinite(value) and (value > 0 if low else value >= 0)
                require(fits, name, value, "a positive number" if low else "zero or more")
        self.scan, self.frames, self.volumes = scan, int(frames), int(volumes)
        self.frame_s, self.photons, self.dark = frame_s, photons, dark

    @property
    def in_shape(self) -> tuple[int, int, int, int]:
        return (self.frames, *self.scan.shape)

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return (self.volumes, *self.scan.steps)

    @property
    def times_s(self) -> Float[Array, "r plane line pixel"]:
        """Middle of the dwell of each pixel, from the first frame of the movie."""
        starts = self.scan.timing.starts_s(self.scan.steps) + self.scan.timing.dwell_s / 2
        later = jnp.arange(self.volumes, dtype=starts.dtype) * self.scan.volume_s
        return later[:, None, None, None] + starts

    def matvec(self, x: Float[Array, "t z y x"]) -> Float[Array, "r plane line pixel"]:
        x = floating(x)
        z, y, x_shares = (share.astype(x.dtype) for share in self.scan.shares())
        z = z * (self.scan.arrival()[None, :] ** 2).astype(x.dtype)
        at = jnp.clip(self.times_s / self.frame_s, 0, self.frames - 1).astype(x.dtype)

        def add(image: Array, frame: tuple[Array, Array]) -> tuple[Array, None]:
            number, volume = frame
            seen = jnp.einsum("pz,ly,ix,zyx->pli", z, y, x_shares, volume, precision=jax.lax.Precision.HIGHEST)
            return image + jnp.maximum(0, 1 - jnp.abs(at - number)) * seen, None

        start = jnp.zeros(self.out_shape, x.dtype)
        image, _ = jax.lax.scan(add, start, (jnp.arange(self.frames, dtype=x.dtype), x))
        return image

    def expose(self, key: Array, movie: Float[Array, "t z y x"]) -> Integer[Array, "r plane line pixel"]:
        """Photon counts: Poisson(photons A x + dark)."""
        return _expose(self, key, movie)


@jax.jit
def _expose(scope: TwoPhoton, key: Array, movie: Float[Array, "t z y x"]) -> Integer[Array, "r plane line pixel"]:
    mean = scope.photons * scope(movie) + scope.dark
    return jax.random.poisson(key, jnp.maximum(mean, 0))
