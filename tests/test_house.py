"""The house itself: what is public is documented, reachable, and named once."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import lfjax
from lfjax import _moved

ROOT = Path(__file__).parents[1]
MODULES = sorted(m.name for m in pkgutil.walk_packages(lfjax.__path__, "lfjax.") if "._" not in m.name)
ROOMS = ["lfjax", *sorted(m.name for m in pkgutil.walk_packages(lfjax.__path__, "lfjax.") if m.ispkg and m.name != "lfjax.cli")]


def source_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def definitions(module: str) -> dict[str, ast.AST]:
    """Top-level functions and classes of a module, and constants that a docstring follows."""
    body = ast.parse(source_of(module).read_text(encoding="utf-8")).body
    found: dict[str, ast.AST] = {n.name: n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node, following in zip(body, body[1:], strict=False):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[target.id] = node
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_exists_and_has_a_docstring(room):
    package = importlib.import_module(room)
    assert package.__all__ and package.__doc__
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.ismodule(value) or inspect.isroutine(value) or inspect.isclass(value):
            assert value.__doc__, f"{room}.{name}"
        elif not hasattr(value, "__wrapped__"):  # a constant: a string stands below it
            stub = ast.parse((source_of(room).with_suffix(".pyi")).read_text(encoding="utf-8")).body
            home = next(n.module for n in stub if isinstance(n, ast.ImportFrom) and any(a.name == name for a in n.names))
            assert name in definitions(home), f"{room}.{name}: no docstring below it in {home}"
        else:
            assert value.__doc__, f"{room}.{name}"


@pytest.mark.parametrize("module", MODULES)
def test_no_function_or_class_is_named_like_its_module(module):
    assert module.rpartition(".")[2] not in definitions(module)


@pytest.mark.parametrize("room", ROOMS[1:])
def test_no_public_name_hides_a_module(room):
    package = importlib.import_module(room)
    assert not {m.name for m in pkgutil.iter_modules(package.__path__)} & set(package.__all__)


def test_every_public_module_stands_in_the_reference():
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8").split()
    documented = [word for before, word in zip(text, text[1:], strict=False) if before == "automodule::"]
    wanted = [m for m in MODULES if m != "lfjax.cli" and not m.startswith("lfjax.cli.")]
    assert sorted(documented) == sorted(wanted)


def test_importing_lfjax_loads_nothing_heavy_and_every_room_is_reachable():
    program = """
import sys, lfjax
assert not {"jax", "numpy", "equinox"} & set(sys.modules), sorted(sys.modules)
lfjax.solvers.FISTA, lfjax.optics.lightfield.operator, lfjax.tomography.FourierSlice, lfjax.fri.prony, lfjax.preset
assert not {"flax", "optax", "matplotlib", "pandas", "skimage", "zarr"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)


@pytest.mark.parametrize("room", _moved.NAMES)
def test_old_names_of_a_room_lead_to_the_new_ones(room):
    for name, home in _moved.NAMES[room].items():
        with pytest.warns(FutureWarning, match="old name"):
            found = _moved.find(room, name)
        new = importlib.import_module(home)
        assert found is (new if room == "lfjax" else getattr(new, name))


def test_old_modules_lead_to_the_new_ones():
    for old, new in _moved.MODULES.items():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            sys.modules.pop(old, None)
            module = importlib.import_module(old)
        public = next(n for n in definitions(new) if not n.startswith("_"))
        assert getattr(module, public) is getattr(importlib.import_module(new), public)
        assert any("old name" in str(w.message) for w in said)
        sys.modules.pop(old)


def test_the_version_stands_in_one_place():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {lfjax.__version__}\n" in citation
    assert f"## {lfjax.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "lfjax").rglob("*.py")))
def test_no_file_is_over_400_lines(path):
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= 400
