from lfjax.optics.lightfield.antialias import AntiAlias as AntiAlias, sampling_widths as sampling_widths
from lfjax.optics.lightfield.operator import LightField as LightField
from lfjax.optics.lightfield.views import epipolar_image as epipolar_image, from_views as from_views, to_views as to_views
