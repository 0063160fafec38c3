"""Spikes of calcium traces by `activity.spikes`, by OASIS, and by a threshold on the derivative.

`make bench-spikes` writes results/spikes.json.
"""

from __future__ import annotations

import jax
import numpy as np

from benchmarks.common import Report, arguments
from lfjax.activity.spike_times import Pulse, spike_score, spikes
from lfjax.simulate import JGCAMP8F, activity


def calcium(report: Report, toy: bool) -> None:
    """jGCaMP8f at 100 Hz, one spike at five times the noise; peers at their best threshold for each trace."""
    from oasis.functions import deconvolve

    pulse, frame_s, neurons, frames = Pulse(*JGCAMP8F.time_constants_s), 0.01, 2 if toy else 60, 500 if toy else 2000
    t_rise, t_decay = JGCAMP8F.time_constants_s
    fast = 1 / (1 / t_decay + 1 / t_rise)  # the second exponential, which is OASIS's rise time
    for rate in (3.0,) if toy else (1.0, 3.0, 10.0):
        made = activity(jax.random.key(int(rate)), neurons, frames, frame_s, rate_hz=rate, rate_spread=0.0, burst_spread=0.0)
        sigma = JGCAMP8F.peak / 5
        traces = made.dff + sigma * jax.random.normal(jax.random.key(0), made.dff.shape)
        run = jax.jit(lambda ys: jax.lax.map(lambda y: spikes(y, frame_s, pulse, JGCAMP8F.peak, most=400), ys))
        found = jax.tree.map(np.asarray, run(traces))
        scores: dict[str, list[float]] = {"lfjax": [], "derivative": [], "OASIS": []}
        for n, trace in enumerate(np.asarray(traces, float)):
            truth = np.repeat(np.arange(made.spikes.shape[1]) * made.step_s, np.asarray(made.spikes[n]).astype(int))
            one = jax.tree.map(lambda leaf, n=n: leaf[n], found)
            scores["lfjax"].append(spike_score(truth, one.train())[0])
            gradient = np.diff(trace, prepend=trace[0])
            trials = [np.flatnonzero(gradient > level * sigma) * frame_s for level in np.linspace(1, 6, 21)]
            scores["derivative"].append(max(spike_score(truth, times)[0] for times in trials))
            spread = deconvolve(trace, tau_d=t_decay, tau_r=fast, framerate=1 / frame_s, sn=sigma, penalty=1)[1]
            size = np.quantile(spread[spread > 0], 0.9) if np.any(spread > 0) else 1.0
            trials = [np.flatnonzero(spread > level * size) * frame_s for level in np.linspace(0.05, 0.9, 18)]
            for least in (0.2, 0.35, 0.5):
                counts = np.floor(spread / size + 1 - least).astype(int).clip(0)
                trials.append(np.repeat(np.arange(frames) * frame_s, counts))
            scores["OASIS"].append(max(spike_score(truth, times)[0] for times in trials))
        mean = {name: float(np.mean(values)) for name, values in scores.items()}
        title = f"spikes, jGCaMP8f, 100 Hz, SNR 5, {rate:g} Hz, {neurons} traces: F1 within 20 ms"
        report.at_least(title, mean["lfjax"], max(0.9, mean["derivative"], mean["OASIS"]), peer="derivative, OASIS")
        lead = np.array(scores["lfjax"]) - np.array(scores["OASIS"])
        certain = lead.mean() / max(lead.std(), 1e-9) * neurons**0.5
        report.row("the same: lead over OASIS trace by trace, in standard errors", certain, "1")
        for name in ("derivative", "OASIS"):
            report.row(f"the same: {name}, best threshold of each trace", mean[name], "1")


def main() -> None:
    """All figures."""
    toy = arguments(__doc__ or "").toy
    report = Report("spikes", toy)
    calcium(report, toy)
    report.write()


if __name__ == "__main__":
    main()
