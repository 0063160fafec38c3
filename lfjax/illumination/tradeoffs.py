"""Trade-off of illumination and detection: speed, photons and scattering, in one table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.illumination.base import Illumination

MOLECULES_PER_UM3 = 602.214  # at 1 micromolar times 1 um^3 / fl


class Detection(eqx.Module):
    """Detection of the emitted light: aperture, efficiency, labelling, and the tissue on its way.

    Attributes:
        numerical_aperture: NA of the collection.
        medium_index: n.
        efficiency: transmission of the optics times quantum efficiency of the detector.
        read_noise_e: read noise per voxel, in electrons; zero for a photomultiplier.
        concentration_um: concentration of molecules in labelled tissue, in micromolar; assumed, for GCaMP in neurons.
        labelled: fraction of the tissue that holds molecules.
        mean_free_path_um: mean free path of the emitted light; assumed, mouse cortex has 50 to 100.
    """

    numerical_aperture: float | Array = 0.8
    medium_index: float | Array = 1.33
    efficiency: float | Array = 0.4
    read_noise_e: float | Array = 1.5
    concentration_um: float | Array = 10.0
    labelled: float | Array = 0.05
    mean_free_path_um: float | Array = 70.0

    @property
    def collected(self) -> Array:
        """Fraction of the emitted light that becomes a count: efficiency (1 - cos alpha) / 2."""
        sine = self.numerical_aperture / self.medium_index
        return self.efficiency * sine**2 / (1 + jnp.sqrt(1 - sine**2)) / 2


class Tradeoff(NamedTuple):
    """Speed, counts and bleaching of an illumination, plane by plane.

    Attributes:
        volumes_per_s: 1 / `Illumination.volume_s`.
        photons: counts per volume that come from the labelled voxel to which they are assigned.
        background: counts per volume assigned to that voxel that come from elsewhere.
        snr: photons / sqrt(photons + background + read_noise^2), before any reconstruction.
        bleached: fraction of the molecules that bleach in a minute.
    """

    volumes_per_s: float
    photons: Float[np.ndarray, " z"]
    background: Float[np.ndarray, " z"]
    snr: Float[np.ndarray, " z"]
    bleached: Float[np.ndarray, " z"]


def tradeoff(illumination: Illumination, detection: Detection | None = None) -> Tradeoff:
    """Speed, photons and signal-to-noise ratio of a voxel in the middle of each plane.

    With w the weights of the step aimed at the voxel, c the counts per excitation of every molecule of a voxel, and
    b = exp(-thickness / mean free path) the ballistic fraction of the emitted light:

        scanned point:  photons = c w(voxel),       background = c labelled (sum w - w(voxel))
        camera:         photons = c b(z) w(voxel),  background = c labelled (sum_z' mean_yx w - b(z) mean_yx w at z)

    A point scanner assigns all light to its focus; on a camera scattered and out-of-focus light spreads evenly on the field.

    Args:
        illumination: patterns and times; the emitted light crosses the same `thickness_um`.
        detection: aperture, efficiency, tissue; None: `Detection()`.
    """
    detection = Detection() if detection is None else detection
    planes, rows, columns = illumination.shape
    steps = np.array([illumination.step_at(z, rows // 2, columns // 2) for z in range(planes)])
    signal, background, lost = (np.asarray(a, float) for a in _counts(illumination, detection, steps))
    noise = np.sqrt(signal + background + (np.asarray(detection.read_noise_e) ** 2 if illumination.imaged else 0))
    snr = signal / np.maximum(noise, 1e-30)
    return Tradeoff(1 / float(illumination.volume_s), signal, background, snr, lost)


@jax.jit
def _counts(illumination: Illumination, detection: Detection, steps: Array) -> tuple[Array, Array, Array]:
    """Signal, background and bleached fraction of each plane, of the step aimed at the voxel in its middle."""
    planes, rows, columns = illumination.shape
    molecules = detection.concentration_um * MOLECULES_PER_UM3 * math.prod(illumination.voxel_um)
    counts = molecules * illumination.fluorophore.quantum_yield * detection.collected
    thickness = jnp.broadcast_to(jnp.asarray(illumination.thickness_um, jnp.result_type(float)), (planes,))
    ballistic = jnp.exp(-thickness / detection.mean_free_path_um)

    def plane(args: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        z, step, direct = args
        weights = illumination.rate(step) * illumination.timing.dwell_s
        here = weights[z, rows // 2, columns // 2]
        if not illumination.imaged:
            return counts * here, counts * detection.labelled * (weights.sum() - here)
        mean = weights.mean((1, 2))
        return counts * direct * here, counts * detection.labelled * (mean.sum() - direct * mean[z])

    signal, background = jax.lax.map(plane, (jnp.arange(planes), steps, ballistic))
    return signal, background, 1 - illumination.surviving(60 / illumination.volume_s).mean((1, 2))


def table(rows: Mapping[str, Illumination], depths: Iterable[int], detection: Detection | None = None) -> str:
    """The trade-off of several illuminations as a Markdown table.

    Args:
        rows: illuminations by name.
        depths: indices of the planes to show.
        detection: see `tradeoff`.

    Raises:
        ParameterError: a plane is out of range.
    """
    planes = list(depths)
    for name, light in rows.items():
        fits = all(0 <= z < light.shape[0] for z in planes)
        require(fits, "depths", planes, f"planes of {name}, 0 to {light.shape[0] - 1}")
    head = ["", "volumes/s", *(f"{q}, plane {z}" for q in ("photons", "SNR") for z in planes), "bleached per minute"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, light in rows.items():
        result = tradeoff(light, detection)
        cells = [f"{v:.3g}" for v in (result.volumes_per_s, *result.photons[planes], *result.snr[planes])]
        lines.append("| " + " | ".join([name, *cells, f"{result.bleached.max():.2g}"]) + " |")
    return "\n".join(lines)
