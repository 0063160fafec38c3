"""Options that commands share: depths, names of results, names that must agree with the modules that define them."""

import pytest

from lfjax import pipeline, simulate
from lfjax.cli import options
from lfjax.cli.options import parse_depths, parse_voxel_um, require_output
from lfjax.errors import ParameterError
from lfjax.movies.repair import BAD_FRAMES
from lfjax.optics import PRESETS, depth_range, preset


@pytest.mark.parametrize(
    ("text", "depths"),
    [
        ("-4.5:4.5:1", tuple(k - 4.5 for k in range(10))),
        ("-1:1:0.1", tuple(pytest.approx(-1 + 0.1 * k) for k in range(21))),
        ("-4,0,2.5", (-4.0, 0.0, 2.5)),
        ("0", (0.0,)),
        ("3:3:1", (3.0,)),
        (None, None),
    ],
)
def test_depths_are_a_range_a_list_or_one(text, depths):
    assert parse_depths(text) == depths


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1:2", "first:last:step"),
        ("-5:5:3", "reach 4, not 5"),
        ("5:-5:1", "ascending"),
        ("0:1:0", "first:last:step"),
        ("0:1e6:1", "at most 1000"),
        ("3,1", "ascending"),
        ("nan", "ascending"),
        ("0:inf:1", "at most 1000"),
        ("deep", "first:last:step"),
    ],
)
def test_depths_that_cannot_be_meant_are_refused(text, says):
    with pytest.raises(ParameterError, match="--z") as refused:
        parse_depths(text)
    assert says in str(refused.value)


def test_voxel_sizes_are_three_positive_numbers():
    assert parse_voxel_um("--v", "10,2.5,2.5") == (10.0, 2.5, 2.5) and parse_voxel_um("--v", None) is None
    for text in ("1,2", "1,2,-3", "a,b,c"):
        with pytest.raises(ParameterError, match="three positive numbers Z,Y,X"):
            parse_voxel_um("--v", text)


def test_a_result_never_takes_the_place_of_an_input(tmp_path):
    raw, link = tmp_path / "raw.tif", tmp_path / "link.tif"
    raw.write_bytes(b"frames")
    link.symlink_to(raw)
    require_output(tmp_path / "new.tif", (".tif",), (raw,))
    for output in (raw, link):
        with pytest.raises(ParameterError, match="an input file"):
            require_output(output, (".tif",), (raw,))
    with pytest.raises(ParameterError, match="ends with .tif or .h5"):
        require_output(tmp_path / "v.png", (".tif", ".h5"))
    other = tmp_path / "other.tif"
    other.write_bytes(b"a result")
    with pytest.raises(ParameterError, match="a new name, or --overwrite: this file exists"):
        require_output(other, (".tif",))
    require_output(other, (".tif",), overwrite=True)
    with pytest.raises(ParameterError, match="a folder in which files can be written"):
        require_output(raw / "in_a_file.tif", (".tif",))


def test_names_in_the_help_are_those_of_the_modules():
    assert tuple(PRESETS) == options.PRESETS
    assert tuple(BAD_FRAMES) == options.BAD_FRAMES
    assert tuple(simulate.SAMPLES) == options.SAMPLES
    assert tuple(simulate.INDICATORS) == options.INDICATORS


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_depths_that_nobody_states_lie_in_the_usable_range(name):
    low, high = depth_range(preset(name))
    depths = pipeline.Grid().of(preset(name)).z_um
    steps = {round(b - a, 6) for a, b in zip(depths, depths[1:], strict=False)}
    assert len(depths) == 11 and len(steps) == 1 and low <= depths[0] < 0 < depths[-1] <= high
    assert depths[-1] - depths[0] > 0.85 * (high - low)
    assert depths == pytest.approx([-z for z in depths[::-1]], abs=1e-9)
