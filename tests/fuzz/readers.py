"""Every public reader of lfjax, the good files that it is tried on, and the names that a test compares with the package."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lfjax import activity, io, optics, tomography, training, xrf
from lfjax.errors import FileError
from lfjax.io.mrc import Stack
from lfjax.pipeline.kept_search import KeptSearch
from lfjax.tomography import gaussians, sharpening
from lfjax.training import data
from tests.fuzz import seeds


class Reader(NamedTuple):
    """A reader and its good files.

    Attributes:
        name: in tables.
        make: writes the good files into a folder and returns the path that is read.
        read: reads that path, all of it.
        covers: names, within lfjax, of the public functions that `read` calls.
        empty_cells: whether a missing value is right as NaN: tables of text, whose users ask for finite columns by name.
    """

    name: str
    make: seeds.Make
    read: Callable[[Path], Any]
    covers: tuple[str, ...]
    empty_cells: bool = False


def frames_of(path: Path) -> Any:
    """All frames of a movie; a movie that says which frames it lacks has refused them clearly."""
    with io.open_movie(path) as movie:
        frames = movie[:]
        if movie.missing:
            number, told = next(iter(movie.missing.items()))
            raise FileError(f"{path}: frame {number}: {told}")
    return frames, movie.frame_s, movie.times_s


def pairs_of(path: Path) -> Any:
    """Samples as training draws them."""
    frames, volumes = data.open_pairs(path)
    with frames:
        return data.TrainingSet(frames, volumes, [], (5, 5), (2, 2)).check().batch(0, 0, 9, 0, turn=False)


def images_of(path: Path) -> Any:
    file = tomography.read_particles(path)
    file.check()
    return file.particles, file.images()


def recipe_of(path: Path) -> Any:
    """A recipe but for the scattering path, which may be infinite: then nothing scatters."""
    return {name: part for name, part in training.Recipe.read(path).to_dict().items() if name != "tissue"}


def cube_of(path: Path) -> Any:
    """All counts of a cube, and what the file tells about them."""
    with io.open_cube(path) as cube:
        return cube.read(range(len(cube))), cube.energy, cube.live_s, cube.pixel_um


def search_of(path: Path) -> Any:
    kept = KeptSearch(path.with_name(re.sub(r"^\.(.*)\.abinitio\.h5$", r"\1.mrc", path.name)), seeds.SETTINGS)
    return kept.state()


PLANES, MRC, CALIBRATION = "io.tiff_planes", "io.mrc_layout", "optics.camera.calibration_file.read_calibration"
LAYOUT = f"{MRC}.read_layout"
CUBE, CUBE_READ = "io.cube_file.open_cube", "io.cube.Cube.read"
FRAME, VOLUME, MOVIE = "io.images.read_frame", "io.images.read_volume", "io.movie_file.open_movie"
MASKS, PARTICLES = "activity.masks.read_masks", "tomography.particle_file.read_particles"
CS, MAP, ATOMS = "tomography.cryosparc.read_cs", "io.mrc.read_map", "tomography.gaussians.read_structure"


def atoms_of(path: Path) -> Any:
    return gaussians.read_structure(path, 1.5)


READERS = {
    one.name: one
    for one in (
        Reader("frame .h5", seeds.frame_hdf5, io.read_frame, (FRAME, "io.hdf5.read_frame")),
        Reader("frame .tif", seeds.frame_tiff, io.read_frame, (FRAME, "io.tiff.read_frame")),
        Reader("frame .tif, tiles", seeds.frame_tiff_float, io.read_frame, (FRAME,)),
        Reader("frame .png", seeds.frame_png, io.read_frame, (FRAME, "io.png.read_frame")),
        Reader("frame .npy", seeds.frame_npy, io.read_frame, (FRAME, "io.npy.read_frame")),
        Reader("volume .h5", seeds.volume_hdf5, io.read_volume, (VOLUME, "io.hdf5.read_volume")),
        Reader("volume .tif", seeds.volume_tiff, io.read_volume, (VOLUME, "io.tiff.read_volume")),
        Reader("volume .ome.tif", seeds.volume_ome, io.read_volume, (VOLUME,)),
        Reader("movie .h5", seeds.movie_hdf5, frames_of, (MOVIE, "io.movie_hdf5.open_source")),
        Reader("movie .tif", seeds.movie_tiff, frames_of, (MOVIE, "io.movie_tiff.open_source")),
        Reader("movie .tif, LZW", seeds.movie_pages, frames_of, (MOVIE, f"{PLANES}.open_planes", f"{PLANES}.Planes.read")),
        Reader("movie .ome.tif", seeds.movie_ome, frames_of, (MOVIE,)),
        Reader("movie .zarr", seeds.movie_zarr, frames_of, (MOVIE, "io.movie_zarr.open_source")),
        Reader("movie .zarr 2", seeds.movie_zarr_2, frames_of, (MOVIE,)),
        Reader("movie .npy", seeds.movie_npy, frames_of, (MOVIE, "io.npy.open_source")),
        Reader("movie folder", seeds.movie_folder, frames_of, (MOVIE, "io.movie_files.open_files")),
        Reader("cube .h5", seeds.cube_hdf5, cube_of, (CUBE, CUBE_READ, "io.cube_hdf5.open_hdf5")),
        Reader("cube .h5, NeXus", seeds.cube_nexus, cube_of, (CUBE, "io.cube_layout.CubeLayout.load")),
        Reader("cube .rpl", seeds.cube_ripple, cube_of, (CUBE, "io.cube_ripple.open_ripple")),
        Reader("cube .hdr", seeds.cube_envi, cube_of, (CUBE, "io.cube_envi.open_envi", "io.cube_raw.map_counts")),
        Reader("cube .edf", seeds.cube_edf, cube_of, (CUBE, "io.cube_edf.open_edf")),
        Reader("cube .edf, rows", seeds.cube_edf_rows, cube_of, (CUBE, "io.cube_edf.open_edf_files", "io.edf.read_headers")),
        Reader("cube .mca", seeds.cube_amptek, cube_of, (CUBE, "io.cube_mca.open_spectrum")),
        Reader("cube .spe", seeds.cube_spe, cube_of, (CUBE, "io.cube_mca.open_spectrum")),
        Reader("cube .npy", seeds.cube_npy, cube_of, (CUBE, "io.npy.open_cube_array")),
        Reader("maps .h5", seeds.maps_hdf5, io.read_maps, ("io.element_maps.read_maps",)),
        Reader("maps .ome.tif", seeds.maps_ome, io.read_maps, ("io.element_maps.read_maps",)),
        Reader("masks .h5", seeds.masks_hdf5, activity.read_masks, (MASKS,)),
        Reader("masks .tif", seeds.masks_tiff, activity.read_masks, (MASKS, "io.tiff.read_labels")),
        Reader("masks .npy", seeds.masks_npy, activity.read_masks, (MASKS, "io.npy.read_array")),
        Reader("map .mrc", seeds.density, io.read_map, (MAP, LAYOUT, f"{MRC}.read_values")),
        Reader("map .mrc.gz", seeds.density_gzip, io.read_map, (MAP,)),
        Reader("stack .mrcs", seeds.stack, lambda path: Stack(path)[:], ("io.mrc.Stack",)),
        Reader("tables .star", seeds.star, io.read_star, ("io.star.read_star", "io.texts.read_text"), empty_cells=True),
        Reader("particles .star", seeds.particles, images_of, (PARTICLES,)),
        Reader("particles .cs", seeds.cryosparc, images_of, (PARTICLES, CS)),
        Reader("particles .csg", seeds.cryosparc_group, images_of, (PARTICLES, CS)),
        Reader("MTF .star", seeds.mtf, sharpening.read_mtf, ("tomography.sharpening.read_mtf",)),
        Reader("atoms .pdb", seeds.atoms_pdb, atoms_of, (ATOMS,)),
        Reader("atoms .cif", seeds.atoms_cif, atoms_of, (ATOMS,)),
        Reader("PSF", seeds.psf, optics.read_psf, ("optics.psf_file.read_psf",)),
        Reader("PSFs of views", seeds.view_psfs, optics.read_view_psfs, ("optics.psf_file.read_view_psfs",)),
        Reader("calibration", seeds.calibration, optics.read_calibration, (CALIBRATION,)),
        Reader(
            "microscope .toml", seeds.microscope, optics.load_microscope,
            ("optics.microscope.load_microscope", "optics.microscope.Microscope.from_toml"),
        ),
        Reader("detector .toml", seeds.detector, xrf.read_detector, ("xrf.detector_file.read_detector",)),
        Reader("recipe .toml", seeds.recipe, recipe_of, ("training.recipe.Recipe.read",)),
        Reader(
            "model", seeds.model, training.read_model,
            ("training.model_file.read_model", "training.model_file.find_model"),
        ),
        Reader("training pairs", seeds.pairs, pairs_of, ("training.data.open_pairs",)),
        Reader("neurons", seeds.neurons, activity.read_neurons, ("activity.neurons.read_neurons",)),
        Reader("session .toml", seeds.session, activity.read_session, ("activity.session.read_session", "io.toml.read_toml")),
        Reader("kept search", seeds.search, search_of, ("pipeline.kept_search.KeptSearch.state",)),
    )
}  # fmt: skip
