"""The cryo-EM commands: their files, and the number of programs that a first run compiles, which every user waits for."""

from contextlib import contextmanager

import jax
import numpy as np
import pytest

from lfjax import io, tomography
from lfjax.cli import maps, particles, unknown_poses
from lfjax.tomography import random_particles, schedule, simulate_stack

EVENT = "/jax/core/compile/backend_compile_duration"


@contextmanager
def programs():
    """A list that grows by the duration of each compilation inside the block."""
    found, inside = [], [True]

    def listen(event, seconds, **_):
        if event == EVENT and inside[0]:
            found.append(seconds)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    inside[0] = False


def phantom(n=24):
    x = np.arange(n) - n // 2
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    return np.exp(-((x - 3) ** 2 + y**2 + z**2) / 8) + np.exp(-(x**2 + (y + 4) ** 2 + 2 * z**2) / 6)


def test_a_first_run_compiles_few_programs(tmp_path):
    io.write_map(tmp_path / "truth.mrc", phantom(), 4.0)
    with programs() as compiled:
        particles.project(tmp_path / "truth.mrc", tmp_path / "p.star", n=300, snr=1.0, shift_px=1.0)
    assert 1 <= len(compiled) <= 12
    with programs() as compiled:
        particles.backproject([tmp_path / "p.star"], tmp_path / "map.mrc", half_maps=True, batch=128)
    assert 1 <= len(compiled) <= 14
    with programs() as compiled:
        maps.fsc(tmp_path / "map_half1.mrc", tmp_path / "map_half2.mrc", radius=32.0)
    assert 1 <= len(compiled) <= 6
    found = io.read_map(tmp_path / "map.mrc").array
    assert np.asarray(tomography.fsc(found, phantom()))[:6].min() >= 0.95


def test_a_first_search_compiles_few_programs(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "EXTRA", 0)
    monkeypatch.setattr(schedule, "GRIDS", ((8, 1), (11, 1)))
    monkeypatch.setattr(schedule, "NEAR", ((13, (8.0,)), (16, (4.0,))))
    io.write_map(tmp_path / "truth.mrc", phantom(), 4.0)
    particles.project(tmp_path / "truth.mrc", tmp_path / "p.star", n=40, snr=1.0)
    with programs() as compiled:
        unknown_poses.abinitio([tmp_path / "p.star"], tmp_path / "map.mrc", restarts=2)
    assert 10 <= len(compiled) <= 110  # 104, of which 60 are single operations of one millisecond


def test_a_simulated_stack_is_the_projections_plus_noise_of_the_ratio_asked_for():
    some = random_particles(jax.random.key(0), 50, pixel_angstrom=4.0, shift_px=1.0)
    key, volume = jax.random.key(1), phantom()
    clean = [np.concatenate(list(simulate_stack(key, volume, some, batch=b))) for b in (20, 50)]
    np.testing.assert_allclose(clean[0], clean[1], atol=1e-4)
    np.testing.assert_allclose(clean[1], some.projector(24)(jax.numpy.asarray(volume, float)), atol=1e-4)
    parts = list(simulate_stack(key, volume, some, snr=0.5, batch=20))
    noise = np.concatenate(parts) - clean[0]
    assert [len(part) for part in parts] == [17, 17, 16]
    assert np.var(clean[0][:17], axis=(1, 2)).mean() / np.var(noise) == pytest.approx(0.5, rel=0.03)
    assert np.abs(np.corrcoef(noise.reshape(50, -1)) - np.eye(50)).max() <= 0.2  # no two images share their noise
