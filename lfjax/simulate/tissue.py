"""A piece of cortex: labelled neurons one by one, neuropil, vessels and their shadows.

Sizes in micrometres, axes (z, y, x); light enters and leaves through the first plane. Values without a source are marked
"assumed".
"""

from __future__ import annotations

import copy
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import pdist

from lfjax.errors import require
from lfjax.io.limits import require_memory
from lfjax.simulate.samples import Triple, check_volume, draw_dendrites, draw_soma, soma_centres, stamp

NEURONS_PER_MM3 = 9.2e4  # mouse cortex: about 9e4 (Braitenberg & Schuez, Cortex, 2nd ed. (1998); BioNumbers 109245)
SOMA_UM = (10.0, 15.0)  # diameters of pyramidal somata in layer 2/3 (assumed)
CAPILLARY_UM = 4.5  # diameter; lumens are 2 to 5 um wide (Sargent et al., Vascular Biology 5 (2023), mouse cortex)
CAPILLARY_MM_PER_MM3 = 900.0  # length of capillaries per volume (assumed)
PENETRATING_UM = 14.0  # diameter of penetrating arterioles and venules (assumed)
PENETRATING_PER_MM2 = 100.0  # penetrating arterioles and venules per surface (assumed)
# Absorption of whole blood at 515 nm: 2.303 * 24,000 /M/cm * 2.3 mM haemoglobin, which is 150 g/l. The molar extinction is that
# of 60 % oxygenation (assumed): 20,700 /M/cm with oxygen, 28,700 without (S. Prahl, omlc.org/spectra/hemoglobin).
BLOOD_PER_UM = 0.013


class Tissue(eqx.Module):
    """A simulated piece of tissue, to be imaged and to serve as ground truth.

    Attributes:
        footprints: (n, z, y, x), the calcium indicator of each neuron at rest; nuclei are dark. A typical soma is 1.
        structure: (z, y, x), a structural label (such as tdTomato) of the same neurons, nuclei filled.
        neuropil: (z, y, x), indicator in axons and dendrites too fine to be resolved.
        transmission: (z, y, x), transmission of the blood between a voxel and the first plane, for one passage of the light.
        vessels: (z, y, x), fraction of a voxel that is blood.
        centres_um: (n, 3), centres of the somata, measured from the corner of the volume.
        soma_um: (n,), diameters of the somata.
        voxel_um: voxel size (z, y, x).
    """

    footprints: Float[Array, "n z y x"]
    structure: Float[Array, "z y x"]
    neuropil: Float[Array, "z y x"]
    transmission: Float[Array, "z y x"]
    vessels: Float[Array, "z y x"]
    centres_um: Float[Array, "n 3"]
    soma_um: Float[Array, " n"]
    voxel_um: Triple = eqx.field(static=True)

    @property
    def rest(self) -> Float[Array, "z y x"]:
        """Fluorescence of the indicator without activity, in the shadow of the vessels."""
        return self.transmission * (self.footprints.sum(0) + self.neuropil)


