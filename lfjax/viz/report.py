"""A report on the neurons of a recording, as HTML or PDF."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lfjax.activity.measures import Quality, quality
from lfjax.activity.neurons import Neurons
from lfjax.errors import FileError
from lfjax.io import writing
from lfjax.viz import neurons as figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("neuron", "z (µm)", "y (µm)", "x (µm)", "peak dF/F", "peak SNR (dB)", "spikes/s", "confinement")

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 60em; margin: 1em auto; padding: 0 1em; color: #222; }}
img {{ display: block; max-width: 100%; margin: 0.5em 0 1em; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: 0.15em 0.8em; border-bottom: 1px solid #ddd; }}
th {{ position: sticky; top: 0; background: white; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
{figures}
<h2>Neurons</h2>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def write_report(path: str | Path, neurons: Neurons, structure: ArrayLike | None = None, *, title: str = "Neurons") -> None:
    """Write a self-contained page: projections, traces, spikes, histograms and a table of the neurons.

    Args:
        path: .html (one file without links; the table holds all neurons) or .pdf (one page of A4; the table holds the neurons
            of the highest SNR if not all fit).
        neurons: n neurons.
        structure: (z, y, x), drawn in grey below the footprints, on their voxels.
        title: title of the page.

    Raises:
        FileError: the suffix is neither .html nor .pdf.
        ShapeError: the structure has another shape, or the arrays of the neurons do not fit each other.
    """
    neurons.check()
    suffix = Path(path).suffix.lower()
    if suffix not in (".html", ".pdf"):
        raise FileError(f"{path}: suffix {suffix!r} is not known; expected .html or .pdf")
    if suffix == ".pdf":
        page = figures.activity_page(neurons, structure, title=title)
        with writing(path) as temporary:
            page.savefig(temporary, format="pdf", metadata={"Title": title})
        return
    text = _html(neurons, structure, title)
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _html(neurons: Neurons, structure: ArrayLike | None, title: str) -> str:
    values = quality(neurons)
    sections = (
        ("Positions", figures.footprints(neurons, structure)),
        ("Activity", figures.traces(neurons)),
        ("Spikes", figures.raster(neurons)),
        ("Quality", figures.distributions(values)),
    )
    return PAGE.format(
        title=escape(title),
        summary=escape(figures.summary(neurons)),
        figures="\n".join(f"<h2>{escape(name)}</h2>\n{_image(figure, name)}" for name, figure in sections),
        head="".join(f"<th>{escape(name)}</th>" for name in COLUMNS),
        rows="\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in _rows(neurons, values)),
    )


def _rows(neurons: Neurons, values: Quality) -> Iterator[tuple[str, ...]]:
    """Cells of the table, as text."""
    formats = (".1f", ".1f", ".1f", ".2f", ".1f", ".2f", ".2f")
    table = np.column_stack([np.asarray(neurons.centres_um, float), *values])
    for number, row in enumerate(table):
        yield (str(number), *(format(value, how) for value, how in zip(row, formats, strict=True)))


def _image(figure: Figure, name: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
