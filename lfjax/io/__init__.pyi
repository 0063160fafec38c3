from lfjax.io.arrays import Volume as Volume
from lfjax.io.atomic import writing as writing
from lfjax.io.cache import cache_folder as cache_folder, use_compile_cache as use_compile_cache
from lfjax.io.cube import Cube as Cube, EnergyAxis as EnergyAxis
from lfjax.io.cube_file import open_cube as open_cube, write_cube as write_cube
from lfjax.io.disk_space import require_space as require_space
from lfjax.io.element_maps import ElementMaps as ElementMaps, read_maps as read_maps, write_maps as write_maps
from lfjax.io.hdf5_file import new_hdf5 as new_hdf5
from lfjax.io.images import (
    FORMATS as FORMATS,
    FRAMES as FRAMES,
    read_frame as read_frame,
    read_volume as read_volume,
    require_format as require_format,
    write_frame as write_frame,
    write_volume as write_volume,
)
from lfjax.io.lock import locked as locked
from lfjax.io.movie_file import Movie as Movie, open_movie as open_movie, write_movie as write_movie
from lfjax.io.mrc import Map as Map, Stack as Stack, read_map as read_map, write_map as write_map, write_stack as write_stack
from lfjax.io.star import read_star as read_star, write_star as write_star
from lfjax.io.structure_file import write_markers as write_markers, write_stl as write_stl
