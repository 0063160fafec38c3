"""Reliability: mutated files on every reader; bad calls of every command; kills, full disks and damaged stores.

`--only files`, `calls` or `runs` runs one part and replaces its rows; `--count` sets the number of mutated files per reader.
"""

from __future__ import annotations

import argparse
import signal

from benchmarks.common import RESULTS, Report

PARTS = ("files", "calls", "runs")
COUNT, TOY = 10_000, 5  # mutated files per reader


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="small sizes as in CI; writes nothing")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--count", type=int, default=COUNT, help="mutated files per reader")
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores Ctrl-C, and so do its children
    report = Report("reliability", asked.toy)
    if asked.only in (None, "files"):
        from benchmarks.reliability_files import mutated_files

        mutated_files(report, TOY if asked.toy else asked.count, toy=asked.toy)
    if asked.only in (None, "calls"):
        from benchmarks.bad_calls import call_rows

        call_rows(report, toy=asked.toy)
    if asked.only in (None, "runs"):
        from benchmarks.reliability_runs import rows

        rows(report, asked.toy)
    report.write(parts=asked.only is not None and (RESULTS / "reliability.json").exists())


if __name__ == "__main__":
    main()
