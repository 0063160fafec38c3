"""Simulated samples, raw camera frames and whole recordings."""

from lfjax.simulate.frames import RawFrames as RawFrames
from lfjax.simulate.frames import raw_frames as raw_frames
from lfjax.simulate.recording import SAMPLES as SAMPLES
from lfjax.simulate.recording import Recording as Recording
from lfjax.simulate.recording import raw_recording as raw_recording
from lfjax.simulate.samples import beads as beads
from lfjax.simulate.samples import neurons as neurons
