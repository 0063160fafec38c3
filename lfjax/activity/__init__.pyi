from lfjax.activity.demix import (
    Statistics as Statistics,
    movie_statistics as movie_statistics,
    refine_footprints as refine_footprints,
)
from lfjax.activity.direct import Images as Images, image_footprints as image_footprints, photon_weights as photon_weights
from lfjax.activity.discovery import (
    Discovery as Discovery,
    discover as discover,
    flare_frames as flare_frames,
    flare_map as flare_map,
)
from lfjax.activity.extraction import (
    direct_images as direct_images,
    extract as extract,
    remove_courses as remove_courses,
    stream_courses as stream_courses,
)
from lfjax.activity.fluorescence import baseline as baseline, dff as dff, has_baseline as has_baseline, peak_dff as peak_dff
from lfjax.activity.localise import find_somata as find_somata
from lfjax.activity.masks import masks_to_places as masks_to_places, read_masks as read_masks
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
from lfjax.activity.session import read_session as read_session
from lfjax.activity.significance import (
    Projections as Projections,
    Significance as Significance,
    least_frames as least_frames,
    project_movie as project_movie,
    significant as significant,
)
from lfjax.activity.spike_search import find_spikes as find_spikes
from lfjax.activity.spike_times import Pulse as Pulse, spike_score as spike_score, spikes as spikes
from lfjax.activity.structure import resample_structure as resample_structure
from lfjax.activity.suite2p import write_suite2p as write_suite2p
from lfjax.activity.tradeoff import IterationTradeoff as IterationTradeoff, iteration_tradeoff as iteration_tradeoff
