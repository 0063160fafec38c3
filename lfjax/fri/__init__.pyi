from lfjax.fri.annihilation import (
    Line as Line,
    cadzow as cadzow,
    generic as generic,
    matrix_pencil as matrix_pencil,
    model_order as model_order,
    prony as prony,
    recover_line as recover_line,
)
from lfjax.fri.kernels import (
    Kernel as Kernel,
    Reproduction as Reproduction,
    bspline as bspline,
    dirichlet as dirichlet,
    espline as espline,
    exponentials as exponentials,
    gaussian as gaussian,
    measured as measured,
    polynomials as polynomials,
    sinc as sinc,
    tabulated as tabulated,
)
from lfjax.fri.matching import match_views as match_views, recover_alike as recover_alike
from lfjax.fri.multistart import (
    Effort as Effort,
    Fit as Fit,
    Model as Model,
    PointSources as PointSources,
    fit as fit,
    recover_noisy as recover_noisy,
    refine_fit as refine_fit,
)
from lfjax.fri.planar import (
    Features as Features,
    Points as Points,
    Sampling as Sampling,
    count_points as count_points,
    esprit as esprit,
    recover_points as recover_points,
)
from lfjax.fri.plane_view import Plane as Plane, line_samples as line_samples, recover_plane as recover_plane
from lfjax.fri.polytope import (
    Polytope as Polytope,
    hull as hull,
    polytope_view as polytope_view,
    polytope_views as polytope_views,
    projected_vertices as projected_vertices,
    recover_polytope as recover_polytope,
    refine_polytope as refine_polytope,
    volume as volume,
)
from lfjax.fri.poses import Pose as Pose, PoseSearch as PoseSearch
from lfjax.fri.refine import cramer_rao as cramer_rao
from lfjax.fri.simplex import Simplex as Simplex, recover_tetrahedron as recover_tetrahedron
from lfjax.fri.star import Star as Star, StarModel as StarModel, harmonics as harmonics
from lfjax.fri.theory import (
    Requirement as Requirement,
    minimum_projections as minimum_projections,
    mirror as mirror,
    two_view_family as two_view_family,
)
from lfjax.fri.turntables import Turntable as Turntable, axis_of as axis_of, axis_vector as axis_vector, turntable as turntable
from lfjax.fri.unknown_view import (
    Structure as Structure,
    align as align,
    aligned_error as aligned_error,
    project as project,
    recover as recover,
    refine_structure as refine_structure,
    structure_bound as structure_bound,
    view_samples as view_samples,
)
