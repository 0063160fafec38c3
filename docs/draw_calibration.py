"""Draws the pictures of docs/own_microscope.md: a grid that fits its white frame, and two that do not.

`python docs/draw_calibration.py`
"""

import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image

from lfjax import preset, simulate, viz
from lfjax.optics import Rectifier

FIELD = 60  # lenslets per side: enough for a small error to add up
PITCH_PX = 14.4

scope = preset("20x0.5")
scope = dataclasses.replace(scope, camera_pixel_um=float(scope.lenslet_pitch_um) / PITCH_PX)
frames = simulate.raw_recording(0, scope, sample="beads", lenslets=FIELD, z_um=(0.0,), voxels_per_lenslet=1).frames
white, dark = np.asarray(frames.white), np.asarray(frames.dark)
right = Rectifier.calibrate(scope, white, white=white, dark=dark)
lattice = right.lattice
pictures = {
    "right": ("the grid fits", lattice),
    "rotated": ("rotation wrong by 0.6°", lattice._replace(rotation_rad=lattice.rotation_rad + np.radians(0.6))),
    "half": ("half the pitch", lattice._replace(pitch_px=lattice.pitch_px / 2)),
}
for name, (title, shown) in pictures.items():
    figure = viz.lenslet_grid(white, dataclasses.replace(right, lattice=shown))
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    path = Path(__file__).with_name(f"calibration_{name}.png")
    Image.open(buffer).convert("RGB").quantize(48).save(path, optimize=True)
