"""Figures of cryo-EM: what is drawn, read back from the figures."""

import jax
import numpy as np
import pytest

from lfjax import rotation, tomography, viz
from lfjax.errors import LfjaxError, ParameterError, ShapeError


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_the_resolution_is_marked_in_the_plot_of_correlations(tmp_path):
    curve = np.linspace(1, 0, 17)
    figure = viz.shell_correlations({"corrected": curve}, 64.0, tmp_path / "fsc.png", resolution_angstrom=4.6)
    axes = figure.axes[0]
    assert "4.60 A" in texts(axes)
    assert any(np.allclose(line.get_xdata(), 1 / 4.6) for line in axes.lines)
    assert (tmp_path / "fsc.png").stat().st_size > 1000
    assert not any(
        "A" in text for text in texts(viz.shell_correlations({"c": curve}, 64.0, resolution_angstrom=np.inf).axes[0])
    )
    with pytest.raises(ParameterError, match="resolution_angstrom"):
        viz.shell_correlations({"c": curve}, 64.0, resolution_angstrom=-1.0)


def test_curves_that_lie_on_each_other_are_all_seen(tmp_path):
    curve = np.linspace(1, 0, 17)
    figure = viz.shell_correlations({name: curve for name in "abcd"}, 64.0, tmp_path / "fsc.png")
    drawn = [line for line in figure.axes[0].lines if line.get_label() in "abcd"]
    widths = [line.get_linewidth() for line in drawn]
    assert len(drawn) == 4 and all(later < earlier for earlier, later in zip(widths, widths[1:], strict=False))
    assert len({(line.get_linestyle(), line.get_linewidth()) for line in drawn}) == 4


def test_low_correlations_are_shown_or_counted():
    curve = np.r_[1.0, 0.5, -0.22, np.zeros(6)]
    low = viz.shell_correlations({"a": curve}, 64.0).axes[0]
    assert -0.3 <= low.get_ylim()[0] < -0.22 and not any("below" in text for text in texts(low))
    lower = viz.shell_correlations({"a": curve, "b": np.r_[1.0, -0.8, -0.4]}, 64.0).axes[0]
    assert lower.get_ylim()[0] == pytest.approx(-0.3) and "2 values below -0.3" in texts(lower)


def test_sections_have_a_scale_a_title_and_a_word_where_there_is_no_contrast(tmp_path):
    ball = tomography.spherical_mask(32, 3.0, 1.0)
    figure = viz.sections(ball, tmp_path / "map.png", voxel_angstrom=2.5, title="inside the mask")
    first = figure.axes[0]
    assert texts(first) == ["20 A"] and figure._suptitle.get_text() == "inside the mask"
    assert np.ptp(first.lines[0].get_xdata()) == pytest.approx(20 / 2.5)
    assert first.get_xlim() == (-0.5, 31.5)
    low, top = figure.axes[2].images[0].get_clim()
    assert top - low >= 0.5
    assert texts(viz.sections(0 * ball, tmp_path / "none.png").axes[0]) == ["constant\n0"]
    with pytest.raises(ParameterError, match="voxel_angstrom"):
        viz.sections(ball, voxel_angstrom=0.0)


def test_the_line_of_the_guinier_plot_is_the_fit(tmp_path):
    volume = np.random.default_rng(0).normal(size=(32, 32, 32))
    found = tomography.sharpen(volume, 1.0, np.linspace(1, 0.2, 17))
    axes = viz.guinier_plot(found.guinier, tmp_path / "guinier.png").axes[0]
    labels = [line.get_label() for line in axes.lines]
    assert labels[:3] == ["mean of half-maps", "weighted by the FSC", "sharpened"]
    line = axes.lines[-1]
    assert f"{found.b_factor:.1f}" in line.get_label()
    slope = np.diff(line.get_ydata()) / np.diff(line.get_xdata())
    np.testing.assert_allclose(slope, found.b_factor / 4)
    unfitted = tomography.sharpen(volume, 1.0, np.linspace(1, 0.2, 17), fit_range_angstrom=(2.2, 2.1), b_factor=-5.0)
    assert len(viz.guinier_plot(unfitted.guinier).axes[0].lines) == 3


def test_local_resolution_colours_the_mask_only(tmp_path):
    volume, mask = np.random.default_rng(0).normal(size=(16, 16, 16)), tomography.spherical_mask(16, 5.0, 1.0)
    periods = np.broadcast_to(np.linspace(3, 6, 16), (16, 16, 16))
    figure = viz.local_resolutions(volume, periods, tmp_path / "local.png", mask=mask, limits_angstrom=(3.0, 6.0))
    coloured = [axes.images[1] for axes in figure.axes if len(axes.images) > 1]
    assert len(coloured) == 3
    shown = coloured[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), mask[8] <= 0.5)
    np.testing.assert_allclose(shown.compressed(), periods[8][mask[8] > 0.5])
    with pytest.raises(ParameterError, match="mask"):
        viz.local_resolutions(volume, periods, mask=0 * mask)
    with pytest.raises(ShapeError, match="resolution_angstrom"):
        viz.local_resolutions(volume, periods[:8])


