"""Mutated files on every reader: how many end otherwise than right or refused in one clear line, and what a refusal costs."""

from __future__ import annotations

import time

from benchmarks.common import Report
from tests.fuzz.campaign import campaign, counts, table
from tests.fuzz.judge import FAULTS, HANG_S
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
    start = time.monotonic()
    found = campaign(readers, range(count))
    seconds = time.monotonic() - start
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
