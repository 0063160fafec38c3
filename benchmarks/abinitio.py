"""A map from particles of unknown pose: the angles found, beside random poses, the bound of the known map, and the peers.

`make bench-abinitio`; BENCH_ARGS="--seeds 2 --only first,cases" runs a part. Every run is kept in build/abinitio, so that a
stopped benchmark resumes. Figures are those of the worst seed unless a row says otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.abinitio_processes import run_processes
from benchmarks.abinitio_runs import FOLDER, from_truth, run, run_peers
from benchmarks.abinitio_scenes import CASES, Case
from benchmarks.abinitio_sparse import sparse_rows
from benchmarks.abinitio_table import write_table
from benchmarks.common import RESULTS, Report
from lfjax.tomography import schedule

FINDS = 25.0  # degrees: a start whose median error is below has found the molecule
FIRST_RUN = "import json, sys; from benchmarks.abinitio_runs import first_run; print(json.dumps(first_run()))"


def worst(figures: Sequence[dict[str, Any]], name: str, of_five: int) -> float:
    """The worst of so many seeds out of five, or of all seeds where there are fewer."""
    values = sorted(float(each[name]) for each in figures)
    return values[min(len(values), max(1, round(of_five / 5 * len(values)))) - 1]


def rows(report: Report, case: Case, seeds: int, folder: Path = FOLDER) -> None:
    """The rows of one case."""
    figures = [run(case, seed, folder) for seed in range(seeds)]
    for each in figures:
        each["ratio"] = each["median"] / each["known"]
        each["above_10"] = 1 - each["below_10"]
    name = case.scene.name
    of = f", {case.of_five} of 5 seeds" if case.of_five < 5 else ""

    def add(what: str, key: str, bound: float | None, unit: str) -> None:
        value = worst(figures, key, case.of_five)
        if bound is None:
            report.row(f"{name}: {what}", value, unit)
        else:
            report.at_most(f"{name}: {what}{of}", value, bound, unit)

    add("median error", "median", case.median_deg, "degrees")
    add("median error over that given the map", "ratio", case.ratio, "")
    add("share above 10 degrees", "above_10", None if case.below_10 is None else 1 - case.below_10, "")
    report.row(f"{name}: median error given the map", max(each["known"] for each in figures), "degrees")
    report.row(f"{name}: median error of random poses", min(each["null"] for each in figures), "degrees")
    report.row(f"{name}: seconds under whatever load there was", float(np.median([e["seconds"] for e in figures])), "s")
    report.row(f"{name}: CPU seconds", float(np.median([e["cpu_seconds"] for e in figures])), "s")
    if "fsc" in figures[0]:
        gap = max(each["fsc"] - each["fsc_true"] for each in figures)
        bound = 0.5 if case.scene.name == CASES[0].scene.name else None
        if bound is None:
            report.row(f"{name}: FSC 0.5 above that with the true poses", gap, "A")
        else:
            report.at_most(f"{name}: FSC 0.5 above that with the true poses", gap, bound, "A")
    if case.from_truth:
        limits = [from_truth(case, seed, folder) for seed in range(seeds)]
        report.row(f"{name}: median error of a search from the true map", max(limits), "degrees")
        ratio = max(each["median"] / limit for each, limit in zip(figures, limits, strict=True))
        report.at_most(f"{name}: median error over that of a search from the true map", ratio, 1.05)
    if "auc" in figures[0]:
        report.at_least(f"{name}: area under the curve of the junk list", min(each["auc"] for each in figures), 0.95)
        clean = [run(CASES[0], seed) for seed in range(seeds)]
        ratio = max(each["median"] / other["median"] for each, other in zip(figures, clean, strict=True))
        report.at_most(f"{name}: median error over that without junk", ratio, 1.2)
    report.at_most(f"{name}: noise power over the images' power", max(each["noise"] for each in figures), 1.05)


def start_rows(report: Report, cases: Sequence[Case], seeds: int) -> None:
    """How many single starts find the molecule."""
    every = [[median < FINDS for seed in range(seeds) for median in run(case, seed)["starts"]] for case in cases]
    report.at_least(f"single starts that find the molecule: {cases[0].scene.name}", float(np.mean(every[0])), 0.8)
    for case, found in zip(cases[1:], every[1:], strict=True):
        report.row(f"single starts that find the molecule: {case.scene.name}", float(np.mean(found)), "")


def peer_rows(report: Report, case: Case, limit_s: float) -> None:
    """The peers on the same stack: angles, resolution and time; lfjax's beside."""
    ours = run(case, 0)
    for name, theirs in run_peers(case, limit_s).items():
        label = f"{case.scene.name}: {name}"
        if "error" in theirs:
            print(f"{label}: {theirs['error']}", flush=True)
            continue
        report.row(f"{label}, median error", theirs["median"], "degrees", peer=theirs["version"])
        report.row(f"{label}, seconds", theirs["seconds"], "s", peer=theirs["version"])
        report.at_least(
            f"{label}, median error over that of lfjax", theirs["median"] / ours["median"], 1, peer=theirs["version"]
        )
        if "fsc" in theirs and "fsc" in ours:
            gap = (theirs["fsc"] - theirs["fsc_true"]) - (ours["fsc"] - ours["fsc_true"])
            report.at_least(f"{label}, FSC gap beyond that of lfjax", gap, 0, "A", peer=theirs["version"])


