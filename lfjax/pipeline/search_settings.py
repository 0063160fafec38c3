"""How particles of unknown pose are searched, and the images of a file made ready for it."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from lfjax import parallel
from lfjax.errors import DataWarning, FileError, ParameterError, require
from lfjax.pipeline.checked_images import CheckedImages
from lfjax.tomography import (
    CutImages,
    ParticleFile,
    PoseSearch,
    Support,
    cropped_images,
    cut_pixels,
    search_pixels,
    signal_support,
)
from lfjax.tomography.image_batches import Stack
from lfjax.tomography.low_frequencies import LowFrequencies
from lfjax.tomography.pose_search import REACH
from lfjax.tomography.schedule import RADIUS
from lfjax.tomography.symmetry import group_key

BEYOND = 0.03  # share of the signal beyond the ball from which on a warning is given
HOPELESS = 0.5  # the same, from which on the radius is refused
COMPILING = "the first pass of each kind compiles its programs, up to a minute where none are kept from an earlier run"
SMALLEST = 16  # pixels per side: below, the first band and the last are one
WHOLE = 2**25  # pixels that tell whether the images are the same
LARGEST = 0.47  # of the box: largest radius that a warning asks for


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How poses are searched.

    Attributes:
        radius_angstrom: radius of the ball that holds the particle; None: 0.42 of the box.
        symmetry: point group of the particle.
        shift_px: standard deviation of the displacements along each axis, pixels of the images; 0: particles are centred.
        normalised: whether the images are taken as they are; False: each is normalised by its background first.
        invert: multiply the images by -1, for dark particles on a bright field.
        seed: fixes all that is random: starts, grids, and the half-sets of images that have none.
        devices: devices over which the images are spread.
        cut: whether boxes are cut to the particle for the search, so that neighbours and far noise take no part in it. True:
            although the signal beyond the ball may be the particle's; None: unless most of it seems to be.
    """

    radius_angstrom: float | None = None
    symmetry: str = "C1"
    shift_px: float = 0.0
    normalised: bool = True
    invert: bool = False
    seed: int = 0
    devices: int = 1
    cut: bool | None = None

    def check(self, box_angstrom: float) -> float:
        """The radius in angstroms.

        Args:
            box_angstrom: side of the images' box.

        Raises:
            ParameterError: a setting is out of range.
        """
        radius = RADIUS * box_angstrom if self.radius_angstrom is None else self.radius_angstrom
        wanted = f"more than 0 and less than {box_angstrom / 2:.4g} A, half the box"
        require(0 < radius < box_angstrom / 2, "radius_angstrom", self.radius_angstrom, wanted)
        require(0 <= self.shift_px < math.inf, "shift_px", self.shift_px, "0 or more pixels")
        require(self.devices >= 1, "devices", self.devices, "1 or more")
        group_key(self.symmetry)
        return radius


class ReadySearch(NamedTuple):
    """Images of a file, ready for a search.

    Attributes:
        images: the images that have passed the checks, on their own grid.
        low: the same in the box of the search.
        search: the search.
        radius_angstrom: radius of the ball.
        support: where their signal lies.
        cut_px: pixels per side of boxes cut to the particle; 0: boxes are whole.
    """

    images: CheckedImages
    low: LowFrequencies
    search: PoseSearch
    radius_angstrom: float
    support: Support
    cut_px: int = 0


def ready_search(
    file: ParticleFile,
    settings: SearchSettings,
    *,
    folder: Path | None = None,
    told: Callable[[str], None] | None = None,
    track: Callable[..., Any] | None = None,
) -> ReadySearch:
    """Check the images of a file, and bring those of large boxes to the low frequencies that a search compares.

    Args:
        file: particles; their poses are ignored, their shifts are those about which displacements are searched.
        settings: how to search.
        folder: folder of a temporary file, if more than 1 GiB is needed; None: that of the system.
        told: called with each note.
        track: wraps the loop over batches, see `lfjax.progress.track`.

    Raises:
        FileError: the boxes are smaller than 16 pixels, or the images cannot be used, see `CheckedImages`.
        ParameterError: a setting is out of range, or most of the signal lies beyond the ball.

    Warns:
        DataWarning: images of different names have the same pixels, see `CheckedImages.tell_doubled`.
    """
    radius = settings.check(file.size * file.pixel_angstrom)
    if file.size < SMALLEST:
        raise FileError(
            f"{file.path}: boxes of {file.size} px; expected {SMALLEST} px or more, or there is no room for a search"
        )
    most = file.size / (2 * REACH)
    require(settings.shift_px <= most, "shift_px", settings.shift_px, f"0 to {most:.3g}: {REACH:g} of them within half the box")
    mesh = None if settings.devices == 1 else parallel.mesh(settings.devices)
    images = CheckedImages(file, normalised=settings.normalised, invert=settings.invert, seed=settings.seed, told=told)
    support = signal_support(images[images.sample], radius / file.pixel_angstrom, shift_px=settings.shift_px)
    crowded = _judge(file, support, radius, settings.cut, told)
    cut = cut_pixels(file.size, radius / file.pixel_angstrom, shift_px=settings.shift_px, least=SMALLEST)
    if settings.cut is False or (cut == file.size and not crowded):
        cut = 0
    elif told:
        told(f"boxes are cut to {cut} px about the particle for the search; maps are made of whole boxes")
    low = in_search_box(images, images, settings, radius, cut, folder=folder, track=track)
    search = search_of(low, settings, radius, mesh)
    images.tell_doubled()
    return ReadySearch(images, low, search, radius, support, cut)


