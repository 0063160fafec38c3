"""Many mutated files on every reader, by a few processes that may crash, hang or grow."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.fuzz.judge import FAULTS, GOOD, HANG_S, Outcome
from tests.fuzz.worker import work

PATIENCE_S = 300.0  # for a new process to import lfjax and make good files, on a busy machine
WAIT_S = 60.0  # for a case, on a busy machine
PART = 500  # cases that a process takes at a time


def seconds_of(process: int) -> float:
    """Processor seconds that a process has used; off Linux, those on the clock."""
    about = Path(f"/proc/{process}/stat")
    if not about.exists():
        return time.monotonic()
    fields = about.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Worker:
    """A process that reads mutated files, replaced when it dies."""

    def __init__(self) -> None:
        self.process: BaseProcess | None = None
        self.channel: Connection | None = None

    def start(self) -> Connection:
        if self.channel is None:
            context = multiprocessing.get_context("spawn")
            self.channel, theirs = context.Pipe()
            self.process = context.Process(target=work, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
        return self.channel

    def stop(self) -> int:
        """End the process; its exit code."""
        assert self.process is not None and self.channel is not None
        self.process.kill()
        self.process.join()
        self.channel.close()
        code, self.channel = self.process.exitcode or 0, None
        return code

    def _answers(self, channel: Connection) -> bool:
        """Whether an answer comes before the process has worked for `HANG_S`, or has waited for ever."""
        assert self.process is not None and self.process.pid is not None
        before, start = seconds_of(self.process.pid), time.monotonic()
        while not channel.poll(1.0):
            if seconds_of(self.process.pid) - before > HANG_S or time.monotonic() - start > WAIT_S:
                return False
        return True

    def run(self, reader: str, number: int) -> Outcome:
        channel, told = self.start(), ""
        channel.send((reader, number))
        try:
            if not channel.poll(PATIENCE_S):
                raise TimeoutError(f"{reader}: no good files after {PATIENCE_S:g} s")
            told = channel.recv()
            if self._answers(channel):
                return Outcome(reader, number, told, *channel.recv())
        except EOFError:
            assert self.process is not None
            self.process.join()
            code = self.process.exitcode or 0
            self.stop()
            return Outcome(reader, number, told, "crash", signal.Signals(-code).name if code < 0 else f"exit {code}", 0.0, 0.0)
        self.stop()
        return Outcome(reader, number, told, "hang", f"more than {HANG_S:g} s", HANG_S, 0.0)


def campaign(readers: Iterable[str], numbers: Sequence[int], processes: int = 2) -> list[Outcome]:
    """What became of every case of every reader.

    Args:
        readers: names.
        numbers: of the cases.
        processes: that read at a time.
    """
    parts: queue.SimpleQueue[tuple[str, Sequence[int]]] = queue.SimpleQueue()
    for reader in readers:
        for start in range(0, len(numbers), PART):
            parts.put((reader, numbers[start : start + PART]))
    found: list[Outcome] = []
    wrong: list[BaseException] = []

    def serve() -> None:
        worker = Worker()
        try:
            while not wrong:
                try:
                    reader, mine = parts.get_nowait()
                except queue.Empty:
                    break
                found.extend(worker.run(reader, number) for number in mine)
        except BaseException as error:
            wrong.append(error)
        finally:
            if worker.channel is not None:
                worker.stop()

    threads = [threading.Thread(target=serve) for _ in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    return found


def counts(outcomes: Iterable[Outcome]) -> Counter[str]:
    """Number of outcomes of each kind."""
    return Counter(one.kind for one in outcomes)


def table(outcomes: Sequence[Outcome]) -> str:
    """A line per reader: outcomes of each kind, the slowest case and the one that took most memory."""
    head = f"{'reader':20s}" + "".join(f"{kind:>9s}" for kind in (*GOOD, *FAULTS)) + f"{'s':>8s}{'MiB':>8s}"
    rows = [head]
    for reader in sorted({one.reader for one in outcomes}):
        mine = [one for one in outcomes if one.reader == reader]
        found = counts(mine)
        ends = f"{max(one.seconds for one in mine):8.2f}{max(one.mebibytes for one in mine):8.0f}"
        rows.append(f"{reader:20s}" + "".join(f"{found[kind] or '.':>9}" for kind in (*GOOD, *FAULTS)) + ends)
    return "\n".join(rows)


def faults(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those that are neither right nor refused clearly."""
    return [one for one in outcomes if one.kind in FAULTS]
