from lfjax.tomography.ct import filtered_back_projection as filtered_back_projection
from lfjax.tomography.ctf import ApplyCtf as ApplyCtf, Ctf as Ctf, wavelength_angstrom as wavelength_angstrom
from lfjax.tomography.fourier_shells import (
    MaskedFsc as MaskedFsc,
    fsc as fsc,
    masked_fsc as masked_fsc,
    randomise_phases as randomise_phases,
    resolution as resolution,
    spherical_mask as spherical_mask,
)
from lfjax.tomography.fourier_slice import FourierSlice as FourierSlice
from lfjax.tomography.gaussians import Gaussians as Gaussians, read_structure as read_structure
from lfjax.tomography.images import Shift as Shift, normalise as normalise
from lfjax.tomography.inversion import Reconstruction as Reconstruction, Sums as Sums, reconstruct as reconstruct
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
)
from lfjax.tomography.particles import Particles as Particles, add_noise as add_noise, random_particles as random_particles
from lfjax.tomography.rays import Rays as Rays
from lfjax.tomography.refine import Refinement as Refinement, refine_poses as refine_poses
from lfjax.tomography.sharding import Sharded as Sharded
from lfjax.tomography.stacks import simulate_stack as simulate_stack
