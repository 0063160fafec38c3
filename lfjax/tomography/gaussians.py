"""Sums of Gaussians: molecules whose projections are known in closed form.

V(x) = sum_k a_k exp(-|x - m_k|^2 / (2 s_k^2))
I(x, y) = sum_k a_k sqrt(2 pi) s_k exp(-|(x, y) - (R m_k)_xy|^2 / (2 s_k^2))
"""

from __future__ import annotations

import gzip
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
from lfjax.io.checked_numbers import LARGEST
from lfjax.io.claims import require_claim

COPIES = 8  # of the text of a structure that parsing it takes


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
        path: .pdb or .cif, also gzipped (read by `gemmi`, which takes a field of a PDB file that is no number for 0: lfjax
            refuses it).
        pixel_angstrom: voxel size of the box, the unit of the positions.
        resolution_angstrom: period at which the transform of an atom falls to 1 / e.

    Raises:
        FileError: the file is missing, broken, or has no atoms; or a position, occupancy or B-factor of an atom is no finite
            number, an occupancy is negative, or the B-factors are so negative that an atom has no width. The message names the
            atom.
    """
    import gemmi

    require(pixel_angstrom > 0, "pixel_angstrom", pixel_angstrom, "more than 0")
    with reading(path, "PDB or mmCIF"):
        if Path(path).suffix.lower() == ".gz":  # whose last four bytes are the size of what it holds
            require_claim(path, COPIES * int.from_bytes(Path(path).read_bytes()[-4:], "little"), what="its end")
        _check_fields(Path(path))
        structure = gemmi.read_structure(str(path))
        structure.remove_hydrogens()
        structure.remove_waters()
        atoms = [site.atom for site in structure[0].all()] if len(structure) else []
    if not atoms:
        raise FileError(f"{path}: no atoms; expected a structure")
    where, occupancy, b = (
        np.array(values, float) for values in zip(*((atom.pos.tolist(), atom.occ, atom.b_iso) for atom in atoms), strict=True)
    )
    blur = (resolution_angstrom / (np.pi * np.sqrt(2))) ** 2
    least = -8 * np.pi**2 * blur
    with np.errstate(invalid="ignore"):  # NaN is compared, and fails
        for name, values, right, expected in (
            ("position", where, (np.abs(where) <= LARGEST).all(1), "finite numbers, in angstroms"),
            ("occupancy", occupancy, (occupancy >= 0) & (occupancy <= LARGEST), "a finite number, zero or more"),
            ("B-factor", b, (b > least) & (b <= LARGEST), f"a finite number above {least:.3g}"),
        ):
            if not right.all():
                at = int(np.argmin(right))
                raise FileError(f"{path}: atom {atoms[at].serial}, {name}: {values[at]}; expected {expected}")
    number = np.array([atom.element.atomic_number for atom in atoms]) * occupancy
    if not number.sum() > 0:
        raise FileError(f"{path}: the occupancy of every atom is 0; expected some above 0")
    where -= (number[:, None] * where).sum(0) / number.sum()
    variance = b / (8 * np.pi**2) + blur
    widths = np.sqrt(variance) / pixel_angstrom
    amplitudes = number / (np.sqrt(2 * np.pi) * widths) ** 3  # so that an atom's sum over voxels is its number
    return Gaussians(*(jnp.asarray(v, float) for v in (where / pixel_angstrom, widths, amplitudes)))


PDB_FIELDS = {"x": (30, 38), "y": (38, 46), "z": (46, 54), "occupancy": (54, 60), "B-factor": (60, 66)}
"""Columns of the numbers of an atom in a PDB file, from 0."""


def _check_fields(path: Path) -> None:
    """Refuse fields of a PDB file that are no numbers, which `gemmi` takes for 0: "********", of a number that did not fit.

    Raises:
        FileError: a field of an atom is no number; the message names the line.
    """
    with gzip.open(path, "rt", errors="replace") if path.suffix == ".gz" else path.open(errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.startswith("data_"):  # mmCIF, in which a value that is no number becomes NaN
                return
            if not line.startswith(("ATOM  ", "HETATM")):
                continue
            for name, (first, last) in PDB_FIELDS.items():
                text = line[first:last].strip()
                try:
                    float(text or ("" if last <= 54 else "0"))  # occupancy and B-factor may be left out
                except ValueError:
                    text = text or "nothing"
                    raise FileError(f"{path}: line {number}, {name} of an atom: {text}; expected a number") from None
