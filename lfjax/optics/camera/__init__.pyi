from lfjax.optics.camera.calibration import Calibration as Calibration, bead_frame as bead_frame, calibrate as calibrate
from lfjax.optics.camera.lattice import Lattice as Lattice, find_lattice as find_lattice
from lfjax.optics.camera.rectify import Rectifier as Rectifier
from lfjax.optics.camera.resample import Resample as Resample
