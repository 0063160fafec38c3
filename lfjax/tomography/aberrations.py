"""Aberrations of an electron microscope beyond defocus, astigmatism and spherical aberration, as RELION 3.1 to 5 write them.

    odd phase     phi(k) = 2 pi Cs lambda^2 |k|^2 (k . tilt) + sum_j o_j Z_j(k)
    even phase    gamma(k) = sum_j e_j Z_j(k), which adds to chi of the CTF
    magnification k -> M k

Odd phases are antisymmetric: they make the transfer function complex. (Zivanov, Nakane & Scheres, IUCrJ 7, 253 (2020).)
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import require_shape


class Aberrations(eqx.Module):
    """Aberrations of one image; None where there is none of a kind. Batch them by `jax.vmap`, as `Ctf`.

    Attributes:
        beam_tilt_rad: tilt (x, y) of the beam.
        magnification: M, which takes a frequency of the image to that of the object.
    """

    beam_tilt_rad: Float[Array, "*n 2"] | None
    magnification: Float[Array, "*n 2 2"] | None

    def __init__(
        self,
        *,
        beam_tilt_rad: Float[ArrayLike, "*n 2"] | None = None,
        magnification: Float[ArrayLike, "*n 2 2"] | None = None,
    ) -> None:
        self.beam_tilt_rad = None if beam_tilt_rad is None else jnp.asarray(beam_tilt_rad, float)
        self.magnification = None if magnification is None else jnp.asarray(magnification, float)

    def each(self, count: int) -> Aberrations:
        """The same for each of `count` images, where the arrays have no axis of images; else as they are.

        Raises:
            ShapeError: the arrays count other than `count` images.
        """

        def broadcast(leaf: Array, core: int) -> Array:
            wanted = leaf.shape[leaf.ndim - core :]
            require_shape("aberrations", leaf.shape, (count, *wanted) if leaf.ndim > core else wanted)
            return jnp.broadcast_to(leaf, (count, *wanted))

        cores = {"beam_tilt_rad": 1, "magnification": 2}
        leaves = {name: getattr(self, name) for name in cores}
        return Aberrations(**{name: leaf if leaf is None else broadcast(leaf, cores[name]) for name, leaf in leaves.items()})

    def odd_phase(self, kx: Array, ky: Array, cs_mm: ArrayLike, wave_angstrom: ArrayLike) -> Array | None:
        """phi in radians at frequencies in 1 / angstrom; None: no odd aberration."""
        if self.beam_tilt_rad is None:
            return None
        tilt_x, tilt_y = self.beam_tilt_rad[..., 0], self.beam_tilt_rad[..., 1]
        strength = 2 * jnp.pi * 1e7 * jnp.asarray(cs_mm) * jnp.asarray(wave_angstrom) ** 2
        return strength * (kx**2 + ky**2) * (kx * tilt_x + ky * tilt_y)

    def even_phase(self, kx: Array, ky: Array) -> Array | None:
        """gamma in radians at frequencies in 1 / angstrom; None: no even aberration."""
        return None

    def magnified(self, kx: Array, ky: Array) -> tuple[Array, Array]:
        """M k, in the unit of k."""
        m = self.magnification
        if m is None:
            return kx, ky
        return m[..., 0, 0] * kx + m[..., 0, 1] * ky, m[..., 1, 0] * kx + m[..., 1, 1] * ky
