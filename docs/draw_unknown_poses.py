"""Draws the picture of docs/unknown_poses.md: maps at the poses that RELION and lfjax found, beside the object.

`python docs/draw_unknown_poses.py` from the root of the repository, after `make bench-abinitio`, which leaves RELION's files in
build/abinitio. All surfaces are at one threshold, in one colour map.
"""

import io
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from benchmarks.abinitio_runs import FOLDER, judged, map_at
from benchmarks.abinitio_scenes import CASES
from lfjax.tomography import abinitio, read_particles

FINER = 4  # pixels of the picture per voxel
LIGHT = np.array([0.7, -0.4, -0.6])  # z, y, x: towards the light

case = next(each for each in CASES if each.scene.name == "N = 64, SNR 1")
made = case.scene.make()


def surface(volume: np.ndarray, threshold: float) -> np.ndarray:
    """What an eye at large z sees of the surface at a threshold: brightness of each pixel, NaN where it sees none."""
    fine = zoom(np.asarray(volume, np.float32), FINER, order=1)[::-1]
    inside = fine > threshold
    z = np.argmax(inside, axis=0)
    y, x = np.indices(z.shape)
    normal = -np.stack([slope[z, y, x] for slope in np.gradient(gaussian_filter(fine, FINER))])
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-12)
    light = LIGHT / np.linalg.norm(LIGHT) * (-1, 1, 1)  # the first axis is turned
    shade = 0.25 + 0.75 * np.clip(np.tensordot(light, normal, 1), 0, 1)
    return np.where(inside.any(axis=0), shade * (1 - 0.4 * z / len(fine)), np.nan)


posed = read_particles(FOLDER / "relion_N_=_64_SNR_1" / "refined" / "run_data.star")
order = np.argsort([number for number, _ in posed.names])
theirs = np.asarray(posed.particles.rotations)[order]
ours = np.asarray(abinitio(made.images, made.particles, key=jax.random.key(0)).particles.rotations)
maps = {"Reference": made.volume}
for name, rotations in (("RELION 3.1.3", theirs), ("lfjax", ours)):
    error = judged(rotations, made, "C1")["median"]
    maps[f"{name}: median error {error:.2f}°"] = map_at(rotations, made)
threshold = 0.3 * float(made.volume.max())
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
for axis, (title, volume) in zip(axes, maps.items(), strict=True):
    axis.imshow(surface(np.asarray(volume), threshold), cmap="copper", vmin=0, vmax=1, origin="lower")
    axis.set_title(title, fontsize=10)
    axis.axis("off")
buffer = io.BytesIO()
figure.savefig(buffer, format="png", dpi=110)
Image.open(buffer).convert("RGB").quantize(64).save(Path(__file__).with_name("unknown_poses.png"), optimize=True)
