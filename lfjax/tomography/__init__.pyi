from lfjax.tomography.aberrations import Aberrations as Aberrations, zernike_orders as zernike_orders
from lfjax.tomography.background import (
    background_levels as background_levels,
    check_background as check_background,
    noise_spectra as noise_spectra,
)
from lfjax.tomography.band_views import BandViews as BandViews, images_beside_map as images_beside_map
from lfjax.tomography.conversion import Conversion as Conversion, convert_particles as convert_particles
from lfjax.tomography.coverage import (
    Coverage as Coverage,
    TransferSections as TransferSections,
    orientation_coverage as orientation_coverage,
    transfer_sections as transfer_sections,
)
from lfjax.tomography.cryosparc import read_cs as read_cs, write_cs as write_cs
from lfjax.tomography.cs_fields import merge_cs as merge_cs, without_uid as without_uid
from lfjax.tomography.ct import filtered_back_projection as filtered_back_projection
from lfjax.tomography.ctf import ApplyCtf as ApplyCtf, Ctf as Ctf, wavelength_angstrom as wavelength_angstrom
from lfjax.tomography.directional import (
    DirectionalFsc as DirectionalFsc,
    directional_fsc as directional_fsc,
    half_sphere as half_sphere,
    sphericity as sphericity,
)
from lfjax.tomography.filters import low_pass as low_pass, radial_filter as radial_filter, table_radii as table_radii
from lfjax.tomography.fourier_shells import (
    MaskedFsc as MaskedFsc,
    chance_level as chance_level,
    falling as falling,
    fsc as fsc,
    masked_fsc as masked_fsc,
    randomise_phases as randomise_phases,
    resolution as resolution,
)
from lfjax.tomography.fourier_slice import FourierSlice as FourierSlice
from lfjax.tomography.gaussians import Gaussians as Gaussians, read_structure as read_structure
from lfjax.tomography.gold_standard import RandomPhases as RandomPhases, independent_halves as independent_halves
from lfjax.tomography.half_maps import agreement as agreement, resolution_text as resolution_text, same_map as same_map
from lfjax.tomography.hand import (
    HandOfPairs as HandOfPairs,
    hand_of_pairs as hand_of_pairs,
    pairs_within as pairs_within,
    tilt_rotations as tilt_rotations,
)
from lfjax.tomography.images import Shift as Shift, normalise as normalise
from lfjax.tomography.inversion import (
    Reconstruction as Reconstruction,
    memory_bytes as memory_bytes,
    reconstruct as reconstruct,
)
from lfjax.tomography.known_map import Oriented as Oriented, orient as orient
from lfjax.tomography.local_resolution import (
    LocalResolution as LocalResolution,
    local_filter as local_filter,
    resolution_map as resolution_map,
)
from lfjax.tomography.low_frequencies import (
    LowFrequencies as LowFrequencies,
    cropped_images as cropped_images,
    search_pixels as search_pixels,
)
from lfjax.tomography.maps import same_grid as same_grid
from lfjax.tomography.masks import (
    DensityMask as DensityMask,
    check_mask as check_mask,
    density_mask as density_mask,
    otsu_threshold as otsu_threshold,
    soft_mask as soft_mask,
    spherical_mask as spherical_mask,
)
from lfjax.tomography.micrographs import (
    Micrograph as Micrograph,
    cut_particles as cut_particles,
    pick_blobs as pick_blobs,
    simulate_micrograph as simulate_micrograph,
)
from lfjax.tomography.neighbours import CutImages as CutImages, cut_pixels as cut_pixels
from lfjax.tomography.normal_equations import (
    ViewEquations as ViewEquations,
    ViewNormal as ViewNormal,
    view_equations as view_equations,
)
from lfjax.tomography.offsets import MapOffset as MapOffset, fit_map_offset as fit_map_offset
from lfjax.tomography.particle_file import (
    ParticleFile as ParticleFile,
    read_particles as read_particles,
    write_particles as write_particles,
    write_tables as write_tables,
)
from lfjax.tomography.particles import (
    Particles as Particles,
    add_noise as add_noise,
    draw_half_sets as draw_half_sets,
    random_particles as random_particles,
)
from lfjax.tomography.passes import Poses as Poses
from lfjax.tomography.pose_search import Pass as Pass, PoseSearch as PoseSearch
from lfjax.tomography.posterior_map import Estimate as Estimate
from lfjax.tomography.postprocessing import (
    Postprocessed as Postprocessed,
    mask_doubts as mask_doubts,
    postprocess as postprocess,
)
from lfjax.tomography.rays import Rays as Rays
from lfjax.tomography.refine import Refinement as Refinement, refine_poses as refine_poses
from lfjax.tomography.resampling import resample_images as resample_images, resample_map as resample_map
from lfjax.tomography.sharding import Sharded as Sharded
from lfjax.tomography.sharpening import (
    Guinier as Guinier,
    Mtf as Mtf,
    Sharpened as Sharpened,
    read_mtf as read_mtf,
    sharpen as sharpen,
)
from lfjax.tomography.sparse_views import RegularisedMap as RegularisedMap, regularised_map as regularised_map
from lfjax.tomography.stack_names import names_from as names_from, same_images as same_images
from lfjax.tomography.stacks import simulate_stack as simulate_stack
from lfjax.tomography.sums import Sums as Sums
from lfjax.tomography.supports import Support as Support, signal_support as signal_support
from lfjax.tomography.symmetry import expand as expand, expand_tables as expand_tables, symmetry_group as symmetry_group
from lfjax.tomography.unknown_poses import AbInitio as AbInitio, State as State, abinitio as abinitio
