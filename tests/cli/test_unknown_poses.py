"""The commands abinitio and orient: their files, what RELION makes of them, and a kill."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from lfjax import io, tomography
from lfjax.tomography import schedule

SEARCH = ("--no-ctf", "--restarts", 1)
FEW = {"EXTRA": 0, "GRIDS": ((8, 1), (11, 1)), "NEAR": ((13, (8.0, 5.0)), (16, (4.0,)))}
"""Few passes: XLA without its optimisations takes seconds for one over the fine grid."""


@pytest.fixture(scope="module", autouse=True)
def few_passes():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FEW.items():
            patch.setattr(schedule, name, value)
        yield


@pytest.fixture(scope="module")
def folder(lfjax, tmp_path_factory):
    """A map of blobs, its images, and their search."""
    folder = tmp_path_factory.mktemp("search")
    x = np.arange(24) - 12
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    places = np.random.default_rng(0).uniform(-0.2, 0.2, (9, 3)) * 24
    truth = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 1.62) for a, b, c in places)
    io.write_map(folder / "truth.mrc", truth, 5.0)
    done = lfjax("project", "truth.mrc", "--n", 48, "--snr", 1, "--no-ctf", "-o", "p.star", cwd=folder)
    assert done.code == 0, done.err
    done = lfjax("abinitio", "p.star", *SEARCH, "-o", "m.mrc", "--half-maps", "--check-overfitting", cwd=folder)
    assert done.code == 0, done.err
    (folder / "out.txt").write_text(done.out)
    (folder / "err.txt").write_text(done.err)
    (folder / "taken.mrc").mkdir()
    return folder


def test_abinitio_writes_poses_maps_and_pictures_and_says_how_far_to_trust_them(lfjax, folder):
    out = (folder / "out.txt").read_text()
    for text in (
        "pass   1  start 1  band", "signal: ", "overfitting: phases random beyond", "single views do not tell it",
        "half-sets refined independently", "m.star: poses of 48 images",
    ):  # fmt: skip
        assert text in out, out
    for text in ("passes of half-set 1: ", "passes of half-set 2: ", "random phases, passes of half-set 2: "):
        assert text in (folder / "err.txt").read_text()
    bands = list(folder.glob("m.band*.png"))
    names = ("m.png", "m.fsc.png", "m.orientations.png", "m_unfil.mrc", "m_half1.mrc", "m_half2.mrc", "m.star")
    assert len(bands) >= 3 and all((folder / name).exists() for name in names)
    assert not (folder / ".m.abinitio.h5").exists()
    compared = lfjax("compare-poses", "m.star", "p.star", "--no-ctf", cwd=folder)
    assert compared.code == 0 and float(compared.out.split("median ")[1].split()[0]) <= 6, compared.out
    half = [tomography.read_particles(folder / name, ctf=False).particles.half for name in ("m.star", "p.star")]
    assert np.array_equal(*half)
    back = lfjax("backproject", "m.star", "--no-ctf", "-o", "again.mrc", cwd=folder)
    maps = [io.read_map(folder / name).array for name in ("again_unfil.mrc", "m_unfil.mrc")]
    assert back.code == 0 and float(tomography.fsc(*maps)[1:8].min()) >= 0.99


def test_a_command_that_is_killed_resumes_to_the_same_files(lfjax, folder):
    words = ["abinitio", "p.star", *map(str, SEARCH), "-o", "k.mrc", "--half-maps"]
    code = f"""
