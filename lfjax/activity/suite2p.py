"""Neurons as a folder of suite2p (Pachitariu et al., bioRxiv 061507 (2017)), which its window opens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.stats import skew

from lfjax.activity.neurons import Neurons
from lfjax.errors import ShapeError, require
from lfjax.io import writing

NEUROPIL = 0.7  # share of Fneu that suite2p subtracts from F


def write_suite2p(
    folder: str | Path,
    neurons: Neurons,
    *,
    structure: ArrayLike | None = None,
    decay_s: float = 0.1,
    threshold: float = 0.1,
) -> None:
    """Write `plane0/` with F.npy, Fneu.npy, spks.npy, stat.npy, ops.npy and iscell.npy; in suite2p, open its stat.npy.

    suite2p is two-dimensional: footprints are summed along z, and `stat` holds the depth of each neuron as `z_um`. What its
    files mean here, for n neurons and t frames:

    - Fneu: `neurons.neuropil`, or 0. F: the fluorescence plus 0.7 Fneu, so that F - 0.7 Fneu, which suite2p computes, is the
      fluorescence without neuropil.
    - spks: spikes per frame.
    - iscell: 1 and a probability of 1 where dF/F is defined, 0 elsewhere (`Neurons.valid`).

    stat.npy and ops.npy hold Python objects, as this format demands: NumPy writes them as pickles. lfjax writes them and never
    reads any; open files of others only if you trust them.

    Args:
        folder: folder in which `plane0` is made.
        neurons: one or more neurons.
        structure: (z, y, x), structural volume on the voxels of the footprints, whose maximum along z is the picture behind the
            neurons; None: the neurons themselves.
        decay_s: decay time of the indicator, `Indicator.time_constants_s[1]`, by which suite2p bins traces.
        threshold: fraction of a projected footprint's maximum above which a pixel belongs to the neuron.

    Raises:
        ParameterError: no neurons, a footprint without light, or a number out of range.
        ShapeError: the shapes do not fit each other.
    """
    neurons.check()
    require(len(neurons) > 0, "neurons", len(neurons), "one or more")
    require(0 < decay_s < math.inf, "decay_s", decay_s, "a positive number")
    require(0 <= threshold < 1, "threshold", threshold, "a fraction, 0 or more and below 1")
    maps = np.asarray(neurons.footprints, np.float32).sum(1)
    dark = np.flatnonzero(maps.max((1, 2)) <= 0)
    require(len(dark) == 0, "footprints", f"no light in {dark.tolist()}", "a voxel above zero in each")
    if structure is not None and np.shape(structure) != np.shape(neurons.footprints)[1:]:
        raise ShapeError(f"structure has shape {np.shape(structure)}: expected {np.shape(neurons.footprints)[1:]}")
    light = np.asarray(neurons.fluorescence, np.float32)
    around = np.zeros_like(light) if neurons.neuropil is None else np.asarray(neurons.neuropil, np.float32)
    valid = np.asarray(neurons.valid, np.float32)
    arrays = {
        "F": light + np.float32(NEUROPIL) * around,
        "Fneu": around,
        "spks": _per_frame(neurons),
        "iscell": np.stack([valid, valid], axis=1),
        "stat": _stat(neurons, maps > threshold * maps.max((1, 2), keepdims=True), maps),
        "ops": np.array(_ops(neurons, maps, structure, decay_s), dtype=object),
    }
    for name, values in arrays.items():
        with writing(Path(folder) / "plane0" / f"{name}.npy") as temporary:
            np.save(temporary, values, allow_pickle=name in ("stat", "ops"))


def _per_frame(neurons: Neurons) -> Float[np.ndarray, "n t"]:
    """Spikes in each frame; one at the very end of the recording belongs to the last frame."""
    n, t = np.shape(neurons.dff)
    counts = np.zeros((n, t), np.float32)
    for row, times in zip(counts, neurons.spikes, strict=True):
        np.add.at(row, np.clip(np.floor(np.asarray(times) / neurons.frame_s + 1e-6).astype(int), 0, t - 1), 1)
    return counts


def _stat(neurons: Neurons, masks: Bool[np.ndarray, "n y x"], maps: Float[np.ndarray, "n y x"]) -> np.ndarray:
    """One dictionary per neuron, with the keys and types of suite2p's `roi_stats`."""
    found = np.empty(len(maps), dtype=object)
    crowd, areas = masks.sum(0), masks.sum((1, 2))
    dff = np.asarray(neurons.dff, float)
    for number, (mask, weights) in enumerate(zip(masks, maps, strict=True)):
        y, x = (axis.astype(np.int32) for axis in np.nonzero(mask))
        lam = weights[y, x] / weights[y, x].sum()
        radius, aspect, compact = _shape(y, x, lam)
        steps = np.diff(neurons.fluorescence[number])
        spread = float(np.var(neurons.fluorescence[number]))
        found[number] = {
            "ypix": y, "xpix": x, "lam": lam.astype(np.float32), "med": _median(y, x), "npix": len(y), "npix_soma": len(y),
            "npix_norm": float(areas[number] / areas.mean()), "npix_norm_no_crop": float(areas[number] / areas.mean()),
            "soma_crop": np.ones(len(y), bool), "overlap": crowd[y, x] > 1, "radius": radius, "aspect_ratio": aspect,
            "compact": compact, "footprint": 0.0, "skew": float(skew(dff[number])) if np.ptp(dff[number]) > 0 else 0.0,
            "std": float(dff[number].std()), "snr": 1 - 0.5 * float(np.var(steps)) / spread if spread > 0 else 0.0,
            "iplane": 0, "z_um": float(neurons.centres_um[number][0]), "inmerge": 0,
        }  # fmt: skip
    return found


