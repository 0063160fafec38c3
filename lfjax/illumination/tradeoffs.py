"""Speed, photons and scattering of illumination and detection, in one table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.illumination.base import Illumination

MOLECULES_PER_UM3 = 602.214  # at 1 micromolar times 1 um^3 / fl


class Detection(eqx.Module):
    """The way of the light from a molecule to a count, and the tissue on it.

    Attributes:
        numerical_aperture: that collects.
        medium_index: n.
        efficiency: transmission of the optics times quantum efficiency of the detector.
        read_noise_e: a voxel; zero for a photomultiplier.
        concentration_um: micromolar, of molecules where there are any. GCaMP in neurons: about 10 (Zariwala et al., J.
            Neurosci. 32, 3131 (2012) and others find 5 to 20).
        labelled: share of the tissue that holds molecules.
        mean_free_path_um: of the emitted light; mouse cortex 50 to 100.
    """

    numerical_aperture: Any = 0.8
    medium_index: Any = 1.33
    efficiency: Any = 0.4
    read_noise_e: Any = 1.5
    concentration_um: Any = 10.0
    labelled: Any = 0.05
    mean_free_path_um: Any = 70.0

    @property
    def collected(self) -> Array:
        """Share of the emitted light that becomes a count: efficiency (1 - cos alpha) / 2."""
        sine = self.numerical_aperture / self.medium_index
        return self.efficiency * sine**2 / (1 + jnp.sqrt(1 - sine**2)) / 2


class Tradeoff(NamedTuple):
    """What an illumination gives, plane by plane.

    Attributes:
        volumes_per_s: 1 / `Illumination.volume_s`.
        photons: counts a volume from a labelled voxel that come from where they seem to.
        background: counts that seem to, but come from elsewhere.
        snr: photons / sqrt(photons + background + read_noise^2), before any reconstruction.
        bleached: share of the molecules that a minute costs.
    """

    volumes_per_s: float
    photons: Float[np.ndarray, " z"]
    background: Float[np.ndarray, " z"]
    snr: Float[np.ndarray, " z"]
    bleached: Float[np.ndarray, " z"]


def tradeoff(illumination: Illumination, detection: Detection | None = None) -> Tradeoff:
    """Speed, photons and signal-to-noise ratio of a voxel in the middle of each plane.

    With w the weights of the step aimed at the voxel, c the counts of one excitation of each molecule of a voxel and
    b = exp(-thickness / mean free path) the ballistic share of emitted light:

        scanned point:  photons = c w(voxel),       background = c labelled (sum w - w(voxel))
        camera:         photons = c b(z) w(voxel),  background = c labelled (sum_z' mean_yx w - b(z) mean_yx w at z)

    A point scanner counts all light as its focus; on a camera scattered and out-of-focus light falls evenly on the field.

    Args:
        illumination: patterns and times; its `thickness_um` is also what the emitted light crosses.
        detection: aperture, efficiency, tissue; `Detection()` if not given.
    """
    detection = Detection() if detection is None else detection
    planes, rows, columns = illumination.shape
    molecules = detection.concentration_um * MOLECULES_PER_UM3 * math.prod(illumination.voxel_um)
    counts = molecules * illumination.fluorophore.quantum_yield * detection.collected
    thickness = jnp.broadcast_to(jnp.asarray(illumination.thickness_um, jnp.result_type(float)), (planes,))
    ballistic = jnp.exp(-thickness / detection.mean_free_path_um)
    signal, background = np.zeros(planes), np.zeros(planes)
    for z in range(planes):
        place = (z, rows // 2, columns // 2)
        weights = illumination.weights([illumination.step_at(*place)])[0]
        here = weights[place]
        if illumination.imaged:
            mean = weights.mean((1, 2))
            signal[z] = counts * ballistic[z] * here
            background[z] = counts * detection.labelled * (mean.sum() - ballistic[z] * mean[z])
        else:
            signal[z] = counts * here
            background[z] = counts * detection.labelled * (weights.sum() - here)
    noise = np.sqrt(signal + background + (np.asarray(detection.read_noise_e) ** 2 if illumination.imaged else 0))
    lost = 1 - illumination.surviving(60 / illumination.volume_s).mean((1, 2))
    snr = signal / np.maximum(noise, 1e-30)
    return Tradeoff(1 / float(illumination.volume_s), signal, background, snr, np.asarray(lost))


def table(rows: Mapping[str, Illumination], depths: Iterable[int], detection: Detection | None = None) -> str:
    """The trade-off of several illuminations as a Markdown table.

    Args:
        rows: illuminations by name.
        depths: which planes to show.
        detection: see `tradeoff`.
    """
    planes = list(depths)
    for name, light in rows.items():
        fits = all(0 <= z < light.shape[0] for z in planes)
        require(fits, "depths", planes, f"planes of {name}, 0 to {light.shape[0] - 1}")
    head = ["", "volumes/s", *(f"{q}, plane {z}" for q in ("photons", "SNR") for z in planes), "bleached a minute"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, light in rows.items():
        got = tradeoff(light, detection)
        cells = [f"{v:.3g}" for v in (got.volumes_per_s, *got.photons[planes], *got.snr[planes])]
        lines.append("| " + " | ".join([name, *cells, f"{got.bleached.max():.2g}"]) + " |")
    return "\n".join(lines)
