"""Images of a particle file that have passed the checks made before any work, as a stack that is read on request."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from lfjax.errors import DataWarning, FileError
from lfjax.tomography import ParticleFile, Particles
from lfjax.tomography.background import background_levels, check_background, noise_spectra, outside_disc
from lfjax.tomography.images import normalise

SAMPLED = 500  # images whose background is measured before the work
OUTLIER = 5.0  # factor by which the deviation of an image may differ from that of its group


class CheckedImages:
    """Images of a particle file on its common grid: particles bright, backgrounds of mean 0, none that outweighs the others.

    When the object is made, every stack is opened, half-sets are completed, the backgrounds of up to 500 images are measured,
    and, where there are several optics groups, their noise per shell. Images are read when they are asked for by `[indices]`,
    and each is checked then, so that a stack may be larger than memory.

    Attributes:
        file: the particle file.
        particles: its particles, all in half-sets.
        noise: relative noise power of each optics group and shell; None: one group.
        sample: indices of the images whose backgrounds are measured.
        notes: one line for each thing that the file says and that changes a result.
    """

    def __init__(
        self,
        file: ParticleFile,
        *,
        normalised: bool = True,
        invert: bool = False,
        seed: int = 0,
        told: Callable[[str], None] | None = None,
    ) -> None:
        """Check the images.

        Args:
            file: particles, see `tomography.read_particles`.
            normalised: whether the images are taken as they are; False: each is normalised by its background first.
            invert: multiply the images by -1, for dark particles on a bright field.
            seed: fixes the half-sets of images that have none.
            told: called with each note.

        Raises:
            FileError: fewer than two images, an empty half-set, a stack that is missing or too short, or images that are not
                normalised.
        """
        if len(file) < 2:
            raise FileError(f"{file.path}: {len(file)} image; expected 2 or more, one for each half-map")
        self.file, self._normalised, self._sign = file, normalised, np.float32(-1.0 if invert else 1.0)
        self.particles, drawn = _in_half_sets(file, seed)
        file.check()
        self.sample = np.unique(np.linspace(0, len(file) - 1, min(len(file), SAMPLED)).astype(int))
        background, dark = _background(file, self.sample, normalised)
        self._usual = _usual_deviations(file, self.sample, normalised)
        self._seen: dict[int, bytes] = {}  # digests of the pixels by number of the distinct image
        self._told = False
        notes = [*file.notes, *drawn, background]
        self.noise: Float[NDArray[np.floating], "groups r"] | None = None
        if np.asarray(self.particles.group).max() > 0:
            self.noise = noise_spectra(self.__getitem__, self.particles, file.size, shells=file.shells)
            weights = ", ".join(f"{1 / np.median(self.noise[g]):.2f}" for g in np.unique(self.particles.group))
            notes.append(f"weights of the images of the optics groups by their noise, median over shells: {weights}")
        if invert:
            notes.append("images multiplied by -1 (--invert)")
        elif dark:
            text = "particles are darker than their background; expected bright ones, or --invert"
            warnings.warn(f"{file.path}: {text}", DataWarning, stacklevel=3)
        self.notes = tuple(notes)
        for note in notes if told else ():
            told(note)  # type: ignore[misc]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, y, x)."""
        return len(self.file), self.file.size, self.file.size

    def __getitem__(self, index: Int[NDArray[np.int64], " m"]) -> Float[NDArray[np.float32], "m y x"]:
        """Images of these indices.

        Raises:
            FileError: an image deviates from the others by far, or its stack cannot be read.
        """
        found = self.file.images(index, normalised=not self._normalised, looked=self._look)
        _check_deviations(self.file, index, found, self._usual)
        return self._sign * found

    def tell_doubled(self) -> None:
        """Warn, once, of images of different names with the same pixels, among those read so far.

        One particle that was picked twice, or a stack joined with itself: the noise of such an image counts twice, and
        half-sets that share it agree where they should not. Rows of one name, as symmetry expansion makes them, are one image.

        Warns:
            DataWarning: there are such images; the message names the first pair.
        """
        first: dict[bytes, int] = {}
        pairs = [
            (first[found], label) for label, found in sorted(self._seen.items()) if first.setdefault(found, label) != label
        ]
        if not pairs or self._told:
            return
        self._told = True
        row = np.unique(self.file.labels, return_index=True)[1]
        half = np.asarray(self.particles.half)[row]
        split = sum(int(half[a] != half[b]) for a, b in pairs)
        names = " and ".join(f"{number + 1}@{stack}" for number, stack in (self.file.names[row[label]] for label in pairs[0]))
        told = f"{len(pairs)} of {len(row)} images have the pixels of another image, first {names}"
        shared = (
            f"{split} of them in both half-sets, which then share noise and agree too well" if split else "each counts again"
        )
        warnings.warn(f"{self.file.path}: {told}; {shared}; expected each image once", DataWarning, stacklevel=3)

    def _look(self, index: Int[NDArray[np.int64], " m"], recorded: Float[NDArray[np.float32], "m y x"]) -> None:
        """Keep digests of images as their stacks have them: those on the common grid are rounded."""
        for label, image in zip(self.file.labels[index].tolist(), recorded, strict=True):
            if label not in self._seen:
                self._seen[label] = hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _in_half_sets(file: ParticleFile, seed: int) -> tuple[Particles, list[str]]:
    """The particles in complete half-sets, and a line on those that the file does not give."""
    half = np.asarray(file.particles.half)
    counts, free = [int(np.sum(half == number)) for number in (1, 2)], np.flatnonzero(half == 0)
    if min(counts) == 0 and len(free) < len(half):
        told = f"{counts[0]} images in half-set 1, {counts[1]} in half-set 2"
        raise FileError(f"{file.path}: {told}; expected images in both, or none in either, so that they are drawn at random")
    if not len(free):
        return file.particles, []
    if len(free) < len(half):
        rows = ", ".join(str(row + 1) for row in free[:5]) + (", ..." if len(free) > 5 else "")
        text = f"{len(free)} of {len(half)} rows have no half-set (rows {rows}): these are drawn at random, the others stay"
        warnings.warn(f"{file.path}: {text}", DataWarning, stacklevel=4)
    return file.particles.with_half_sets(jax.random.key(seed), file.labels), [
        f"half-sets of {len(free)} images drawn at random (seed {seed})"
    ]


