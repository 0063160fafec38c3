"""Unfolded ISTA with one label, physics and an adversary, against classical methods and a U-Net.  `make bench-unfolded`

Everything that was trained is kept in build/unfolded and not trained again; remove that folder to start afresh.
LFJAX_SHARE=1/8 trains every eighth network, the second first, and stops: eight such processes fill a GPU.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from flax import nnx

from benchmarks.common import RESULTS, Report, arguments
from lfjax import models, simulate, solvers, training
from lfjax.io import cached_psf
from lfjax.linop import LinearOperator
from lfjax.models.frozen import count_parameters
from lfjax.optics import LightField, Microscope, Scattering
from lfjax.progress import track
from lfjax.simulate import Movie
from lfjax.training.evaluate import Scores, evaluate, inside
from lfjax.training.trust import ResynthesisFlag, symmetries

matplotlib.use("agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parents[1] / "build" / "unfolded"
MIXTURES = {
    "supervised": training.LossWeights(),
    "+ light field": training.LossWeights(noise_splitting=0.3),
    "+ adversarial": training.LossWeights(adversarial=0.005),
    "all three": training.LossWeights(noise_splitting=0.3, adversarial=0.005),
}
"""The light-field loss is taken between parts of the photons: with the same on both sides it rewards noise in the volume."""
UNLABELLED = ((0.1, 1.3), (0.15, 1.0), (0.25, 0.7))
"""Share of labelled neurons and brightness of the samples of the unlabelled movies; the labelled sample has (0.15, 1)."""
HELD_OUT = ((0.08, 1.6), (0.15, 1.0), (0.3, 0.6))
METHODS = ("physics", "convolutional", "compressed")


@dataclasses.dataclass(frozen=True)
class Size:
    """Everything that makes the experiment smaller or larger."""

    pixels: int = 9
    voxels: int = 3
    depths: int = 11
    step_um: float = 3.0
    beyond: int = 2
    lenslets: int = 21
    border: int = 3
    fields: int = 16
    windows: int = 5
    photons: float = 60.0  # a pixel
    movie: int = 60
    test: int = 36
    shown: tuple[int, ...] = (0, 12, 24)
    seeds: int = 3
    steps: tuple[int, int, int, int] = (40, 150, 800, 800)  # physics, convolutional, compressed, U-Net
    batch: tuple[int, int, int, int] = (1, 2, 4, 4)  # labelled samples, of the same
    few: int = 2  # fields of the comparison with few labels
    few_steps: int = 300
    layers: int = 6
    physics_layers: int = 10
    width: int = 51
    compress: int = 11  # the PSF is 11 lenslets wide; 15 at full size


TOY = Size(
    pixels=5, voxels=2, depths=7, step_um=5, beyond=1, lenslets=15, border=1, fields=2, windows=2, movie=6, test=40,
    shown=(0, 20), seeds=2, steps=(6, 6, 6, 6), few=1, few_steps=6, layers=2, physics_layers=3, width=8, compress=5,
)  # fmt: skip
LARGE = Size(
    pixels=19, depths=53, step_um=1.0, beyond=6, lenslets=51, border=8, windows=50, movie=200, test=200,
    steps=(2000, 20_000, 20_000, 20_000), compress=15,
)  # fmt: skip
"""The microscope of the TCI 2023 paper, for accelerators: LFJAX_SIZE=large."""


class Within(eqx.Module):
    """A reconstruction without the planes above and below those of interest."""

    reconstruct: Callable[[Any], Any]
    beyond: int = eqx.field(static=True)

    def __call__(self, y: Any) -> Any:
        x = self.reconstruct(y)
        return x[self.beyond : len(x) - self.beyond]


class Study:
    """One labelled sample, three unlabelled movies, validation and held-out samples."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.scope = Microscope(25, 1.0, 1.33, 0.515, 125, 1250, size.pixels)
        half = size.depths // 2 + size.beyond
        self.lit = tuple(size.step_um * i for i in range(-half, half + 1))
        self.z_um = self.lit[size.beyond : len(self.lit) - size.beyond]
        field = (size.lenslets, size.lenslets)
        self.experiment = simulate.Experiment(
            cached_psf(self.scope, self.lit, size.voxels, tolerance=0.05), field, beyond=size.beyond, photons=size.photons
        )
        self.voxel_um = self.experiment.voxel_um
        self.cells = {"cell_voxels": (size.voxels,) * 2, "cell_pixels": (size.pixels,) * 2}
        # Networks and their H have all planes that are lit, as the label has, so that light from beyond has where to go.
        optics = LightField(self.experiment.psf, field)
        thickness = self.experiment.depth_um + np.asarray(self.lit)
        tissue = {"mean_free_path_um": self.experiment.mean_free_path_um, "anisotropy": self.experiment.anisotropy}
        self.op = optics @ Scattering(optics.in_shape, self.voxel_um[1], thickness, **tissue)
        self.unscattered = optics
        whole = simulate.Experiment(self.experiment.psf, field, photons=size.photons)
        key = partial(jax.random.fold_in, jax.random.key(2026))
        stack = whole.stack(key(0), size.windows, fields=size.fields)
        movies = [
            self.experiment.movie(key(1 + i), size.movie, labelled=share, brightness=light)
            for i, (share, light) in enumerate(UNLABELLED)
        ]
        self.data = training.TrainingSet(
            np.asarray(stack.frames), np.asarray(stack.volumes), [np.asarray(m.frames) for m in movies],
            self.cells["cell_pixels"], self.cells["cell_voxels"],
        )  # fmt: skip
        self.movies = movies
        self.validation = [self.experiment.movie(key(10), size.test, shown=size.shown)]
        self.held_out = [
            self.experiment.movie(key(20 + i), size.test, labelled=share, brightness=light, shown=size.shown)
            for i, (share, light) in enumerate(HELD_OUT)
        ]
        self.border = (size.border * size.voxels,) * 2

    def beside(self, volume: Any) -> Any:
        """The field, of all that is lit."""
        (a, b), m = self.cells["cell_voxels"], self.experiment.margin
        return volume[:, m * a : -m * a, m * b : -m * b]

    def within(self, reconstruct: Callable[[Any], Any]) -> Within:
        """The same, of the planes of interest."""
        return Within(reconstruct, self.size.beyond)

    def score(self, reconstruct: Callable[[Any], Any], movies: list[Movie] | None = None) -> Scores:
        """Of a method, on the held-out samples."""
        return evaluate(self.within(reconstruct), movies or self.held_out, self.voxel_um, border=self.border)

    def error(self, reconstruct: Callable[[Any], Any]) -> float:
        """Validation: mean relative squared error of the volumes inside of the border."""
        movie, values = self.validation[0], []
        reconstruct = eqx.filter_jit(self.within(reconstruct))
        for number, t in enumerate(movie.shown):
            truth = inside(movie.volumes[number], self.border)
            x = inside(reconstruct(movie.frames[t]), self.border)
            values.append(float(jnp.sum((x - truth) ** 2) / jnp.sum(truth**2)))
        return float(np.mean(values))


