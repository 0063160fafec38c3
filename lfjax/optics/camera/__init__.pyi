from lfjax.optics.camera.calibration import Calibration as Calibration, bead_frame as bead_frame, calibrate as calibrate
from lfjax.optics.camera.calibration_file import (
    read_calibration as read_calibration,
    write_calibration as write_calibration,
)
from lfjax.optics.camera.lattice import find_lattice as find_lattice
from lfjax.optics.camera.lattice_cells import Lattice as Lattice
from lfjax.optics.camera.lattice_sample import is_rectified as is_rectified
from lfjax.optics.camera.pixels import (
    Repair as Repair,
    find_saturation as find_saturation,
    hot_pixels as hot_pixels,
    local_maximum as local_maximum,
)
from lfjax.optics.camera.rectify import Rectifier as Rectifier
from lfjax.optics.camera.resample import Resample as Resample
