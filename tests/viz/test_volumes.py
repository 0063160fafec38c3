"""Figures: true scale, right numbers, complete PNG files; and the progress line of batch jobs."""

import matplotlib.image
import numpy as np
import pytest

from lfjax import viz
from lfjax.errors import ParameterError, ShapeError
from lfjax.progress import track
from lfjax.viz.drawing import DPI, round_length

VOXEL_UM = (4.0, 1.5, 1.0)


@pytest.fixture
def volume():
    return np.random.default_rng(0).random((6, 20, 40))


def inches(figure, label):
    """Left, bottom, right, top of the axes with a label, in inches."""
    (axes,) = [a for a in figure.axes if a.get_label() == label]
    return axes.get_position().extents * np.tile(figure.get_size_inches(), 2)


def bar_um(figure, um_per_inch):
    """Length of the scale bar as drawn, and as labelled."""
    (bar,) = [line for line in figure.findobj() if line.get_gid() == "scale bar"]
    drawn = np.ptp(bar.get_xdata()) * figure.get_size_inches()[0] * um_per_inch
    label = figure.texts[-1].get_text()
    return drawn, float(label.split()[0])


def test_projections_have_one_true_scale_and_are_aligned(volume):
    figure = viz.projections(volume, VOXEL_UM)
    xy, yz, xz = (inches(figure, name) for name in ("xy", "yz", "xz"))
    um_per_inch = 40 * 1.0 / (xy[2] - xy[0])
    np.testing.assert_allclose((xy[3] - xy[1]) * um_per_inch, 20 * 1.5)
    np.testing.assert_allclose([(yz[2] - yz[0]) * um_per_inch, (xz[3] - xz[1]) * um_per_inch], 6 * 4.0)
    np.testing.assert_allclose((yz[1], yz[3]), (xy[1], xy[3]))
    np.testing.assert_allclose((xz[0], xz[2]), (xy[0], xy[2]))
    assert yz[0] > xy[2] and xz[3] < xy[1]
    np.testing.assert_allclose(bar_um(figure, um_per_inch), 10.0)


def test_projections_show_a_point_where_it_is():
    volume = np.zeros((6, 20, 40))
    volume[1, 3, 30] = 1
    images = {a.get_label(): a.images[0].get_array() for a in viz.projections(volume, VOXEL_UM).axes}
    assert images["xy"][3, 30] == images["yz"][3, 1] == images["xz"][1, 30] == 1


def test_planes_are_titled_with_their_depths(volume):
    z_um = np.linspace(-10, 15, 6)
    figure = viz.planes(volume, z_um, VOXEL_UM)
    titles = [t.get_text() for t in figure.texts]
    for i, z in enumerate(z_um):
        (axes,) = [a for a in figure.axes if a.get_label() == f"plane {i}"]
        np.testing.assert_array_equal(axes.images[0].get_array(), volume[i])
        assert titles[i] == (f"{z:+g} µm" if z else "0 µm")
        assert axes.images[0].get_clim() == figure.axes[0].images[0].get_clim()
    left, low, right, high = inches(figure, "plane 0")
    np.testing.assert_allclose((high - low) / (right - left), 20 * 1.5 / 40)
    np.testing.assert_allclose(bar_um(figure, 40 / (right - left)), 10.0)


def test_resynthesis_shows_the_correlation_of_valid_pixels(volume):
    measured, made = volume[0], volume[0] + 0.3 * volume[1]
    mask = np.ones(measured.shape, bool)
    mask[:, :10] = False
    made[~mask] = 1e6
    figure = viz.resynthesis(measured, made, mask)
    expected = np.corrcoef(measured[mask], made[mask])[0, 1]
    assert f"correlation {expected:.4f}" in [t.get_text() for t in figure.texts]
    left, right = (a.images[0] for a in figure.axes[:2])
    assert left.get_clim() == right.get_clim()
    assert np.isnan(np.ma.filled(right.get_array(), np.nan)[~mask]).all()


def test_convergence_scale_follows_the_sign():
    figure = viz.convergence({"a": np.array([9.0, 3.0, 1.0]), "b": [5.0, 4.0]})
    assert figure.axes[0].get_yscale() == "log"
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["a", "b"]
    assert viz.convergence({"a": [1.0, -3.0]}).axes[0].get_yscale() == "linear"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_every_figure_is_saved_as_png_even_of_constants(tmp_path, value):
    flat = np.full((1, 4, 5), value)
    path = tmp_path / "new" / "a.png"
    for draw in (
        lambda: viz.projections(flat, VOXEL_UM, path),
        lambda: viz.planes(flat, [0.0], VOXEL_UM, path),
        lambda: viz.resynthesis(flat[0], flat[0], None, path),
        lambda: viz.convergence({"a": [1.0]}, path),
    ):
        figure = draw()
        tall, wide = matplotlib.image.imread(path).shape[:2]
        np.testing.assert_allclose((wide, tall), figure.get_size_inches() * DPI, atol=1)
        assert list(path.parent.iterdir()) == [path]
        path.unlink()


@pytest.mark.parametrize("at_most, length", [(37, 20), (50, 50), (0.3, 0.2), (1, 1), (9.99, 5), (1000, 1000)])
def test_round_length(at_most, length):
    assert round_length(at_most) == pytest.approx(length)


def test_wrong_shapes_are_named(volume):
    with pytest.raises(ShapeError, match="volume"):
        viz.projections(volume[0], VOXEL_UM)
    with pytest.raises(ShapeError, match="z_um"):
        viz.planes(volume, [0.0], VOXEL_UM)
    with pytest.raises(ShapeError, match="image"):
        viz.resynthesis(volume[0], volume[0, 1:])
    with pytest.raises(ParameterError, match="mask"):
        viz.resynthesis(volume[0], volume[0], np.zeros(volume[0].shape))
    with pytest.raises(ParameterError, match="histories"):
        viz.convergence({})


def test_progress_in_a_batch_job_is_one_line(capsys):
    assert list(track((i for i in range(3)), "counting")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("counting: ") and err.count("\n") == 1


def test_progress_on_a_terminal_goes_to_standard_error(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich then treats any stream as a terminal
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert list(track(range(3), "counting")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == "" and "counting" in err and "3/3" in err
