"""Recipes, model files, scores and uncertainty: from a TOML file to a table without a line of Python."""

import dataclasses
import json

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from lfjax import simulate, training
from lfjax.activity import find_somata
from lfjax.cli.main import app
from lfjax.errors import FileError
from lfjax.metrics import f1_score, temporal_snr
from lfjax.training.data import write_pairs
from lfjax.training.evaluation import SOMA_UM, evaluate, somata_f1
from lfjax.training.trust import ResynthesisFlag, ensemble, symmetries

RECIPE = """
[microscope]
preset = "25x1.0w"
pixels_per_lenslet = 5

[volume]
z_um = [-9, -6, -3, 0, 3, 6, 9]
voxels_per_lenslet = 2
lenslets = 13
psf_tolerance = 0.2

[data]
fields = 1
windows = 2
unlabelled = 1
frames = 3
beyond = 1

[model]
kind = "{kind}"
layers = 2
width = 6
compress = 5
reach = 1

[losses]
light_field = 0.1

[training]
steps = 3
border = 1
labelled = 1
unlabelled = 1
"""


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("LFJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def written(folder, kind="compressed"):
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(kind=kind))
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return training.Recipe.read(written(tmp_path_factory.mktemp("recipe")))


@pytest.fixture(scope="module")
def op(recipe):
    return recipe.operator()


@pytest.fixture(scope="module")
def forward(op):
    return eqx.filter_jit(op)


@pytest.fixture(scope="module")
def experiment(recipe):
    return recipe.experiment()