def classical(study: Study) -> dict[str, list[Callable[[Any], Any]]]:
    """For each iterative method its settings; H with scattering, without, and with all that is lit beside and beyond."""
    whole = study.experiment.operator()
    ops: list[tuple[LinearOperator, Callable[[Any], Any]]] = [
        (study.op, lambda x: x), (study.unscattered, lambda x: x), (whole, study.beside)
    ]  # fmt: skip
    few = study.size == TOY
    frame = study.data.frames[0]
    lipschitz = {id(op): float(solvers.Problem(op, frame).lipschitz()) for op, _ in ops}

    def solve(op: LinearOperator, cut: Any, make: Any, iterations: int, y: Any) -> Any:
        problem = solvers.Problem(op, jnp.maximum(y, 0))
        method = make(problem, lipschitz[id(op)])
        return cut(solvers.iterate(method, problem, method.init(problem, None), iterations)[0].x)

    def settings(makers: list[Any], counts: list[int]) -> list[Callable[[Any], Any]]:
        chosen = ops[:1] if few else ops
        counts = counts[:1] if few else counts
        return [partial(solve, op, cut, make, n) for op, cut in chosen for make in makers for n in counts]

    def ista(f: float, problem: Any, lipschitz: float) -> Any:
        return solvers.ISTA(f * problem.lambda_max(), 1 / lipschitz)

    def admm(f: float, problem: Any, lipschitz: float) -> Any:
        scale = (study.voxel_um[1] / study.voxel_um[0], 1, 1)
        return solvers.ADMM(0.1 * f * problem.lambda_max(), f * problem.lambda_max(), scale, 0.1 * lipschitz)

    return {
        "Richardson-Lucy": settings([lambda *_: solvers.RichardsonLucy()], [20, 40, 80, 160, 320]),
        "ISTA 200": settings([partial(ista, f) for f in (3e-3, 1e-2, 3e-2, 1e-1)], [200]),
        "ADMM-TV": settings([partial(admm, f) for f in (3e-3, 1e-2, 2e-2)], [30]),
    }


