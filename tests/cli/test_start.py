"""A command in a process of its own: what it loads and compiles before it answers, and what it keeps."""

import os
import subprocess
import sys

import pytest

from lfjax import performance, simulate
from lfjax.cli import options
from lfjax.movies.reconstruct import WARM
from lfjax.optics import PRESETS

HEAVY = ("flax", "optax", "optimistix", "orbax", "pandas", "scipy.optimize", "skimage", "matplotlib.pyplot")
MOST_PROGRAMS = 45  # 35 with JAX 0.10; every eager operation of an array is one more

COUNT = """
import atexit, sys
import jax
programs = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: programs.append(event) if event == "/jax/core/compile/backend_compile_duration" else None
)
atexit.register(lambda: print(f"@@{len(programs)}@@", *sys.modules))
from lfjax.cli import main
main.run()
"""


def python(code, *arguments, cwd, **environment):
    known = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "LFJAX_"))}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, env=known | environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("code", ["import lfjax", "from lfjax.cli.main import run; run()"])
def test_help_and_import_load_no_arrays(code, tmp_path):
    done = python(f"import atexit, sys; atexit.register(lambda: print('@@', *sys.modules)); {code}", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split("@@")[-1].split()
    assert "lfjax" in loaded and not {"jax", "numpy", "scipy", "equinox"} & set(loaded)


def test_reconstruct_compiles_few_programs_and_keeps_them(folder):
    """Also: it loads nothing that it does not need, and the process ends as the command did."""
    command = (
        "reconstruct", "sim/light_field.tif", "--microscope", "60x1.2w", "--white", "sim/white.tif", "--dark",
        "sim/dark.tif", "--z=-1.5:1.5:1", "--voxels", 2, "-o", "own/volume.h5",
    )  # fmt: skip
    done = python(COUNT, *command, cwd=folder, LFJAX_CACHE=str(folder / "cache"))
    assert done.returncode == 0, done.stderr
    assert "the volume explains the frame" in done.stdout and (folder / "own/volume.png").exists()
    count, loaded = done.stdout.split("@@")[1:]
    assert 5 <= int(count) <= MOST_PROGRAMS
    assert not set(HEAVY) & set(loaded.split())
    assert len(list((folder / "cache/programs").glob("*/*-cache"))) >= 5


def test_the_users_own_compile_cache_is_respected(tmp_path):
    code = "from lfjax import io; print(io.use_compile_cache()); import jax; print(jax.config.jax_compilation_cache_dir)"
    done = python(code, cwd=tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert done.stdout.split() == ["None", str(tmp_path / "mine")], done.stderr
    done = python(code, cwd=tmp_path, LFJAX_CACHE=str(tmp_path / "cache"))
    first, second = done.stdout.split()
    assert first == second and first.startswith(str(tmp_path / "cache/programs/"))
    after = python("import jax\n" + code, cwd=tmp_path, LFJAX_CACHE=str(tmp_path / "cache"))
    assert after.stdout.split() == [first, first], after.stderr


def test_names_in_the_help_are_those_of_the_rooms():
    assert options.PRESETS == tuple(PRESETS)
    assert options.SAMPLES == simulate.SAMPLES
    assert options.WARM == WARM
    assert options.DEVICES == tuple(performance.DEVICES)
