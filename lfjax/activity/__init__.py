"""From movies to neurons: where they are, and what they do."""

from lfjax.activity.background import SlowBackground as SlowBackground
from lfjax.activity.direct import Images as Images
from lfjax.activity.direct import image_footprints as image_footprints
from lfjax.activity.direct import photon_weights as photon_weights
from lfjax.activity.discover import discover as discover
from lfjax.activity.discover import flare_frames as flare_frames
from lfjax.activity.discover import flare_map as flare_map
from lfjax.activity.extract import direct_images as direct_images
from lfjax.activity.extract import extract as extract
from lfjax.activity.extract import find_spikes as find_spikes
from lfjax.activity.extract import stream_courses as stream_courses
from lfjax.activity.fluorescence import baseline as baseline
from lfjax.activity.fluorescence import dff as dff
from lfjax.activity.fluorescence import peak_dff as peak_dff
from lfjax.activity.localise import find_somata as find_somata
from lfjax.activity.neurons import Neurons as Neurons
from lfjax.activity.neurons import read_neurons as read_neurons
from lfjax.activity.neurons import write_neurons as write_neurons
from lfjax.activity.segment import Somata as Somata
from lfjax.activity.segment import neuropil_rings as neuropil_rings
from lfjax.activity.segment import segment_somata as segment_somata
from lfjax.activity.segment import soma_footprints as soma_footprints
