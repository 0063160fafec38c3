"""Simulated samples, raw camera frames and whole recordings."""

from lfjax.simulate.activity import JGCAMP8F as JGCAMP8F
from lfjax.simulate.activity import Activity as Activity
from lfjax.simulate.activity import Indicator as Indicator
from lfjax.simulate.activity import activity as activity
from lfjax.simulate.cortex import Tissue as Tissue
from lfjax.simulate.cortex import cortex as cortex
from lfjax.simulate.experiment import Experiment as Experiment
from lfjax.simulate.experiment import Movie as Movie
from lfjax.simulate.experiment import Stack as Stack
from lfjax.simulate.frames import RawFrames as RawFrames
from lfjax.simulate.frames import raw_frames as raw_frames
from lfjax.simulate.recording import SAMPLES as SAMPLES
from lfjax.simulate.recording import Recording as Recording
from lfjax.simulate.recording import raw_recording as raw_recording
from lfjax.simulate.samples import beads as beads
from lfjax.simulate.samples import neurons as neurons
from lfjax.simulate.scene import Scene as Scene
from lfjax.simulate.scene import brain_motion as brain_motion