def first_run_rows(report: Report) -> None:
    """Seconds of a first run in a process of its own, nothing compiled before."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, "LFJAX_CACHE": cache}
        done = subprocess.run([sys.executable, "-c", FIRST_RUN], env=environment, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    report.at_most(f"{CASES[0].scene.name}: first run, compilation included", told["seconds"], 90, "s")


def process_rows(report: Report) -> None:
    """Interrupted runs, devices and processes."""
    told = run_processes()
    report.row("kill -9 at 5 moments: results that differ", told["differ"], "", "== 0", told["differ"] == 0)
    for kind in ("devices", "processes"):
        report.at_most(f"2 {kind}: map after one pass against that of 1", told[f"{kind} first"], 1e-5)
        report.at_most(f"2 {kind}: map after 58 passes against that of 1", told[f"{kind} last"], 1e-5)
    report.row("all-gathers in the compiled text", told["gathers"], "", "== 0", told["gathers"] == 0)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="small sizes as in CI; writes nothing")
    parser.add_argument("--seeds", type=int, default=5, help="data seeds")
    parser.add_argument("--only", default="", help="some of first, cases, sparse, processes, peers, large")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for each run of a peer")
    parser.add_argument("--table", action="store_true", help="write the table of docs/unknown_poses.md from the results")
    told = parser.parse_args()
    if told.table:
        return write_table()
    report = Report("abinitio", told.toy)
    if told.toy:
        toy = dataclasses.replace(CASES[2].scene, name="toy", object="molecule", count=24, size=32, snr=2.0)
        schedule.STARTING, schedule.EXTRA = 6, 0
        with tempfile.TemporaryDirectory() as folder:
            rows(report, Case(toy), 1, Path(folder))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    usual = [case for case in CASES if case.scene.count <= 1000]
    large = [case for case in CASES if case.scene.count > 1000]
    compared = [CASES[i] for i in (0, 2, 3)]
    parts: dict[str, Callable[[], object]] = {
        "first": lambda: first_run_rows(report),
        "cases": lambda: [rows(report, case, told.seeds) for case in usual] and start_rows(report, usual, told.seeds),
        "sparse": lambda: sparse_rows(report, told.toy),
        "processes": lambda: process_rows(report),
        "peers": lambda: [peer_rows(report, case, told.limit) for case in compared],
        "large": lambda: [rows(report, case, 1) for case in large],
    }
    for name in told.only.split(",") if told.only else parts:
        parts[name]()
        report.write(parts=(RESULTS / "abinitio.json").exists())


if __name__ == "__main__":
    main()
