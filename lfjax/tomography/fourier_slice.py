"""Projections of a volume at given poses, by the Fourier slice theorem.

    I(x, y) = int V(R^T (x, y, z)) dz,  convolved with the CTF and displaced by the shift,
    I^(kx, ky) = CTF(kx, ky) exp(-2 pi i k.t / n) V^(R^T (kx, ky, 0))

The projector evaluates only the half plane of the image's own n x n frequencies, not that of the padded spectrum. The centre is
n // 2 on every axis, for even and odd n; see `lfjax.rotation` for R. The projection is the sum of voxels along the line of
sight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Complex, Float, PyTree
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size
from lfjax.linop import LinearOperator, Shape, floating
from lfjax.tomography import gridding
from lfjax.tomography.ctf import Ctf

Total = TypeVar("Total")


class View(NamedTuple):
    """Pose and optics of one image; of a batch of images where every array has a leading axis."""

    rotation: Float[Array, "*n 3 3"]
    shift: Float[Array, "*n 2"]
    ctf: Ctf | None
    pixel_angstrom: Float[Array, "*n"]


@dataclass(frozen=True)
class Plane:
    """The half plane of frequencies of an n x n image, and its interpolation from a spectrum.

    For even n it has one row more than the half plane of `rfft2`: both signs of the Nyquist frequency, where an image holds
    their mean.

    Attributes:
        size: n.
        grid: samples per side of the spectrum.
        kernel: interpolation kernel.
        cutoff: radius in units of Nyquist of the frequencies in use; None: the whole square.
    """

    size: int
    grid: int
    kernel: gridding.Kernel
    cutoff: float | None

    @cached_property
    def frequencies(self) -> NDArray[np.float64]:
        """(kx, ky) of the m samples in use, in cycles per image, (2, m)."""
        kx, ky, inside = self._half()
        rows, columns = np.nonzero(inside)
        return np.stack([kx[columns], ky[rows]]).astype(float)

    @cached_property
    def places(self) -> NDArray[np.int32]:
        """Index of the sample at each place of the half plane; m where there is none."""
        inside = self._half()[2]
        return np.where(inside, np.cumsum(inside).reshape(inside.shape) - 1, inside.sum()).astype(np.int32)

    def _half(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        n = self.size
        kx, ky = np.arange(n // 2 + 1), np.r_[: n // 2 + 1, -(n // 2) : 0]
        return kx, ky, np.hypot(kx, ky[:, None]) <= (np.inf if self.cutoff is None else self.cutoff * n / 2)

    def coordinates(self, view: View) -> Float[Array, "3 m"]:
        """R^T (kx, ky, 0) in cells of the spectrum; with an anisotropic magnification M, of M k."""
        kx, ky = jnp.asarray(self.frequencies * (self.grid / self.size), view.rotation.dtype)
        if view.ctf is not None and view.ctf.aberrations is not None:
            kx, ky = view.ctf.aberrations.magnified(kx, ky)
        return view.rotation[0][:, None] * kx + view.rotation[1][:, None] * ky

    def image(self, values: Complex[Array, " m"], view: View) -> Float[Array, "y x"]:
        """The image of these samples of V^: filtered, displaced, its centre at n // 2."""
        n = self.size
        values = values * self.transfer(view)
        half = values.reshape(self.places.shape) if self.cutoff is None else jnp.append(values, 0)[self.places]
        half = half * self.displacement(view.shift)
        if n % 2 == 0:
            edge = (half[n // 2] + half[n // 2 + 1]) / 2
            half = jnp.concatenate([half[: n // 2], edge[None], half[n // 2 + 2 :]])
        return jnp.fft.irfft2(half, (n, n))

    def displacement(self, shift: Float[Array, "2"]) -> Complex[Array, "ky kx"]:
        """exp(-2 pi i k.(c + t) / n) on the half plane, which moves the origin to the pixel c + t, c = n // 2."""
        n = self.size
        waves = [jnp.asarray(-2 * np.pi / n * k, shift.dtype) for k in self._half()[:2]]
        angles = [wave * (n // 2 + t) for wave, t in zip(waves, shift, strict=True)]
        x, y = (lax.complex(jnp.cos(a), jnp.sin(a)) for a in angles)
        return y[:, None] * x

    def at_samples(self, half: Complex[Array, "ky kx"]) -> Complex[Array, " m"]:
        """Values of a half-plane array, or of one of `rfft2`, at the samples."""
        kx, ky = self.frequencies.astype(int)
        return half[ky, kx]

    def transfer(self, view: View) -> Array | float:
        """The transfer function of the images as recorded, at the samples; 1 without a CTF."""
        return 1.0 if view.ctf is None else view.ctf(*self._physical(view))

    def matched(self, view: View) -> Array | float:
        """Factor of recorded samples in the data term, see `Ctf.matched`; 1 without a CTF."""
        return 1.0 if view.ctf is None else view.ctf.matched(*self._physical(view))

    def power(self, view: View) -> Array | float:
        """|CTF|^2 at the samples; 1 without a CTF."""
        return 1.0 if view.ctf is None else view.ctf.power(*self._physical(view))

    def _physical(self, view: View) -> Float[Array, "2 m"]:
        """Frequencies of the samples in 1 / angstrom."""
        return jnp.asarray(self.frequencies, view.shift.dtype) / (self.size * view.pixel_angstrom)

    def samples(self, image: Float[Array, "y x"], shift: Float[Array, "2"]) -> Complex[Array, " m"]:
        """Transform of an image about its displaced centre, at the samples: V^ times the CTF."""
        return self.at_samples(jnp.fft.rfft2(image)) * self.at_samples(self.displacement(shift)).conj()

    def project(self, spectrum: Complex[Array, "gz gy gx"], view: View) -> Float[Array, "y x"]:
        """One image."""
        return self.image(gridding.interpolate(spectrum, self.coordinates(view), self.kernel, self.grid), view)

    def back_project(
        self, target: Float[Array, "gz gy gx 2"], views: View, images: Float[Array, "n y x"]
    ) -> Float[Array, "gz gy gx 2"]:
        """The transposes of `project` for a batch, added to `target`."""
        blank = jax.ShapeDtypeStruct((self.frequencies.shape[1],), jnp.result_type(images, 1j))

        def samples(view: View, image: Array) -> Array:
            return jax.linear_transpose(lambda values: self.image(values, view), blank)(image)[0]

        values = jax.vmap(samples)(views, images)
        return gridding.add_taps(target, self.taps(views, jnp.stack([values.real, values.imag], axis=-1)))

    def taps(self, views: View, values: Float[Array, "n m c"]) -> gridding.Taps:
        """Taps of the samples of a batch (real and imaginary part, then even values) at `coordinates`."""
        k = jnp.moveaxis(jax.vmap(self.coordinates)(views), 0, 1)
        return gridding.taps_of(k, values, self.kernel, self.grid)


def split_batches(items: PyTree[Array], batch: int) -> tuple[PyTree[Array], Bool[NDArray[np.bool_], "number size"]]:
    """Items in batches of one size of at most `batch`, (number, size, ...), and a mask of those that count.

    One size means one program for all batches. Copies of the last item fill the last batch up.
    """
    count = jax.tree.leaves(items)[0].shape[0]
    number = -(-count // batch)
    index = np.arange(number * -(-count // number))
    if len(index) > count:
        items = jax.tree.map(lambda a: a[np.minimum(index, count - 1)], items)
    return jax.tree.map(lambda a: a.reshape(number, -1, *a.shape[1:]), items), (index < count).reshape(number, -1)


def scan_batches(step: Callable[[Total, PyTree[Array], Array], Total], start: Total, items: PyTree[Array], batch: int) -> Total:
    """total <- step(total, items of one batch, mask of those that count), over batches of the leading axis."""
    parts, counted = split_batches(items, batch)
    total, _ = lax.scan(lambda total, part: (step(total, *part), None), start, (parts, jnp.asarray(counted)))
    return total


def map_batches(function: Callable[[PyTree[Array]], PyTree[Array]], items: PyTree[Array], batch: int) -> PyTree[Array]:
    """`function` of each item, batch by batch; as `lax.map`, which compiles a second program for a shorter last batch."""
    parts, counted = split_batches(items, batch)
    found = lax.map(jax.vmap(function), parts)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: counted.sum()], found)


def lanes(items: PyTree[Array]) -> list[PyTree[Array]]:
    """A batch in parts that may run side by side: two on a CPU, whose scatters are serial; else one, and for few items."""
    count = jax.tree.leaves(items)[0].shape[0]
    if jax.default_backend() != "cpu" or count < 4:
        return [items]
    return [jax.tree.map(lambda a: a[: count // 2], items), jax.tree.map(lambda a: a[count // 2 :], items)]


def accumulate(step: Callable[..., Array], start: Array, items: PyTree[Array], batch: int) -> Array:
    """`scan_batches` of a step that adds to `start`, with a sum of its own for each of the `lanes`."""

    def add(totals: list[Array], part: PyTree[Array], counted: Array) -> list[Array]:
        parts = lanes((part, counted))
        return [step(t, *p) for t, p in zip(totals, parts, strict=False)] + totals[len(parts) :]

    sums = [start] + [jnp.zeros_like(start) for _ in lanes(items)[1:]]
    first, *others = scan_batches(add, sums, items, batch)
    return sum(others, first)


class FourierSlice(LinearOperator):
    """Projections: volume (n, n, n) to images (count, n, n); differentiable in volume, rotations, shifts and optics.

    >>> from lfjax import rotation
    >>> A = FourierSlice(rotation.random_rotations(jax.random.key(0), 5), 16)
    >>> A(jnp.ones((16, 16, 16))).shape
    (5, 16, 16)

    Attributes:
        rotations: R of each image, (count, 3, 3).
        shifts: displacement (x, y) of the particle in pixels, (count, 2).
        ctf: optics of each image, arrays of length `count`; None: no CTF.
        pixel_angstrom: pixel size of volume and images, for the CTF only.
        plane: frequencies and interpolation.
        batch: images per batch.
    """

    rotations: Float[Array, "n 3 3"]
    shifts: Float[Array, "n 2"]
    ctf: Ctf | None
    pixel_angstrom: Float[Array, " n"]
    plane: Plane = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    def __init__(
        self,
        rotations: Float[ArrayLike, "n 3 3"],
        size: int,
        *,
        shifts: Float[ArrayLike, "n 2"] | None = None,
        ctf: Ctf | None = None,
        pixel_angstrom: ArrayLike = 1.0,
        kernel: int | str = 5,
        padding: float = 2.0,
        cutoff: float | None = None,
        batch: int | None = None,
    ) -> None:
        """Projector at given poses.

        Args:
            rotations: R of each image, object to image.
            size: n, voxels per side of the volume and pixels per side of the images.
            shifts: displacement (x, y) of the particle in the image, in pixels; None: no displacement.
            ctf: optics, one for all images or arrays of one number per image.
            pixel_angstrom: pixel size, for the CTF; one for all images or one per image.
            kernel: taps of a Kaiser-Bessel kernel (3: error 5e-3, 4: 4e-4, 5: 3e-5), or "trilinear" (3e-2).
            padding: the grid of the spectrum has at least padding * n samples per side. The fastest projector with the error of
                linear interpolation at twofold padding, 1.3e-2, has kernel=3, padding=1.4, cutoff=1.
            cutoff: radius in units of Nyquist beyond which the images have no frequencies; None: the whole square. 1 is the
                ball in which a rotation loses nothing, and saves a fifth of the work.
            batch: most images per batch; None: about 8 million taps, 64 MB of temporary memory. A GPU is faster with more.

        Raises:
            ShapeError: the lengths of rotations, shifts, ctf and pixel_angstrom differ.
            ParameterError: a number is out of range.
        """
        rotations = floating(rotations)
        require_shape("rotations", rotations.shape, ("n", 3, 3))
        count = rotations.shape[0]
        require(count > 0, "rotations", count, "at least one")
        require(isinstance(size, (int, np.integer)) and size >= 2, "size", size, "a whole number, 2 or more")
        require(padding > 1, "padding", padding, "more than 1")
        require(cutoff is None or 0 < cutoff <= math.sqrt(2), "cutoff", cutoff, "None, or from 0 to sqrt(2) Nyquist")
        self.rotations = rotations
        self.shifts = floating(np.zeros((count, 2), rotations.dtype) if shifts is None else shifts)
        require_shape("shifts", self.shifts.shape, (count, 2))
        self.ctf = None if ctf is None else ctf.each(count)
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
        """Views of all images, for `Plane`."""
        return View(self.rotations, self.shifts, self.ctf, self.pixel_angstrom)

    @property
    def _spread_batch(self) -> int:
        """Images per batch of the transpose, which writes every tap to memory."""
        return max(self.batch // 4, 8)

    def matvec(self, volume: Array) -> Array:
        """The images."""
        return _project(self, volume)

    def rmatvec(self, images: Array) -> Array:
        """Back-projection: the sum over all images of their transposes."""
        return _back_project(self, images)

    def reduce(self, function: Callable[..., Array], volume: Float[ArrayLike, "z y x"], *data: PyTree[ArrayLike]) -> Array:
        """sum_i function(image_i, *data_i), batch by batch: memory does not grow with the number of images, in gradients too.

        >>> A = FourierSlice(jnp.eye(3)[None], 8)
        >>> loss = lambda volume, A, seen: A.reduce(lambda image, y: jnp.sum((image - y) ** 2), volume, seen)
        >>> float(jax.jit(loss)(jnp.zeros((8, 8, 8)), A, jnp.ones((1, 8, 8))))
        64.0

        Args:
            function: function of one image (y, x) and one element of each of `data`; returns a number or an array.
            volume: (z, y, x).
            data: arrays or pytrees whose leading axis counts the images.
        """
        spectrum = self.spectrum(volume)

        def one(view: View, *rest: PyTree[Array]) -> Array:
            return function(self.plane.project(spectrum, view), *rest)

        @jax.checkpoint
        def add(total: Array, items: PyTree[Array], counted: Array) -> Array:
            for part, count in lanes((items, counted)):
                values = jax.vmap(one)(*part)
                total = total + jnp.sum(values, axis=0, where=count.reshape(-1, *(1,) * (values.ndim - 1)))
            return total

        items = (self.views, *jax.tree.map(jnp.asarray, data))
        kind = jax.eval_shape(one, *jax.tree.map(lambda leaf: leaf[0], items))
        return scan_batches(add, jnp.zeros(kind.shape, kind.dtype), items, self._spread_batch)

    def spectrum(self, volume: Float[ArrayLike, "z y x"]) -> Complex[Array, "gz gy gx"]:
        """The oversampled spectrum from which all images are interpolated."""
        return gridding.spectrum(floating(volume), self.plane.kernel, self.plane.grid)


@jax.jit
def _project(op: FourierSlice, volume: Array) -> Array:
    spectrum = op.spectrum(volume)
    return map_batches(jax.checkpoint(lambda view: op.plane.project(spectrum, view)), op.views, op.batch)


@jax.jit
def _back_project(op: FourierSlice, images: Array) -> Array:
    images = images.astype(jnp.result_type(images, op.rotations))
    start = jnp.zeros((*gridding.grid_shape(op.plane.kernel, op.plane.grid), 2), images.dtype)

    def step(grid: Array, item: tuple[View, Array], counted: Array) -> Array:
        return op.plane.back_project(grid, item[0], jnp.where(counted[:, None, None], item[1], 0))

    total = accumulate(step, start, (op.views, images), op._spread_batch)
    blank = jax.ShapeDtypeStruct(op.in_shape, images.dtype)
    return jax.linear_transpose(op.spectrum, blank)(lax.complex(total[..., 0], total[..., 1]))[0]


def _one_each(argument: str, value: Array, count: int) -> Array:
    """An array of one value per image; a single number counts for all."""
    require_shape(argument, value.shape, (count,) if value.ndim else ())
    return jnp.broadcast_to(value, (count,))
