"""`make fuzz FUZZ="--count 10000"`: mutated files on every reader, and what became of them."""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.campaign import campaign, faults, table


def main() -> int:
    from tests.fuzz.readers import READERS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="mutated files per reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first case; a case is its reader and its number")
    parser.add_argument("--reader", action="append", choices=READERS, help="only these readers")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--show", type=int, default=5, help="faults of a kind and reader to show")
    asked = parser.parse_args()
    start = time.monotonic()
    found = campaign(asked.reader or READERS, range(asked.first, asked.first + asked.count), asked.processes)
    shown: dict[tuple[str, str], int] = {}
    for one in sorted(faults(found)):
        shown[one.reader, one.kind] = shown.get((one.reader, one.kind), 0) + 1
        if shown[one.reader, one.kind] <= asked.show:
            print(f"{one.kind} [{one.reader} {one.number}] {one.mutation} -> {one.message[:300]!r}")
    print(table(found))
    print(f"{len(found)} files in {time.monotonic() - start:.0f} s, {len(faults(found))} faults")
    return 1 if faults(found) else 0


if __name__ == "__main__":
    sys.exit(main())
