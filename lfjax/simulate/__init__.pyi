from lfjax.simulate.calcium import (
    JGCAMP8F as JGCAMP8F,
    Activity as Activity,
    Indicator as Indicator,
    activity as activity,
    spike_times as spike_times,
)
from lfjax.simulate.cortex_movie import (
    LivingFrames as LivingFrames,
    RawMovie as RawMovie,
    Truth as Truth,
    raw_movie as raw_movie,
)
from lfjax.simulate.experiment import Experiment as Experiment, Movie as Movie, Stack as Stack
from lfjax.simulate.frames import RawFrames as RawFrames, Sensor as Sensor, raw_frames as raw_frames
from lfjax.simulate.indicators import INDICATORS as INDICATORS, find_indicator as find_indicator
from lfjax.simulate.movie_folder import write_raw_movie as write_raw_movie
from lfjax.simulate.painting import Layer as Layer, Painting as Painting, paint as paint
from lfjax.simulate.recording import SAMPLES as SAMPLES, Recording as Recording, raw_recording as raw_recording
from lfjax.simulate.samples import beads as beads, neurons as neurons
from lfjax.simulate.scene import Scene as Scene, brain_motion as brain_motion
from lfjax.simulate.tissue import Tissue as Tissue, cortex as cortex
from lfjax.simulate.xrf_scan import Scan as Scan, scan as scan
