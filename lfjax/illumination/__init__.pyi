from lfjax.illumination.base import (
    Fluorophore as Fluorophore,
    Illumination as Illumination,
    LightSheet as LightSheet,
    SelectiveVolume as SelectiveVolume,
    Timing as Timing,
    Widefield as Widefield,
)
from lfjax.illumination.scan import LineScan as LineScan, MultiFocal as MultiFocal, PointScan as PointScan
from lfjax.illumination.tradeoffs import Detection as Detection, Tradeoff as Tradeoff, table as table, tradeoff as tradeoff
from lfjax.illumination.two_photon import TwoPhoton as TwoPhoton
