"""Mutated files on every reader: how many end otherwise than right or refused in one clear line, and what a refusal costs.

What became of the files of a reader is kept in build/reliability under the commit: a stopped benchmark resumes.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from benchmarks.common import Report, commit
from lfjax.io import writing
from tests.fuzz.campaign import campaign, counts, table
from tests.fuzz.judge import FAULTS, HANG_S, Outcome
from tests.fuzz.readers import READERS

TOLD = {
    "raw": "an error that is none of lfjax",
    "unclear": "a message of several lines, or that names no file",
    "crash": "the process died",
    "hang": f"more than {HANG_S:g} s of work",
    "blow-up": "more than 1 GB, or an allocation that failed",
    "silent": "NaN, or values that the file does not have",
}


def mutated_files(report: Report, count: int, *, toy: bool) -> None:
    """A row per fault, over all readers, and the cost of the dearest refusal.

    Args:
        report: takes the rows.
        count: files per reader.
        toy: whether only some readers are tried.
    """
    readers = list(READERS)[::8] if toy else list(READERS)
    folder = None if toy else Path("build/reliability") / commit()
    told = [_of_reader(reader, count, folder) for reader in readers]
    found, seconds = [one for outcomes, _ in told for one in outcomes], sum(spent for _, spent in told)
    print(table(found))
    kinds, refused = counts(found), [one for one in found if one.kind == "clear"]
    report.row(f"mutated files a reader, {len(readers)} readers", count, "files")
    for kind in FAULTS:
        report.at_most(f"{kind}: {TOLD[kind]}", kinds[kind], 0, "files")
    report.row("read, right", kinds["right"], "files")
    report.row("refused, in one line that names the file", kinds["clear"], "files")
    report.at_most("memory of the dearest refusal", max(one.mebibytes for one in refused) * 2**20 / 1e6, 300, "MB")
    report.at_most("time of the slowest refusal", max(one.seconds for one in refused), 2, "s")
    report.row("mutated files per minute, two processes", 60 * len(found) / seconds, "files")


def _of_reader(reader: str, count: int, folder: Path | None) -> tuple[list[Outcome], float]:
    """Outcomes of a reader and the seconds that they took, from an earlier run of this commit if there is one."""
    path = None if folder is None else folder / f"{reader}_{count}.json"
    if path is not None and path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [Outcome(*each) for each in kept["outcomes"]], float(kept["seconds"])
    start = time.monotonic()
    outcomes = campaign([reader], range(count))
    seconds = time.monotonic() - start
    print(f"{reader}: {len(outcomes)} files in {seconds:.0f} s", flush=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as partial:
            partial.write_text(
                json.dumps({"outcomes": outcomes, "seconds": seconds}), encoding="utf-8", errors="backslashreplace"
            )
    return outcomes, seconds
