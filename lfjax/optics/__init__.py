"""Light-field optics: the microscope, its point-spread function, the operator, views and rectification."""

from lfjax.optics.antialias import AntiAlias as AntiAlias
from lfjax.optics.antialias import sampling_widths as sampling_widths
from lfjax.optics.calibration import Calibration as Calibration
from lfjax.optics.calibration import calibrate as calibrate
from lfjax.optics.lattice import Lattice as Lattice
from lfjax.optics.lattice import find_lattice as find_lattice
from lfjax.optics.lenslets import Alignment as Alignment
from lfjax.optics.lightfield import LightField as LightField
from lfjax.optics.microscope import PRESETS as PRESETS
from lfjax.optics.microscope import Microscope as Microscope
from lfjax.optics.microscope import load_microscope as load_microscope
from lfjax.optics.microscope import preset as preset
from lfjax.optics.multiview import MultiView as MultiView
from lfjax.optics.psf import PSF as PSF
from lfjax.optics.psf import compute_psf as compute_psf
from lfjax.optics.pupil import Pupil as Pupil
from lfjax.optics.rectify import Rectifier as Rectifier
from lfjax.optics.resample import Resample as Resample
from lfjax.optics.scattering import Scattering as Scattering
from lfjax.optics.scattering import fit_scattering as fit_scattering
from lfjax.optics.views import epipolar_image as epipolar_image
from lfjax.optics.views import from_views as from_views
from lfjax.optics.views import to_views as to_views
