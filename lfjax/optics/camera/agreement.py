"""Whether the lenslets of a frame stand where a calibration says: the holes between their pupils are seen in most frames."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import CalibrationError, CalibrationWarning
from lfjax.optics.camera.lattice_cells import Lattice
from lfjax.optics.camera.lattice_holes import darkness, distance_px, hole_votes

NEAR = 0.1  # displacement in pitches from which on lenslets do not stand where they should
FAR = 0.15  # and from which on the frame is refused, if most of its parts say the same
SCATTER = 0.15  # disagreement of the parts of a frame, in pitches, that a rotation or another pitch makes
MOST = 0.7  # fraction of the parts that have to show holes for a refusal


def check_agreement(frame: ArrayLike, lattice: Lattice) -> None:
    """Refuse a frame whose lenslets stand elsewhere than those of its calibration.

    The holes between pupils are sought in the frame itself, part by part (`hole_votes`). Nothing is said where the sample hides
    them.

    Args:
        frame: (row, col), raw, of a movie best the mean.
        lattice: the lattice of the calibration.

    Raises:
        CalibrationError: most parts of the frame show holes, and these lie 0.15 pitches or more off, or differ from part to
            part by as much, or are turned by the opposite angle.

    Warns:
        CalibrationWarning: the same with less evidence.
    """
    dark = darkness(np.asarray(frame, np.float32), lattice.pitch_px)
    votes = hole_votes(dark, lattice)
    share = votes.voting / votes.tiles
    if share < 0.5:
        return
    off = distance_px(lattice, votes.offset) / lattice.pitch_px
    mirrored = hole_votes(dark, lattice._replace(rotation_rad=-lattice.rotation_rad))
    turned = math.degrees(lattice.rotation_rad)
    if off > NEAR:
        found = f"lie {off:.2f} pitches ({off * lattice.pitch_px:.1f} px) away"
    elif votes.scatter > SCATTER:
        found = f"differ from part to part of the frame by {votes.scatter:.2f} pitches: another rotation or pitch"
    elif mirrored.response > 1.01 * votes.response and mirrored.scatter < votes.scatter - 0.01:
        found = f"are turned by {-turned:+.2f} degrees, not by {turned:+.2f}: one of the two is mirrored or transposed"
        off = math.inf
    else:
        return
    text = (
        f"the lenslets of the frame are not those of the calibration: the dark places between them {found}; expected a white "
        "frame of the same camera position and orientation, or none, so that the frame itself is measured"
    )
    if share >= MOST and max(off, votes.scatter) > FAR:
        raise CalibrationError(text)
    warnings.warn(text, CalibrationWarning, stacklevel=3)