def network(study: Study, name: str, seed: int) -> Any:
    """An untrained network."""
    size, key, cells = study.size, jax.random.key(seed), tuple(study.cells.values())
    depths = len(study.lit)
    if name == "physics":
        return models.UnfoldedISTA(models.Physics(study.op, study.cells["cell_voxels"]), size.physics_layers, sparsity=0.03)
    if name == "convolutional":
        term: Any = models.Convolutional(key, size.layers, depths, *cells, reach=2, op=study.op, damping=0.05)
        return models.UnfoldedISTA(term, size.layers, sparsity=0.03)
    if name == "compressed":
        options = {"width": size.width, "compress": size.compress, "op": study.op}
        return models.UnfoldedISTA(models.Compressed(key, size.layers, depths, *cells, **options), size.layers, sparsity=0.01)
    return training.FromNNX(models.ViewUNet(depths, *cells, rngs=nnx.Rngs(seed)))


def trained(
    study: Study, name: str, mixture: str, seed: int, folder: Path | None, *, few: bool = False
) -> training.Fitted:
    """A network after training; resumed or taken as it is if `folder` holds it. `few` leaves the label few fields."""
    size, data = study.size, study.data
    rates = {"physics": 3e-2, "convolutional": 8e-3, "compressed": 8e-3, "U-Net": 1e-3}
    steps, labelled = (dict(zip(rates, row, strict=True))[name] for row in (size.steps, size.batch))
    if few:
        kept = np.arange(len(data.frames)).reshape(-1, size.fields)[:, : size.few].ravel()
        data, steps = data._replace(frames=data.frames[kept], volumes=data.volumes[kept]), size.few_steps
    options = training.Options(
        steps=steps, labelled=labelled, unlabelled=1, border=size.border, learning_rate=rates[name], relative=name != "U-Net",
        seed=seed, superpose=0.5, validate_every=max(steps // 8, 1), checkpoint_every=max(steps // 4, 1), decay=0.98,
    )  # fmt: skip
    where = f"{name}-{mixture}-{seed}{'-few' * few}".replace(" ", "_")
    return training.fit(
        network(study, name, seed), data, op=study.op, weights=MIXTURES[mixture], options=options, validate=study.error,
        folder=None if folder is None else folder / where, track=track,
    )  # fmt: skip


def table(report: Report, name: str, scores: list[Scores], parameters: int) -> None:
    """Rows of one method: mean and, over seeds, standard deviation."""
    units = ("dB", "", "", "", "dB", "s")
    labels = ("PSNR", "SSIM", "correlation", "somata F1", "temporal SNR", "time a volume")
    for column, (label, unit) in enumerate(zip(labels, units, strict=True)):
        values = [score[column] for score in scores]
        report.row(f"{name}: {label}", float(np.mean(values)), unit)
        if len(values) > 1 and label != "time a volume":
            report.row(f"{name}: {label}, sd of {len(values)} seeds", float(np.std(values, ddof=1)), unit)
    report.row(f"{name}: parameters", parameters, "")


def memory(report: Report, study: Study) -> None:
    """Temporaries of the gradient through K layers."""
    sizes = {}
    depths = (4, 16) if report.toy else (16, 64, 256)
    for layers in depths:
        net = models.UnfoldedISTA(models.Physics(study.op, study.cells["cell_voxels"]), layers, checkpoint=True)
        arrays, fixed = eqx.partition(net, models.trainable(net))

        def loss(arrays: Any, y: Any, fixed: Any = fixed) -> Any:
            return jnp.sum(eqx.combine(arrays, fixed)(y) ** 2)

        lowered = jax.jit(jax.grad(loss)).lower(arrays, study.data.frames[0])
        sizes[layers] = lowered.compile().memory_analysis().temp_size_in_bytes
        report.row(f"gradient through {layers} layers, checkpointed: temporaries", sizes[layers] / 2**20, "MiB")
    power = np.log(sizes[depths[-1]] / sizes[depths[0]]) / np.log(depths[-1] / depths[0])
    report.at_most("memory of the gradient: exponent of K", power, 0.6)


def untrained(report: Report, study: Study) -> None:
    """Untrained physics against the solver."""
    y = jnp.asarray(study.data.frames[0])
    for layers in (10, 50):
        net = models.UnfoldedISTA(models.Physics(study.op, study.cells["cell_voxels"]), layers, sparsity=0.03)
        wanted = solvers.run(solvers.ISTA(0.03 * jnp.sqrt(jnp.mean(y**2))), solvers.Problem(study.op, y), layers).x
        error = jnp.linalg.norm(net(y) - wanted) / jnp.linalg.norm(wanted)
        report.at_most(f"untrained against ISTA, {layers} layers", float(error), 1e-6)


def trust(report: Report, study: Study, model: Any) -> None:
    """Does the spread tell the error, and the flag the unfamiliar?"""
    movie = study.held_out[1]
    y, truth = movie.frames[0], inside(movie.volumes[0], study.border)
    spread = eqx.filter_jit(symmetries)(study.within(model), y)
    error, told = (np.asarray(inside(a, study.border)).ravel() for a in (abs(spread.mean - movie.volumes[0]), spread.deviation))
    order = np.argsort(told)
    tenth = len(order) // 10
    report.row("uncertainty by symmetries: rank correlation with the error", float(np.corrcoef(
        np.argsort(order), np.argsort(np.argsort(error)))[0, 1]), "")  # fmt: skip
    total = float(np.sum(error**2))
    report.row("error (squared) in the most uncertain tenth of voxels", float(np.sum(error[order[-tenth:]] ** 2)) / total, "")
    single = inside(study.within(model)(y), study.border)
    gain = 10 * np.log10(float(jnp.sum((single - truth) ** 2)) / total)
    report.row("mean over symmetries against one answer", gain, "dB")
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
    """Run all, at the size asked."""
    report = Report("unfolded", arguments(__doc__ or "").toy)
    study = Study(TOY if report.toy else LARGE if os.environ.get("LFJAX_SIZE") == "large" else Size())
    size, folder = study.size, None if report.toy else FOLDER
    mixtures = ("supervised", "all three") if report.toy else tuple(MIXTURES)
    methods = METHODS[-1:] if report.toy else METHODS
    plans = [("U-Net", "supervised")] + [(name, mixture) for name in methods for mixture in mixtures]
    few = [] if report.toy else [("compressed", mixture, True) for mixture in ("supervised", "all three")]
    share, shares = (int(n) for n in os.environ.get("LFJAX_SHARE", "0/1").split("/"))
    runs = [(*plan, seed) for plan in (*few, *((*p, False) for p in reversed(plans))) for seed in range(size.seeds)]
    for name, mixture, with_few, seed in runs[share::shares] if folder else ():  # all training first, then all that is measured
        trained(study, name, mixture, seed, folder, few=with_few)
        jax.clear_caches()  # dozens of compiled programs are more memory maps than Linux gives a process
    if shares > 1:
        return

    untrained(report, study)
    memory(report, study)
    found: dict[str, list[Scores]] = {}
    shown: dict[str, Any] = {}
    for name, settings in classical(study).items():
        best = min(settings, key=study.error)
        found[name] = [study.score(best)]
        table(report, name, found[name], 0)
        shown[name] = jax.jit(best)
    kept = {}
    for name, mixture in plans:
        fits = [trained(study, name, mixture, seed, folder) for seed in range(size.seeds)]
        found[f"{name}, {mixture}"] = [study.score(fit.model) for fit in fits]
        kept[f"{name}, {mixture}"] = fits[0].model
        table(report, f"{name}, {mixture}", found[f"{name}, {mixture}"], count_parameters(fits[0].model))
        jax.clear_caches()
    for name, mixture, _ in few:
        fits = [trained(study, name, mixture, seed, folder, few=True) for seed in range(size.seeds)]
        row = f"{name}, {mixture}, few labels"
        found[row] = [study.score(fit.model) for fit in fits]
        table(report, row, found[row], count_parameters(fits[0].model))

    verdict(report, found, kept, study, shown)
    report.write()


def verdict(report: Report, found: dict[str, list[Scores]], kept: dict[str, Any], study: Study, shown: dict[str, Any]) -> None:
    """The bounds."""

    def mean(name: str) -> Scores:
        return Scores(*np.mean(found[name], axis=0))

    for name in METHODS:
        for labels in ("", ", few labels"):
            if f"{name}, supervised{labels}" not in found:
                continue
            one, all_three = ([s.psnr_db for s in found[f"{name}, {m}{labels}"]] for m in ("supervised", "all three"))
            deviation = max(np.std(one, ddof=1), np.std(all_three, ddof=1))
            gain, row = float(np.mean(all_three) - np.mean(one)), f"{name}{labels}: PSNR gained by all three losses"
            report.row(row, gain, "dB", f"> sd {deviation:.2g}", bool(gain > deviation))
    best = max((n for n in kept if n.split(",")[0] in METHODS), key=lambda n: mean(n).psnr_db)
    iterative = max(("Richardson-Lucy", "ISTA 200", "ADMM-TV"), key=lambda n: mean(n).psnr_db)
    print(f"best unfolded: {best}; best iterative: {iterative}")
    gain = mean(best).psnr_db - mean(iterative).psnr_db
    report.at_least("best unfolded against best iterative: PSNR gained", gain, 2, "dB", peer=iterative)
    report.at_least("the same: times faster a volume", mean(iterative).seconds / mean(best).seconds, 5, peer=iterative)
    for column in Scores._fields[:-1]:
        gain = getattr(mean(best), column) - getattr(mean("U-Net, supervised"), column)
        report.row(f"best unfolded against U-Net: {column} gained", gain, "", "> 0", bool(gain > 0), peer="U-Net")
    trust(report, study, kept[best])
    eight = study.score(lambda y: symmetries(kept[best], y).mean)
    table(report, f"{best}, mean of eight turns", [eight], count_parameters(kept[best]))
    if not report.toy:
        plain = f"{best.split(',')[0]}, supervised"
        chosen = {iterative: shown[iterative], "U-Net": kept["U-Net, supervised"], plain: kept[plain], best: kept[best]}
        picture(study, {name: eqx.filter_jit(study.within(f)) for name, f in chosen.items()})


if __name__ == "__main__":
    main()
