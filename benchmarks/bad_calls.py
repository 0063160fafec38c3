"""Calls of every command that cannot be meant, each refused before any work: exit code 2 (1 where work had begun), one line, no
file left behind.

A case is a command line and words that the message must hold: the option or the file, so that the user knows where to look.
`failures` runs the table in one process; the test `tests/cli/test_bad_calls.py` and the benchmark of reliability share it.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import tifffile

from lfjax.cli import main
from lfjax.io import write_map, write_stack


class Case(NamedTuple):
    """A command line, and what its message must hold."""

    line: str
    says: str


class Outcome(NamedTuple):
    """What a call did.

    Attributes:
        code: exit code; -1: it ended with a traceback.
        errors: lines on standard error.
        changed: files that are new, gone or other than before.
    """

    code: int
    errors: tuple[str, ...]
    changed: tuple[str, ...]

    def faults(self, case: Case) -> list[str]:
        """What is wrong with it; nothing, if the call was refused as it should."""
        found = [] if self.code in (1, 2) else [f"exit code {self.code}"]
        found += [] if len(self.errors) == 1 else [f"{len(self.errors)} lines"]
        found += [] if case.says in " ".join(self.errors) else [f"says no {case.says!r}"]
        found += [f"left {', '.join(self.changed)}"] if self.changed else []
        return [f"lfjax {case.line}: {', '.join(found)}: {' | '.join(self.errors)[:300]}"] if found else []


SCOPE = "--microscope 60x1.2w"
_FRAME = f"raw.tif {SCOPE}"
_MOVIE = f"raw.h5 {SCOPE}"
_Z = "first:last:step"

CALLS = tuple(
    Case(*pair)
    for pair in (
        # psf
        ("psf", "--output"),
        ("psf -o ''", "--output"),
        ("psf -o p.txt", "--output"),
        ("psf -o folder", "--output"),
        ("psf -o raw.tif/p.h5", "--output"),
        ("psf -o /proc/none/p.h5", "--output"),
        ("psf -o raw.h5", "--output"),
        ("psf -o p.h5 --z 4500:4500:1", "--z"),
        ("psf -o p.h5 --microscope 20x0.5 --z 9000", "--z"),
        ("psf -o p.h5 --z 1e300:1e300:1", "--z"),
        ("psf -o p.h5 --z nan", "--z"),
        ("psf -o p.h5 --z 0:inf:1", "--z"),
        ("psf -o p.h5 --z ''", "--z"),
        ("psf -o p.h5 --z 0:1", _Z),
        ("psf -o p.h5 --z 3,1", "--z"),
        ("psf -o p.h5 --voxels 0", "--voxels"),
        ("psf -o p.h5 --voxels 17", "voxels"),
        ("psf -o p.h5 --voxels 1.5", "--voxels"),
        ("psf -o p.h5 --tolerance nan", "--tolerance"),
        ("psf -o p.h5 --tolerance 0", "--tolerance"),
        ("psf -o p.h5 --microscope 80x", "80x"),
        ("psf -o p.h5 --microscope ''", "--microscope"),
        ("psf -o p.h5 --microscope folder", "folder"),
        ("psf -o p.h5 --microscope raw.tif", "raw.tif"),
        ("psf -o p.h5 --microscope wrong.toml", "wrong.toml"),
        ("psf -o p.h5 --seed 1", "--seed"),
        # simulate
        (f"simulate -o new {SCOPE} --seed 100000000000000000000000", "--seed"),
        (f"simulate -o new {SCOPE} --seed -1", "--seed"),
        (f"simulate -o new {SCOPE} --lenslets 0", "--lenslets"),
        (f"simulate -o new {SCOPE} --lenslets 1000000", "GiB"),
        (f"simulate -o new {SCOPE} --photons nan", "--photons"),
        (f"simulate -o new {SCOPE} --photons -5", "--photons"),
        (f"simulate -o new {SCOPE} --pitch-px inf", "--pitch-px"),
        (f"simulate -o new {SCOPE} --pitch-px 0.001", "pitch"),
        (f"simulate -o new {SCOPE} --rotation-rad nan", "--rotation-rad"),
        (f"simulate -o new {SCOPE} --count 0", "--count"),
        (f"simulate -o new {SCOPE} --count 1000000000", "count"),
        (f"simulate -o new {SCOPE} --sample cats", "--sample"),
        (f"simulate -o new {SCOPE} --rate-hz 5", "--rate-hz"),
        (f"simulate -o raw.tif {SCOPE}", "--output"),
        (f"simulate -o raw.tif/new {SCOPE}", "--output"),
        ("simulate -o new --frames 0", "--frames"),
        ("simulate -o new --frames 2 --rate-hz nan", "--rate-hz"),
        ("simulate -o new --frames 2 --indicator dye", "indicator"),
        ("simulate -o new --frames 2 --bleach-s nan", "--bleach-s"),
        ("simulate -o new --frames 2 --sample beads", "--sample"),
        # calibrate
        (f"calibrate none.tif {SCOPE} -o c.toml", "none.tif"),
        (f"calibrate folder {SCOPE} -o c.toml", "folder"),
        (f"calibrate raw.tif {SCOPE} -o c.txt", "--output"),
        (f"calibrate raw.tif {SCOPE} -o raw.tif/c.toml", "--output"),
        (f"calibrate raw.tif {SCOPE} --pitch nan -o c.toml", "--pitch"),
        (f"calibrate raw.tif {SCOPE} --rotation inf -o c.toml", "--rotation"),
        (f"calibrate raw.tif {SCOPE} --offset 3 -o c.toml", "--offset"),
        (f"calibrate raw.tif {SCOPE} --offset nan,1 -o c.toml", "--offset"),
        (f"calibrate raw.tif {SCOPE} --dark nan -o c.toml", "--dark"),
        (f"calibrate raw.tif {SCOPE} --dark none.tif -o c.toml", "none.tif"),
        (f"calibrate raw.tif {SCOPE} --saturation 0 -o c.toml", "--saturation"),
        ("calibrate raw.tif -o c.toml", "--microscope"),
        # check
        (f"check none.h5 {SCOPE}", "none.h5"),
        ("check raw.h5", "--microscope"),
        (f"check '' {SCOPE}", "RAW"),
        (f"check {_MOVIE} --diameter-um nan", "--diameter-um"),
        (f"check {_MOVIE} --structure none.tif", "none.tif"),
        (f"check {_MOVIE} --structure-voxel-um 1,2", "--structure-voxel-um"),
        (f"check {_MOVIE} --structure-voxel-um inf,1,1", "--structure-voxel-um"),
        (f"check {_MOVIE} --rate-hz 0", "--rate-hz"),
        (f"check {_MOVIE} --dataset none", "raw.h5"),
        (f"check {_MOVIE} --channel -1", "--channel"),
        (f"check {_MOVIE} --bad-frames maybe", "--bad-frames"),
        # rectify
        (f"rectify {_FRAME} -o raw.tif", "--output"),
        (f"rectify {_FRAME} -o lf.xyz", "--output"),
        (f"rectify {_FRAME} --page 7 -o lf.tif", "raw.tif"),
        (f"rectify {_FRAME} --page -1 -o lf.tif", "--page"),
        (f"rectify {_FRAME} --white none.tif -o lf.tif", "none.tif"),
        (f"rectify {_FRAME} --calibration none.toml -o lf.tif", "--calibration"),
        ("rectify raw.tif --calibration none.toml -o lf.tif", "none.toml"),
        ("rectify raw.tif --calibration scope.toml -o lf.tif", "scope.toml"),
        (f"rectify nan.tif {SCOPE} -o lf.tif", "nan.tif"),
        (f"rectify complex.npy {SCOPE} -o lf.tif", "complex.npy"),
        # reconstruct
        (f"reconstruct {_FRAME} -o v.xyz", "--output"),
        (f"reconstruct {_FRAME} -o raw.tif", "--output"),
        (f"reconstruct {_FRAME} -o v.tif --sparsity -1", "--sparsity"),
        (f"reconstruct {_FRAME} -o v.tif --sparsity inf", "--sparsity"),
        (f"reconstruct {_FRAME} -o v.tif --total-variation nan", "--total-variation"),
        (f"reconstruct {_FRAME} -o v.tif --iterations 0", "--iterations"),
        (f"reconstruct {_FRAME} -o v.tif --solver magic", "solver"),
        (f"reconstruct {_FRAME} -o v.tif --withhold 1", "--withhold"),
        (f"reconstruct {_FRAME} -o v.tif --tissue-um 60", "--mean-free-path-um"),
        (f"reconstruct {_FRAME} -o v.tif --tissue-um nan --mean-free-path-um 60", "--tissue-um"),
        (f"reconstruct {_FRAME} -o v.tif --anisotropy 1", "--anisotropy"),
        (f"reconstruct complex.npy {SCOPE} -o v.tif", "complex.npy"),
        # info
        ("info 60x1.2w --voxels 0", "--voxels"),
        ("info 60x1.2w --lenslets 0 --device h100", "--lenslets"),
        ("info 60x1.2w --batch 0 --device h100", "--batch"),
        ("info 60x1.2w --device abacus", "abacus"),
        ("info 60x1.2w --device cpu --tflops nan --bandwidth 1", "--tflops"),
        ("info 60x1.2w --model small", "--model"),
        ("info 60x1.2w --device h100 --precision half", "precision"),
        ("info 60x1.2w more", "more"),
        ("info none.star", "none.star"),
        ("info ''", "SOURCE"),
        # project
        ("project map.mrc -o map.mrc", "--output"),
        ("project stack.mrcs -o stack.star", "--output"),
        ("project map.mrc -o a.txt", "--output"),
        ("project map.mrc -o a.star --n 0", "--n"),
        ("project map.mrc -o a.star --n 100000000000000000000", "--n"),
        ("project map.mrc -o a.star --shift -1", "--shift"),
        ("project map.mrc -o a.star --shift nan", "--shift"),
        ("project map.mrc -o a.star --snr 0", "--snr"),
        ("project map.mrc -o a.star --snr nan", "--snr"),
        ("project map.mrc -o a.star --kernel 1", "kernel"),
        ("project map.mrc -o a.star --kernel 99", "kernel"),
        ("project map.mrc -o a.star --seed -1", "--seed"),
        ("project map.mrc -o a.star --defocus 1", "--defocus"),
        ("project map.mrc -o a.star --defocus nan:nan", "--defocus"),
        ("project map.mrc -o a.star --defocus 0:inf", "--defocus"),
        ("project map.mrc -o a.star --voxel-angstrom 0", "--voxel-angstrom"),
        ("project none.mrc -o a.star", "none.mrc"),
        ("project folder -o a.star", "folder"),
        ("project raw.tif -o a.star", "raw.tif"),
        # backproject
        ("backproject particles.star -o m.mrc --batch 0", "--batch"),
        ("backproject particles.star -o m.mrc --batch -3", "--batch"),
        ("backproject particles.star -o m.mrc --seed 100000000000000000000000", "--seed"),
        ("backproject particles.star -o m.map", "--output"),
        ("backproject particles.star -o particles.star", "--output"),
        ("backproject particles.star -o m.mrc --folder none", "--folder"),
        ("backproject particles.star -o m.mrc --tomograms none.star", "tomograms"),
        ("backproject particles.star -o m.mrc --alignment class_0", "--alignment"),
        ("backproject particles.star -o m.mrc --voxel-angstrom nan", "--voxel-angstrom"),
        ("backproject nan.star -o m.mrc", "nan.star"),
        ("backproject none.star -o m.mrc", "none.star"),
        ("backproject map.mrc -o m.mrc", "map.mrc"),
        ("backproject", "particles"),
        # convert, expand
        ("convert particles.star -o particles.star", "--output"),
        ("convert particles.star -o a.txt", "--output"),
        ("convert particles.star -o a.star --version 9", "version"),
        ("convert nan.star -o a.star", "nan.star"),
        ("convert particles.star none.cs -o a.star", "none.cs"),
        ("expand particles.star -o a.star", "--symmetry"),
        ("expand particles.star -o a.star --symmetry ''", "--symmetry"),
        ("expand particles.star -o a.star --symmetry C99999999", "C99999999"),
        ("expand particles.star -o a.cs --symmetry C2", "--output"),
        # abinitio, orient, compare-poses
        ("abinitio particles.star -o m.mrc --shift nan", "--shift"),
        ("abinitio particles.star -o m.mrc --radius 0", "--radius"),
        ("abinitio particles.star -o m.mrc --restarts 0", "--restarts"),
        ("abinitio particles.star -o m.mrc --seed -1", "--seed"),
        ("abinitio particles.star -o m.txt", "--output"),
        ("abinitio none.star -o m.mrc", "none.star"),
        ("orient particles.star -o a.star", "--map"),
        ("orient particles.star --map none.mrc -o a.star", "none.mrc"),
        ("orient particles.star --map map.mrc --map-voxel nan -o a.star", "--map-voxel"),
        ("orient particles.star --map map.mrc -o a.mrc", "--output"),
        ("orient particles.star --map map.mrc --devices 0 -o a.star", "--devices"),
        ("compare-poses particles.star none.star", "none.star"),
        ("compare-poses particles.star nan.star", "nan.star"),
        ("compare-poses particles.star particles.star -o e.txt", "--output"),
        ("compare-poses particles.star", "second"),
        # fsc, mask, postprocess
        ("fsc map.mrc", "second"),
        ("fsc map.mrc map.mrc --radius nan", "--radius"),
        ("fsc map.mrc map.mrc --radius -1", "--radius"),
        ("fsc map.mrc map.mrc --radius 1000", "--radius"),
        ("fsc map.mrc map.mrc -o f.txt", "--output"),
        ("fsc map.mrc none.mrc", "none.mrc"),
        ("fsc map.mrc nan.mrc", "nan.mrc"),
        ("fsc map.mrc map.mrc --mask map.mrc --radius 3", "--radius"),
        ("mask map.mrc -o map.mrc", "--output"),
        ("mask map.mrc -o m.mrc --threshold nan", "--threshold"),
        ("mask map.mrc -o m.mrc --threshold 1000000", "threshold"),
        ("mask map.mrc -o m.mrc --lowpass 0", "--lowpass"),
        ("mask map.mrc -o m.mrc --soft -1", "--soft"),
        ("mask map.mrc -o m.mrc --extend inf", "--extend"),
        ("mask map.mrc -o m.mrc --islands 2", "--islands"),
        ("mask none.mrc -o m.mrc", "none.mrc"),
        ("postprocess map.mrc none.mrc -o s.mrc", "none.mrc"),
        ("postprocess map.mrc map.mrc -o map.mrc", "--output"),
        ("postprocess map.mrc map.mrc -o s.mrc --b-factor nan", "--b-factor"),
        ("postprocess map.mrc map.mrc -o s.mrc --fit-from 0", "--fit-from"),
        ("postprocess map.mrc map.mrc -o s.mrc --lowpass inf", "--lowpass"),
        ("postprocess map.mrc map.mrc -o s.mrc --mtf none.star", "none.star"),
        ("postprocess map.mrc map.mrc -o s.mrc --mtf particles.star", "particles.star"),
        # movie
        (f"movie {_MOVIE} -o v.h5", "--output"),
        (f"movie {_MOVIE} -o v.zarr --chunk 0", "--chunk"),
        (f"movie {_MOVIE} -o v.zarr --batch 0", "--batch"),
        (f"movie {_MOVIE} -o v.zarr --iterations 0", "--iterations"),
        (f"movie {_MOVIE} -o v.zarr --sparsity nan", "--sparsity"),
        (f"movie {_MOVIE} -o v.zarr --solver magic", "solver"),
        (f"movie {_MOVIE} -o v.zarr --warm maybe", "warm"),
        (f"movie {_MOVIE} -o v.zarr --devices 64", "devices"),
        (f"movie {_MOVIE} -o v.zarr --slow-background -1", "--slow-background"),
        (f"movie {_MOVIE} -o v.zarr --model small", "--microscope"),
        ("movie raw.h5 -o v.zarr --model none.h5", "none.h5"),
        ("movie raw.h5 -o v.zarr", "--microscope"),
        (f"movie none.h5 {SCOPE} -o v.zarr", "none.h5"),
        (f"movie raw.tif/x {SCOPE} -o v.zarr", "raw.tif/x"),
        (f"movie {_MOVIE} -o raw.tif/v.zarr", "--output"),
        (f"movie complex.h5 {SCOPE} -o v.zarr", "complex.h5"),
        # neurons
        (f"neurons {_MOVIE} -o n.csv", "--output"),
        (f"neurons {_MOVIE} -o raw.h5", "--output"),
        (f"neurons {_MOVIE} -o n.h5 --report r.txt", "--report"),
        (f"neurons {_MOVIE} -o n.h5 --nwb n.h5", "--nwb"),
        (f"neurons {_MOVIE} -o n.h5 --session session.toml", "--session"),
        (f"neurons {_MOVIE} -o n.h5 --nwb n.nwb --session none.toml", "none.toml"),
        (f"neurons {_MOVIE} -o n.h5 --nwb n.nwb --session wrong.toml", "wrong.toml"),
        (f"neurons {_MOVIE} -o n.h5 --nwb n.nwb --session-start tomorrow", "--session-start"),
        (f"neurons {_MOVIE} -o n.h5 --suite2p folder", "--suite2p"),
        (f"neurons {_MOVIE} -o n.h5 --false-discovery 1", "--false-discovery"),
        (f"neurons {_MOVIE} -o n.h5 --diameter-um 0", "--diameter-um"),
        (f"neurons {_MOVIE} -o n.h5 --indicator dye", "indicator"),
        (f"neurons {_MOVIE} -o n.h5 --rise-ms nan --decay-ms 5", "--rise-ms"),
        (f"neurons {_MOVIE} -o n.h5 --masks none.tif", "none.tif"),
        (f"neurons {_MOVIE} -o n.h5 --structure none.tif", "none.tif"),
        (f"neurons {_MOVIE} -o n.h5 --chunk 0", "--chunk"),
        # train, evaluate
        ("train none.toml -o m.h5", "none.toml"),
        ("train folder -o m.h5", "folder"),
        ("train wrong.toml -o m.h5", "wrong.toml"),
        ("train recipe.toml -o m.txt", "--output"),
        ("train recipe.toml -o recipe.toml", "--output"),
        ("train recipe.toml -o raw.tif/m.h5", "--output"),
        ("train recipe.toml -o m.h5 --devices 0", "--devices"),
        ("train recipe.toml -o m.h5 --devices 64", "devices"),
        ("train recipe.toml -o m.h5 --folder raw.tif", "--folder"),
        ("evaluate none.h5", "none.h5"),
        ("evaluate raw.h5", "raw.h5"),
        ("evaluate small --frames 0", "--frames"),
        ("evaluate small -o t.txt", "--output"),
        ("evaluate small -o raw.tif/t.json", "--output"),
        ("evaluate ''", "MODEL"),
        ("nonsense", "nonsense"),
    )
)
"""Calls of all commands."""

WRONG = "[volume]\nz_um = 'abc'\n"
RECIPE = """[microscope]
preset = "20x0.5"
pixels_per_lenslet = 5
[volume]
z_um = [-1, 1]
voxels_per_lenslet = 2
lenslets = 3
[training]
steps = 1
"""
STAR = """data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
1 one 300 2.7 0.1 2.0 8 2

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnAngleRot #3
_rlnAngleTilt #4
_rlnAnglePsi #5
_rlnOriginXAngst #6
_rlnOriginYAngst #7
_rlnDefocusU #8
_rlnDefocusV #9
_rlnDefocusAngle #10
_rlnRandomSubset #11
"""


def make_inputs(folder: Path) -> None:
    """Small files of every kind that the calls name: good ones, and some with a single wrong value."""
    rng = np.random.default_rng(0)
    (folder / "folder").mkdir()
    raw = rng.integers(100, 200, (48, 48)).astype(np.uint16)
    tifffile.imwrite(folder / "raw.tif", raw)
    tifffile.imwrite(folder / "nan.tif", np.where(raw > 190, np.nan, raw).astype(np.float32))
    np.save(folder / "complex.npy", raw.astype(np.complex64))
    for name, kind in (("raw", np.uint16), ("complex", np.complex64)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("frames", data=np.stack([raw, raw[::-1], raw.T]).astype(kind))
            file["frames"].attrs["frame_s"] = 0.01
    density = rng.random((8, 8, 8)).astype(np.float32)
    write_map(folder / "map.mrc", density, 2.0)
    write_stack(folder / "stack.mrcs", density, 2.0)
    broken = bytearray((folder / "map.mrc").read_bytes())
    broken[1024:1028] = np.float32(np.nan).tobytes()
    (folder / "nan.mrc").write_bytes(broken)
    rows = [f"{i + 1}@stack.mrcs 1 {10 * i} {20 * i} 5 0.5 0.5 9000 9500 30 {1 + i % 2}" for i in range(8)]
    (folder / "particles.star").write_text(STAR + "\n".join(rows) + "\n", encoding="utf-8")
    rows[2] = rows[2].replace(" 40 ", " nan ")
    (folder / "nan.star").write_text(STAR + "\n".join(rows) + "\n", encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "wrong.toml").write_text(WRONG, encoding="utf-8")
    (folder / "session.toml").write_text("[session]\nlab = 'one'\n", encoding="utf-8")
    (folder / "scope.toml").write_text("magnification = 20.0\n", encoding="utf-8")


def attempt(line: str, folder: Path) -> Outcome:
    """Run a command line in a folder, in this process."""
    before, out, err = _files(folder), io.StringIO(), io.StringIO()
    with _standing(folder, line), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main.run()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except Exception as error:  # a traceback of the user
            code = -1
            err.write(f"{type(error).__name__}: {error}")
    after = _files(folder)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return Outcome(code, tuple(err.getvalue().strip().splitlines()), tuple(changed))


@contextlib.contextmanager
def _standing(folder: Path, line: str) -> Iterator[None]:
    """Stand in a folder with the arguments of a command line, and go back."""
    here, arguments, show = Path.cwd(), sys.argv, warnings.showwarning
    known = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")  # no cache for programs that no call may need
    os.chdir(folder)
    sys.argv = ["lfjax", *shlex.split(line)]
    try:
        yield
    finally:
        os.chdir(here)
        sys.argv, warnings.showwarning = arguments, show
        if known is None:
            os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything in a folder."""
    return {
        str(path.relative_to(folder)): (stat.st_size if path.is_file() else 0, stat.st_mtime_ns if path.is_file() else 0)
        for path in folder.rglob("*")
        for stat in [path.lstat()]
    }


def failures(folder: Path, cases: Iterable[Case] = CALLS) -> list[str]:
    """One line for each call that is not refused as it should be.

    Args:
        folder: an empty folder, in which `make_inputs` makes the files.
        cases: the calls.
    """
    make_inputs(folder)
    return [fault for case in cases for fault in attempt(case.line, folder).faults(case)]