def _background(file: ParticleFile, sample: NDArray[np.int64], normalised: bool) -> tuple[str, bool]:
    """Refuse images that are not normalised; else a line on their backgrounds, and whether particles are darker."""
    means, deviations, stds, contrasts = (np.zeros(len(sample)) for _ in range(4))
    for _, at, found in file.recorded(sample):
        read = found if normalised else np.asarray(normalise(found))
        means[at], deviations[at] = background_levels(read)
        stds[at] = read.std(axis=(1, 2))
        contrasts[at] = read[:, ~outside_disc(read.shape, 0.5)].mean(axis=1) - means[at]
    if normalised:
        check_background(means, deviations, stds, file.path, numbers=sample)
    state = "as they are" if normalised else "after --normalise"
    levels = f"mean {np.mean(means):.2g}, deviation {np.mean(deviations):.2g}"
    by_chance = np.std(contrasts) / np.sqrt(len(sample))
    dark = bool(np.mean(contrasts) < -5 * by_chance)
    return f"background of {len(sample)} images {state}: {levels}", dark


def _usual_deviations(file: ParticleFile, sample: NDArray[np.int64], normalised: bool) -> Float[NDArray[np.float64], " groups"]:
    """Median deviation of some images of each optics group on the common grid."""
    group = np.asarray(file.particles.group)
    found = np.ones(group.max() + 1)
    for g in np.unique(group):
        some = sample[group[sample] == g][:100]
        some = some if len(some) else np.flatnonzero(group == g)[:100]
        found[g] = np.median(file.images(some, normalised=not normalised).std(axis=(1, 2)))
    return found


def _check_deviations(
    file: ParticleFile, part: NDArray[np.int64], images: NDArray[np.float32], usual: Float[NDArray[np.float64], " groups"]
) -> None:
    """Refuse an image whose deviation is far from that of its group: it would outweigh all others, or is empty."""
    deviation, expected = images.std(axis=(1, 2)), usual[np.asarray(file.particles.group)[part]]
    bad = np.flatnonzero(~((deviation > expected / OUTLIER) & (deviation < expected * OUTLIER)))
    if len(bad):
        number, stack = file.names[part[bad[0]]]
        told = f"deviation {deviation[bad[0]]:.3g} in image {number + 1}@{stack}, {expected[bad[0]]:.3g} in most"
        raise FileError(f"{file.path}: {told}; expected a factor of {OUTLIER:g} at most: remove the image, or --normalise")
