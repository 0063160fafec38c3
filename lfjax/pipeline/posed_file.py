"""Found poses as a STAR file that RELION continues from, and the list of the images that fit nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from lfjax.tomography import ParticleFile, Particles, Poses, names_from, write_particles, write_tables
from lfjax.tomography.relion_writing import with_particles

GOOD, EVIDENCE, MASS = "rlnParticleFigureOfMerit", "rlnLogLikeliContribution", "rlnMaxValueProbDistribution"
"""RELION's columns of the probability that an image shows the particle, its log-evidence, and the mass of its best pose."""


def write_posed(
    path: str | Path,
    file: ParticleFile,
    particles: Particles,
    poses: Poses,
    good: Float[NDArray[np.floating], " n"],
    junk_path: str | Path,
    *,
    junk_below: float = 0.5,
) -> int:
    """Write all images with the poses found, and those that fit nothing once more in a list of their own.

    Every row of the source keeps its other columns. Beside poses, shifts and half-sets, rlnParticleFigureOfMerit is the
    probability that the image shows the particle (`relion_reconstruct --fom_weighting` weighs by it, and
    `relion_star_handler --select` selects by it), rlnLogLikeliContribution the log-evidence, and rlnMaxValueProbDistribution
    the posterior mass of the best pose. Where no image is junk there is no list, and one of an earlier run is removed.

    Args:
        path: STAR file to write.
        file: the source.
        particles: poses and half-sets, on the common grid of the source.
        poses: posterior of each image.
        good: probability of each image to show the particle.
        junk_path: STAR file of the images that fit nothing.
        junk_below: probability below which an image fits nothing.

    Returns:
        The number of images that fit nothing.
    """
    own = {GOOD: good, EVIDENCE: poses.log_evidence, MASS: poses.weights[:, 0]}
    table = file.tables["particles"].assign(**{name: np.round(np.asarray(a, float), 6) for name, a in own.items()})
    tables = names_from(file.tables | {"particles": table}, file.path, path, file.folder)
    write_particles(path, particles, file.names, file.size, tables=tables)
    bad = np.flatnonzero(np.asarray(good) < junk_below)
    if not len(bad):
        Path(junk_path).unlink(missing_ok=True)
        return 0
    posed = with_particles(tables, particles)
    write_tables(junk_path, posed | {"particles": posed["particles"].iloc[bad].reset_index(drop=True)})
    return len(bad)
