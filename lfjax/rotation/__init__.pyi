from lfjax.rotation.alignment import Alignment as Alignment, align_poses as align_poses
from lfjax.rotation.comparison import PoseComparison as PoseComparison, compare as compare
from lfjax.rotation.hopf import grid as grid
from lfjax.rotation.matrices import (
    distance as distance,
    from_euler as from_euler,
    from_quaternion as from_quaternion,
    from_vector as from_vector,
    nearest as nearest,
    random_rotations as random_rotations,
    to_euler as to_euler,
    to_quaternion as to_quaternion,
    to_vector as to_vector,
)
