"""Work that asks for more memory than there is ends before it begins."""

import jax
import pytest

from lfjax.errors import ParameterError
from lfjax.io.limits import free_memory, require_memory
from lfjax.optics import PRESETS, compute_psf
from lfjax.simulate import activity
from lfjax.simulate.frames import check_frame
from lfjax.tomography import random_particles


def test_the_limit_is_what_the_user_says_or_what_is_free(monkeypatch):
    monkeypatch.delenv("LFJAX_MAX_GIB", raising=False)
    assert 2**20 < free_memory() < 2**63
    monkeypatch.setenv("LFJAX_MAX_GIB", "1.5")
    assert free_memory() == 3 * 2**29
    for wrong in ("nan", "inf", "0", "-1", "much"):
        monkeypatch.setenv("LFJAX_MAX_GIB", wrong)
        with pytest.raises(ParameterError, match=r"LFJAX_MAX_GIB = .*: expected a positive number of GiB"):
            free_memory()


def test_what_fits_passes_and_what_does_not_is_named(monkeypatch):
    monkeypatch.setenv("LFJAX_MAX_GIB", "1")
    require_memory("n", 5, 2**30)
    with pytest.raises(ParameterError, match=r"^n = 5: expected less than 2 GiB of work, for which 1 GiB are free"):
        require_memory("n", 5, 2**31)
    with pytest.raises(ParameterError, match=r"^n = 5: expected less than 9.98e\+291 GiB"):
        require_memory("n", 5, 10**1000)


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (lambda: compute_psf(PRESETS["60x1.2w"], (4500.0,), 4), r"z_um \(--z\) = 4500.0"),
        (lambda: compute_psf(PRESETS["60x1.2w"], (-1e6, 1e6), 4), r"z_um \(--z\) = -1000000.0"),
        (lambda: random_particles(jax.random.key(0), 10**12, pixel_angstrom=1.0), r"count \(--n\) = 1000000000000"),
        (lambda: activity(jax.random.key(0), 20, 10**12), r"frames \(--frames\) = 1000000000000"),
        (lambda: check_frame((10**7, 10**7), 15.0, 0.0), r"lenslets \(--lenslets\) = \(10000000, 10000000\)"),
    ],
)
def test_numbers_that_ask_for_too_much_are_named(work, says):
    with pytest.raises(ParameterError, match=rf"^{says}: expected less than .* GiB of work"):
        work()


def test_depths_beyond_any_microscope_are_refused():
    with pytest.raises(ParameterError, match="z_um = .*expected depths within 1e"):
        compute_psf(PRESETS["60x1.2w"], (1e300,), 4)
