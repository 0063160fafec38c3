"""From movies to neurons: where they are, and what they do."""

from lfjax.activity.direct import Images as Images
from lfjax.activity.direct import image_footprints as image_footprints
from lfjax.activity.direct import photon_weights as photon_weights
from lfjax.activity.fluorescence import baseline as baseline
from lfjax.activity.fluorescence import dff as dff
from lfjax.activity.fluorescence import peak_dff as peak_dff
from lfjax.activity.localise import find_somata as find_somata