def in_search_box(
    stack: Stack,
    images: CheckedImages,
    settings: SearchSettings,
    radius: float,
    cut_px: int,
    *,
    folder: Path | None,
    track: Callable[..., Any] | None,
) -> LowFrequencies:
    """A stack of the checked images, or of images made from them, in the box of a search.

    Args:
        stack: the stack.
        images: the checked images, whose particles are those of the stack.
        settings: how to search.
        radius: radius of the ball, angstroms.
        cut_px: pixels per side of boxes cut to the particle; 0: boxes are whole.
        folder: folder of a temporary file.
        track: wraps the loop over batches.
    """
    size, pixel, particles, noise, offsets = images.file.size, images.file.pixel_angstrom, images.particles, images.noise, None
    if cut_px:
        cut = CutImages(stack, particles, cut_px, radius_px=radius / pixel, shift_px=settings.shift_px)
        shells = np.arange(cut_px // 2 + 1) * size / cut_px
        if noise is not None:
            noise = np.stack([np.interp(shells, np.arange(len(group)), group) for group in np.asarray(noise)])
        stack, size, particles, offsets = cut, cut_px, cut.particles, cut.offsets
    pixels = search_pixels(size, radius / (size * pixel))
    return cropped_images(stack, particles, pixels, noise=noise, folder=folder, track=track)._replace(offsets=offsets)


def search_of(low: LowFrequencies, settings: SearchSettings, radius: float, mesh: Any) -> PoseSearch:
    """The search of images in their box.

    Args:
        low: the images.
        settings: how to search, in pixels of the large box.
        radius: radius of the ball, angstroms.
        mesh: devices; None: the default device.
    """
    return PoseSearch(
        low.images, low.particles, radius_angstrom=radius, symmetry=settings.symmetry, noise=low.noise,
        shift_px=settings.shift_px / low.ratio, mesh=mesh,
    )  # fmt: skip


def settings_of(ready: ReadySearch, settings: SearchSettings) -> dict[str, Any]:
    """What determines the course of a search, to tell whether another run is the same: digests, sizes and settings.

    The number of devices is left out: it changes a result by rounding alone.

    Args:
        ready: the search.
        settings: how it searches.
    """
    import jax

    import lfjax
    from lfjax.movies.identity import fingerprint

    images = ready.images
    count = min(len(images.file), max(16, WHOLE // images.file.size**2))
    some = images[np.unique(np.linspace(0, len(images.file) - 1, count).round().astype(int))]
    optics = eqx.filter(images.particles, eqx.is_array)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(optics)]
    told = dataclasses.asdict(settings)
    del told["devices"]
    return {
        **told, "radius_angstrom": ready.radius_angstrom, "images": list(images.shape), "lfjax": lfjax.__version__,
        "pixel_angstrom": images.file.pixel_angstrom, "inputs": fingerprint(some, *leaves),
    }  # fmt: skip


def _judge(file: ParticleFile, support: Support, radius: float, cut: bool | None, told: Callable[[str], None] | None) -> bool:
    """Whether boxes hold neighbours; refuse, or warn of, a ball that does not hold the particle."""
    if np.isnan(support.beyond):
        if told:
            told("signal: none above the noise in the mean of the images")
        return bool(cut)
    pixel, reach, share = file.pixel_angstrom, support.radius_px * file.pixel_angstrom, support.sure
    text = f"{share:.0%} of the signal lies beyond the ball of {radius:.0f} A"
    if share > BEYOND and support.neighbours and cut is not False:
        if told:
            told(f"neighbours: {text}, and does not fall from {support.particle_px * pixel:.0f} A on")
        return True
    if share > BEYOND or reach > radius + pixel:
        particle = min(reach, support.particle_px * pixel) if support.neighbours is False else reach
        text, advice = f"{text}; the images hold signal up to {reach:.0f} A from the centre", _advice(file, support, particle)
        if share > HOPELESS and not cut:
            raise ParameterError(f"{file.path}: radius_angstrom = {radius:.4g}: {text}; expected {advice}")
        warnings.warn(f"{file.path}: {text}; expected {advice}", DataWarning, stacklevel=4)
    elif told:
        told(f"signal: the images hold signal up to {reach:.0f} A from the centre; ball of {radius:.0f} A")
    return bool(cut)


def _advice(file: ParticleFile, support: Support, particle: float) -> str:
    """What to do about signal beyond the ball."""
    box = file.size * file.pixel_angstrom
    larger = f"--radius {min(particle, LARGEST * box):.0f}" + (" and larger boxes" if particle > LARGEST * box else "")
    if support.neighbours:
        return f"--cut-neighbours, as that signal does not fall from {support.particle_px * file.pixel_angstrom:.0f} A on"
    if support.neighbours is None:
        return (
            f"{larger} if it is the particle's, or --cut-neighbours if it is that of neighbours: the images do not tell which"
        )
    return f"{larger}, as that signal falls with the distance, or --cut-neighbours if it is that of neighbours all the same"
