"""Points and surfaces for ChimeraX and other viewers: marker files and STL."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.io.atomic import writing


def write_markers(path: str | Path, points: ArrayLike, amplitudes: ArrayLike | None = None, *, radius: float = 0.3) -> None:
    """Points as a ChimeraX marker set (.cmm): balls whose volume grows with the amplitude.

    Args:
        path: file to write, .cmm.
        points: (k, 3), (x, y, z).
        amplitudes: (k,), positive; all alike if not given.
        radius: of a ball of mean amplitude, in the unit of the points.

    Raises:
        ParameterError: wrong shapes, or a number that is not finite.
    """
    x = np.asarray(points, np.float64)
    require_shape("points", x.shape, ("k", 3))
    a = np.ones(len(x)) if amplitudes is None else np.asarray(amplitudes, np.float64)
    require_shape("amplitudes", a.shape, (len(x),))
    require(bool(np.all(np.isfinite(x))), "points", "NaN or infinity", "finite numbers")
    require(bool(np.all((a > 0) & np.isfinite(a))), "amplitudes", f"{a.min():g} to {a.max():g}", "positive, finite numbers")
    radii = radius * np.cbrt(a / a.mean())
    lines = [f"<marker_set name={quoteattr(Path(path).stem)}>"]
    for number, (p, r) in enumerate(zip(x, radii, strict=True), 1):
        place = f'x="{p[0]:.9g}" y="{p[1]:.9g}" z="{p[2]:.9g}"'
        lines.append(f'<marker id="{number}" {place} r="1" g="0.7" b="0" radius="{r:.6g}"/>')
    with writing(path) as temporary:
        temporary.write_text("\n".join([*lines, "</marker_set>", ""]))


def write_stl(path: str | Path, vertices: ArrayLike, triangles: ArrayLike) -> None:
    """A surface as a binary STL file, which ChimeraX, MeshLab, Blender and slicers open.

    Args:
        path: file to write, .stl.
        vertices: (n, 3).
        triangles: (f, 3) numbers of vertices, counter-clockwise from outside.

    Raises:
        ParameterError: wrong shapes, a number that is not finite, or a triangle of a vertex that there is not.
    """
    x, faces = np.asarray(vertices, np.float32), np.asarray(triangles)
    require_shape("vertices", x.shape, ("n", 3))
    require_shape("triangles", faces.shape, ("f", 3))
    require(bool(np.all(np.isfinite(x))), "vertices", "NaN or infinity", "finite numbers")
    require(bool(np.all((faces >= 0) & (faces < len(x)))), "triangles", "a number", f"0 to {len(x) - 1}")
    corners = x[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    table = np.zeros(len(faces), np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]))
    table["normal"], table["corners"] = normals / np.where(length > 0, length, 1), corners
    with writing(path) as temporary:
        temporary.write_bytes(b"lfjax".ljust(80) + np.uint32(len(faces)).tobytes() + table.tobytes())
