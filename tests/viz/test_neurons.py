"""Reports are self-contained, show every neuron at its position, and escape their texts."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from lfjax import activity, viz
from lfjax.activity import Neurons
from lfjax.errors import FileError, ParameterError, ShapeError
from lfjax.viz import neurons as viz_activity

SHAPE, VOXEL_UM = (6, 20, 30), (5.0, 2.0, 1.0)


def made(n=4, t=300):
    rng = np.random.default_rng(0)
    places = np.stack([rng.permutation(length)[:n] if n <= length else rng.integers(0, length, n) for length in SHAPE], 1)
    footprints = np.zeros((n, *SHAPE))
    footprints[np.arange(n), *places.T] = 1.0
    dff = np.arange(1, n + 1)[:, None] * rng.random((n, t))
    spikes = [np.sort(rng.uniform(0, 0.01 * t, k % 5)) for k in range(n)]
    return Neurons((places + 0.5) * VOXEL_UM, footprints, dff, dff, spikes, 0.01, VOXEL_UM, np.full(n, 0.1))


class Page(HTMLParser):
    """Tags and cells of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.rows, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        self.text += data
        if self.rows and data.strip():
            self.rows[-1].append(data)


@pytest.mark.parametrize("structure", [None, np.random.default_rng(1).random(SHAPE)])
def test_a_page_is_self_contained(tmp_path, structure):
    neurons = made()
    title = 'Slice <script>alert("1")</script> & co'
    viz.write_report(tmp_path / "new" / "a.html", neurons, structure, title=title)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.html"]
    text = (tmp_path / "new" / "a.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "iframe"} & set(page.tags) and "url(" not in text and "http" not in text
    assert title in page.text
    assert len(page.addresses) == page.tags.count("img") == 4
    for address in page.addresses:
        assert address.startswith("data:image/png;base64,")
        image = matplotlib.image.imread(io.BytesIO(base64.b64decode(address.partition(",")[2])))
        assert min(image.shape[:2]) > 200 and np.ptp(image) > 0.5


def test_the_table_has_all_neurons(tmp_path):
    neurons = made(70)
    viz.write_report(tmp_path / "a.html", neurons)
    head, *rows = Page((tmp_path / "a.html").read_text(encoding="utf-8")).rows
    assert head[:4] == ["neuron", "z (µm)", "y (µm)", "x (µm)"] and len(rows) == 70
    found = activity.quality(neurons)
    for i, row in enumerate(rows[:70]):
        wanted = [i, *neurons.centres_um[i], found.peak_dff[i], found.snr_db[i], found.spikes_hz[i], found.confinement[i]]
        np.testing.assert_allclose([float(cell) for cell in row[: len(head)]], wanted, atol=0.051)


@pytest.mark.parametrize("n", [0, 1, 4, 150])
def test_any_number_of_neurons_on_one_page(tmp_path, n):
    neurons = made(n)
    viz.write_report(tmp_path / "a.html", neurons)
    viz.write_report(tmp_path / "a.pdf", neurons, np.ones(SHAPE), title="50 $ a & <b>")
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and pdf.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type /Page\b", pdf)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.pdf"]


@pytest.mark.usefixtures("unchecked")
def test_other_suffixes_and_shapes_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"a\.png.*expected \.html or \.pdf"):
        viz.write_report(tmp_path / "a.png", made())
    for name in ("a.html", "a.pdf"):
        with pytest.raises(ShapeError, match="structure"):
            viz.write_report(tmp_path / name, made(), np.ones((2, 3, 4)))
        with pytest.raises(ShapeError, match="noise"):
            viz.write_report(tmp_path / name, replace(made(), noise=np.ones(3)))
    with pytest.raises(ParameterError, match="most"):
        viz_activity.traces(made(), most=0)
    assert not list(tmp_path.iterdir())


def test_footprints_are_drawn_at_the_neurons_positions():
    neurons = made()
    axes = {a.get_label(): a for a in viz_activity.footprints(neurons, np.zeros(SHAPE)).axes}
    colours = viz_activity.colours(4)
    for name, row in (("yx", 1), ("zx", 0)):
        picture, (left, right, bottom, top) = axes[name].images[0].get_array(), axes[name].images[0].get_extent()
        np.testing.assert_allclose((left, right, top, bottom), (0, 30, 0, (30, 40)[row]))
        for i, centre in enumerate(neurons.centres_um):
            place = (int(centre[row] / VOXEL_UM[row]), int(centre[2] / VOXEL_UM[2]))
            np.testing.assert_allclose(picture[place], colours[i])
        assert (picture.sum(-1) > 0).sum() == 4
        numbers = [text for text in axes[name].texts if text.get_gid() == "number"]
        np.testing.assert_allclose([text.xy for text in numbers], neurons.centres_um[:, [2, row]])
    (bar,) = [line for line in axes["yx"].lines if line.get_gid() == "scale bar"]
    assert f"{np.ptp(bar.get_xdata()):g} µm" in [text.get_text() for text in axes["yx"].texts]


def test_the_brightest_neuron_is_on_top_of_the_structure():
    footprints = np.zeros((2, *SHAPE))
    footprints[0, 1, 3, 4], footprints[0, 2, 3, 5] = 0.2, 0.8
    footprints[1, 4, 3, 4] = 1.0
    structure = np.zeros(SHAPE)
    structure[:, 8:, :] = 1.0
    picture = viz_activity.footprints(replace(made(2), footprints=footprints), structure).axes[0].images[0].get_array()
    np.testing.assert_allclose(picture[3, 4:6], viz_activity.colours(2)[::-1])
    np.testing.assert_allclose(picture[10], 0.8)


def test_traces_are_divided_by_their_maximum_with_a_tick_per_spike():
    neurons = made(6)
    (axes,) = viz_activity.traces(neurons, most=3).axes
    curves, ticks = axes.lines[0::2], axes.lines[1::2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["3", "4", "5"]
    for number, curve, tick in zip((3, 4, 5), curves, ticks, strict=True):
        np.testing.assert_allclose(np.ptp(curve.get_ydata()), np.ptp(neurons.dff[number]) / neurons.dff[number].max())
        np.testing.assert_array_equal(tick.get_xdata(), neurons.spikes[number])
    tops = [text.get_text() for text in axes.texts if text.get_gid() == "max"]
    np.testing.assert_allclose([float(top) for top in tops], neurons.dff[3:].max(1), rtol=0.05)


def test_the_raster_has_every_spike_and_their_mean_rate():
    neurons = made(6)
    above, axes = viz_activity.raster(neurons).axes
    for times, line in zip(neurons.spikes, axes.lines, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), times)
    rates, edges, _ = above.patches[0].get_data()
    assert (rates * np.diff(edges)).sum() * len(neurons) == pytest.approx(sum(map(len, neurons.spikes)))


def test_nothing_on_the_page_is_cut_off():
    page = viz_activity.activity_page(made(150), np.ones(SHAPE), title="A title that is rather long for one line " * 2)
    page.draw_without_rendering()
    whole = page.bbox
    table = [text for text in page.findobj() if getattr(text, "get_gid", lambda: None)() == "table"]
    assert len(table) == 3
    for box in [text.get_window_extent() for text in (*table, *page.texts, page._suptitle)]:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
