"""Unfolded ISTA with one label, physics and an adversary, against classical methods and a U-Net.  `make bench-unfolded`

Trained networks and scores are kept in build/unfolded and reused; remove that folder to start afresh.
LFJAX_SHARE=1/8 trains and scores every eighth network, starting with the second, and stops: eight such processes fill a GPU.
LFJAX_KEPT=1 trains nothing and reports the scores that are kept.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from flax import nnx

from benchmarks.common import RESULTS, Report, arguments
from benchmarks.machine import seconds
from benchmarks.unfolded_checks import memory, resumed, untrained
from benchmarks.unfolded_study import LARGE, TOY, Size, Study, apply
from lfjax import models, solvers, training
from lfjax.io import writing
from lfjax.linop import LinearOperator
from lfjax.models.frozen import count_parameters, trainable
from lfjax.progress import track
from lfjax.training.evaluation import Scores, inside
from lfjax.training.trust import ResynthesisFlag, symmetries

matplotlib.use("agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parents[1] / "build" / "unfolded"
MIXTURES = {
    "supervised": training.LossWeights(),
    "+ light field": training.LossWeights(noise_splitting=1.0),
    "+ adversarial": training.LossWeights(adversarial=0.002),
    "all three": training.LossWeights(noise_splitting=1.0, adversarial=0.002),
}
"""The light-field loss compares two parts of the photons; with the same photons on both sides it would reward noise."""
METHODS = ("physics", "convolutional", "compressed")
RATES = {"physics": 3e-2, "convolutional": 8e-3, "compressed": 8e-3, "U-Net": 1e-3}


class Plan(NamedTuple):
    """How a network is trained, apart from the seed; with `one_field` the labelled sample has a single field."""

    network: str
    mixture: str
    one_field: bool = False

    def __str__(self) -> str:
        return f"{self.network}, {self.mixture}" + ", one field" * self.one_field


def plans(size: Size) -> list[Plan]:
    """All networks to train, the longest runs first."""
    methods, mixtures = (METHODS[-1:], ("supervised", "all three")) if size == TOY else (METHODS, tuple(MIXTURES))
    few = [Plan(METHODS[-1], mixture, True) for mixture in mixtures] + [Plan("U-Net", "supervised", True)]
    many = [Plan(name, mixture) for name in reversed(methods) for mixture in mixtures]
    return many[: len(mixtures)] + few + [Plan("U-Net", "supervised")] + many[len(mixtures) :]


def classical(study: Study) -> dict[str, list[Callable[[Any], Any]]]:
    """The settings of each iterative method: H with scattering, without, and with all illuminated tissue around the volume."""
    whole = study.experiment.operator()
    ops: list[tuple[LinearOperator, Callable[[Any], Any]]] = [
        (study.op, lambda x: x), (study.unscattered, lambda x: x), (whole, study.beside)
    ]  # fmt: skip
    few = study.size == TOY
    frame = study.data.frames[0]
    lipschitz = {id(op): largest_eigenvalue(op, frame) for op, _ in ops}

    def settings(make: Any, scales: tuple[float, ...], counts: tuple[int, ...]) -> list[Callable[[Any], Any]]:
        chosen, counts = (ops[:1], counts[:1]) if few else (ops, counts)
        return [
            eqx.Partial(solve, op, cut, make, jnp.asarray(f), lipschitz[id(op)], n)
            for op, cut in chosen for f in scales for n in counts
        ]  # fmt: skip

    def admm(f: Any, problem: Any, lipschitz: Any) -> Any:
        scale = (study.voxel_um[1] / study.voxel_um[0], 1, 1)
        return solvers.ADMM(0.1 * f * problem.lambda_max(), f * problem.lambda_max(), scale, 0.1 * lipschitz)

    return {
        "Richardson-Lucy": settings(lambda *_: solvers.RichardsonLucy(), (1.0,), (20, 40, 80, 160, 320)),
        "ISTA 200": settings(ista, (3e-3, 1e-2, 3e-2, 1e-1), (200,)),
        "ADMM-TV": settings(admm, (3e-3, 1e-2, 2e-2), (30,)),
    }


@eqx.filter_jit
def largest_eigenvalue(op: LinearOperator, frame: Any) -> Any:
    """|H|^2, rounded up."""
    return solvers.Problem(op, frame).lipschitz()


def solve(op: LinearOperator, cut: Any, make: Any, scale: Any, lipschitz: Any, iterations: int, y: Any) -> Any:
    """The volume by an iterative method, which `make` makes for a multiple of the largest sensible sparsity."""
    problem = solvers.Problem(op, jnp.maximum(y, 0))
    method = make(scale, problem, lipschitz)
    return cut(solvers.iterate(method, problem, method.init(problem, None), iterations)[0].x)


def ista(scale: Any, problem: Any, lipschitz: Any) -> Any:
    """ISTA with this multiple of lambda_max."""
    return solvers.ISTA(scale * problem.lambda_max(), 1 / lipschitz)


def network(study: Study, name: str, seed: int) -> Any:
    """An untrained network."""
    size, key, cells = study.size, jax.random.key(seed), tuple(study.cells.values())
    depths = len(study.planes_um)
    if name == "physics":
        return models.UnfoldedISTA(models.Physics(study.op, study.cells["cell_voxels"]), size.physics_layers, sparsity=0.03)
    if name == "convolutional":
        term: Any = models.Convolutional(key, size.layers, depths, *cells, reach=2, op=study.op, damping=0.05)
        return models.UnfoldedISTA(term, size.layers, sparsity=0.03)
    if name == "compressed":
        options = {"width": size.width, "compress": size.compress, "op": study.op}
        return models.UnfoldedISTA(models.Compressed(key, size.layers, depths, *cells, **options), size.layers, sparsity=0.01)
    width, levels = (4, 1) if size == TOY else (32, 3)
    unet = nnx.jit(lambda: models.ViewUNet(depths, *cells, width=width, levels=levels, rngs=nnx.Rngs(seed)))
    return training.FromNNX(unet())


def trained(study: Study, plan: Plan, seed: int, folder: Path | None) -> Any:
    """A trained network; read from `folder` if it is there, resumed if it was interrupted."""
    size, data, net = study.size, study.data, network(study, plan.network, seed)
    steps, labelled = (dict(zip(RATES, row, strict=True))[plan.network] for row in (size.steps, size.batch))
    if plan.one_field:
        kept = slice(None, None, size.fields)
        data = data._replace(frames=data.frames[kept], volumes=data.volumes[kept])
        steps, labelled = size.one_field
    options = training.Options(
        steps=steps, labelled=labelled, unlabelled=1, border=size.border, learning_rate=RATES[plan.network],
        relative=plan.network != "U-Net", seed=seed, superpose=0.5, validate_every=max(steps // 8, 1),
        checkpoint_every=max(steps // 4, 1), decay=0.98,
    )  # fmt: skip
    weights = MIXTURES[plan.mixture]
    fit = partial(training.fit, net, data, op=study.op, weights=weights, options=options, validate=study.error, track=track)
    if folder is None:
        return fit().model
    path = named(folder, plan, seed, size, weights, options)
    done, arrays = path.with_suffix(".eqx"), eqx.filter(net, trainable(net))
    if not done.exists():
        arrays = eqx.filter(fit(folder=path).model, trainable(net))
        with writing(done) as temporary:
            eqx.tree_serialise_leaves(temporary, arrays)
        shutil.rmtree(path)
    return eqx.combine(eqx.tree_deserialise_leaves(done, arrays), net)


def named(folder: Path, plan: Any, seed: int, *settings: Any) -> Path:
    """Path of a result, whose name depends on the settings."""
    name = f"{plan}-{seed}-{zlib.crc32(repr(settings).encode()):08x}"
    return folder / "".join(c if c.isalnum() or c in "-." else "_" for c in name)


def score_file(study: Study, plan: Any, seed: int, folder: Path) -> Path:
    """Path of the scores of a method."""
    return named(folder, plan, seed, study.size, MIXTURES).with_suffix(".json")


def scored(study: Study, plan: Any, seed: int, folder: Path | None, find: Callable[[], tuple[Any, int]]) -> tuple[Scores, int]:
    """Scores of a method, and the number that `find` returns with it; read from the folder if they are there."""
    path = None if folder is None else score_file(study, plan, seed, folder)
    if path is not None and path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Scores(*kept["scores"]), kept["number"]
    reconstruct, number = find()
    scores = study.score(reconstruct)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as temporary:
            temporary.write_text(json.dumps({"scores": scores, "number": number}) + "\n", encoding="utf-8")
    return scores, number


def scored_network(study: Study, plan: Plan, seed: int, folder: Path | None) -> tuple[Scores, int]:
    """Scores and number of parameters of a network after training."""

    def find() -> tuple[Any, int]:
        net = trained(study, plan, seed, folder)
        return net, count_parameters(net)

    found = scored(study, plan, seed, folder, find)
    if folder is not None:
        jax.clear_caches()  # dozens of large programs need more memory maps than Linux allows per process
    return found


def scored_classical(study: Study, name: str, settings: list[Any], folder: Path | None) -> tuple[Scores, int]:
    """Scores of the setting that is best in validation, and its number."""

    def find() -> tuple[Any, int]:
        number = int(np.argmin([study.error(setting) for setting in settings]))
        return settings[number], number

    return scored(study, name, 0, folder, find)


def table(report: Report, name: str, scores: list[Scores], parameters: int) -> None:
    """Rows of one method: mean and, over seeds, standard deviation."""
    units = ("dB", "", "", "", "dB", "s")
    labels = ("PSNR", "SSIM", "correlation", "somata F1", "temporal SNR", "time per volume")
    for column, (label, unit) in enumerate(zip(labels, units, strict=True)):
        values = [score[column] for score in scores]
        report.row(f"{name}: {label}", float(np.mean(values)), unit)
        if len(values) > 1 and label != "time per volume":
            report.row(f"{name}: {label}, sd of {len(values)} seeds", float(np.std(values, ddof=1)), unit)
    report.row(f"{name}: parameters", parameters, "")


def trust(report: Report, study: Study, model: Any) -> None:
    """Does the spread predict the error, and does the flag detect unfamiliar frames?"""
    movie = study.held_out[1]
    y, truth = movie.frames[0], inside(movie.volumes[0], study.border)
    spread = eqx.filter_jit(symmetries)(study.within(model), y)
    difference = abs(np.asarray(spread.mean) - np.asarray(movie.volumes[0]))
    error, deviation = (inside(a, study.border).ravel() for a in (difference, np.asarray(spread.deviation)))
    order = np.argsort(deviation)
    tenth = len(order) // 10
    report.row("uncertainty by symmetries: rank correlation with the error", float(np.corrcoef(
        np.argsort(order), np.argsort(np.argsort(error)))[0, 1]), "")  # fmt: skip
    total = float(np.sum(error**2))
    report.row("error (squared) in the most uncertain tenth of voxels", float(np.sum(error[order[-tenth:]] ** 2)) / total, "")
    single = np.asarray(inside(apply(study.within(model), y), study.border))
    gain = 10 * np.log10(float(np.sum((single - np.asarray(truth)) ** 2)) / total)
    report.row("mean over symmetries against one reconstruction", gain, "dB")
    border = study.size.border * study.size.pixels
    mask = jnp.zeros(y.shape, bool).at[border:-border, border:-border].set(True)
    flag = ResynthesisFlag.calibrate(model, study.op, study.movies[0].frames, mask)
    alike = [bool(flag(model, study.op, f)) for f in study.movies[1].frames]
    wrong = [bool(flag(model, study.op, jnp.roll(f, 3, 1))) for f in study.movies[1].frames]  # misaligned by three pixels
    report.row("flagged, movies like those trained on", float(np.mean(alike)), "")
    report.row("flagged, the same shifted by three pixels", float(np.mean(wrong)), "")


def picture(study: Study, shown: dict[str, Any]) -> None:
    """Projections of truth and reconstructions of a held-out frame."""
    movie = study.held_out[1]
    truth = np.asarray(movie.volumes[0])
    across = len(shown) + 1
    figure, axes = plt.subplots(2, across, figsize=(2.2 * across, 3.2), height_ratios=(3, 1), layout="constrained")
    volumes = {"truth": truth} | {name: np.asarray(f(movie.frames[0])) for name, f in shown.items()}
    for column, (name, volume) in zip(axes.T, volumes.items(), strict=True):
        volume = volume * (np.vdot(volume, truth) / max(np.vdot(volume, volume), 1e-12))
        limit = np.percentile(truth.max(0), 99.8)
        column[0].imshow(volume.max(0), vmin=0, vmax=limit, cmap="inferno")
        column[0].set_title(name, fontsize=8)
        column[1].imshow(volume.max(1), vmin=0, vmax=limit, cmap="inferno", aspect=study.voxel_um[0] / study.voxel_um[1])
        for axis in column:
            axis.set_xticks([])
            axis.set_yticks([])
    figure.savefig(RESULTS / "unfolded.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """Run the benchmark at the size asked for."""
    report = Report("unfolded", arguments(__doc__ or "").toy)
    study = Study(TOY if report.toy else LARGE if os.environ.get("LFJAX_SIZE") == "large" else Size())
    size, folder = study.size, None if report.toy else FOLDER
    share, shares = (int(n) for n in os.environ.get("LFJAX_SHARE", "0/1").split("/"))
    if shares > 1:
        for plan, seed in [(plan, seed) for plan in plans(size) for seed in range(size.seeds)][share::shares]:
            scored_network(study, plan, seed, folder)
        return

    def wanted(plan: Plan, seed: int) -> bool:
        return folder is None or "LFJAX_KEPT" not in os.environ or score_file(study, plan, seed, folder).exists()

    untrained(report, study)
    memory(report, study)
    resumed(report)

    def measured(reconstruct: Callable[[Any], Any]) -> float:
        return seconds(partial(apply, study.within(reconstruct)), study.held_out[0].frames[0])

    found: dict[str, list[Scores]] = {}
    shown: dict[str, Any] = {}
    for name, settings in classical(study).items():
        scores, number = scored_classical(study, name, settings, folder)
        shown[name] = settings[number]
        found[name] = [scores._replace(seconds=measured(settings[number]))]
        table(report, name, found[name], 0)
    for plan in plans(size):
        every = [scored_network(study, plan, seed, folder) for seed in range(size.seeds) if wanted(plan, seed)]
        if not every:
            continue
        time = measured(network(study, plan.network, 0))  # its weights do not matter
        found[str(plan)] = [scores._replace(seconds=time) for scores, _ in every]
        table(report, str(plan), found[str(plan)], every[0][1])
    verdict(report, found, study, shown, folder)
    report.write()


def verdict(report: Report, found: dict[str, list[Scores]], study: Study, shown: dict[str, Any], folder: Path | None) -> None:
    """Compare with the bounds."""

    def mean(name: Any) -> Scores:
        return Scores(*np.mean(found[str(name)], axis=0))

    listed = [plan for plan in plans(study.size) if str(plan) in found]
    for plan in (p for p in listed if p.mixture == "all three"):
        one, all_three = ([s.psnr_db for s in found[str(p)]] for p in (plan._replace(mixture="supervised"), plan))
        deviation = max(np.std(a, ddof=1) for a in (one, all_three) if len(a) > 1)
        gain = float(np.mean(all_three) - np.mean(one))
        row = f"{plan.network}{', one field' * plan.one_field}: PSNR gained by all three losses"
        report.row(row, gain, "dB", f"> sd {deviation:.2g}", bool(gain > deviation))
    best = max((p for p in listed if p.network in METHODS and not p.one_field), key=lambda p: mean(p).psnr_db)
    iterative = max(shown, key=lambda n: mean(n).psnr_db)
    print(f"best unfolded: {best}; best iterative: {iterative}")
    gain = mean(best).psnr_db - mean(iterative).psnr_db
    report.at_least("best unfolded against best iterative: PSNR gained", gain, 2, "dB", peer=iterative)
    report.at_least("the same: times faster per volume", mean(iterative).seconds / mean(best).seconds, 5, peer=iterative)
    unet = Plan("U-Net", "supervised")
    for column in Scores._fields[:-1]:
        gain = getattr(mean(best), column) - getattr(mean(unet), column)
        report.row(f"best unfolded against U-Net: {column} gained", gain, "", "> 0", bool(gain > 0), peer="U-Net")
    model = trained(study, best, 0, folder)
    trust(report, study, model)
    eight = study.score(lambda y: symmetries(model, y).mean)
    table(report, f"{best}, mean over symmetries", [eight], count_parameters(model))
    if not report.toy:
        alone = best._replace(mixture="supervised")
        nets = {str(p): trained(study, p, 0, folder) for p in dict.fromkeys((unet, alone, best))}
        chosen = {iterative: shown[iterative]} | nets
        picture(study, {name: eqx.filter_jit(study.within(f)) for name, f in chosen.items()})


if __name__ == "__main__":
    main()
