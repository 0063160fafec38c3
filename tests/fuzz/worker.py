"""A process that reads mutated files one after the other, measures time and memory, and says what became of each."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
import zlib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

LIMIT_GIB = 4  # beyond what the process has when it begins: an allocation beyond it is a MemoryError
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory_mib(entry: str) -> float:
    """An entry of this process's memory: VmRSS, VmHWM (the most since the last reset) or VmSize; 0 off Linux."""
    if not STATUS.exists():
        return 0.0
    return next(int(row.split()[1]) / 1024 for row in STATUS.read_text().splitlines() if row.startswith(f"{entry}:"))


def seed_of(reader: str, number: int) -> np.random.Generator:
    """The random numbers of a case."""
    return np.random.default_rng((zlib.crc32(reader.encode()), number))


class Bench:
    """The good files of one reader, made once, and cases from them."""

    def __init__(self, name: str, folder: Path) -> None:
        from tests.fuzz.faulty import FAULTY
        from tests.fuzz.readers import READERS

        self.reader = (READERS | FAULTY)[name]
        self.good, self.case = folder / "good", folder / "case"
        self.good.mkdir()
        self.path = self.reader.make(self.good)
        self.names = sorted({path.name for path in self.good.rglob("*")})
        self.result = self.reader.read(self.path)
        self.exact = self.path.suffix not in (".toml", ".star", ".csg", ".pdb", ".cif", ".hdr", ".spe")

    def set_up(self, number: int) -> tuple[Path, str]:
        """The path to read, and what was done to it."""
        from tests.fuzz.mutate import mutate

        if self.case.exists():
            shutil.rmtree(self.case)
        shutil.copytree(self.good, self.case)
        told = mutate(self.case, seed_of(self.reader.name, number))
        return self.case / self.path.relative_to(self.good), told

    def run(self, path: Path, told: str) -> tuple[str, str, float, float]:
        """Kind, message, seconds and mebibytes of one case."""
        from tests.fuzz.judge import BLOW_UP_MIB, judge_error, judge_result

        if RESET.exists():
            RESET.write_text("5")
        before, start = memory_mib("VmRSS"), time.perf_counter()
        result: Any = None
        wrong: BaseException | None = None
        try:
            result = self.reader.read(path)
        except Exception as error:  # any kind is what the fuzzer looks for
            wrong = error
        seconds, mebibytes = time.perf_counter() - start, memory_mib("VmHWM") - before
        if wrong is not None:
            kind, message = judge_error(wrong, self.names)
        else:
            kind, message = judge_result(result, self.result, told, self.exact, finite=not self.reader.empty_cells)
        if mebibytes > BLOW_UP_MIB:
            kind = "blow-up"
        return kind, message, seconds, mebibytes


def work(channel: Connection) -> None:
    """Serve: (reader, number) in, ("doing", mutation) and (kind, message, seconds, mebibytes) out; None ends it."""
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    os.environ.pop("LFJAX_MAX_GIB", None)
    warnings.simplefilter("ignore")
    logging.disable()  # tifffile logs what it finds odd
    sys.stderr = open(os.devnull, "w")
    benches: dict[str, Bench] = {}
    with tempfile.TemporaryDirectory() as name:
        while (asked := channel.recv()) is not None:
            reader, number = asked
            if reader not in benches:
                folder = Path(name) / f"r{len(benches)}"
                folder.mkdir()
                benches[reader] = Bench(reader, folder)
                room = int((memory_mib("VmSize") + 1024 * LIMIT_GIB) * 2**20)
                resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
            path, told = benches[reader].set_up(number)
            channel.send(told)
            channel.send(benches[reader].run(path, told))
