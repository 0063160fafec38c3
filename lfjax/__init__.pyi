from lfjax import (
    activity as activity,
    cli as cli,
    errors as errors,
    fourier as fourier,
    fri as fri,
    illumination as illumination,
    io as io,
    linop as linop,
    metrics as metrics,
    models as models,
    movies as movies,
    noise as noise,
    optics as optics,
    parallel as parallel,
    performance as performance,
    pipeline as pipeline,
    progress as progress,
    rotation as rotation,
    simulate as simulate,
    solvers as solvers,
    tomography as tomography,
    training as training,
    viz as viz,
    xrf as xrf,
)
from lfjax.linop import FunctionOperator as FunctionOperator, LinearOperator as LinearOperator
from lfjax.optics import Microscope as Microscope, preset as preset

__version__: str
