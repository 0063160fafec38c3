from lfjax.optics.alignment import Alignment as Alignment
from lfjax.optics.camera.calibration import Calibration as Calibration, calibrate as calibrate
from lfjax.optics.camera.calibration_file import (
    read_calibration as read_calibration,
    write_calibration as write_calibration,
)
from lfjax.optics.camera.lattice import find_lattice as find_lattice
from lfjax.optics.camera.lattice_cells import Lattice as Lattice
from lfjax.optics.camera.lattice_sample import is_rectified as is_rectified
from lfjax.optics.camera.pixels import (
    find_saturation as find_saturation,
    hot_pixels as hot_pixels,
    local_maximum as local_maximum,
)
from lfjax.optics.camera.rectify import Rectifier as Rectifier
from lfjax.optics.camera.resample import Resample as Resample
from lfjax.optics.depths import depth_range as depth_range
from lfjax.optics.lightfield.antialias import AntiAlias as AntiAlias, sampling_widths as sampling_widths
from lfjax.optics.lightfield.operator import LightField as LightField
from lfjax.optics.lightfield.views import epipolar_image as epipolar_image, from_views as from_views, to_views as to_views
from lfjax.optics.microscope import (
    PRESETS as PRESETS,
    Microscope as Microscope,
    load_microscope as load_microscope,
    preset as preset,
)
from lfjax.optics.multiview import MultiView as MultiView
from lfjax.optics.psf.images import PSF as PSF, compute_psf as compute_psf
from lfjax.optics.psf.lenslets import round_mask as round_mask
from lfjax.optics.psf.measured import measured_psf as measured_psf, measured_views as measured_views
from lfjax.optics.psf.pupil import Pupil as Pupil
from lfjax.optics.psf_file import (
    cached_psf as cached_psf,
    read_psf as read_psf,
    read_view_psfs as read_view_psfs,
    write_psf as write_psf,
    write_view_psfs as write_view_psfs,
)
from lfjax.optics.scattering import Scattering as Scattering, fit_scattering as fit_scattering
from lfjax.optics.subpupils import (
    SubPupils as SubPupils,
    hexagonal_centres as hexagonal_centres,
    square_centres as square_centres,
)
