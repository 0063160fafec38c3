"""The real vesicle frame, from camera counts to a volume: the figures that the project promises."""

import numpy as np
import pytest

from lfjax import io, metrics, optics, pipeline, solvers
from lfjax.optics import preset

Z_UM = tuple(np.arange(10) - 4.5)


@pytest.fixture(scope="module")
def frames(shared):
    return [io.read_frame(shared / f"data/guv/{name}.tif") for name in ("light_field", "white", "dark")]


@pytest.fixture(scope="module")
def psf(tmp_path_factory):
    return optics.cached_psf(preset("60x1.2w"), Z_UM, 4, cache=tmp_path_factory.mktemp("psf"))


def reconstruct(frames, psf, **options):
    raw, white, dark = frames
    return pipeline.reconstruct(raw, preset("60x1.2w"), white=white, dark=dark, psf=psf, **options)


def test_fifteen_richardson_lucy_iterations_explain_the_frame(frames, psf):
    result = reconstruct(frames, psf, iterations=15, anti_alias=False)
    assert result.correlation >= 0.935
    assert np.all(np.asarray(result.volume) >= 0) and result.volume.shape == (10, 112, 112)


def test_fista_explains_it_better_and_the_filter_removes_the_grid(frames, psf):
    plain = reconstruct(frames, psf, solver=solvers.FISTA(), iterations=50, withhold=0.1, anti_alias=False)
    filtered = reconstruct(frames, psf, solver=solvers.FISTA(), iterations=50, withhold=0.1)
    assert plain.correlation >= 0.955
    assert filtered.withheld_correlation >= plain.withheld_correlation - 0.01
    for z in (4, 5):  # -0.5 and 0.5 um
        assert metrics.lattice_energy(filtered.volume[z], 4) <= metrics.lattice_energy(plain.volume[z], 4) / 3


def test_the_vesicle_is_a_closed_ring_in_every_plane_largest_near_the_middle(frames, psf):
    volume = np.asarray(reconstruct(frames, psf, iterations=30).volume)
    rows, columns = np.indices(volume.shape[1:])
    radius = np.hypot(rows - 57, columns - 54)  # from the vesicle's axis, in voxels
    sector = ((np.arctan2(rows - 57, columns - 54) + np.pi) / (np.pi / 4)).astype(int) % 8
    radii = np.arange(22, 42)
    sizes = []
    for plane in volume:
        profiles = np.array([[plane[(sector == s) & (radius // 1 == r)].mean() for r in radii] for s in range(8)])
        around = max(plane[radius > 46].mean(), plane[radius < 15].mean())
        assert np.all(profiles.max(1) > 2 * around)  # in each eighth of the circle, against inside and outside
        sizes.append(radii[profiles.mean(0).argmax()])
    assert max(sizes[2:6]) == max(sizes)
    assert sizes[0] < max(sizes) and sizes[-1] < max(sizes)
