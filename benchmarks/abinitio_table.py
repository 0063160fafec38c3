"""The table of `docs/unknown_poses.md` from the rows of `benchmarks/results/abinitio.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.abinitio_scenes import CASES
from benchmarks.common import RESULTS

PAGE = Path("docs/unknown_poses.md")
BEGIN, END = "<!-- figures: abinitio -->\n", "<!-- end -->"
HEAD = """
| case | error | bound | ratio | null | below 10 degrees | FSC 0.5 beyond that of the true poses, A | starts | CPU s |
|---|---|---|---|---|---|---|---|---|
"""


def table(values: Mapping[str, float]) -> str:
    """Lines of the cases that were run.

    Args:
        values: value of each row, by its name.
    """
    lines = []
    for case in CASES:
        name = case.scene.name
        of = f", {case.of_five} of 5 seeds" if case.of_five < 5 else ""

        def value(what: str, form: str, name: str = name, of: str = of) -> str:
            found = values.get(f"{name}: {what}{of}", values.get(f"{name}: {what}"))
            return "" if found is None else form.format(found)

        if not value("median error", "{}"):
            continue
        share = values.get(f"{name}: share above 10 degrees{of}", values.get(f"{name}: share above 10 degrees", 0.0))
        started = values.get(f"single starts that find the molecule: {name}")
        cells = (
            name,
            value("median error", "{:.2f}"),
            value("median error given the map", "{:.2f}"),
            value("median error over that given the map", "{:.2f}"),
            value("median error of random poses", "{:.0f}"),
            f"{100 * (1 - share):.1f} %",
            value("FSC 0.5 above that with the true poses", "{:.2f}"),
            "" if started is None else f"{100 * started:.0f} %",
            value("CPU seconds", "{:.0f}"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n"


def write_table(page: Path = PAGE) -> None:
    """Replace the table of the page; the text around it stays."""
    told = json.loads((RESULTS / "abinitio.json").read_text(encoding="utf-8"))
    text = page.read_text(encoding="utf-8")
    first, last = text.index(BEGIN) + len(BEGIN), text.index(END)
    made = table({row["name"]: row["value"] for row in told["rows"]})
    page.write_text(f"{text[:first]}{made}\n{text[last:]}", encoding="utf-8")
