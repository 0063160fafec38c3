from lfjax.simulate.calcium import JGCAMP8F as JGCAMP8F, Activity as Activity, Indicator as Indicator, activity as activity
from lfjax.simulate.experiment import Experiment as Experiment, Movie as Movie, Stack as Stack
from lfjax.simulate.frames import RawFrames as RawFrames, raw_frames as raw_frames
from lfjax.simulate.recording import SAMPLES as SAMPLES, Recording as Recording, raw_recording as raw_recording
from lfjax.simulate.samples import beads as beads, neurons as neurons
from lfjax.simulate.scene import Scene as Scene, brain_motion as brain_motion
from lfjax.simulate.tissue import Tissue as Tissue, cortex as cortex
