"""Whether calibration frames and a recording belong together."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import CalibrationError, CalibrationWarning, require_shape
from lfjax.linop import Identity
from lfjax.optics import Rectifier
from lfjax.optics.camera.agreement import check_agreement

FEW = 0.4  # share of trusted pixels below which a warning is given
BELOW = 0.2  # light below the dark level, as a fraction of that above it, from which on a frame is refused


def require_same_camera(rectifier: Rectifier, frame: ArrayLike) -> None:
    """Refuse a recording whose frames do not fit the calibration frames.

    Args:
        rectifier: made from calibration frames.
        frame: (row, col), raw, of a movie best the mean.

    Raises:
        ShapeError: the frame has another size.
        CalibrationError: its lenslets stand elsewhere (`check_agreement`), or much of it is darker than the dark frame.

    Warns:
        CalibrationWarning: the same with less evidence, or few pixels are trusted.
    """
    require_shape("frame", np.shape(frame), rectifier.dark.shape)
    light = np.asarray(frame, np.float32) - np.asarray(rectifier.dark)
    below, above = float(-np.minimum(light, 0).sum()), float(np.maximum(light, 0).sum())
    if below > BELOW * above:
        raise CalibrationError(
            f"{float(np.mean(light < 0)):.0%} of the frame's pixels are darker than the dark frame: expected frames of the "
            "camera settings and type of numbers of the dark frame, and no dark frame where its level is subtracted already"
        )
    if rectifier.trusted < FEW:
        told = f"only {rectifier.trusted:.0%} of the pixels are trusted: does the white frame belong to this recording?"
        warnings.warn(told, CalibrationWarning, stacklevel=3)
    if not isinstance(rectifier.resample, Identity):
        check_agreement(light, rectifier.lattice)


def warn_offset(frame: np.ndarray) -> None:
    """Warn of a frame whose darkest pixels are bright though no dark frame is given: the camera's offset would count as light.

    Warns:
        CalibrationWarning: the darkest pixels exceed a tenth of the median.
    """
    low, middle = (float(v) for v in np.percentile(frame, (0.5, 50)))
    if low > 0.1 * middle > 0:
        text = f"no dark frame: the darkest pixels have {low:.4g} counts; if this is the camera's offset, say --dark {low:.0f}"
        warnings.warn(text, CalibrationWarning, stacklevel=3)
