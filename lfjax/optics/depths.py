"""The depths that a light-field microscope resolves."""

from __future__ import annotations

from lfjax.optics.microscope import Microscope

SPARROW = 0.94
"""Sparrow's two-point limit of an aperture of width p at a distance Z, in units of lambda Z / p (0.47 lambda / NA)."""


def depth_range(microscope: Microscope) -> tuple[float, float]:
    """Usable depths (low, high) in micrometres: where a volume is resolved to one lenslet or better.

    The image of a plane at depth z lies at a distance Z = M^2 |z - z0| / n from the array. There a lenslet of pitch p resolves
    0.94 lambda Z / p, and a pixel behind a lenslet covers p Z / (N b). Both grow with Z; the range ends where one of them has
    grown to p:

        |z - z0| <= min(n p^2 / (0.94 lambda M^2), N n b / M^2).

    At the first limit the resolution 0.94 lambda M |z| / (n p) equals the pitch p / M in the sample, at the second the views
    sample the plane 1 / N lenslets apart (`sampling_widths`), which is as close as their pixels allow. z0 = -n D / M^2 is the
    plane that the array is focused on; b is the distance from array to sensor. N is the smaller one of the rectified and the
    raw pixels per lenslet. Within about n f_ml / M^2 of z0 the lenslets sample only once per pitch (`AntiAlias`).

    No focal length is in the formula: those of a multi-focal array say at which Z, 1 / Z = 1 / f_ml - 1 / b, each of its
    lenslets is sharp, not how far the array resolves.

    Args:
        microscope: the parameters, with `alignment` if it has one.

    Source: Broxton et al., Opt. Express 21, 25418 (2013): band limit p / (0.94 lambda M |z|). The first limit differs
        by 6 % from the depth of field N_u^2 lambda n / (4 NA^2) on each side of Levoy et al., ACM Trans. Graph. 25, 924 (2006),
        with N_u = p NA / (0.47 lambda M) resolved spots per lenslet.
    """
    n, m2 = float(microscope.medium_index), float(microscope.magnification) ** 2
    raw = microscope.raw_pitch_px
    pixels = microscope.pixels_per_lenslet if raw is None else min(raw, microscope.pixels_per_lenslet)
    spots_um = n * float(microscope.lenslet_pitch_um) ** 2 / (SPARROW * float(microscope.wavelength_um) * m2)
    pixels_um = pixels * n * microscope.sensor_distance_um / m2
    middle = -n * microscope.native_plane_um / m2
    half = min(spots_um, pixels_um)
    return (middle - half, middle + half)
