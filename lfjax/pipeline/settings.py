"""Settings that the pipelines share, in three groups: calibration frames, the grid of the volume, and how a run is spread."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jax.sharding import Mesh
from numpy.typing import ArrayLike

from lfjax import parallel
from lfjax.errors import require


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration frames of a recording, and whether they have been applied.

    Attributes:
        white: raw white frame (row, col) in camera counts. None: the lenslets are found in the light field itself.
        dark: raw dark frame (row, col), or one level, in camera counts. None: 0.
        rectified: True if the frames have N whole pixels per lenslet and no dark level; `white` and `dark` are then ignored.
    """

    white: ArrayLike | None = None
    dark: ArrayLike | float | None = None
    rectified: bool = False


@dataclasses.dataclass(frozen=True)
class Grid:
    """Voxels of a volume.

    Attributes:
        z_um: depths of the planes in micrometres; 0 is the native focal plane.
        voxels: s, voxels across a lenslet, from 1 to N.
    """

    z_um: Sequence[float] = tuple(step - 4.5 for step in range(10))
    voxels: int = 4


@dataclasses.dataclass(frozen=True)
class Run:
    """How the frames of a movie go through memory and devices.

    Attributes:
        chunk: frames per chunk. Three chunks are in memory at once; an interruption costs at most one chunk of work.
        batch: frames computed at once on each device.
        devices: number of devices over which the frames of a chunk are spread.
    """

    chunk: int = 16
    batch: int = 4
    devices: int = 1

    def mesh(self) -> Mesh | None:
        """The devices of this run. None: the default device.

        Raises:
            ParameterError: more devices than this process has, or none.
        """
        return None if self.devices == 1 else parallel.mesh(self.devices)

    def check(self) -> None:
        """Raise `ParameterError` for a chunk or a batch below one frame."""
        for name in ("chunk", "batch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more frames")
