"""Good files, a few kilobytes each, one set for every reader: what the mutations start from. No value is zero, NaN or infinite.

Each function writes its files into a folder and returns the path that the reader is given.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import imagecodecs
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tifffile
import zarr

from lfjax import io, optics, training, xrf
from lfjax.activity import Neurons, write_neurons
from lfjax.pipeline.kept_search import KeptSearch
from lfjax.tomography import Estimate, Pass, Poses, State, write_particles
from lfjax.tomography.particles import random_particles
from lfjax.training import data
from tests.fuzz.seed_texts import PDB, RECIPE, SESSION
from tests.io import cube_examples
from tests.tomography import cs_examples

Make = Callable[[Path], Path]
DRAW = np.random.default_rng(2026)
FRAME = DRAW.integers(1, 4000, (20, 24)).astype(np.uint16)
FRAMES = DRAW.integers(1, 4000, (6, 20, 24)).astype(np.uint16)
VOLUME = DRAW.uniform(1, 9, (5, 12, 14)).astype(np.float32)
VOXEL = (4.0, 1.5, 1.5)
SCOPE = optics.Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5, camera_pixel_um=25.0)
SETTINGS = {"images": "0123abcd", "symmetry": "C1", "seed": 7}


def frame_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "f.h5", "w") as file:
        file.create_dataset("frame", data=FRAME, chunks=(5, 24), compression="gzip")
    return folder / "f.h5"


def frame_tiff(folder: Path) -> Path:
    io.write_frame(folder / "f.tif", FRAME)
    return folder / "f.tif"


def frame_tiff_float(folder: Path) -> Path:
    tifffile.imwrite(folder / "f.tif", FRAME.astype(np.float32), photometric="minisblack", compression="deflate", tile=(16, 16))
    return folder / "f.tif"


def frame_png(folder: Path) -> Path:
    (folder / "f.png").write_bytes(imagecodecs.png_encode(FRAME))
    return folder / "f.png"


def frame_npy(folder: Path) -> Path:
    np.save(folder / "f.npy", FRAME.astype(np.float32))
    return folder / "f.npy"


def volume_hdf5(folder: Path) -> Path:
    io.write_volume(folder / "v.h5", VOLUME, VOXEL)
    return folder / "v.h5"


def volume_tiff(folder: Path) -> Path:
    io.write_volume(folder / "v.tif", VOLUME, VOXEL)
    return folder / "v.tif"


def volume_ome(folder: Path) -> Path:
    io.write_volume(folder / "v.ome.tif", VOLUME, VOXEL)
    return folder / "v.ome.tif"


def movie_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "m.h5", "w") as file:
        frames = file.create_dataset("frames", data=FRAMES, chunks=(1, 20, 24), compression="gzip", shuffle=True)
        frames.attrs["frame_s"] = 0.01
    return folder / "m.h5"


def movie_tiff(folder: Path) -> Path:
    io.write_movie(folder / "m.tif", FRAMES, frame_s=0.01)
    return folder / "m.tif"


def movie_pages(folder: Path) -> Path:
    with tifffile.TiffWriter(folder / "m.tif") as file:
        for frame in FRAMES:
            file.write(frame, contiguous=False, photometric="minisblack", compression="lzw", metadata=None)
    return folder / "m.tif"


def movie_ome(folder: Path) -> Path:
    """Two files that name each other, as microscopes write long recordings."""
    names, ids = ("m_0.ome.tif", "m_1.ome.tif"), ("urn:uuid:0a", "urn:uuid:1b")
    planes = "".join(
        f'<TiffData FirstT="{t}" FirstC="0" FirstZ="0" IFD="{t % 3}" PlaneCount="1"><UUID FileName="{names[t // 3]}">'
        f"{ids[t // 3]}</UUID></TiffData>"
        for t in range(6)
    )
    for k, name in enumerate(names):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{ids[k]}"><Image ID="Image:0"><Pixels '
            'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="24" SizeY="20" SizeZ="1" SizeC="1" SizeT="6" '
            f'TimeIncrement="0.01"><Channel ID="Channel:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
        )
        with tifffile.TiffWriter(folder / name) as file:
            for t in range(3):
                about = {"description": xml} if t == 0 else {}
                file.write(FRAMES[3 * k + t], contiguous=False, photometric="minisblack", metadata=None, **about)
    return folder / names[0]


def movie_zarr(folder: Path) -> Path:
    group = zarr.create_group(folder / "m.zarr")
    group.create_array("0", data=FRAMES, chunks=(1, 20, 24), shards=(3, 20, 24))
    group.attrs.update(io.chunks.ome_attributes("m", "tyx", (0.01, 1.0, 1.0)))
    return folder / "m.zarr"


def movie_zarr_2(folder: Path) -> Path:
    group = zarr.create_group(folder / "m.zarr", zarr_format=2)
    group.create_array("frames", data=FRAMES, chunks=(2, 20, 12))
    return folder / "m.zarr"


def movie_npy(folder: Path) -> Path:
    np.save(folder / "m.npy", FRAMES)
    return folder / "m.npy"


def movie_folder(folder: Path) -> Path:
    (folder / "m").mkdir()
    for k in range(3):
        (folder / f"m/{k}.png").write_bytes(imagecodecs.png_encode(FRAMES[k]))
    return folder / "m"


def cube_hdf5(folder: Path) -> Path:
    axis = io.EnergyAxis(-100.0, 500.0)
    io.write_cube(folder / "c.h5", cube_examples.COUNTS, axis, live_s=DRAW.uniform(1, 2, (4, 5)), pixel_um=(500.0, 250.0))
    return folder / "c.h5"


def cube_nexus(folder: Path) -> Path:
    return cube_examples.write_nexus(folder / "c.h5")


def cube_ripple(folder: Path) -> Path:
    return cube_examples.write_ripple(folder)


def cube_envi(folder: Path) -> Path:
    return cube_examples.write_envi(folder)[0]


def cube_edf(folder: Path) -> Path:
    """Three images: half a file ends within one. Between two, nothing in the format tells that the rest is missing."""
    return cube_examples.write_edf(folder / "c.edf", *cube_examples.COUNTS[:3], mca_calib="-0.1 0.5 0")


def cube_edf_rows(folder: Path) -> Path:
    return cube_examples.write_edf_rows(folder)


def cube_amptek(folder: Path) -> Path:
    return cube_examples.write_amptek(folder)


def cube_spe(folder: Path) -> Path:
    return cube_examples.write_spe(folder)


def cube_npy(folder: Path) -> Path:
    np.save(folder / "c.npy", cube_examples.COUNTS)
    return folder / "c.npy"


def maps_hdf5(folder: Path) -> Path:
    return element_maps(folder / "m.h5")


def maps_ome(folder: Path) -> Path:
    return element_maps(folder / "m.ome.tif")


def element_maps(path: Path) -> Path:
    maps = DRAW.uniform(1, 9, (2, 8, 9)).astype(np.float32)
    io.write_maps(path, maps, ("Fe K", "Pb L"), energies_ev=[6404.0, 10551.5], errors=maps / 7, pixel_um=(500.0, 250.0))
    return path


def masks_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "k.h5", "w") as file:
        file.create_dataset("masks", data=np.arange(1, 61).reshape(3, 4, 5)).attrs["voxel_um"] = VOXEL
    return folder / "k.h5"


def masks_tiff(folder: Path) -> Path:
    io.write_volume(folder / "k.tif", np.arange(1, 61).reshape(3, 4, 5), VOXEL)
    return folder / "k.tif"


def masks_npy(folder: Path) -> Path:
    np.save(folder / "k.npy", np.arange(1, 61).reshape(3, 4, 5))
    return folder / "k.npy"


def density(folder: Path) -> Path:
    io.write_map(folder / "a.mrc", VOLUME, 1.5, origin_angstrom=(1.0, 2.0, 3.0))
    return folder / "a.mrc"


def density_gzip(folder: Path) -> Path:
    plain = density(folder)
    (folder / "a.mrc.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()
    return folder / "a.mrc.gz"


def stack(folder: Path) -> Path:
    io.write_stack(folder / "s.mrcs", DRAW.uniform(1, 2, (6, 16, 16)), 2.0)
    return folder / "s.mrcs"


def particles(folder: Path) -> Path:
    stack(folder)
    some = random_particles(jax.random.key(0), 6, pixel_angstrom=2.0)
    write_particles(folder / "p.star", some, [(i, "s.mrcs") for i in range(6)], 16)
    return folder / "p.star"


def star(folder: Path) -> Path:
    table = pd.DataFrame({"rlnAngleRot": [1.5, 2.5], "rlnImageName": ["1@s.mrcs", "2@s.mrcs"], "rlnClassNumber": [1, 2]})
    io.write_star(folder / "t.star", {"optics": table.iloc[:1], "particles": table})
    return folder / "t.star"


def mtf(folder: Path) -> Path:
    curve = pd.DataFrame({"rlnResolutionInversePixel": [0.1, 0.2, 0.5], "rlnMtfValue": [1.0, 0.8, 0.2]})
    io.write_star(folder / "mtf.star", {"": curve})
    return folder / "mtf.star"


def cryosparc(folder: Path) -> Path:
    io.write_stack(folder / "a.mrcs", DRAW.uniform(1, 2, (6, 32, 32)), 1.31)
    return cs_examples.save(folder / "p.cs", cs_examples.fields() | {"blob/path": np.full(6, b"a.mrcs")})


def cryosparc_group(folder: Path) -> Path:
    cryosparc(folder)
    lines = ["group:", "  type: particle", "results:", "  blob:", "    metafile: '>p.cs'", "    type: particle.blob", ""]
    (folder / "g.csg").write_text("\n".join(lines))
    return folder / "g.csg"


def atoms_pdb(folder: Path) -> Path:
    (folder / "a.pdb").write_text(PDB)
    return folder / "a.pdb"


def atoms_cif(folder: Path) -> Path:
    import gemmi

    gemmi.read_pdb_string(PDB).make_mmcif_document().write_file(str(folder / "a.cif"))
    return folder / "a.cif"


def psf(folder: Path) -> Path:
    values = jnp.asarray(DRAW.uniform(1, 2, (3, 1, 1, 15, 15)), jnp.float32)
    optics.write_psf(folder / "psf.h5", optics.PSF(values, SCOPE, (-10.0, 0.0, 10.0), 1, 0.01))
    return folder / "psf.h5"


def view_psfs(folder: Path) -> Path:
    optics.write_view_psfs(folder / "views.h5", DRAW.uniform(1, 2, (2, 3, 6, 6)).astype(np.float32), (-1.0, 0.0, 1.0))
    return folder / "views.h5"


def calibration(folder: Path) -> Path:
    optics.write_calibration(folder / "rig.toml", optics.Rectifier.aligned(SCOPE, (20, 25), dark=7.0, saturation=4095.0))
    return folder / "rig.toml"


def microscope(folder: Path) -> Path:
    (folder / "scope.toml").write_text(SCOPE.to_toml() + "\n[alignment]\narray_to_sensor_um = 2510.0\n", encoding="utf-8")
    return folder / "scope.toml"


def detector(folder: Path) -> Path:
    numbers = xrf.Detector(2048, 10.0, -95.0, noise_ev=80.0, fano=0.115, tail=0.02, tail_ev=250.0)
    known = xrf.Instrument(40000.0, "Rh", angle_deg=120.0, air_cm=1.5, beryllium_um=8.0, silicon_um=450.0)
    xrf.write_detector(folder / "detector.toml", numbers, known)
    return folder / "detector.toml"


def recipe(folder: Path) -> Path:
    (folder / "recipe.toml").write_text(RECIPE)
    return folder / "recipe.toml"


def model(folder: Path) -> Path:
    asked = training.Recipe.read(recipe(folder))
    (folder / "recipe.toml").unlink()
    training.write_model(folder / "model.h5", training.TrainedModel(asked.network(), asked))
    return folder / "model.h5"


def pairs(folder: Path) -> Path:
    data.write_pairs(folder / "pairs.h5", DRAW.uniform(1, 9, (3, 10, 10)), DRAW.uniform(1, 9, (3, 2, 4, 4)))
    return folder / "pairs.h5"


def neurons(folder: Path) -> Path:
    some = [DRAW.uniform(1, 2, shape).astype(np.float32) for shape in ((2, 3), (2, 3, 4, 4), (2, 9), (2, 9))]
    spikes = [np.array([0.02, 0.05]), np.array([0.03])]
    found = Neurons(*some, spikes, 0.01, VOXEL, np.ones(2), np.ones(2, bool), some[3], np.ones(9, bool), (0.0, 4.0, 8.0))
    write_neurons(folder / "n.h5", found)
    return folder / "n.h5"


def session(folder: Path) -> Path:
    (folder / "session.toml").write_text(SESSION)
    return folder / "session.toml"


def search(folder: Path) -> Path:
    """An interrupted search for poses of three images."""
    poses = Poses.unknown(3)
    shells = jnp.ones(5)
    estimate = Estimate(jnp.ones((8, 8, 8)), shells, shells, shells)
    kept = KeptSearch(folder / "map.mrc", SETTINGS)
    passed = Pass(0, "grid", 4, 1, -3.5, 0.4, 0.1, 0.9, 20.0)
    kept.keep(State(1, 2, estimate, poses, (estimate, poses), (-3.5,), (passed,)))
    return kept.path