def cortex(
    key: Array,
    shape: tuple[int, int, int],
    voxel_um: Triple,
    *,
    count: int | None = None,
    labelled: float = 0.1,
    soma_um: tuple[float, float] = SOMA_UM,
    border_um: float = 0.0,
    apart_um: float = 0.0,
    brightness_spread: float = 0.4,
    structure_spread: float = 0.3,
    neuropil: float = 0.05,
    vessels: bool = False,
    numerical_aperture: float = 0.8,
) -> Tissue:
    """Draw a piece of cortex. NumPy draws it, so `key` must be concrete (outside `jit`).

    Args:
        key: random key, which fixes the sample.
        shape: voxels (z, y, x).
        voxel_um: voxel size (z, y, x).
        count: number of neurons; None: drawn from their density.
        labelled: fraction of the 92,000 neurons per mm^3 that express the label (assumed).
        soma_um: smallest and largest diameter; diameters are uniformly distributed.
        border_um: distance of the somata from the sides (y, x) of the volume; their dendrites and the neuropil fill it.
        apart_um: least distance between the centres of two somata; 0: as far apart as there is room.
        brightness_spread: standard deviation of the logarithm of the neurons' brightness (assumed).
        structure_spread: the same for the structural label, which is independent of the indicator (assumed).
        neuropil: mean brightness of the neuropil relative to a typical soma (assumed).
        vessels: whether to draw capillaries and penetrating vessels, which are dark and absorb.
        numerical_aperture: numerical aperture, in water, of the cone of light that the vessels shadow.

    Raises:
        ParameterError: a number is out of range, or the somata do not fit.
    """
    check_volume(shape, voxel_um, 1 if count is None else count)
    require(0 < labelled <= 1, "labelled", labelled, "a fraction above 0, at most 1")
    low, high = soma_um
    require(0 < low <= high, "soma_um", soma_um, "the smallest and the largest diameter")
    spreads = {"brightness_spread": brightness_spread, "structure_spread": structure_spread}
    spreads |= {"neuropil": neuropil, "border_um": border_um, "apart_um": apart_um}
    for name, value in spreads.items():
        require(0 <= value < math.inf, name, value, "zero or more")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    voxel, size = np.array(voxel_um, float), np.array(shape) * np.array(voxel_um, float)
    if count is None:
        count = max(1, int(rng.poisson(NEURONS_PER_MM3 * labelled * size.prod() * 1e-9)))
    blood = draw_vessels(rng, shape, voxel) if vessels else np.zeros(shape)

    centres = np.stack(soma_centres(rng, size, count, (low + high) / 2, border_um))
    gap = float(pdist(centres).min(initial=math.inf))
    expected = f"fewer neurons or a larger volume: the closest two would be {gap:.1f} um apart, not {apart_um:g} um"
    require(gap >= apart_um, "count", count, expected)
    diameters, seeds = rng.uniform(low, high, count), rng.integers(2**63, size=count)
    bright = np.exp(rng.normal(0, brightness_spread, count)), np.exp(rng.normal(0, structure_spread, count))
    require_memory("count (--count)", count, 8 * count * math.prod(shape))
    footprints, structure = np.zeros((count, *shape), np.float32), np.zeros(shape)
    for n in range(count):
        cell, own = np.zeros(shape), np.random.default_rng(int(seeds[n]))
        draw_dendrites(cell, own, centres[n], voxel, diameters[n], 0.6)
        filled, same = cell.copy(), copy.deepcopy(own)  # one neuron, two labels
        draw_soma(cell, own, centres[n], voxel, diameters[n], 1.0)
        draw_soma(filled, same, centres[n], voxel, diameters[n], 1.0, nucleus_brightness=1.0)
        footprints[n] = bright[0][n] * cell * (1 - blood)
        structure = np.maximum(structure, bright[1][n] * filled)
    return Tissue(
        jnp.asarray(footprints, jnp.result_type(float)),
        jnp.asarray(structure * (1 - blood), jnp.result_type(float)),
        jnp.asarray(neuropil * draw_neuropil(rng, shape, voxel) * (1 - blood), jnp.result_type(float)),
        jnp.asarray(shadow(blood, voxel, numerical_aperture), jnp.result_type(float)),
        jnp.asarray(blood, jnp.result_type(float)),
        jnp.asarray(centres, jnp.result_type(float)),
        jnp.asarray(diameters, jnp.result_type(float)),
        voxel_um,
    )


def draw_neuropil(rng: np.random.Generator, shape: tuple[int, int, int], voxel: np.ndarray) -> np.ndarray:
    """A texture of mean 1: log-normal, fine (2 um) and coarse (15 um) parts of equal weight (assumed)."""
    parts = [gaussian_filter(rng.normal(size=shape), scale / voxel, mode="wrap") for scale in (2.0, 15.0)]
    texture = np.exp(0.25 * sum(part / max(part.std(), 1e-30) for part in parts))
    return texture / texture.mean()


def draw_vessels(rng: np.random.Generator, shape: tuple[int, int, int], voxel: np.ndarray) -> np.ndarray:
    """Fraction of blood in each voxel: straight penetrating vessels along z, and capillaries as persistent random walks."""
    size = np.array(shape) * voxel
    volume = np.zeros(shape)
    for _ in range(int(rng.poisson(PENETRATING_PER_MM2 * size[1] * size[2] * 1e-6))):
        y, x = rng.uniform(0, size[1:])
        tilt = 0.1 * rng.normal(size=2)
        for z in np.arange(0, size[0], PENETRATING_UM / 6):
            _stamp_tube(volume, np.array([z, y + tilt[0] * z, x + tilt[1] * z]), PENETRATING_UM, voxel)
    left, step = CAPILLARY_MM_PER_MM3 * size.prod() * 1e-6, CAPILLARY_UM / 3  # um of capillary to draw
    while left > 0:
        position, direction = rng.uniform(0, size), rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        for _ in range(int(max(size) / step)):
            direction = direction + 0.12 * rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            position = position + step * direction
            if left <= 0 or np.any(position < 0) or np.any(position > size):
                break
            _stamp_tube(volume, position, CAPILLARY_UM, voxel)
            left -= step
        left -= step  # ends the loop even if every walk leaves the volume at its first step
    return np.minimum(volume, 1)


def shadow(blood: np.ndarray, voxel: np.ndarray, numerical_aperture: float, medium_index: float = 1.33) -> np.ndarray:
    """Transmission from each voxel to the first plane: exp(-mu path in blood), with the path averaged over a cone of light."""
    half_angle_tangent = numerical_aperture / math.sqrt(medium_index**2 - numerical_aperture**2)
    path = np.zeros(blood.shape)
    for z in range(1, len(blood)):
        for above in range(z):
            radius = half_angle_tangent * (z - above) * voxel[0]
            width = radius / 2 / voxel[1:]  # standard deviation of a disc
            path[z] += voxel[0] * gaussian_filter(blood[above], width, mode="nearest")
    return np.exp(-BLOOD_PER_UM * path)


def _stamp_tube(volume: np.ndarray, position: np.ndarray, diameter_um: float, voxel: np.ndarray) -> None:
    stamp(volume, position, diameter_um / 2, voxel, 1.0)
