"""Posterior over poses and shifts of images, given a map, on a grid of all rotations.

With y, c of `bands` and P_r the slice of the map at rotation r, a pose (r, t) of an image has

    log w_rt = sum_k [2 Re(conj(y) c P_r exp(-2 pi i k.t / n)) - c^2 |P_r|^2] / s2(|k|) - |t|^2 / (2 shift_px^2) + const

up to the evidence of the image, the logarithm of the mean of w. On a grid all images against all rotations are two matrix
products; the expectations that make the next map are one more: sum_i w_ir c_i y_i and sum_i w_ir c_i^2 of every rotation r,
which are spread once for all images. `near_search` looks about poses known before.

Images are spread over the devices of a mesh; expectations are summed over it (`psum`), nothing else is communicated.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Complex, Float
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.parallel import WHOLE, spread
from lfjax.tomography import gridding
from lfjax.tomography.bands import Band, Samples

SPREAD_BATCH = 1024  # slices spread at once
ENTRIES = 2**22  # poses, times images, whose likelihoods are in memory at once


class Posterior(NamedTuple):
    """Most probable poses of n images, best first.

    Attributes:
        rotations: (n, p, 3, 3).
        shifts: posterior mean of the displacement at each rotation, pixels of the images, (n, p, 2).
        weights: posterior probability of each rotation, its shifts summed; together the kept mass of the posterior.
        log_evidence: logarithm of the mean likelihood ratio of all poses and no particle at all.
        fit: sum over k of the explained power less its expectation, in standard deviations: about N(0, 1) for an image of the
            map at its true pose, far below 0 for an image of none.
        excess: sum over k of the residual power less that of the noise, in standard deviations: about N(0, 1) for an image of
            the map, above 0 for one that holds something else beside.
        average: mean of the rotation matrices under the posterior, whose nearest rotation is the mean pose, (n, 3, 3).
        displacement: mean of the displacement under the posterior, (n, 2).
    """

    rotations: Float[Array, "n p 3 3"]
    shifts: Float[Array, "n p 2"]
    weights: Float[Array, "n p"]
    log_evidence: Float[Array, " n"]
    fit: Float[Array, " n"]
    excess: Float[Array, " n"]
    average: Float[Array, "n 3 3"]
    displacement: Float[Array, "n 2"]


class Expected(eqx.Module):
    """Expectations under the posteriors of a set of images, from which `posterior_map` makes the next map.

    Attributes:
        data: sum over images of w c y at each rotation of the grid, or spread.
        weight: sum of w c^2.
        power: sum of |y|^2 in each sample.
        cross: sum of w Re(conj(y) c P) in each sample.
        energy: sum of w c^2 |P|^2 in each sample.
        count: number of images.
    """

    data: Complex[Array, "..."]
    weight: Float[Array, "..."]
    power: Float[Array, " m"]
    cross: Float[Array, " m"]
    energy: Float[Array, " m"]
    count: Float[Array, ""]

    @property
    def residual(self) -> Float[Array, " m"]:
        """Sum of w |y - c P|^2 in each sample."""
        return self.power - 2 * self.cross + self.energy


def disc(radius_px: float, step_px: float) -> Float[NDArray[np.float32], "s 2"]:
    """Displacements on a square grid inside a disc, the centre first; the centre alone where the radius is 0."""
    most = np.ceil(radius_px / step_px)
    steps = np.arange(-most, most + 1) * step_px
    x, y = (a.ravel() for a in np.meshgrid(steps, steps))
    inside = np.hypot(x, y) <= radius_px * 1.01 + 1e-6
    found = np.stack([x, y], -1)[inside]
    return found[np.argsort(np.hypot(*found.T), kind="stable")].astype(np.float32)


def unit_grid(order: int, group: Float[NDArray[np.floating], "e 3 3"]) -> Float[NDArray[np.float32], "g 3 3"]:
    """Rotations of `rotation.grid`, of each set {R g} that a point group takes for the same view only the nearest to 1."""
    every = rotation.grid(order)
    traces = np.einsum("nij,eji->ne", every, group)
    return every[traces[:, 0] >= traces.max(1) - 1e-9].astype(np.float32)


def waves(band: Band, shifts: Float[Array, "s 2"], size: int) -> Complex[Array, "s m"]:
    """exp(2 pi i k.t / n), which takes a displacement t in pixels of an image of n pixels out of its samples."""
    angle = shifts @ jnp.asarray(2 * np.pi / size * band.plane.frequencies, shifts.dtype)
    return lax.complex(jnp.cos(angle), jnp.sin(angle))


def paired(values: Complex[Array, "... m"]) -> Float[Array, "... mm"]:
    """Real and imaginary part side by side: Re(conj(a) b) is the inner product of two such vectors."""
    return jnp.concatenate([values.real, values.imag], axis=-1)


@functools.partial(jax.jit, static_argnums=0)
def slices(band: Band, volume: Float[Array, "n n n"], rotations: Float[Array, "g 3 3"]) -> Complex[Array, "g m"]:
    """Slices of a map of the band at all rotations."""
    plane = band.plane
    spectrum = gridding.spectrum(volume, plane.kernel, plane.grid)

    def chunk(part: Array) -> Array:
        return gridding.interpolate(spectrum, coordinates(band, part), plane.kernel, plane.grid)

    count = len(rotations)
    at_once = divisor(count, SPREAD_BATCH)
    return lax.map(chunk, rotations.reshape(-1, at_once, 3, 3)).reshape(count, -1)


def coordinates(band: Band, rotations: Float[Array, "... 3 3"]) -> Float[Array, "3 ... m"]:
    """R^T (kx, ky, 0) of the samples in cells of the spectrum."""
    kx, ky = jnp.asarray(band.plane.frequencies * (band.plane.grid / band.size), rotations.dtype)
    return jnp.moveaxis(rotations[..., 0, :, None] * kx + rotations[..., 1, :, None] * ky, -2, 0)


def over_images(mesh: Mesh | None, function, shared, split):  # type: ignore[no-untyped-def]
    """function(shared, split) -> (results per image, sums), the images on the devices of a mesh and the sums over it."""
    if mesh is None:
        return function(shared, split)

    def share(shared, split):  # type: ignore[no-untyped-def]
        each, sums = function(shared, split)
        return each, lax.psum(sums, mesh.axis_names[0])

    out = spread(mesh)
    return jax.shard_map(share, mesh=mesh, in_specs=(WHOLE, out), out_specs=(out, WHOLE), check_vma=False)(shared, split)


@functools.partial(jax.jit, static_argnames=("band", "size", "top", "mesh"), donate_argnames="before")
def search_grid(
    band: Band,
    found: Complex[Array, "g m"],
    rotations: Float[Array, "g 3 3"],
    noise: Float[Array, " r"],
    shifts: Float[Array, "s 2"],
    shift_px: Float[Array, ""],
    offsets: Float[Array, "n 2"],
    samples: Samples,
    weights: Float[Array, " n"],
    before: Expected,
    *,
    size: int,
    top: int,
    mesh: Mesh | None = None,
) -> tuple[Posterior, Expected]:
    """Posteriors of images over a grid of rotations and shifts, and the expectations with theirs added.

    Args:
        band: frequencies.
        found: slices of the map at the rotations.
        rotations: (g, 3, 3).
        noise: noise power per shell.
        shifts: displacements to try, pixels.
        shift_px: standard deviation of the displacements along each axis, pixels.
        offsets: displacement of each image about which to try them.
        samples: the images.
        weights: how much each image counts in the expectations; 0 for filling.
        before: expectations of other images.
        size: pixels per side of the images.
        top: poses to return.
        mesh: devices over which the images are spread.
    """

    def block(shared, split):  # type: ignore[no-untyped-def]
        found, noise, shifts, shift_px = shared
        scale = jnp.asarray(band.count, jnp.float32) / noise[band.shell]
        energies, pairs = jnp.abs(found) ** 2, paired(found)
        turned = waves(band, shifts, size)

        def some(sums, part):  # type: ignore[no-untyped-def]
            data, weight, power = sums
            offsets, samples, weights = part
            tried = samples.values * samples.contrast * waves(band, offsets, size) * turned[:, None]  # (s, n, m)
            square = samples.contrast**2
            energy = (square * scale) @ energies.T
            prior = log_prior(shifts[:, None] + offsets, shift_px)[:, :, None]
            scores = 2 * paired(tried * scale) @ pairs.T - energy  # (s, n, g)
            top_score = (scores + prior).max((0, 2))
            mass = jnp.exp(scores + prior - top_score[:, None])
            total = mass.sum((0, 2))
            mass = mass / total[:, None]
            each = mass.sum(0)
            best, index = lax.top_k(each, top)
            at = jnp.take_along_axis(mass, index[None], 2)
            mean = offsets[:, None] + jnp.einsum("snp,sd->npd", at, shifts) / jnp.maximum(best, 1e-30)[..., None]
            explained = (each * energy).sum(1)
            fit, excess = fit_and_excess(band, scale, samples.values, (mass * scores).sum((0, 2)), explained)
            evidence = top_score + jnp.log(total) - np.log(len(found))
            counted = paired(tried * weights[:, None]).reshape(-1, pairs.shape[1])
            data = data + mass.reshape(-1, len(found)).T @ counted
            weight = weight + each.T @ (weights[:, None] * square)
            power = power + weights @ jnp.abs(samples.values) ** 2
            return (data, weight, power), (index, mean, best, evidence, fit, excess)

        count = len(split[2])
        at_once = divisor(count, max(1, ENTRIES // (len(found) * len(shifts))))
        none = jnp.zeros_like(energies)
        parts = jax.tree.map(lambda a: a.reshape(-1, at_once, *a.shape[1:]), split)
        (data, weight, power), each = lax.scan(some, (jnp.zeros_like(pairs), none, none[0]), parts)
        each = jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), each)
        data = _complex(data)
        cross, energy = (data.conj() * found).real.sum(0), (weight * energies).sum(0)
        return each, Expected(data, weight, power, cross, energy, split[2].sum())

    each, new = over_images(mesh, block, (found, noise, shifts, shift_px), (offsets, samples, weights))
    index, mean, best, evidence, fit, excess = each
    share = best / best.sum(1, keepdims=True)
    average = jnp.einsum("np,npij->nij", share, rotations[index])
    displacement = jnp.einsum("np,npd->nd", share, mean)
    posterior = Posterior(rotations[index], mean, best, evidence, fit, excess, average, displacement)
    return posterior, jax.tree.map(jnp.add, before, new)


def nothing_expected(band: Band, rotations: int) -> Expected:
    """Expectations of no images on a grid of so many rotations."""
    m = len(band.shell)
    none = jnp.zeros((rotations, m), jnp.float32)
    return Expected(none.astype(jnp.complex64), none, jnp.zeros(m), jnp.zeros(m), jnp.zeros(m), jnp.zeros(()))


@functools.partial(jax.jit, static_argnums=0)
def spread_grid(band: Band, rotations: Float[Array, "g 3 3"], expected: Expected) -> Float[Array, "gz gy gx 3"]:
    """Sums of the expectations of a grid of rotations, for `posterior_map`."""
    values = jnp.concatenate([jnp.stack([expected.data.real, expected.data.imag], -1), expected.weight[..., None]], -1)
    return _spread(band, jnp.zeros((*gridding.grid_shape(band.plane.kernel, band.plane.grid), 3)), rotations, values)


def _spread(band: Band, total: Array, rotations: Float[Array, "g 3 3"], values: Float[Array, "g m 3"]) -> Array:
    """`total` with slices added, SPREAD_BATCH at a time; each sample counts as half where the half plane lists it twice."""
    plane, count = band.plane, len(rotations)
    at_once = divisor(count, SPREAD_BATCH)

    def step(total: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        turned, values = item
        values = values * jnp.asarray(band.count, values.dtype)[:, None]
        return gridding.spread(total, coordinates(band, turned), values, plane.kernel, plane.grid), None

    items = (rotations.reshape(-1, at_once, 3, 3), values.reshape(-1, at_once, *values.shape[1:]))
    return lax.scan(step, total, items)[0]


def fit_and_excess(
    band: Band,
    scale: Float[Array, " m"],
    values: Complex[Array, "*n m"],
    gained: Float[Array, "*n"],
    explained: Float[Array, "*n"],
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """`fit` and `excess` of `Posterior`.

    Args:
        band: frequencies.
        scale: how much each sample counts over its noise power.
        values: y of the images.
        gained: posterior mean of the sum of 2 Re(conj(y) c P) - c^2 |P|^2 over s2.
        explained: posterior mean of the sum of c^2 |P|^2 over s2.
    """
    left = jnp.abs(values) ** 2 @ scale - gained
    fit = (gained - explained) / jnp.sqrt(2 * jnp.maximum(explained, 1e-6))
    return fit, (left - band.count.sum()) / np.sqrt(band.count.sum())


def log_prior(shifts: Float[Array, "s n 2"], shift_px: Array) -> Float[Array, "s n"]:
    """Logarithm of the prior of displacements, such that the mean over those tried is a mean over the plane; 0 for one."""
    if shifts.shape[0] == 1:
        return jnp.zeros(shifts.shape[:-1])
    return -0.5 * (shifts**2).sum(-1) / jnp.maximum(shift_px, 1e-3) ** 2 - np.log(shifts.shape[0])


def divisor(count: int, most: int) -> int:
    """The largest divisor of `count` that is at most `most`."""
    return max(n for n in range(1, min(count, most) + 1) if count % n == 0)


def _complex(pairs: Float[Array, "... mm"]) -> Complex[Array, "... m"]:
    real, imaginary = jnp.split(pairs, 2, axis=-1)
    return lax.complex(real, imaginary)
