from lfjax.pipeline.methods import SOLVERS as SOLVERS
from lfjax.pipeline.movies import MovieVolumes as MovieVolumes, reconstruct_movie as reconstruct_movie
from lfjax.pipeline.neurons import extract_neurons as extract_neurons
from lfjax.pipeline.settings import Calibration as Calibration, Grid as Grid, Run as Run
from lfjax.pipeline.volumes import Reconstruction as Reconstruction, reconstruct as reconstruct
