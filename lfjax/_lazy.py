"""Names of a room, imported when they are first used (PEP 562), so that a program loads only the parts of lfjax that it needs.

The stub `__init__.pyi` beside a room's `__init__.py` is the one list of its public names: type checkers and editors read it as
Python, `attach` reads it at run time. The scheme is SPEC 1 of the Scientific Python project; its library, `lazy_loader`, is one
more dependency for these few lines.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from lfjax import _moved

# Package -> the extra of pyproject.toml that brings it.
EXTRAS = {
    "typer": "cli",
    "rich": "cli",
    "matplotlib": "cli",
    "tifffile": "io",
    "zarr": "io",
    "imagecodecs": "io",
    "mrcfile": "cryo",
    "starfile": "cryo",
    "pandas": "cryo",
    "gemmi": "cryo",
    "flax": "train",
    "optax": "train",
    "orbax": "train",
    "tensorboardX": "train",
    "skimage": "neuro",
    "pynwb": "neuro",
    "threadpoolctl": "xrf",
    "xraydb": "xrf",
}


def attach(
    package: str, file: str, needs: str | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from the imports of the stub beside its `__init__.py`.

    Args:
        package: `__name__` of the package.
        file: `__file__` of the package.
        needs: a package of an extra without which no name of this room works; where it is missing, the first use of a name
            raises an error.
    """
    homes = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def get(name: str) -> object:
        if name not in homes:
            if name.startswith("_") or name in _moved.NAMES.get(package, {}) or find_spec(f"{package}.{name}") is None:
                return _moved.find(package, name)
            return load(f"{package}.{name}")
        if needs is not None and needs not in sys.modules:
            load(needs, package)
        module, original = homes[name]
        value = load(f"{package}.{original}") if module == package else getattr(load(module), original)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *homes}), sorted(homes)


def load(module: str, user: str | None = None) -> ModuleType:
    """Import a module; where a package is missing that an extra brings, say which.

    Args:
        module: its full name, of lfjax or of another package.
        user: the part of lfjax that needs it, for the message. None: the module itself.

    Raises:
        ModuleNotFoundError: with the line that installs the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise ModuleNotFoundError(
            f"{user or module} needs {missing}, which is not installed: pip install 'lfjax[{EXTRAS[missing]}]'", name=error.name
        ) from error