def test_a_recipe_survives_its_own_dictionary(recipe):
    assert training.Recipe.from_dict(recipe.to_dict()).to_dict() == recipe.to_dict()
    assert recipe.microscope.magnification == 25 and recipe.microscope.pixels_per_lenslet == 5
    assert recipe.voxel_um == (3.0, 2.5, 2.5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[losses]", "[loses]", "unknown loses"),
        ("border = 1", "boarder = 1", r"\[training\]: unknown boarder"),
        ("lenslets = 13", "", r"\[volume\]: missing lenslets"),
        ('"compressed"', '"magic"', r"\[model\] kind = 'magic'"),
        ("steps = 3", "steps = 0", r"\[training\] steps = 0"),
        ("compress = 5", "compress = 4", r"\[model\] compress = 4: expected an odd number"),
        ("width = 6", "width = 400", r"\[model\] width = 400: expected at most 28, the channels"),
        ("layers = 2", "layers = 2\ndamping = 0", r"\[model\] damping = 0"),
        ('"compressed"', '"convolutional"\ntied = true', r"\[model\] damping = 0.02: expected 0 where tied"),
        ("reach = 1", 'reach = 7\nkind = "convolutional"', r"\[model\] reach = 7: expected at most 6"),
        ("steps = 3", "steps = 3\ncrop = [7, 14]", r"\[training\] crop = .7, 14.: expected two numbers"),
        ("border = 1", "border = 7", r"\[training\] border = 7: expected less than half of the 13"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path, old, new, message):
    path = written(tmp_path)
    text = path.read_text()
    text = text.replace('kind = "compressed"\n', "") if 'kind = "conv' in new and "reach" in new else text
    path.write_text(text.replace(old, new))
    with pytest.raises(FileError, match=message):
        training.Recipe.read(path)


@pytest.mark.parametrize(("kind", "width"), [("compressed", 28), ("unet", 51)])
def test_a_width_that_is_not_stated_is_one_that_the_network_can_have(tmp_path, kind, width):
    path = written(tmp_path, kind)
    path.write_text(path.read_text().replace("width = 6\n", ""))
    recipe = training.Recipe.read(path)
    assert recipe.width == width and training.Recipe.from_dict(recipe.to_dict()).width == width


@pytest.mark.parametrize("kind", ["physics", "convolutional", "compressed", "unet"])
def test_models_come_back_from_their_files(tmp_path, op, forward, kind):
    recipe = training.Recipe.read(written(tmp_path, kind))
    network = recipe.network(op)
    if kind != "physics":  # as if trained
        network = jax.tree.map(lambda a: 1.01 * np.asarray(a) if hasattr(a, "ndim") and a.ndim > 1 else a, network)
    model = training.TrainedModel(network, recipe)
    y = forward(np.random.default_rng(0).random(op.in_shape, np.float32))
    expected = np.asarray(model(y))
    training.write_model(tmp_path / "m.h5", model)
    again = training.read_model(tmp_path / "m.h5")
    np.testing.assert_allclose(again(y), expected, rtol=1e-5, atol=1e-6 * expected.max())
    training.write_model(tmp_path / "half.h5", model, half=True)
    half = np.asarray(training.read_model(tmp_path / "half.h5")(y))
    assert np.linalg.norm(half - expected) / np.linalg.norm(expected) < 0.02


def test_broken_model_files_are_refused(tmp_path, recipe):
    (tmp_path / "a.h5").write_bytes(b"nothing")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.attrs["format"] = "another"
    training.write_model(tmp_path / "c.h5", training.TrainedModel(recipe.network(), recipe))
    with h5py.File(tmp_path / "c.h5", "a") as file:
        del file["0001"]
    for name in ("a.h5", "b.h5", "c.h5", "missing.h5"):
        with pytest.raises(FileError, match=name):
            training.read_model(tmp_path / name)


def test_the_commands_train_and_score(tmp_path):
    run, model = CliRunner().invoke, tmp_path / "model.h5"
    result = run(app, ["train", str(written(tmp_path)), "-o", str(model), "--folder", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "log.csv").exists() and "compressed" in result.output
    result = run(app, ["evaluate", str(model), "--frames", "4", "-o", str(tmp_path / "table.json")])
    assert result.exit_code == 0, result.output
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table) == {"compressed", "Richardson-Lucy, 20"}
    assert table["compressed"]["psnr_db"] > 0


def test_a_recipe_trains_on_files(tmp_path, op, forward):
    volumes = np.random.default_rng(0).random((2, *op.in_shape), np.float32)
    write_pairs(tmp_path / "pairs.h5", np.stack([forward(volume) for volume in volumes]), volumes)
    path = written(tmp_path)
    path.write_text(path.read_text().replace("windows = 2", 'windows = 2\npairs = "pairs.h5"\nmovies = ["pairs.h5"]'))
    data = training.Recipe.read(path).training_set(lambda: pytest.fail("simulated"))
    assert len(data.frames) == 2 and len(data.movies) == 1


def test_a_perfect_method_gets_perfect_scores(recipe, experiment):
    movie = experiment.movie(jax.random.key(3), 60, labelled=0.5, shown=tuple(range(60)), rate_hz=5.0)
    frames = movie.frames.reshape(60, -1)

    def oracle(y):
        return movie.volumes[jnp.argmin(jnp.sum((frames - y.ravel()) ** 2, axis=1))]

    scores = evaluate(oracle, [movie], recipe.voxel_um)
    assert scores.psnr_db > 60 and scores.ssim > 0.999 and scores.correlation > 0.999
    assert scores.temporal_snr_db > 15 and scores.f1 > 0.9


def test_frames_are_images_of_their_labels(forward, experiment):
    stack = experiment.stack(jax.random.key(1), 2)
    image = forward(stack.volumes[0])
    inner = slice(15, -15)
    correlation = np.corrcoef(np.asarray(image)[inner, inner].ravel(), np.asarray(stack.frames[0])[inner, inner].ravel())[0, 1]
    assert correlation > 0.7  # not 1: light from beside and beyond, noise of camera and label
    assert stack.frames.shape == (2, 65, 65) and stack.volumes.shape == (2, 7, 26, 26)


def test_somata_are_found_where_they_are():
    voxel = (3.0, 2.0, 2.0)
    tissue = simulate.cortex(jax.random.key(0), (20, 50, 50), voxel, count=6, neuropil=0.0, brightness_spread=0.1)
    found = find_somata(np.asarray(tissue.rest), voxel)
    assert f1_score(found, tissue.centres_um, 6.0) >= 0.9


def test_somata_that_the_border_cuts_do_not_count():
    voxel = (2.0, 2.0, 2.0)
    at = np.stack(np.meshgrid(*[2 * np.arange(n) + 1.0 for n in (10, 30, 30)], indexing="ij"), -1)

    def blobs(*centres):
        return sum(np.exp(-np.sum((at - c) ** 2, -1) / (SOMA_UM / 2) ** 2) for c in centres)

    middle, cut, other = np.array([[10.0, 30, 30], [10, -2, 20], [10, 45, 15]])
    assert len(find_somata(blobs(middle, cut), voxel)) == 2
    assert somata_f1(blobs(middle, cut), voxel, np.stack([middle, cut])) == 1
    assert somata_f1(blobs(middle), voxel, np.stack([middle, cut])) == 1  # nor need it be found
    assert somata_f1(blobs(middle, other), voxel, np.stack([middle, cut])) == pytest.approx(2 / 3)
    assert somata_f1(blobs(middle), voxel, np.stack([middle, cut, other])) == pytest.approx(2 / 3)


def test_f1_and_temporal_snr_have_their_closed_forms():
    truth = np.array([[0.0, 0, 0], [10, 0, 0], [20, 0, 0]])
    assert f1_score(truth + 0.5, truth, 1.0) == 1
    assert f1_score(truth[:2], truth, 1.0) == pytest.approx(0.8)
    assert f1_score(np.zeros((0, 3)), truth, 1.0) == 0
    assert f1_score(np.array([[5.0, 0, 0], [5.1, 0, 0]]), truth, 5.2) == pytest.approx(0.8)  # one to one
    t = np.sin(np.arange(4000.0))
    noise = np.random.default_rng(0).normal(0, 0.1, 4000)
    assert float(temporal_snr(3 * t + noise + 7, t)) == pytest.approx(10 * np.log10(9 * 0.5 / 0.01), abs=0.3)


def test_symmetric_reconstructions_are_turned_back():
    y = jnp.asarray(np.random.default_rng(0).random((6, 6), np.float32))
    spread = eqx.filter_jit(symmetries)(lambda y: jnp.stack([y, 2 * y]), y)  # equivariant: all eight agree
    np.testing.assert_allclose(spread.mean, np.stack([y, 2 * y]), rtol=1e-6)
    assert np.max(spread.deviation) < 1e-6
    ramp = eqx.filter_jit(symmetries)(lambda y: jnp.stack([y + jnp.arange(6.0)]), y)
    assert np.min(ramp.deviation) > 0.1
    both = eqx.filter_jit(ensemble)([lambda y: y[None], lambda y: 3 * y[None]], y)
    np.testing.assert_allclose(both.mean[0], 2 * y, rtol=1e-6)
    np.testing.assert_allclose(both.deviation[0], y * 2**0.5, rtol=1e-5)


def test_unfamiliar_frames_are_flagged():
    def model(y):
        return jnp.clip(y, 0, 120)[None]

    def forward(x):
        return x[0]

    noise = np.random.default_rng(0).poisson(100.0, (50, 8, 8)).astype(np.float32)
    flag = ResynthesisFlag.calibrate(model, forward, jnp.asarray(noise), jnp.ones((8, 8), bool))
    assert not bool(flag(model, forward, jnp.asarray(noise[0])))
    spoilt = jnp.asarray(noise[0]).at[3, 3].set(500.0)
    assert bool(flag(model, forward, spoilt))
    blind = dataclasses.replace(flag, mask=flag.mask.at[3, 3].set(False))
    assert not bool(blind(model, forward, spoilt))
