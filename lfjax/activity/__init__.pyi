from lfjax.activity.demix import (
    Statistics as Statistics,
    movie_statistics as movie_statistics,
    refine_footprints as refine_footprints,
)
from lfjax.activity.direct import Images as Images, image_footprints as image_footprints, photon_weights as photon_weights
from lfjax.activity.discovery import discover as discover, flare_frames as flare_frames, flare_map as flare_map
from lfjax.activity.extraction import (
    direct_images as direct_images,
    extract as extract,
    find_spikes as find_spikes,
    stream_courses as stream_courses,
)
from lfjax.activity.fluorescence import baseline as baseline, dff as dff, peak_dff as peak_dff
from lfjax.activity.localise import find_somata as find_somata
from lfjax.activity.measures import (
    Crosstalk as Crosstalk,
    Quality as Quality,
    confinement as confinement,
    crosstalk as crosstalk,
    crosstalk_matrix as crosstalk_matrix,
    frame_noise as frame_noise,
    peak_snr_db as peak_snr_db,
    quality as quality,
)
from lfjax.activity.neurons import Neurons as Neurons, read_neurons as read_neurons, write_neurons as write_neurons
from lfjax.activity.nwb import write_nwb as write_nwb
from lfjax.activity.segment import (
    Somata as Somata,
    neuropil_rings as neuropil_rings,
    segment_somata as segment_somata,
    soma_footprints as soma_footprints,
)
from lfjax.activity.spike_times import Pulse as Pulse, spike_score as spike_score, spikes as spikes
from lfjax.activity.tradeoff import IterationTradeoff as IterationTradeoff, iteration_tradeoff as iteration_tradeoff