def test_views_are_counted_where_they_look_from(tmp_path, unchecked):
    """All views at rot 100, tilt 30 degrees: one bin of equal solid angle holds them, at that place of the map."""
    turns = rotation.from_euler(np.full(50, np.deg2rad(100.0)), np.full(50, np.pi / 6), np.linspace(0, 6, 50))
    figure = viz.orientations(turns, tmp_path / "views.png", bins=10)
    mesh = figure.axes[0].collections[0]
    counts = np.asarray(mesh.get_array()).reshape(180, 360)
    assert set(np.unique(counts)) == {0, 50}
    row, column = np.nonzero(counts)
    tilt, rot = 90 - (row - 89.5), column - 179.5
    assert tilt.min() < 30 < tilt.max() and rot.min() < 100 < rot.max()
    assert np.cos(np.deg2rad(tilt.min())) - np.cos(np.deg2rad(tilt.max())) == pytest.approx(2 / 10, abs=0.03)
    assert "rot" in figure.axes[0].get_xlabel() and "tilt" in figure.axes[0].get_ylabel()
    with pytest.raises(ShapeError, match="rotations"):
        viz.orientations(np.eye(3))
    with pytest.raises(ParameterError, match="rotations"):
        viz.orientations(np.zeros((0, 3, 3)))


def test_the_empty_cone_is_blank_in_the_picture_of_the_transfer(tmp_path):
    spin = np.linspace(0, 2 * np.pi, 300)
    particles = tomography.Particles(rotation.from_euler(spin, np.full(300, 0.3), spin), pixel_angstrom=2.0)
    figure = viz.transfer(tomography.transfer_sections(particles, 32, angles=36), tmp_path / "transfer.png")
    planes = [axes.collections[0].get_array().reshape(72, 16) for axes in figure.axes[:3]]
    blank = [np.ma.getmaskarray(plane) for plane in planes]
    assert not blank[0][:, 8:].any() or blank[0][:, 8:].mean() < 1
    assert blank[1][18, 4:].all() and blank[2][18, 4:].all()  # along z
    assert not blank[1][0].any()  # along x
    assert figure.axes[1].get_ylabel() == "period along z / angstrom"


def test_directions_of_a_half_sphere_are_coloured_by_their_resolution(tmp_path):
    a, b = np.random.default_rng(0).normal(size=(2, 24, 24, 24))
    found = tomography.directional_fsc(4 * a + b, 4 * a - b, 2.0, directions=30)
    figure = viz.directional_correlations(found, 48.0, tmp_path / "directional.png")
    points = figure.axes[1].collections[0]
    np.testing.assert_allclose(points.get_array(), found.resolution_angstrom)
    where = points.get_offsets()
    np.testing.assert_allclose(np.sum(where**2, -1), 1 - found.directions[:, 2], atol=1e-6)  # equal areas
    with pytest.raises(ParameterError, match="box_angstrom"):
        viz.directional_correlations(found, 0.0)


def test_uniform_views_give_even_counts():
    figure = viz.orientations(np.asarray(rotation.random_rotations(jax.random.key(0), 20000)), bins=8)
    counts = np.asarray(figure.axes[0].collections[0].get_array())
    assert np.abs(counts / (20000 / 128) - 1).max() <= 0.35


def test_the_histogram_of_poses_counts_every_angle(tmp_path):
    degrees = np.r_[0.0, 0.01, 1.0, 2.0, 30.0, 180.0]
    figure = viz.pose_errors(np.deg2rad(degrees), tmp_path / "poses.png", null_rad=2.0)
    axes = figure.axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 6
    assert axes.get_title() == "6 images, 66.7% below 10 degrees, 2 of them below 0.1"
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx([1.5, np.rad2deg(2.0)])
    assert (tmp_path / "poses.png").stat().st_size > 1000
    with pytest.raises(ParameterError, match="error_rad"):
        viz.pose_errors([])


def test_the_page_of_a_search_shows_what_it_is_given(tmp_path):
    rng = np.random.default_rng(0)
    volume, images = rng.normal(size=(12, 12, 12)), rng.normal(size=(4, 12, 12))
    turns = np.broadcast_to(np.eye(3), (7, 3, 3))
    curve = np.linspace(1, 0, 6)
    figure = viz.search_page(volume, images, images, turns, {"resolved": curve}, 60.0, tmp_path / "a.png", title="band 6")
    assert (tmp_path / "a.png").exists()
    axes = [a for part in figure.subfigs for a in (*part.axes, *(b for sub in part.subfigs for b in sub.axes))]
    assert sum(len(a.images) for a in axes) == 6 + 2 * 4
    assert any("7 views" in a.get_title() for a in axes)
    lines = [line for a in axes for line in a.lines if line.get_label() == "resolved"]
    np.testing.assert_allclose(lines[0].get_xdata(), np.arange(6) / 60)
    for wrong, name in (({"images": images[:3]}, "projections"), ({"curves": {}}, "curves"), ({"box_angstrom": 0.0}, "box")):
        given = {
            "volume": volume, "images": images, "projections": images, "rotations": turns, "curves": {"a": curve},
            "box_angstrom": 60.0,
        }  # fmt: skip
        with pytest.raises(LfjaxError, match=name):
            viz.search_page(**(given | wrong))
