"""Posterior over poses and shifts of images in balls about poses known before; see `search` for the likelihood.

Each image has rotations of its own, and all of them share one small disc of shifts, which costs two matrix products: slices of
the map are what takes the time.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.tomography import gridding
from lfjax.tomography.bands import Band, Samples
from lfjax.tomography.fourier_slice import View
from lfjax.tomography.search import (
    Expected,
    Posterior,
    coordinates,
    divisor,
    fit_and_excess,
    log_prior,
    over_images,
    paired,
    waves,
)

KEPT = 24  # rotations of each image that are spread into the map
AT_ONCE = 8  # images whose slices are in memory at once


@functools.lru_cache(maxsize=8)
def ball_points(count: int) -> Float[NDArray[np.float32], "p 3"]:
    """Points spread evenly in the unit ball, the first at its centre (an additive sequence, Roberts' R3)."""
    base = 1.2207440846057596
    u = (0.5 + np.outer(np.arange(count - 1), base ** -np.arange(1.0, 4.0))) % 1
    radius, height, angle = u[:, 0] ** (1 / 3), 2 * u[:, 1] - 1, 2 * np.pi * u[:, 2]
    rim = np.sqrt(1 - height**2)
    points = radius[:, None] * np.stack([rim * np.cos(angle), rim * np.sin(angle), height], -1)
    return np.concatenate([np.zeros((1, 3)), points]).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("band", "size", "points", "mesh", "spreading"))
def search_near(
    band: Band,
    volume: Float[Array, "b b b"],
    noise: Float[Array, " r"],
    start: tuple[Float[Array, "n q 3 3"], Float[Array, "n q 2"]],
    width_rad: Float[Array, ""],
    shifts: Float[Array, "s 2"],
    shift_px: Float[Array, ""],
    samples: Samples,
    weights: Float[Array, " n"],
    key: Array,
    before: tuple[Array, Expected],
    *,
    size: int,
    points: int,
    mesh: Mesh | None = None,
    spreading: bool = True,
) -> tuple[Posterior, tuple[Array, Expected]]:
    """Posteriors of images in balls of poses about q poses of each, and the sums with theirs added.

    Args:
        band: frequencies.
        volume: map of the band.
        noise: noise power per shell.
        start: rotations and displacements about which to search.
        width_rad: radius of the balls.
        shifts: displacements to try about those of `start`, pixels.
        shift_px: standard deviation of the whole displacement, pixels.
        samples: the images.
        weights: how much each image counts in the sums; 0 for filling.
        key: random key; every image turns the points of its ball at random.
        before: sums on the grid, and expectations, of other images.
        size: pixels per side of the images.
        points: rotations in each ball.
        mesh: devices over which the images are spread.
        spreading: whether to add to the sums.
    """
    plane = band.plane
    steps = jnp.asarray(ball_points(points))
    total, expected = before
    spins = rotation.random_rotations(key, len(weights)).astype(jnp.float32)

    def block(shared, split):  # type: ignore[no-untyped-def]
        volume, noise, width_rad, shifts, shift_px = shared
        scale = jnp.asarray(band.count, jnp.float32) / noise[band.shell]
        spectrum = gridding.spectrum(volume, plane.kernel, plane.grid)
        turned = waves(band, shifts, size)

        def one(item):  # type: ignore[no-untyped-def]
            (rotations, offsets), samples, weight, spin = item
            q = len(rotations)
            candidates = (rotation.from_vector(width_rad * steps @ spin.T)[None] @ rotations[:, None]).reshape(-1, 3, 3)
            k = _bent(band, candidates, samples.magnified)
            found = gridding.interpolate(spectrum, k, plane.kernel, plane.grid)
            waved = samples.values * samples.contrast * waves(band, offsets, size)  # (q, m)
            tried = waved[:, None] * turned  # (q, s, m)
            square = samples.contrast**2
            energies = jnp.abs(found) ** 2
            energy = energies @ (square * scale)
            scores = jnp.einsum("qpm,qsm->qps", paired(found.reshape(q, -1, found.shape[-1])), paired(tried * scale))
            prior = log_prior(jnp.moveaxis(offsets[:, None] + shifts, 1, 0), shift_px).T[:, None]
            scores = 2 * scores - energy.reshape(q, -1, 1) + prior
            top_score = scores.max()
            mass = jnp.exp(scores - top_score)
            norm = mass.sum()
            mass = mass / norm
            each = mass.sum(2).ravel()
            kept, index = lax.top_k(each, min(KEPT, len(candidates)))
            at = mass.reshape(-1, len(shifts))[index] / jnp.maximum(kept, 1e-30)[:, None]
            centre = index // points
            mean = offsets[centre] + at @ shifts
            shares = kept / kept.sum()
            data = jnp.einsum("ps,psm->pm", at.astype(jnp.complex64), tried[centre]) * shares[:, None]
            explained = (each * energy).sum()
            gained = (mass * (scores - prior)).sum()
            fit, excess = fit_and_excess(band, scale, samples.values, gained, explained)
            power = jnp.abs(samples.values) ** 2
            # of the poses kept, all three: a residual of sums over different poses might be negative
            shell_sums = (power, (data.conj() * found[index]).real.sum(0), square * (shares @ energies[index]))
            evidence = top_score + jnp.log(norm) - np.log(len(candidates))
            sums = (weight * data, weight * shares[:, None] * square)
            average = jnp.einsum("p,pij->ij", each, candidates)
            displacement = (mass.sum(1) @ shifts).sum(0) + mass.sum((1, 2)) @ offsets
            posterior = Posterior(candidates[index], mean, kept, evidence, fit, excess, average, displacement)
            return posterior, sums, [weight * a for a in shell_sums]

        count = len(split[2])

        def step(carry, part):  # type: ignore[no-untyped-def]
            total, told = carry
            found, (data, weight), more = jax.vmap(one)(part)
            if spreading:
                values = jnp.stack([data.real, data.imag, weight], -1)
                k = jnp.moveaxis(jax.vmap(lambda r, v: _bent(band, r, v))(found.rotations, part[1].magnified), 0, 1)
                values = values * jnp.asarray(band.count, values.dtype)[:, None]
                total = gridding.spread(total, k, values, plane.kernel, plane.grid)
            return (total, [a + b.sum(0) for a, b in zip(told, more, strict=True)]), found

        at_once = divisor(count, AT_ONCE)
        parts = jax.tree.map(lambda a: a.reshape(-1, at_once, *a.shape[1:]), split)
        none = [jnp.zeros(len(band.shell))] * 3
        (new, told), each = lax.scan(step, (jnp.zeros_like(total), none), parts)
        each = jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), each)
        nothing = jnp.zeros(())
        power, cross, energy = told
        return each, (new, Expected(nothing + 0j, nothing, power, cross, energy, split[2].sum()))

    shared = (volume, noise, width_rad, shifts, shift_px)
    posterior, (new, more) = over_images(mesh, block, shared, (start, samples, weights, spins))
    return posterior, (total + new, jax.tree.map(jnp.add, expected, more))


def _bent(band: Band, rotations: Float[Array, "p 3 3"], view: View | None) -> Float[Array, "3 p m"]:
    """Coordinates of slices; with the anisotropic magnification of an image, if it has one."""
    if view is None:
        return coordinates(band, rotations)
    return jnp.moveaxis(jax.vmap(lambda r: band.plane.coordinates(view._replace(rotation=r)))(rotations), 0, 1)
