"""Rotations of space: matrices inside lfjax, quaternions where they serve, RELION's Euler angles in files.

A rotation R (3, 3) acts on (x, y, z) columns and takes the object into the frame of the image, whose line of sight is z:

    I(x, y) = int V(R^T (x, y, z)) dz,   R = Z(psi) Y(tilt) Z(rot),
    Z(a) = [[c, s, 0], [-s, c, 0], [0, 0, 1]],   Y(b) = [[c, 0, -s], [0, 1, 0], [s, 0, c]]

with c, s the cosine and sine: RELION's rot, tilt, psi. Quaternions are (w, x, y, z), unit, the same rotation with either sign.
Functions are pure and compiled as a whole, and take leading batch axes unless they say otherwise.
"""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
