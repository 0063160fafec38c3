"""The commands that train a model and score it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lfjax import io, training
from lfjax.cli.options import input_files, require_folder, require_no_input, require_output
from lfjax.cli.runs import claim
from lfjax.progress import track

MODELS = (".h5", ".hdf5")


def train_model(
    recipe: Annotated[Path, typer.Argument(help="TOML file; an example is `lfjax/training/small.toml`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write, .h5.")],
    folder: Annotated[
        Path | None, typer.Option(help="Folder for logs and checkpoints; a run with the same folder resumes.")
    ] = None,
    half: Annotated[bool, typer.Option(help="Store kernels with 16 instead of 32 bits per number.")] = False,
    devices: Annotated[int, typer.Option(help="Number of devices that share each batch.")] = 1,
) -> None:
    """Train a model by a recipe, on labelled pairs and unlabelled movies from files or simulated."""
    require_output(output, MODELS, input_files(recipe), overwrite=True)
    if folder is not None:
        require_folder(folder, "--folder")
    from lfjax import parallel  # loads JAX
    from lfjax.models.frozen import count_parameters

    plan = training.Recipe.read(recipe)
    require_no_input([output], input_files(plan.data.pairs, *plan.data.movies))
    if folder is not None:
        claim(folder, {folder / "checkpoints": "checkpoints"})
    fitted = plan.fit(folder=folder, track=track, mesh=parallel.mesh(devices) if devices != 1 else None)
    training.write_model(output, training.TrainedModel(fitted.model, plan), half=half)
    last = ", ".join(f"{name} {value:.3g}" for name, value in fitted.history[-1].items() if name != "step")
    size = output.stat().st_size / 2**20
    typer.echo(f"{output}: {plan.model.kind}, {count_parameters(fitted.model)} parameters, {size:.2f} MiB; {last}")


def evaluate(
    model: Annotated[str, typer.Argument(help="Model file, or `small` for the model that comes with the package.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file to write the table to.")] = None,
    frames: Annotated[int, typer.Option(help="Frames per held-out movie.")] = 60,
) -> None:
    """Score a model and Richardson-Lucy on simulated samples of other density and brightness."""
    if output is not None:
        require_output(output, (".json",), input_files(model), overwrite=True)
    from lfjax.training.evaluation import Scores, compare
    from lfjax.training.model_file import find_model

    table = {name: scores._asdict() for name, scores in compare(find_model(model), frames).items()}
    typer.echo(f"{'':22s}" + "".join(f"{name:>16s}" for name in Scores._fields))
    for name, row in table.items():
        typer.echo(f"{name:22s}" + "".join(f"{value:16.4g}" for value in row.values()))
    if output is not None:
        with io.writing(output) as temporary:
            temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