def _median(y: Int[np.ndarray, " p"], x: Int[np.ndarray, " p"]) -> list[int]:
    """The pixel nearest to the median of the pixels."""
    nearest = np.argmin((y - np.median(y)) ** 2 + (x - np.median(x)) ** 2)
    return [int(y[nearest]), int(x[nearest])]


def _shape(y: Int[np.ndarray, " p"], x: Int[np.ndarray, " p"], lam: Float[np.ndarray, " p"]) -> tuple[float, float, float]:
    """Radius (two standard deviations along the long axis), aspect ratio 2 a / (a + b), and compactness (1: a disc)."""
    places = np.stack([y, x]).astype(float)
    off = places - (lam * places).sum(1, keepdims=True)
    short, long = 2 * np.sqrt(np.maximum(np.linalg.eigvalsh((lam * off) @ off.T), 0))
    middle = places - np.median(places, axis=1, keepdims=True)
    disc = 2 / 3 * math.sqrt(len(y) / math.pi)  # mean distance from the middle of a disc of as many pixels
    return float(max(long, 0.5)), float(2 * long / (long + short + 0.01)), float(np.hypot(*middle).mean() / disc)


def _ops(neurons: Neurons, maps: Float[np.ndarray, "n y x"], structure: ArrayLike | None, decay_s: float) -> dict[str, Any]:
    """Options and pictures that suite2p's window asks for."""
    rows, columns = maps.shape[1:]
    seen = (np.asarray(neurons.fluorescence, float).mean(1)[:, None, None] * maps).sum(0).astype(np.float32)
    picture = seen if structure is None else np.asarray(structure, np.float32).max(0)
    low, high = np.percentile(picture, (1, 99))
    _, dy, dx = neurons.voxel_um
    t = np.shape(neurons.dff)[1]
    return {
        "Ly": rows, "Lx": columns, "yrange": [0, rows], "xrange": [0, columns], "nframes": t, "frames_per_file": [t],
        "fs": 1 / neurons.frame_s, "tau": decay_s, "nplanes": 1, "nchannels": 1, "functional_chan": 1, "neucoeff": NEUROPIL,
        "diameter": [max(1, round(12 / dy)), max(1, round(12 / dx))], "aspect": float(dx / dy), "umperpix": [dy, dx],
        "meanImg": picture, "meanImgE": np.clip((picture - low) / max(high - low, 1e-12), 0, 1), "max_proj": maps.max(0),
        "Vcorr": seen, "chan2_thres": 0.6, "save_path": "", "save_path0": "", "reg_file": "", "batch_size": 500,
        "xoff": np.zeros(t, np.int32), "yoff": np.zeros(t, np.int32),
    }  # fmt: skip
