import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lfjax import io
from lfjax.errors import LfjaxError, ParameterError

CORNERS = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])


def test_markers_are_balls_of_the_right_place_and_size(tmp_path):
    io.write_markers(tmp_path / "a & b.cmm", CORNERS, [1.0, 1.0, 1.0, 5.0], radius=0.5)
    root = ET.parse(tmp_path / "a & b.cmm").getroot()
    assert root.tag == "marker_set" and root.get("name") == "a & b"
    places = [[float(m.get(k)) for k in "xyz"] for m in root]
    np.testing.assert_allclose(places, CORNERS)
    radii = [float(m.get("radius")) for m in root]
    assert radii[3] / radii[0] == pytest.approx(5 ** (1 / 3), rel=1e-5)


def test_surfaces_are_binary_stl(tmp_path):
    io.write_stl(tmp_path / "s.stl", CORNERS, FACES)
    raw = (tmp_path / "s.stl").read_bytes()
    assert len(raw) == 84 + 50 * 4 and int.from_bytes(raw[80:84], "little") == 4
    numbers = np.frombuffer(raw, np.dtype([("f", "<f4", 12), ("a", "<u2")]), offset=84)["f"].reshape(4, 4, 3)
    np.testing.assert_allclose(numbers[:, 1:], CORNERS[FACES])
    outward = np.einsum("ij,ij->i", numbers[:, 0], numbers[:, 1:].mean(1) - CORNERS.mean(0))
    assert np.all(outward > 0)


def test_wrong_structures_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="points"):
        io.write_markers(tmp_path / "x.cmm", CORNERS * np.nan)
    with pytest.raises(LfjaxError, match="amplitudes"):
        io.write_markers(tmp_path / "x.cmm", CORNERS, [1.0])
    with pytest.raises(ParameterError, match="triangles"):
        io.write_stl(tmp_path / "x.stl", CORNERS, FACES + 1)
    assert not list(tmp_path.iterdir())
