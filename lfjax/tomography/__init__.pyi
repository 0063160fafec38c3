from lfjax.tomography.aberrations import Aberrations as Aberrations, zernike_orders as zernike_orders
from lfjax.tomography.background import (
    background_levels as background_levels,
    check_background as check_background,
    noise_spectra as noise_spectra,
)
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
from lfjax.tomography.half_maps import (
    agreement as agreement,
    resolution_text as resolution_text,
    same_map as same_map,
)
from lfjax.tomography.images import Shift as Shift, normalise as normalise
from lfjax.tomography.inversion import (
    Reconstruction as Reconstruction,
    memory_bytes as memory_bytes,
    reconstruct as reconstruct,
)
from lfjax.tomography.local_resolution import (
    LocalResolution as LocalResolution,
    local_filter as local_filter,
    resolution_map as resolution_map,
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
from lfjax.tomography.postprocessing import (
    Postprocessed as Postprocessed,
    mask_doubts as mask_doubts,
    postprocess as postprocess,
)
from lfjax.tomography.rays import Rays as Rays
from lfjax.tomography.refine import Refinement as Refinement, refine_poses as refine_poses
from lfjax.tomography.resampling import resample_images as resample_images
from lfjax.tomography.sharding import Sharded as Sharded
from lfjax.tomography.sharpening import (
    Guinier as Guinier,
    Mtf as Mtf,
    Sharpened as Sharpened,
    read_mtf as read_mtf,
    sharpen as sharpen,
)
from lfjax.tomography.stack_names import names_from as names_from
from lfjax.tomography.stacks import simulate_stack as simulate_stack
from lfjax.tomography.sums import Sums as Sums
from lfjax.tomography.symmetry import expand as expand, expand_tables as expand_tables, symmetry_group as symmetry_group
