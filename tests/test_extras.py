"""The package without its extras: every core module imports, and a missing package is named with the extra that brings it."""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lfjax
from lfjax._lazy import EXTRAS

BLOCK = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(EXTRAS)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""
# Modules that are useless without an extra; all others are core.
NEEDS = {
    "lfjax.cli": "cli",
    "lfjax.io.movie_tiff": "io",
    "lfjax.io.movie_zarr": "io",
    "lfjax.io.mrc": "cryo",
    "lfjax.io.mrc_layout": "cryo",
    "lfjax.io.png": "io",
    "lfjax.io.star": "cryo",
    "lfjax.io.tiff": "io",
    "lfjax.io.tiff_planes": "io",
    "lfjax.io.zarr_store": "io",
    "lfjax.models.critic": "train",
    "lfjax.models.forward_net": "train",
    "lfjax.models.unet": "train",
    "lfjax.pipeline.checked_images": "cryo",
    "lfjax.pipeline.orienting": "cryo",
    "lfjax.pipeline.painting": "xrf",
    "lfjax.pipeline.particles": "cryo",
    "lfjax.pipeline.pose_finding": "cryo",
    "lfjax.pipeline.posed_file": "cryo",
    "lfjax.pipeline.search_settings": "cryo",
    "lfjax.simulate.layered_emission": "xrf",
    "lfjax.simulate.painting": "xrf",
    "lfjax.simulate.pigments": "xrf",
    "lfjax.simulate.xrf_scan": "xrf",
    "lfjax.tomography.conversion": "cryo",
    "lfjax.tomography.cryosparc": "cryo",
    "lfjax.tomography.cs_alignments": "cryo",
    "lfjax.tomography.gaussians": "cryo",
    "lfjax.tomography.particle_file": "cryo",
    "lfjax.tomography.relion_checks": "cryo",
    "lfjax.tomography.relion_labels": "cryo",
    "lfjax.tomography.relion_notes": "cryo",
    "lfjax.tomography.relion_tables": "cryo",
    "lfjax.tomography.relion_writing": "cryo",
    "lfjax.tomography.stack_names": "cryo",
    "lfjax.tomography.tilts": "cryo",
    "lfjax.training": "train",
    "lfjax.viz": "cli",
    "lfjax.xrf": "xrf",
}


def python(code):
    folder = str(Path(lfjax.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, "-c", BLOCK + code], env=environment, capture_output=True, text=True)


def test_every_core_module_imports_and_works_without_extras():
    modules = [m.name for m in pkgutil.walk_packages(lfjax.__path__, "lfjax.")]
    core = [m for m in modules if not any(m == name or m.startswith(name + ".") for name in NEEDS)]
    assert len(core) > 100
    done = python(f"""
import importlib
for name in {core}:
    importlib.import_module(name)
import jax, jax.numpy as jnp
from lfjax import progress, rotation, solvers
from lfjax.optics import LightField, Microscope, compute_psf
from lfjax.tomography import FourierSlice
psf = compute_psf(Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5), (0.0,), 1, oversampling=1)
op = LightField(psf, (3, 3))
problem = solvers.Problem(op, op(jnp.ones(op.in_shape)))
print(solvers.run(solvers.RichardsonLucy(), problem, 2, track=progress.track).x.shape)
project = FourierSlice(rotation.random_rotations(jax.random.key(0), 2), 8)
print(project(jnp.ones((8, 8, 8))).shape)
""")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[:2] == ["(1, 3, 3)", "(2, 8, 8)"]
    assert "RichardsonLucy, 2 iterations: " in done.stderr  # the plain line, without Rich


@pytest.mark.parametrize(
    ("code", "package", "extra"),
    [
        ("lfjax.models.ViewUNet", "flax", "train"),
        ("lfjax.io.read_frame('x.tif')", "tifffile", "io"),
        ("lfjax.io.open_movie(FILE)", "tifffile", "io"),
        ("lfjax.io.read_frame('x.png')", "imagecodecs", "io"),
        ("lfjax.io.read_star('x.star')", "pandas", "cryo"),
        ("lfjax.viz.projections", "matplotlib", "cli"),
        ("lfjax.training.fit", "optax", "train"),
        ("import numpy; lfjax.activity.segment_somata(numpy.eye(9)[None] * 9.0, (1, 1, 1), diameter_um=2)", "skimage", "neuro"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(code, package, extra, tmp_path):
    (tmp_path / "movie.tif").write_bytes(b"II")
    done = python(f"FILE = {str(tmp_path / 'movie.tif')!r}\nimport lfjax\n{code}")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and f"needs {package}, which is not installed: pip install 'lfjax[{extra}]'" in last


def test_the_command_names_its_extra():
    done = python("import runpy; runpy.run_module('lfjax.cli.main', run_name='__main__')")
    last = done.stderr.strip().splitlines()[-1]
    assert "the command lfjax needs typer, which is not installed: pip install 'lfjax[cli]'" in last
