from lfjax.movies.background import SlowBackground as SlowBackground
from lfjax.movies.frames import Frames as Frames
from lfjax.movies.identity import fingerprint as fingerprint
from lfjax.movies.motion import (
    estimate_shift as estimate_shift,
    light_field_shift as light_field_shift,
    make_reference as make_reference,
    register as register,
    shift_image as shift_image,
    shift_light_field as shift_light_field,
)
from lfjax.movies.phase_correlation import common_shift as common_shift
from lfjax.movies.prepare import (
    LightFields as LightFields,
    Prepared as Prepared,
    WithoutBackground as WithoutBackground,
    light_fields as light_fields,
    mean_frame as mean_frame,
)
from lfjax.movies.quality import Survey as Survey, survey as survey
from lfjax.movies.reconstruct import (
    FrameSolver as FrameSolver,
    frame_solver as frame_solver,
    reconstruct_movie as reconstruct_movie,
)
from lfjax.movies.repair import GoodFrames as GoodFrames, good_frames as good_frames
