"""Projections of a volume at given poses, by the Fourier slice theorem.

    I(x, y) = int V(R^T (x, y, z)) dz  convolved with the CTF and displaced by the shift,
    I^(kx, ky) = CTF(kx, ky) exp(-2 pi i k.t / n) V^(R^T (kx, ky, 0))

Only the half plane of the image's own n x n frequencies is evaluated, not that of the padded spectrum. Centre n // 2 on every
axis, for even and odd n; see `lfjax.rotation` for R. The projection is the sum of voxels along the line of sight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size
from lfjax.linop import LinearOperator, Shape, floating
from lfjax.tomography import gridding
from lfjax.tomography.ctf import Ctf


class View(NamedTuple):
    """How one image sees the volume; with a leading axis on every array, how a batch of images does."""

    rotation: Float[Array, "*n 3 3"]
    shift: Float[Array, "*n 2"]
    ctf: Ctf | None
    pixel_angstrom: Float[Array, "*n"]


@dataclass(frozen=True)
class Plane:
    """The half plane of frequencies of an n x n image, and how it is read from a spectrum.

    It has one row more than that of `rfft2` for even n: both signs of the Nyquist frequency, whose mean an image has.

    Attributes:
        size: n.
        grid: samples a side of the spectrum.
        kernel: that reads it.
        cutoff: radius in units of Nyquist beyond which nothing is read; None for the whole square.
    """

    size: int
    grid: int
    kernel: gridding.Kernel
    cutoff: float | None

    @cached_property
    def frequencies(self) -> NDArray[np.float64]:
        """(kx, ky) of the samples that are read, in cycles an image, (2, m)."""
        kx, ky, inside = self._half()
        rows, columns = np.nonzero(inside)
        return np.stack([kx[columns], ky[rows]]).astype(float)

    @cached_property
    def places(self) -> NDArray[np.int32]:
        """For each place of the half plane which sample it takes; m where there is none."""
        inside = self._half()[2]
        return np.where(inside, np.cumsum(inside).reshape(inside.shape) - 1, inside.sum()).astype(np.int32)

    def _half(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        n = self.size
        kx, ky = np.arange(n // 2 + 1), np.r_[: n // 2 + 1, -(n // 2) : 0]
        return kx, ky, np.hypot(kx, ky[:, None]) <= (np.inf if self.cutoff is None else self.cutoff * n / 2)

    def coordinates(self, rotation: Float[Array, "3 3"]) -> Float[Array, "3 m"]:
        """R^T (kx, ky, 0) in cells of the spectrum."""
        k = jnp.asarray(self.frequencies * (self.grid / self.size), rotation.dtype)
        return rotation[0][:, None] * k[0] + rotation[1][:, None] * k[1]

    def image(self, values: Complex[Array, " m"], view: View) -> Float[Array, "y x"]:
        """The image with these values of V^: filtered, displaced, its centre at n // 2."""
        n = self.size
        values = values * self.transfer(view)
        half = values.reshape(self.places.shape) if self.cutoff is None else jnp.append(values, 0)[self.places]
        half = half * self.displacement(view.shift)
        if n % 2 == 0:
            edge = (half[n // 2] + half[n // 2 + 1]) / 2
            half = jnp.concatenate([half[: n // 2], edge[None], half[n // 2 + 2 :]])
        return jnp.fft.irfft2(half, (n, n))

    def displacement(self, shift: Float[Array, "2"]) -> Complex[Array, "ky kx"]:
        """exp(-2 pi i k.(c + t) / n) on the half plane, which takes the origin to the pixel c + t, c = n // 2."""
        n = self.size
        waves = [jnp.asarray(-2 * np.pi / n * k, shift.dtype) for k in self._half()[:2]]
        angles = [wave * (n // 2 + t) for wave, t in zip(waves, shift, strict=True)]
        x, y = (lax.complex(jnp.cos(a), jnp.sin(a)) for a in angles)
        return y[:, None] * x

    def at_samples(self, half: Array) -> Array:
        """What an array on the half plane, or one of `rfft2`, is at the samples."""
        kx, ky = self.frequencies.astype(int)
        return half[ky, kx]

    def transfer(self, view: View) -> Float[Array, " m"] | float:
        """The CTF at the samples; 1 where there is none."""
        if view.ctf is None:
            return 1.0
        kx, ky = jnp.asarray(self.frequencies, view.shift.dtype) / (self.size * view.pixel_angstrom)
        return view.ctf(kx, ky)

    def samples(self, image: Float[Array, "y x"], shift: Float[Array, "2"]) -> Complex[Array, " m"]:
        """The transform of an image about its displaced centre, at the samples: what V^ is there, times the CTF."""
        return self.at_samples(jnp.fft.rfft2(image)) * self.at_samples(self.displacement(shift)).conj()

    def project(self, spectrum: Complex[Array, "gz gy gx"], view: View) -> Float[Array, "y x"]:
        """One image."""
        return self.image(gridding.interpolate(spectrum, self.coordinates(view.rotation), self.kernel, self.grid), view)

    def back_project(
        self, target: Float[Array, "gz gy gx 2"], views: View, images: Float[Array, "n y x"]
    ) -> Float[Array, "gz gy gx 2"]:
        """The transposes of `project`, added to `target`, for a batch."""
        blank = jax.ShapeDtypeStruct((self.frequencies.shape[1],), jnp.result_type(images, 1j))

        def samples(view: View, image: Array) -> Array:
            return jax.linear_transpose(lambda values: self.image(values, view), blank)(image)[0]

        values = jax.vmap(samples)(views, images)
        return self.spread(target, views, jnp.stack([values.real, values.imag], axis=-1))

    def spread(
        self, target: Float[Array, "gz gy gx c"], views: View, values: Float[Array, "n m c"]
    ) -> Float[Array, "gz gy gx c"]:
        """Samples of a batch, real and imaginary parts and more, spread where `coordinates` says, added to `target`."""
        k = jnp.moveaxis(jax.vmap(self.coordinates)(views.rotation), 0, 1)
        return gridding.spread(target, k, values, self.kernel, self.grid)


def scan_batches(step: Callable[[Any, Any], Any], start: Any, items: Any, batch: int) -> Any:
    """total <- step(total, items of one batch), over batches of the leading axis; the last one may be shorter."""
    count = jax.tree.leaves(items)[0].shape[0]
    whole = count // batch
    total = start
    if whole:
        split = jax.tree.map(lambda a: a[: whole * batch].reshape(whole, batch, *a.shape[1:]), items)
        total, _ = lax.scan(lambda t, item: (step(t, item), None), total, split)
    if count % batch:
        total = step(total, jax.tree.map(lambda a: a[whole * batch :], items))
    return total


def lanes(items: Any) -> list[Any]:
    """A batch in parts that may run side by side: two on a CPU, whose scatters are serial, else one."""
    count = jax.tree.leaves(items)[0].shape[0]
    if jax.default_backend() != "cpu" or count < 2:
        return [items]
    return [jax.tree.map(lambda a: a[: count // 2], items), jax.tree.map(lambda a: a[count // 2 :], items)]


def accumulate(step: Callable[[Array, Any], Array], start: Array, items: Any, batch: int) -> Array:
    """`scan_batches` of a step that adds to `start`, with a sum of its own for each of the `lanes`."""

    def every(totals: list[Array], part: Any) -> list[Array]:
        parts = lanes(part)
        return [step(t, p) for t, p in zip(totals, parts, strict=False)] + totals[len(parts) :]

    sums = [start] + [jnp.zeros_like(start) for _ in lanes(items)[1:]]
    first, *others = scan_batches(every, sums, items, batch)
    return sum(others, first)


class FourierSlice(LinearOperator):
    """Volume (n, n, n) to images (projections, n, n); differentiable in the volume, rotations, shifts and optics.

    >>> from lfjax import rotation
    >>> A = FourierSlice(rotation.random_rotations(jax.random.key(0), 5), 16)
    >>> A(jnp.ones((16, 16, 16))).shape
    (5, 16, 16)

    Attributes:
        rotations: R of each image, (projections, 3, 3).
        shifts: (projections, 2), displacement (x, y) of the particle in pixels.
        ctf: optics of each image, arrays of length `projections`; None for none.
        pixel_angstrom: of the volume and the images; counts for the CTF only.
    """

    rotations: Float[Array, "n 3 3"]
    shifts: Float[Array, "n 2"]
    ctf: Ctf | None
    pixel_angstrom: Float[Array, " n"]
    plane: Plane = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    def __init__(
        self,
        rotations: Float[Array, "n 3 3"],
        size: int,
        *,
        shifts: Float[Array, "n 2"] | None = None,
        ctf: Ctf | None = None,
        pixel_angstrom: float | Array = 1.0,
        kernel: int | str = 5,
        padding: float = 2.0,
        cutoff: float | None = None,
        batch: int | None = None,
    ) -> None:
        """Projector at given poses.

        Args:
            rotations: R of each image, object to image.
            size: n, voxels a side of the volume and pixels a side of the images.
            shifts: displacement (x, y) of the particle in the image, in pixels; none if not given.
            ctf: optics, one for all images or arrays of one number for each.
            pixel_angstrom: pixel size, for the CTF.
            kernel: taps of a Kaiser-Bessel kernel (4: error 6e-4, 5: 6e-5), or "trilinear" (1e-2, fastest).
            padding: the spectrum is sampled on a grid of at least padding * n a side.
            cutoff: radius in units of Nyquist beyond which the images have no frequencies; None keeps the whole square. 1 is
                the ball in which a rotation loses nothing, and saves a fifth of the work.
            batch: images at a time; about 8 million taps, 64 MB of temporary memory, if not given. More serve a GPU better.

        Raises:
            ShapeError: rotations, shifts or the ctf are not one for each image.
            ParameterError: a number outside its meaning.
        """
        rotations = floating(rotations)
        require_shape("rotations", rotations.shape, ("n", 3, 3))
        count = rotations.shape[0]
        require(count > 0, "rotations", count, "at least one")
        require(isinstance(size, (int, np.integer)) and size >= 2, "size", size, "a whole number, 2 or more")
        require(padding > 1, "padding", padding, "more than 1")
        require(cutoff is None or 0 < cutoff <= math.sqrt(2), "cutoff", cutoff, "None, or from 0 to sqrt(2) Nyquist")
        self.rotations = rotations
        self.shifts = jnp.zeros((count, 2), rotations.dtype) if shifts is None else floating(shifts)
        require_shape("shifts", self.shifts.shape, (count, 2))
        self.ctf = None if ctf is None else jax.tree.map(lambda leaf: _one_each("ctf", leaf, count), ctf)
        self.pixel_angstrom = _one_each("pixel_angstrom", floating(pixel_angstrom), count)
        grid = 2 * good_size(math.ceil(padding * size / 2))
        require(kernel == "trilinear" or not isinstance(kernel, str), "kernel", kernel, '"trilinear" or a number of taps')
        taps = gridding.trilinear() if isinstance(kernel, str) else gridding.kaiser_bessel(kernel, grid / size)
        self.plane = Plane(int(size), grid, taps, cutoff)
        work = self.plane.frequencies.shape[1] * taps.width**3
        self.batch = max(1, round(8e6 / work)) if batch is None else batch
        require(isinstance(self.batch, int) and self.batch >= 1, "batch", batch, "a whole number, 1 or more")

    @property
    def in_shape(self) -> Shape:
        """(z, y, x)."""
        return (self.plane.size,) * 3

    @property
    def out_shape(self) -> Shape:
        """(projections, y, x)."""
        return (self.rotations.shape[0], self.plane.size, self.plane.size)

    @property
    def views(self) -> View:
        """All images, for `Plane`."""
        return View(self.rotations, self.shifts, self.ctf, self.pixel_angstrom)

    @property
    def _spread_batch(self) -> int:
        """Images at a time on the way back, where every tap is written to memory."""
        return max(self.batch // 4, 8)

    def matvec(self, volume: Array) -> Array:
        """The images."""
        spectrum = self.spectrum(volume)
        return lax.map(jax.checkpoint(lambda view: self.plane.project(spectrum, view)), self.views, batch_size=self.batch)

    def rmatvec(self, images: Array) -> Array:
        """Back-projection: the sum over all images of their transposes."""
        images = images.astype(jnp.result_type(images, self.rotations))
        start = jnp.zeros((*gridding.grid_shape(self.plane.kernel, self.plane.grid), 2), images.dtype)
        items = (self.views, images)
        total = accumulate(lambda grid, item: self.plane.back_project(grid, *item), start, items, self._spread_batch)
        blank = jax.ShapeDtypeStruct(self.in_shape, images.dtype)
        return jax.linear_transpose(self.spectrum, blank)(lax.complex(total[..., 0], total[..., 1]))[0]

    def reduce(self, function: Callable[..., Array], volume: Array, *data: Any) -> Array:
        """sum_i function(image_i, *data_i), batch by batch: memory does not grow with the number of images, in gradients too.

        >>> A = FourierSlice(jnp.eye(3)[None], 8)
        >>> loss = lambda volume, A, seen: A.reduce(lambda image, y: jnp.sum((image - y) ** 2), volume, seen)
        >>> float(loss(jnp.zeros((8, 8, 8)), A, jnp.ones((1, 8, 8))))
        64.0

        Args:
            function: of one image (y, x) and one element of each of `data`; gives a number or an array.
            volume: (z, y, x).
            data: arrays or pytrees whose leading axis counts the images.
        """
        spectrum = self.spectrum(volume)

        def one(view: View, *rest: Any) -> Array:
            return function(self.plane.project(spectrum, view), *rest)

        @jax.checkpoint
        def add(total: Array, items: Any) -> Array:
            return sum((jax.vmap(one)(*part).sum(0) for part in lanes(items)), total)

        items = (self.views, *data)
        kind = jax.eval_shape(one, *jax.tree.map(lambda leaf: leaf[0], items))
        return scan_batches(add, jnp.zeros(kind.shape, kind.dtype), items, self._spread_batch)

    def spectrum(self, volume: Float[Array, "z y x"]) -> Complex[Array, "gz gy gx"]:
        """The oversampled spectrum that all images are read from."""
        return gridding.spectrum(floating(volume), self.plane.kernel, self.plane.grid)


def _one_each(argument: str, value: Array, count: int) -> Array:
    """A number repeated for each image, or an array of one for each."""
    require_shape(argument, value.shape, (count,) if value.ndim else ())
    return jnp.broadcast_to(value, (count,))
