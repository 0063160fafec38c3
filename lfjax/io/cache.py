"""The user's cache folder: computed PSFs, and the programs that JAX compiles."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path


def cache_folder() -> Path:
    """$LFJAX_CACHE, else $XDG_CACHE_HOME/lfjax, else ~/.cache/lfjax."""
    own, shared = os.environ.get("LFJAX_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser()
    return (Path(shared) if shared else Path.home() / ".cache") / "lfjax"


def use_compile_cache(folder: str | Path | None = None) -> Path | None:
    """Keep the programs that JAX compiles on disk, so that the next process loads them instead of compiling them again.

    The commands call this; call it yourself at the top of a script, before JAX compiles anything. It sets JAX's persistent
    compilation cache to keep every program, however small and quick to compile.

    Args:
        folder: where programs are kept. None: a subfolder of `cache_folder`, one per kind of processor, since programs for one
            processor may not run on another.

    Returns:
        The folder. None: the environment variable JAX_COMPILATION_CACHE_DIR names one already, and nothing is changed.
    """
    if folder is None and "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    path = cache_folder() / "programs" / _processor() if folder is None else Path(folder).expanduser()
    settings = {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    if "jax" in sys.modules:
        import jax

        for name, value in settings.items():
            jax.config.update(name, value)
    else:  # JAX reads these when it is imported, which `lfjax COMMAND --help` never does
        os.environ.update({name.upper(): str(value) for name, value in settings.items()})
    return path


def _processor() -> str:
    """Architecture of this machine, and a digest of the instructions that its processor knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    known = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0] if lines else "")
    return f"{platform.machine()}-{hashlib.sha256(known.encode()).hexdigest()[:12]}"
