"""From a particle file without poses to a map: junk, interruptions, and a map of other voxels."""

import dataclasses

import h5py
import jax
import numpy as np
import pytest

from lfjax import io, rotation, tomography
from lfjax.errors import DataWarning, FileError, ParameterError
from lfjax.pipeline import SearchSettings, find_poses, orient_particles, write_posed
from lfjax.pipeline.checked_images import CheckedImages
from lfjax.pipeline.kept_search import KeptSearch
from lfjax.tomography import schedule

SIZE, IMAGES, JUNK = 24, 40, 8
SETTINGS = SearchSettings()
FEW = {"EXTRA": 0, "GRIDS": ((8, 1), (11, 1)), "NEAR": ((13, (8.0, 5.0)), (16, (4.0,)))}


@pytest.fixture(scope="module", autouse=True)
def few_passes():
    """XLA without its optimisations takes seconds for a pass over the fine grid."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FEW.items():
            patch.setattr(schedule, name, value)
        yield


@pytest.fixture(scope="module")
def truth():
    """Nine blobs without symmetry."""
    x = np.arange(SIZE) - SIZE // 2
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    places = np.random.default_rng(0).uniform(-0.2, 0.2, (9, 3)) * SIZE
    return sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 1.62) for a, b, c in places).astype(np.float32)


@pytest.fixture(scope="module")
def particles():
    found = tomography.random_particles(jax.random.key(0), IMAGES + JUNK, pixel_angstrom=5.0, defocus_angstrom=None)
    return dataclasses.replace(found, half=np.arange(IMAGES + JUNK) % 2 + 1)


@pytest.fixture(scope="module")
def file(truth, particles, tmp_path_factory):
    """Images of the blobs, and the last ones of noise alone."""
    folder = tmp_path_factory.mktemp("unknown")
    images = np.concatenate(list(tomography.simulate_stack(jax.random.key(1), truth, particles, snr=1.0)))
    images[IMAGES:] = images[:IMAGES, :3].std() * np.random.default_rng(1).normal(size=(JUNK, SIZE, SIZE))
    io.write_stack(folder / "p.mrcs", images, 5.0)
    tomography.write_particles(folder / "p.star", particles, [(i, "p.mrcs") for i in range(len(images))], SIZE)
    return tomography.read_particles(folder / "p.star", ctf=False)


class KilledError(Exception):
    pass


def killer(at):
    def passed(line):
        if line.step == at:
            raise KilledError

    return passed


@pytest.fixture(scope="module")
def found(file):
    looks, lines = [], []
    made = find_poses(file, SETTINGS, restarts=1, looked=looks.append, passed=lines.append)
    return made, looks, lines


def test_poses_and_junk_are_found(found, particles, truth):
    made, looks, lines = found
    good = slice(0, IMAGES)
    compared = rotation.compare(np.asarray(made.particles.rotations[good], float), np.asarray(particles.rotations[good], float))
    assert float(compared.median_rad) <= np.deg2rad(6) and float(compared.below_10_degrees) >= 0.9
    assert made.junk[IMAGES:].all() and made.junk[:IMAGES].mean() <= 0.1
    assert [line.step for line in lines] == list(range(len(lines))) and lines == list(made.search.history)
    assert np.array_equal(made.maps.curve, made.curves["independent halves"])
    assert np.array_equal(np.asarray(made.particles.half), np.asarray(particles.half))
    assert [look.line.limit for look in looks] == sorted(look.line.limit for look in looks)
    for look in looks:  # the map explains the images at their poses
        pairs = zip(look.views.images, look.views.projections, strict=True)
        assert np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]) >= 0.6
        assert look.resolved.shape == (look.line.limit + 1,) and look.rotations.shape == (IMAGES + JUNK, 3, 3)


def test_a_search_that_is_killed_again_and_again_comes_to_the_same_result(found, file, tmp_path):
    made, *_ = found
    output, notes = tmp_path / "map.mrc", []
    for at in (4, 19, 20, 21, 23):
        with pytest.raises(KilledError):
            find_poses(file, SETTINGS, restarts=1, output=output, passed=killer(at))
        assert [path.name for path in tmp_path.iterdir()] == [".map.abinitio.h5"]
    again = find_poses(file, SETTINGS, restarts=1, output=output, told=notes.append, independent=False)
    assert "resumed after pass 24 of an interrupted run" in notes
    assert again.search.history == made.search.history and again.search.evidence == made.search.evidence
    for one, other in (
        (again.search.poses, made.search.poses),
        (again.particles, made.particles),
        (again.maps.unfiltered, made.maps.unfiltered),
    ):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert np.array_equal(np.asarray(a), np.asarray(b))
    again.kept.remove()
    assert not list(tmp_path.iterdir())


def test_a_search_of_other_settings_or_images_is_refused_by_name(file, tmp_path):
    output = tmp_path / "map.mrc"
    for at in (0, 1):
        with pytest.raises(KilledError):
            find_poses(file, SETTINGS, restarts=1, output=output, passed=killer(at))
    for other, starts, name in ((dataclasses.replace(SETTINGS, seed=1), 1, "seed"), (SETTINGS, 2, "restarts")):
        with pytest.raises(FileError, match=rf"other settings .*{name} = .*--overwrite"):
            find_poses(file, other, restarts=starts, output=output)
    brighter = tomography.read_particles(file.path, ctf=False)
    brighter.signs = np.full(len(file), -1, np.float32)
    with pytest.warns(DataWarning, match="darker"), pytest.raises(FileError, match="of other images or optics; give those"):
        find_poses(brighter, SETTINGS, restarts=1, output=output)
    with pytest.raises(KilledError):
        find_poses(file, dataclasses.replace(SETTINGS, seed=1), restarts=1, output=output, overwrite=True, passed=killer(0))
    kept = tmp_path / ".map.abinitio.h5"
    with h5py.File(kept, "r+") as state:
        state["estimate/volume"][0, 0, 0] += 1
    with pytest.raises(FileError, match="its checksum does not fit: remove this file, or begin anew with --overwrite"):
        find_poses(file, dataclasses.replace(SETTINGS, seed=1), restarts=1, output=output)
    kept.write_bytes(kept.read_bytes()[:2000])
    with pytest.raises(FileError, match=r"map\.abinitio\.h5: .*: remove this file, or begin anew with --overwrite"):
        find_poses(file, SETTINGS, restarts=1, output=output)
    with h5py.File(kept, "w") as other:
        other.attrs["format"] = "another"
    with pytest.raises(FileError, match="format 'another'.*: remove this file, or begin anew with --overwrite"):
        find_poses(file, SETTINGS, restarts=1, output=output)
    notes = []
    with pytest.raises(KilledError):
        find_poses(file, SETTINGS, restarts=1, output=output, overwrite=True, told=notes.append, passed=killer(0))
    assert ".map.abinitio.h5: not resumed, begun anew" in notes and KeptSearch(output, {}).check() is None


def test_the_star_file_tells_poses_junk_and_evidence(found, file, tmp_path):
    made, *_ = found
    with pytest.warns(DataWarning, match="stacks are named relative"):
        few = write_posed(tmp_path / "m.star", file, made.particles, made.search.poses, made.good, tmp_path / "m_junk.star")
    back = tomography.read_particles(tmp_path / "m.star", ctf=False)
    table = back.tables["particles"]
    assert few == made.junk.sum() and back.posed and back.images([0]).shape == (1, SIZE, SIZE)
    np.testing.assert_allclose(table["rlnParticleFigureOfMerit"].astype(float), made.good, atol=1e-6)
    np.testing.assert_allclose(np.asarray(back.particles.rotations), np.asarray(made.particles.rotations), atol=1e-5)
    np.testing.assert_allclose(np.asarray(back.particles.shifts), np.asarray(made.particles.shifts), atol=1e-5)
    listed = tomography.read_particles(tmp_path / "m_junk.star", ctf=False)
    assert listed.names == [name for name, bad in zip(back.names, made.junk, strict=True) if bad]
    every = np.ones(len(file), np.float32)
    with pytest.warns(DataWarning, match="stacks are named relative"):
        assert not write_posed(tmp_path / "m.star", file, made.particles, made.search.poses, every, tmp_path / "m_junk.star")
    assert not (tmp_path / "m_junk.star").exists()


def test_a_map_of_other_voxels_and_box_gives_the_same_poses(file, truth, particles):
    fine = tomography.resample_map(truth, 5.0, 36, 4.0)
    notes = []
    one, other = (orient_particles(file, *given, SETTINGS, told=notes.append) for given in ((truth, 5.0), (fine, 4.0)))
    assert notes.count("map: 36 voxels of 4 A brought to the images' 24 of 5 A") == 1
    for made in (one, other):
        found = [np.asarray(p.rotations[:IMAGES], float) for p in (made.particles, particles)]
        assert np.median(np.asarray(rotation.distance(*found))) <= np.deg2rad(4)
        assert made.junk[IMAGES:].all() and not made.junk[:IMAGES].all()
    with pytest.raises(ParameterError, match="--radius"):
        orient_particles(file, truth[4:20, 4:20, 4:20], 5.0, SETTINGS)


def test_a_ball_that_does_not_hold_the_particle_is_told(file):
    with pytest.raises(ParameterError, match=r"radius_angstrom = 12: .* of the signal lies beyond.*--radius"):
        find_poses(file, dataclasses.replace(SETTINGS, radius_angstrom=12.0), restarts=1)
    with (
        pytest.warns(DataWarning, match=r"of the signal lies beyond the ball of 18 A"),
        pytest.raises(KilledError),
    ):
        find_poses(file, dataclasses.replace(SETTINGS, radius_angstrom=18.0), restarts=1, passed=killer(0))
    for wrong, name in (
        ({"radius_angstrom": 60.0}, "radius_angstrom"),
        ({"shift_px": -1.0}, "shift_px"),
        ({"devices": 0}, "devices"),
    ):
        with pytest.raises(ParameterError, match=name):
            find_poses(file, dataclasses.replace(SETTINGS, **wrong))


def doubled(folder, file, half):
    """The particles once more under other names: a stack joined with itself."""
    images = file.images()
    io.write_stack(folder / "twice.mrcs", np.concatenate([images, images]), 5.0)
    rows = np.tile(np.arange(len(file)), 2)
    particles = dataclasses.replace(file.particles[rows], half=half)
    tomography.write_particles(folder / "twice.star", particles, [(i, "twice.mrcs") for i in range(len(rows))], SIZE)
    return tomography.read_particles(folder / "twice.star", ctf=False)


def test_images_with_the_pixels_of_others_are_told(file, tmp_path):
    count = len(file)
    apart, together = np.repeat([1, 2], count), np.tile(np.arange(count) % 2 + 1, 2)
    for half, shared in (
        (apart, f"{count} of them in both half-sets, which then share noise"),
        (together, "each counts again"),
    ):
        images = CheckedImages(doubled(tmp_path, file, half))
        for part in np.array_split(np.arange(2 * count), 5):
            images[part]
        told = f"{count} of {2 * count} images have the pixels of another image, first 1@twice.mrcs and {count + 1}@twice.mrcs"
        with pytest.warns(DataWarning, match=f"{told}; {shared}"):
            images.tell_doubled()
        images.tell_doubled()  # once: a second warning is an error here
    with pytest.warns(DataWarning, match="have the pixels of another"), pytest.raises(KilledError):
        find_poses(doubled(tmp_path, file, together), SETTINGS, restarts=1, passed=killer(0))


def test_rows_of_one_name_and_other_images_are_not_doubled(file, tmp_path):
    tables = tomography.expand_tables(file.tables, "C2")
    tomography.write_tables(tmp_path / "expanded.star", tables)
    images = CheckedImages(tomography.read_particles(tmp_path / "expanded.star", ctf=False, folder=file.path.parent))
    assert len(images[np.arange(2 * len(file))]) == 2 * len(file)
    images.tell_doubled()


def test_the_smallest_box_is_searched_and_a_smaller_one_refused(tmp_path, truth):
    for size in (12, 16):
        small = tomography.resample_map(truth, 5.0, size, 5.0 * SIZE / size)
        given = tomography.random_particles(jax.random.key(2), 24, pixel_angstrom=5.0, defocus_angstrom=None)
        images = np.concatenate(list(tomography.simulate_stack(jax.random.key(3), small, given, snr=4.0)))
        io.write_stack(tmp_path / "s.mrcs", images, 5.0)
        tomography.write_particles(tmp_path / "s.star", given, [(i, "s.mrcs") for i in range(24)], size)
        file = tomography.read_particles(tmp_path / "s.star", ctf=False)
        if size == 12:
            with pytest.raises(FileError, match="boxes of 12 px; expected 16 px or more"):
                find_poses(file, SETTINGS, restarts=1)
            continue
        with pytest.raises(KilledError):
            find_poses(file, SETTINGS, restarts=1, passed=killer(1))
