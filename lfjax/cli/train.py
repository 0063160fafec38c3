"""The commands that train a model and score it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import typer

from lfjax import io, parallel, solvers, training
from lfjax.models.frozen import count_parameters
from lfjax.progress import track
from lfjax.training.evaluation import Scores, evaluate as score
from lfjax.training.model_file import TrainedModel, find_model, write_model
from lfjax.training.recipe import Recipe


def train(
    recipe: Annotated[Path, typer.Argument(help="TOML file, see `lfjax/training/small.toml`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write, .h5.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where logs and checkpoints go; started again with the same one, it goes on from there.")
    ] = None,
    half: Annotated[bool, typer.Option(help="Keep 16 of 32 bits of each number.")] = False,
    devices: Annotated[int, typer.Option(help="Over which the samples of each batch are spread.")] = 1,
) -> None:
    """Train a model by a recipe: labelled pairs and unlabelled movies, from files or simulated."""
    plan = Recipe.read(recipe)
    mesh = parallel.mesh(devices) if devices != 1 else None
    op = plan.operator(plan.training.crop)
    data = plan.training_set(plan.experiment)
    whole = op if plan.training.crop is None else plan.operator()
    fitted = training.fit(
        plan.network(whole), data, op=op, weights=plan.losses, options=plan.training, folder=folder, track=track, mesh=mesh
    )
    write_model(output, TrainedModel(fitted.model, plan), half=half)
    last = ", ".join(f"{name} {value:.3g}" for name, value in fitted.history[-1].items() if name != "step")
    size = output.stat().st_size / 2**20
    typer.echo(f"{output}: {plan.model.kind}, {count_parameters(fitted.model)} parameters, {size:.2f} MiB; {last}")


def evaluate(
    model: Annotated[str, typer.Argument(help="Model file, or `small` for the one that comes with the package.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file for the table.")] = None,
    frames: Annotated[int, typer.Option(help="Frames of each held-out movie.")] = 60,
) -> None:
    """Score a model, and Richardson-Lucy beside it, on simulated samples of other density and brightness."""
    trained = find_model(model)
    plan = trained.recipe
    movies = plan.test_movies(plan.experiment(), frames)
    voxels, _ = plan.cells
    border = (plan.training.border * voxels[0], plan.training.border * voxels[1])
    op = plan.operator()
    solver: Any = solvers.RichardsonLucy()

    def richardson_lucy(y: Any) -> Any:
        problem = solvers.Problem(op, jnp.maximum(y, 0))
        return solvers.iterate(solver, problem, solver.init(problem, None), 20)[0].x

    table = {
        name: score(method, movies, plan.voxel_um, border=border)._asdict()
        for name, method in ((plan.model.kind, trained.network), ("Richardson-Lucy, 20", richardson_lucy))
    }
    typer.echo(f"{'':22s}" + "".join(f"{name:>16s}" for name in Scores._fields))
    for name, row in table.items():
        typer.echo(f"{name:22s}" + "".join(f"{value:16.4g}" for value in row.values()))
    if output is not None:
        with io.writing(output) as temporary:
            temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
