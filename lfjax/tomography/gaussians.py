"""Sums of Gaussians: molecules whose projections are known in closed form.

V(x) = sum_k a_k exp(-|x - m_k|^2 / (2 s_k^2))
I(x, y) = sum_k a_k sqrt(2 pi) s_k exp(-|(x, y) - (R m_k)_xy|^2 / (2 s_k^2))
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import FileError, require, require_shape
from lfjax.io.arrays import reading


class Gaussians(eqx.Module):
    """Sum of k isotropic Gaussians, in voxels about the centre n // 2 of a box.

    >>> one = Gaussians(jnp.zeros((1, 3)), jnp.asarray([2.0]), jnp.asarray([1.0]))
    >>> one.volume(8).shape, one.project(jnp.eye(3)[None], 8).shape
    ((8, 8, 8), (1, 8, 8))

    Attributes:
        positions: m, (k, 3) as (x, y, z).
        widths: s.
        amplitudes: a.
    """

    positions: Float[Array, "k 3"]
    widths: Float[Array, " k"]
    amplitudes: Float[Array, " k"]

    def __check_init__(self) -> None:
        require_shape("positions", self.positions.shape, ("k", 3))
        for name in ("widths", "amplitudes"):
            require_shape(name, getattr(self, name).shape, self.positions.shape[:1])

    @partial(jax.jit, static_argnums=1)
    def volume(self, size: int) -> Float[Array, "z y x"]:
        """V at the centres of the voxels of a cube of `size` voxels per side."""
        x, y, z = (self._along(self.positions[:, axis], size, integrated=False) for axis in range(3))
        return jnp.einsum("k,kz,ky,kx->zyx", self.amplitudes, z, y, x, optimize=[(0, 1), (0, 2), (0, 1)])

    @partial(jax.jit, static_argnames=("size", "integrated"))
    def project(
        self,
        rotations: Float[ArrayLike, "n 3 3"],
        size: int,
        *,
        shifts: Float[ArrayLike, "n 2"] | None = None,
        integrated: bool = False,
    ) -> Float[Array, "n y x"]:
        """Exact projections.

        Args:
            rotations: R, object to image.
            size: pixels per side.
            shifts: displacement (x, y) in pixels; None: no displacement.
            integrated: whether to take the mean over each pixel, as a detector does, instead of the value at its centre.
        """
        rotations = jnp.asarray(rotations)
        shifts = jnp.zeros((len(rotations), 2)) if shifts is None else shifts
        mass = self.amplitudes * np.sqrt(2 * np.pi) * self.widths

        def one(pose: tuple[Array, Array]) -> Array:
            place = self.positions @ pose[0][:2].T + pose[1]
            x, y = (self._along(place[:, axis], size, integrated) for axis in (0, 1))
            return jnp.einsum("k,ky,kx->yx", mass, y, x)

        return jax.lax.map(one, (rotations, shifts))

    def _along(self, centres: Array, size: int, integrated: bool) -> Array:
        x = jnp.arange(size) - size // 2 - centres[:, None]
        s = self.widths[:, None]
        if not integrated:
            return jnp.exp(-(x**2) / (2 * s**2))
        edge = [erf((x + side) / (np.sqrt(2) * s)) for side in (0.5, -0.5)]
        return np.sqrt(np.pi / 2) * s * (edge[0] - edge[1])


def read_structure(path: str | Path, pixel_angstrom: float, *, resolution_angstrom: float = 4.0) -> Gaussians:
    """Atoms of a PDB or mmCIF file as Gaussians about their centre of mass.

    The mass of an atom is its atomic number, a rough measure of how strongly it scatters electrons. Its width follows from its
    B-factor and the resolution: s^2 = B / (8 pi^2) + (resolution / (pi sqrt 2))^2. Hydrogens and waters are left out.

    Args:
        path: .pdb or .cif, also gzipped (read by `gemmi`).
        pixel_angstrom: voxel size of the box, the unit of the positions.
        resolution_angstrom: period at which the transform of an atom falls to 1 / e.

    Raises:
        FileError: the file is missing, broken, or has no atoms.
    """
    import gemmi

    require(pixel_angstrom > 0, "pixel_angstrom", pixel_angstrom, "more than 0")
    with reading(path, "PDB or mmCIF"):
        structure = gemmi.read_structure(str(path))
        structure.remove_hydrogens()
        structure.remove_waters()
        atoms = [site.atom for site in structure[0].all()] if len(structure) else []
    if not atoms:
        raise FileError(f"{path}: no atoms; expected a structure")
    where = np.array([atom.pos.tolist() for atom in atoms])
    number = np.array([atom.element.atomic_number * atom.occ for atom in atoms], float)
    where -= (number[:, None] * where).sum(0) / number.sum()
    variance = np.array([atom.b_iso for atom in atoms]) / (8 * np.pi**2) + (resolution_angstrom / (np.pi * np.sqrt(2))) ** 2
    widths = np.sqrt(variance) / pixel_angstrom
    amplitudes = number / (np.sqrt(2 * np.pi) * widths) ** 3  # so that an atom's sum over voxels is its number
    return Gaussians(*(jnp.asarray(v, float) for v in (where / pixel_angstrom, widths, amplitudes)))