import sys
from lfjax.cli import main
from lfjax.tomography import schedule
vars(schedule).update({FEW})
sys.argv = ['lfjax', *{words}]
main.run()
"""
    environment = os.environ | {"LFJAX_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("pass  21"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert (folder / ".k.abinitio.h5").exists() and not (folder / "k.mrc").exists()
    other = lfjax("abinitio", "p.star", *SEARCH, "--seed", 5, "-o", "k.mrc", cwd=folder)
    assert other.code == 2 and "--seed 0 there and 5 here" in other.err and "--overwrite" in other.err
    done = lfjax(*words, cwd=folder)
    assert done.code == 0 and "resumed after pass 2" in done.out and "pass   1 " not in done.out, done.err
    for name in ("", "_unfil", "_half1", "_half2"):
        assert np.array_equal(*(io.read_map(folder / f"{stem}{name}.mrc").array for stem in "km")), name
    star = [(folder / f"{stem}.star").read_text().split("\n", 1)[1] for stem in "km"]
    assert star[0] == star[1]


def test_a_broken_kept_search_names_its_remedy_before_any_work_and_overwrite_begins_anew(lfjax, folder):
    kept = folder / ".b.abinitio.h5"
    words = ("abinitio", "p.star", *SEARCH, "-o", "b.mrc", "--joint-halves")
    kept.write_bytes(b"\x89HDF\r\n\x1a\n cut")
    broken = lfjax(*words, cwd=folder)
    assert broken.code == 2 and ".b.abinitio.h5: " in broken.err and broken.err.count("\n") == 1
    assert "remove this file, or begin anew with --overwrite" in broken.err and "background" not in broken.out
    done = lfjax(*words, "--overwrite", cwd=folder)
    assert done.code == 0 and ".b.abinitio.h5: not resumed, begun anew" in done.out and "pass   1 " in done.out, done.err
    assert not kept.exists()


def test_half_sets_of_few_images_claim_no_resolution(lfjax, folder):
    file = tomography.read_particles(folder / "p.star", ctf=False)
    rows = file.tables["particles"].iloc[:12]
    tables = file.tables | {"particles": rows.assign(rlnRandomSubset=[1, 2] * 6)}
    tomography.write_tables(folder / "few.star", tables)
    done = lfjax("abinitio", "few.star", *SEARCH, "-o", "small.mrc", "--half-maps", "--check-overfitting", cwd=folder)
    last = done.out.splitlines()[-1]
    assert done.code == 0 and "half-maps of 6 and 6 images, too few to tell a resolution, and the map is not filtered" in last
    assert "FSC" not in done.out and "overfitting" not in done.out and "12 images: so few explain" in done.err
    assert np.array_equal(*(io.read_map(folder / name).array for name in ("small.mrc", "small_unfil.mrc")))


@pytest.fixture(scope="module")
def oriented(lfjax, folder):
    """Images with a CTF at the poses that the map gives them."""
    for words in (
        ("project", "truth.mrc", "--n", 48, "--snr", 1, "-o", "c.star"),
        ("orient", "c.star", "--map", "truth.mrc", "-o", "o.star"),
    ):
        done = lfjax(*words, cwd=folder)
        assert done.code == 0, done.err
    return done


def test_orient_writes_poses_for_a_map(lfjax, folder, oriented):
    assert "o.star: poses of 48 images in truth.mrc" in oriented.out
    compared = lfjax("compare-poses", "o.star", "c.star", cwd=folder)
    assert "hand: the hand of c.star" in compared.out and float(compared.out.split("median ")[1].split()[0]) <= 6


@pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed")
@pytest.mark.usefixtures("oriented")
def test_relion_makes_the_same_map_of_the_star_file(lfjax, folder):
    words = ["relion_reconstruct", "--i", "o.star", "--o", "relion.mrc", "--ctf", "--pad", "2"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    assert lfjax("backproject", "o.star", "-o", "ours.mrc", cwd=folder).code == 0
    ours, theirs = (io.read_map(folder / name).array for name in ("ours_unfil.mrc", "relion.mrc"))
    assert float(tomography.fsc(ours, theirs)[1:6].min()) >= 0.97


@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="RELION is not installed")
def test_relion_refines_from_images_without_a_ctf_and_finds_none_in_the_file(folder):
    maps = []
    for name, option in (("plain", []), ("ctf", ["--ctf"])):
        (folder / name).mkdir()
        words = ["relion_refine", "--i", "m.star", "--o", f"{name}/run", "--ref", "m.mrc", "--iter", "1", "--K", "1"]
        words += ["--particle_diameter", "100", "--healpix_order", "1", "--offset_range", "1", "--offset_step", "2"]
        words += ["--dont_check_norm", "--random_seed", "1", *option]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
        maps.append(io.read_map(folder / name / "run_it001_class001.mrc").array)
    assert np.allclose(*maps, atol=1e-3 * np.abs(maps[0]).max())  # a CTF of 1


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("abinitio", "p.star", "-o", "m.mrc"), "--overwrite"),
        (("abinitio", "p.star", "-o", "n.star"), "ends with .mrc"),
        (("abinitio", "p.star", "--no-ctf", "-o", "p.mrc"), "never overwritten"),
        (("abinitio", "p.star", "--no-ctf", "-o", "m.fsc.png/n.mrc"), "--output m.fsc.png/n.mrc: expected a folder in which"),
        (
            ("abinitio", "p.star", "--no-ctf", "-o", "taken.mrc", "--overwrite"),
            "--output taken.mrc: expected another name: a folder",
        ),
        (("abinitio", "p.star", "--no-ctf", "--shift", "-1", "-o", "n.mrc"), "--shift -1: expected zero or more"),
        (("abinitio", "p.star", "--no-ctf", "--shift", "inf", "-o", "n.mrc"), "--shift inf: expected zero or more"),
        (
            ("abinitio", "p.star", "--no-ctf", "--shift", "9", "-o", "n.mrc"),
            "--shift 9: expected 0 to 4: 3 of them within half",
        ),
        (("abinitio", "p.star", "--no-ctf", "--restarts", "0", "-o", "n.mrc"), "--restarts 0: expected 1 or more"),
        (("abinitio", "p.star", "--no-ctf", "--seed", 2**64, "-o", "n.mrc"), f"--seed {2**64}: expected 0 to {2**32 - 1}"),
        (("abinitio", "p.star", "--no-ctf", "--devices", "99", "-o", "n.mrc"), "--devices 99: expected 1 to "),
        (("abinitio", "p.star", "--no-ctf", "--folder", "gone", "-o", "n.mrc"), "--folder gone: expected a folder that exists"),
        (("abinitio", "p.star", "--no-ctf", "--joint-halves", "--check-overfitting", "-o", "n.mrc"), "--independent-halves"),
        (
            ("abinitio", "p.star", "--no-ctf", "--radius", "70", "-o", "n.mrc"),
            "--radius 70: expected more than 0 and less than 60 A",
        ),
        (("abinitio", "p.star", "--no-ctf", "--radius", "5", "-o", "n.mrc"), "--radius 5: "),
        (("abinitio", "p.star", "--no-ctf", "--radius", "nan", "-o", "n.mrc"), "--radius nan: expected a positive number"),
        (("abinitio", "gone.star", "--symmetry", "X9", "-o", "n.mrc"), "--symmetry X9: expected a point group"),
        (
            ("orient", "gone.star", "--map", "gone.mrc", "--symmetry", "C99999999", "-o", "n.star"),
            "--symmetry C99999999: expected",
        ),
        (("backproject", "gone.star", "--symmetry", "D0", "-o", "n.mrc"), "--symmetry D0: expected a point group"),
        (("expand", "gone.star", "--symmetry", "I5", "-o", "n.star"), "--symmetry I5: expected a point group"),
        (("orient", "p.star", "--no-ctf", "--map", "truth.mrc", "--map-voxel", "0", "-o", "n.star"), "--map-voxel 0: expected"),
        (
            ("orient", "p.star", "--no-ctf", "--map", "truth.mrc", "--map-voxel", "1", "-o", "n.star"),
            "the map has a box of 24 A",
        ),
        (
            ("orient", "p.star", "--no-ctf", "--map", "truth.mrc", "--radius", "70", "-o", "n.star"),
            "--radius 70: expected more than",
        ),
        (("orient", "p.star", "--map", "gone.mrc", "-o", "n.star"), "gone.mrc"),
        (("orient", "p.star", "--map", "truth.mrc", "-o", "p.star"), "--output"),
    ],
)
def test_bad_options_end_in_one_line(lfjax, folder, words, wrong):
    before = sorted(path.name for path in folder.iterdir())
    done = lfjax(*words, cwd=folder)
    assert done.code == 2 and wrong in done.err and done.err.count("\n") == 1, done.err
    assert "pass " not in done.out
    assert sorted(path.name for path in folder.iterdir()) == before
