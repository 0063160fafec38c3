"""Names that were public elsewhere before the rooms were ordered, kept importable with a warning until version 0.2."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import warnings
from importlib import import_module
from types import ModuleType

_ILLUMINATION = (
    "Detection Fluorophore Illumination LightSheet LineScan MultiFocal PointScan SelectiveVolume Timing Tradeoff TwoPhoton "
    "Widefield tradeoff"
)
_PSF_FILE = "cached_psf read_psf read_view_psfs write_psf write_view_psfs"

NAMES = {
    "lfjax": {
        "cost": "lfjax.performance.counting",
        "gauss_newton": "lfjax.solvers.levenberg_marquardt",
        "motion": "lfjax.movies.motion",
        "phase_correlation": "lfjax.movies.phase_correlation",
        "recordings": "lfjax.movies.prepare",
        "roofline": "lfjax.performance.bounds",
        "viz_activity": "lfjax.viz.neurons",
        "viz_cryo": "lfjax.viz.cryo",
    },
    "lfjax.activity": {"SlowBackground": "lfjax.movies", "write_report": "lfjax.viz"},
    "lfjax.io": dict.fromkeys(_PSF_FILE.split(), "lfjax.optics")
    | dict.fromkeys(("ParticleFile", "read_particles", "write_particles"), "lfjax.tomography"),
    "lfjax.optics": dict.fromkeys(_ILLUMINATION.split(), "lfjax.illumination"),
    "lfjax.rotation": {"symmetry_group": "lfjax.tomography"},
}
"""Room -> name -> the room, or module, that has it now."""

MODULES = {f"lfjax.{old}": new for old, new in NAMES["lfjax"].items()} | {
    "lfjax.activity.background": "lfjax.movies.background",
    "lfjax.activity.report": "lfjax.viz.report",
    "lfjax.fri.spikes": "lfjax.activity.spike_times",
    "lfjax.io.particle_file": "lfjax.tomography.particle_file",
    "lfjax.io.psf_file": "lfjax.optics.psf_file",
    "lfjax.optics.antialias": "lfjax.optics.lightfield.antialias",
    "lfjax.optics.calibration": "lfjax.optics.camera.calibration",
    "lfjax.optics.focus": "lfjax.illumination.focus",
    "lfjax.optics.illumination": "lfjax.illumination.base",
    "lfjax.optics.lattice": "lfjax.optics.camera.lattice",
    "lfjax.optics.lenslets": "lfjax.optics.psf.lenslets",
    "lfjax.optics.measured": "lfjax.optics.psf.measured",
    "lfjax.optics.pupil": "lfjax.optics.psf.pupil",
    "lfjax.optics.rectify": "lfjax.optics.camera.rectify",
    "lfjax.optics.resample": "lfjax.optics.camera.resample",
    "lfjax.optics.scan": "lfjax.illumination.scan",
    "lfjax.optics.two_photon": "lfjax.illumination.two_photon",
    "lfjax.optics.views": "lfjax.optics.lightfield.views",
}
"""Old module -> the module that holds its contents now."""


def find(room: str, name: str) -> object:
    """A name that has left a room, from its new home, with a warning; AttributeError where none has."""
    home = NAMES.get(room, {}).get(name)
    if home is None:
        raise AttributeError(f"module {room!r} has no attribute {name!r}")
    module = import_module(home)
    _warn(f"{room}.{name}", home if room == "lfjax" else f"{home}.{name}", 4)
    return module if room == "lfjax" else getattr(module, name)


_OWN = ("__name__", "__spec__", "__loader__", "__package__", "__file__", "__cached__", "__path__")
"""Attributes that belong to a module's place, not to its contents."""


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Old module names of this package, and nothing else, resolve to the new modules."""

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for the modules of the table."""
        return importlib.machinery.ModuleSpec(name, self) if name in MODULES else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """A module of the old name with everything that the new one holds."""
        _warn(spec.name, MODULES[spec.name], 3)
        alias = ModuleType(spec.name)
        home = vars(import_module(MODULES[spec.name]))
        alias.__dict__.update({name: value for name, value in home.items() if name not in _OWN})
        return alias

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: the new module has been executed."""


def install() -> None:
    """Let `import` know the old module names."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())


def _warn(old: str, new: str, level: int) -> None:
    """Warn at the line of the user: `level` calls above this one, frames of `importlib` not counted."""
    warnings.warn(f"{old} is now {new}; the old name goes with version 0.2", FutureWarning, stacklevel=level)
