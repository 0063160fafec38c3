from lfjax.xrf.calibration import Calibration as Calibration, calibrate as calibrate
from lfjax.xrf.components import (
    Spectrum as Spectrum,
    let_through as let_through,
    pile_up as pile_up,
    snip as snip,
    spectrum as spectrum,
    splines as splines,
)
from lfjax.xrf.detector import Detector as Detector
from lfjax.xrf.detector_file import read_detector as read_detector, write_detector as write_detector
from lfjax.xrf.element_maps import Maps as Maps, maps as maps
from lfjax.xrf.identification import Element as Element, Identified as Identified, elements as elements, fitted as fitted
from lfjax.xrf.instrument import Instrument as Instrument, escape as escape
from lfjax.xrf.lines import Family as Family, families as families, family as family, parse_families as parse_families
from lfjax.xrf.peak_fit import (
    PeakFit as PeakFit,
    PeaksBound as PeaksBound,
    fit_peaks as fit_peaks,
    peaks_bound as peaks_bound,
)
from lfjax.xrf.peak_search import Peaks as Peaks, peaks as peaks
