"""Shared by all benchmarks: the description of the machine, rows of figures, and the JSON file that holds them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lfjax.io import writing

RESULTS = Path(__file__).parent / "results"


@dataclass
class Report:
    """Rows of one benchmark; `write` saves them as results/NAME.json unless the run is a toy."""

    name: str
    toy: bool
    rows: list[dict[str, Any]] = field(default_factory=list)

    def row(
        self, name: str, value: float, unit: str, bound: str | None = None, holds: bool | None = None, peer: str | None = None
    ) -> None:
        """Add a figure, and print it."""
        value = float(value)
        self.rows.append({"name": name, "value": value, "unit": unit, "bound": bound, "holds": holds, "peer": peer})
        mark = {True: "holds", False: "FAILS", None: ""}[holds]
        print(f"{name:78s} {value:12.5g} {unit:8s} {bound or '':14s} {mark}", flush=True)

    def at_most(self, name: str, value: float, bound: float, unit: str = "", peer: str | None = None) -> None:
        """Add a figure that must not exceed a bound."""
        self.row(name, value, unit, f"<= {bound:g}", bool(value <= bound), peer)

    def at_least(self, name: str, value: float, bound: float, unit: str = "", peer: str | None = None) -> None:
        """Add a figure that must reach a bound."""
        self.row(name, value, unit, f">= {bound:g}", bool(value >= bound), peer)

    def write(self, *, parts: bool = False) -> None:
        """Write the JSON, atomically; nothing at toy size.

        Args:
            parts: whether the rows replace those of the same names in an earlier run; each then states its own commit.
        """
        if self.toy:
            return
        packages = ("jax", "jaxlib", "equinox", "numpy", "scipy")
        packages += ("pyolaf", "cryojax", "aspire", "finufft", "astra-toolbox", "scikit-image")
        path, rows = RESULTS / f"{self.name}.json", self.rows
        if parts:
            new = {row["name"]: row | {"commit": commit()} for row in self.rows}
            document = json.loads(path.read_text(encoding="utf-8"))
            document["rows"] = [new.pop(row["name"], row) for row in document["rows"]] + list(new.values())
            with writing(path) as temporary:
                temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            return
        document = {
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
                "python": platform.python_version(),
                "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
            },
            "versions": {name: _version(name) for name in packages},
            "commit": commit(),
            "rows": rows,
        }
        with writing(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def commit() -> str:
    """Short name of the commit that is checked out."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def timed(call: Callable[[], Any], repeats: int = 5) -> tuple[Any, float]:
    """The result of a call that waits for it, and the median of its wall seconds after one call that does not count."""
    found, times = call(), []
    for _ in range(repeats):
        start = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - start)
    return found, float(np.median(times))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def arguments(description: str) -> argparse.Namespace:
    """Parse the flag that every benchmark takes, --toy."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--toy", action="store_true", help="small sizes as in CI; writes nothing")
    return parser.parse_args()


__all__ = ["RESULTS", "Report", "arguments", "timed"]
