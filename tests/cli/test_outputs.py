"""No command writes over a file that it reads, under any of its names; a command that another one disturbs says so."""

import os
import shutil

import numpy as np
import pytest

from lfjax.io import write_map, write_stack


@pytest.fixture(scope="module")
def place(folder):
    """A map, half-maps, particles whose stack has several names, and other names of inputs."""
    volume = np.random.default_rng(0).random((16, 16, 16)).astype(np.float32)
    for name in ("a.mrc", "half1.mrc", "half2.mrc", "mask.mrc"):
        write_map(folder / name, volume, 2.0)
    write_stack(folder / "p.mrcs", volume[:4], 2.0)
    head = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n_rlnImageSize\n_rlnImageDimensionality\n1 2.0 16 2\n\n"
    head += "data_particles\n\nloop_\n_rlnImageName\n_rlnOpticsGroup\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n"
    rows = "".join(f"{i + 1:06d}@p.mrcs 1 {20 * i}.0 10.0 0.0\n" for i in range(4))
    (folder / "p.star").write_text(head + "_rlnOriginXAngst\n_rlnOriginYAngst\n" + rows.replace(" 0.0\n", " 0.0 0.0 0.0\n"))
    shutil.copy(folder / "sim" / "light_field.tif", folder / "raw.tif")
    os.link(folder / "p.mrcs", folder / "linked.mrc")
    os.link(folder / "p.mrcs", folder / "maps.png")
    (folder / "again.mrc").symlink_to("a.mrc")
    (folder / "other.tif").symlink_to("raw.tif")
    os.link(folder / "raw.tif", folder / "vol.png")
    os.link(folder / "a.mrc", folder / "curve.csv")
    os.link(folder / "sim" / "white.tif", folder / "day.grid.png")
    os.link(folder / "p.mrcs", folder / "out.star")
    return folder


CAMERA = ("--white", "sim/white.tif", "--microscope", "sim/microscope.toml")
CALLS = {
    "project, a link to the map as its picture": ("project", "a.mrc", "-o", "curve.star"),
    "backproject, the stack of the STAR file": ("backproject", "p.star", "-o", "linked.mrc", "--no-ctf"),
    "backproject, a picture": ("backproject", "p.star", "-o", "maps.mrc", "--no-ctf"),
    "expand, the stack of the STAR file": ("expand", "p.star", "--symmetry", "C2", "-o", "out.star", "--no-ctf"),
    "convert, the stack of the STAR file": ("convert", "p.star", "-o", "out.star", "--no-ctf"),
    "convert, the file itself": ("convert", "p.star", "-o", "./p.star", "--no-ctf"),
    "orient, the stack": ("orient", "p.star", "--map", "a.mrc", "-o", "out.star", "--no-ctf"),
    "abinitio, the stack": ("abinitio", "p.star", "-o", "linked.mrc", "--no-ctf"),
    "fsc, the table": ("fsc", "a.mrc", "half1.mrc", "-o", "curve.png"),
    "mask, the map by a symbolic link": ("mask", "a.mrc", "-o", "again.mrc"),
    "postprocess, the mask": ("postprocess", "half1.mrc", "half2.mrc", "--mask", "mask.mrc", "-o", "mask.mrc"),
    "rectify, the frame by a symbolic link": ("rectify", "raw.tif", *CAMERA, "-o", "other.tif"),
    "rectify, the white frame": ("rectify", "raw.tif", *CAMERA, "-o", "sim/white.tif"),
    "reconstruct, the frame": ("reconstruct", "raw.tif", *CAMERA, "-o", "raw.tif"),
    "reconstruct, a picture": ("reconstruct", "raw.tif", *CAMERA, "-o", "vol.tif"),
    "calibrate, the picture": ("calibrate", "sim/white.tif", "--microscope", "60x1.2w", "-o", "day.toml"),
    "calibrate, the microscope": ("calibrate", "raw.tif", "--microscope", "sim/microscope.toml", "-o", "sim/microscope.toml"),
    "simulate, the microscope": ("simulate", "--microscope", "sim/microscope.toml", "-o", "sim"),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_output_that_is_an_input_is_refused(lfjax, place, call):
    if call.startswith("project"):
        os.link(place / "a.mrc", place / "curve.png") if not (place / "curve.png").exists() else None
    else:
        (place / "curve.png").unlink(missing_ok=True)
    before = {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
    done = lfjax(*CALLS[call], "--overwrite", cwd=place)
    assert done.code == 2, done.err
    lines = done.err.splitlines()
    assert len(lines) == 1 and "another name than that of an input file, which is never overwritten" in lines[0]
    assert {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()} == before


def test_a_folder_with_the_name_of_a_picture_is_refused_before_any_work(lfjax, place, tmp_path):
    (tmp_path / "maps.png").mkdir()
    done = lfjax("project", place / "a.mrc", "-o", "maps.star", cwd=tmp_path)
    assert done.code == 2 and "--output maps.png: expected another name: a folder has this one" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["maps.png"]


def test_a_recipe_and_its_data_are_no_model(lfjax, place):
    (place / "recipe.h5").write_text("[microscope]\npreset = '20x0.5'\n")
    done = lfjax("train", "recipe.h5", "-o", "recipe.h5", cwd=place)
    assert done.code == 2 and "another name than that of an input file" in done.err
