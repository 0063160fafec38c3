"""Fixtures that several tests share, and how XLA compiles while tests run."""

import ctypes
import gc
import os
import signal
import sys
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest

# Compiling takes most of the time of the tests, and XLA compiles three times faster without its optimisations.
# LFJAX_TEST_XLA=full compiles as users have it; so do the law `test_jit`, the notebooks and the benchmarks.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
if os.environ.get("LFJAX_TEST_XLA") != "full":
    os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()

# A job in the background ignores Ctrl-C, and so do its children; tests send it to both.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def compiled_programs():
    """Let compiled programs go after each file, and their memory: a thousand are more maps than Linux gives a process."""
    yield
    jax.clear_caches()
    if sys.platform == "linux":
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture
def unchecked():
    """Without the type checker that these tests run under: users have none, and lfjax itself names a wrong argument."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of references and real data beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.exists():
        pytest.skip("the shared reference data are not beside this checkout: nothing to compare with")
    return folder


@pytest.fixture(scope="session")
def reference(shared):
    """PSFs and projections of an independent wave-optics code."""
    return dict(np.load(shared / "reference/lfm_psf_M20NA05_N11.npz", allow_pickle=False))


@pytest.fixture(scope="session")
def reference_psf():
    """Our PSF at the reference's parameters and oversampling."""
    from lfjax.optics import PRESETS, compute_psf

    return compute_psf(PRESETS["20x0.5"], (-60, -30, 0, 30, 60), 11, oversampling=3)
