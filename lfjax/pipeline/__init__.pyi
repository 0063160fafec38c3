from lfjax.pipeline.checked_images import CheckedImages as CheckedImages
from lfjax.pipeline.checks import Finding as Finding, check_recording as check_recording
from lfjax.pipeline.methods import SOLVERS as SOLVERS
from lfjax.pipeline.movies import MovieVolumes as MovieVolumes, reconstruct_movie as reconstruct_movie
from lfjax.pipeline.neurons import Extraction as Extraction, extract_neurons as extract_neurons
from lfjax.pipeline.orienting import OrientedParticles as OrientedParticles, orient_particles as orient_particles
from lfjax.pipeline.painting import (
    ScanSpectra as ScanSpectra,
    calibrate_scan as calibrate_scan,
    identify_scan as identify_scan,
    map_scan as map_scan,
    scan_spectra as scan_spectra,
)
from lfjax.pipeline.particles import ParticleMap as ParticleMap, reconstruct_particles as reconstruct_particles
from lfjax.pipeline.pose_finding import BandLook as BandLook, FoundPoses as FoundPoses, find_poses as find_poses
from lfjax.pipeline.posed_file import write_posed as write_posed
from lfjax.pipeline.recording import Recording as Recording, open_recording as open_recording
from lfjax.pipeline.search_settings import SearchSettings as SearchSettings
from lfjax.pipeline.settings import (
    Calibration as Calibration,
    Grid as Grid,
    Run as Run,
    Tissue as Tissue,
    default_depths as default_depths,
)
from lfjax.pipeline.volumes import Reconstruction as Reconstruction, reconstruct as reconstruct
