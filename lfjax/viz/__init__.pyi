from lfjax.viz.camera import lenslet_grid as lenslet_grid
from lfjax.viz.cryo import image_grid as image_grid, sections as sections, shell_correlations as shell_correlations
from lfjax.viz.cryo_maps import guinier_plot as guinier_plot, local_resolutions as local_resolutions
from lfjax.viz.cryo_search import search_page as search_page
from lfjax.viz.cryo_views import (
    directional_correlations as directional_correlations,
    orientations as orientations,
    transfer as transfer,
)
from lfjax.viz.drawing import drawing_soon as drawing_soon
from lfjax.viz.fluorescence import (
    element_maps as element_maps,
    line_spectrum as line_spectrum,
    periodic_table as periodic_table,
)
from lfjax.viz.neurons import (
    activity_page as activity_page,
    distributions as distributions,
    footprints as footprints,
    raster as raster,
    summary as summary,
    traces as traces,
    tradeoff as tradeoff,
)
from lfjax.viz.poses import pose_errors as pose_errors
from lfjax.viz.report import write_report as write_report
from lfjax.viz.volumes import (
    convergence as convergence,
    planes as planes,
    projections as projections,
    resynthesis as resynthesis,
)
