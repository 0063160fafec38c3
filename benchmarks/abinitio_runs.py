"""Runs of `tomography.abinitio` on the scenes of `abinitio_scenes`, each kept in a file: a stopped benchmark resumes."""

from __future__ import annotations

import dataclasses
import json
import resource
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from benchmarks.abinitio_scenes import CASES, GOOD, Case, Made, Scene
from benchmarks.peers_abinitio import PeerError, all_that_apply
from lfjax import rotation
from lfjax.io import writing
from lfjax.tomography import (
    Estimate,
    Particles,
    Poses,
    PoseSearch,
    State,
    Sums,
    abinitio,
    fsc,
    orient,
    resolution,
    schedule,
    spherical_mask,
    symmetry_group,
)
from lfjax.tomography.bands import band_of, resized
from lfjax.tomography.posterior_map import powers_in, resolved

FOLDER = Path("build/abinitio")


def judged(found: Float[NDArray[np.floating], "n 3 3"], made: Made, symmetry: str) -> dict[str, float]:
    """Errors of poses of the images that show the object, degrees, modulo a turn and the hand."""
    good = made.junk == GOOD
    told = rotation.compare(found[good], np.asarray(made.particles.rotations)[good], group=symmetry_group(symmetry))
    return {
        "median": float(np.rad2deg(told.median_rad)),
        "mean": float(np.rad2deg(told.mean_rad)),
        "below_10": float(told.below_10_degrees),
        "null": float(np.rad2deg(told.null_rad)),
    }


def map_at(rotations: Float[NDArray[np.floating], "n 3 3"], made: Made, *, align: bool = True) -> Float[Array, "z y x"]:
    """Map at these poses, after the best turn and hand, and true displacements."""
    true = made.particles
    if align:
        told = rotation.align_poses(rotations, np.asarray(true.rotations))
        mirror = np.diag([1.0, 1.0, -1.0])
        rotations = mirror @ rotations @ mirror if bool(told.mirrored) else rotations
        rotations = rotations @ np.asarray(told.turn).T
    particles: Particles = eqx.tree_at(lambda p: p.rotations, true, jnp.asarray(rotations, float))
    sums = Sums.empty(len(made.volume)).add(particles, made.images)
    return jnp.asarray(sums.volume(sums.weights() * 0.3))


def fsc_half(rotations: Float[NDArray[np.floating], "n 3 3"], made: Made, *, align: bool = True) -> float:
    """Period in angstroms at which the map at these poses and true displacements agrees with the truth by 0.5."""
    size, pixel = len(made.volume), made.molecule.voxel_angstrom
    mask, volume = spherical_mask(size, 0.42 * size, 4), map_at(rotations, made, align=align)
    return float(resolution(fsc(volume * mask, made.volume * mask), size * pixel, 0.5))


def run(case: Case, seed: int, folder: Path = FOLDER) -> dict[str, Any]:
    """Figures of a case and a seed: of the search, of the search given the true map, and of random poses."""
    path = folder / f"{_name(case)}_{seed}.json"
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    scene: Scene = dataclasses.replace(case.scene, seed=seed)
    made = scene.make()
    nothing = jnp.broadcast_to(jnp.eye(3), (scene.count, 3, 3)), jnp.zeros((scene.count, 2))
    unknown: Particles = eqx.tree_at(lambda p: (p.rotations, p.shifts), made.particles, nothing)
    started: list[float] = []

    def keep(state: State) -> None:
        if len(state.evidence) > len(started):  # a start has ended
            started.append(judged(state.poses.rotations[:, 0], made, scene.symmetry)["median"])

    begin, cpu = time.perf_counter(), time.process_time()
    options: dict[str, Any] = {"symmetry": scene.symmetry, "shift_px": scene.shift_px, "key": jax.random.key(seed)}
    found = abinitio(made.images, unknown, **options, keep=keep)
    figures: dict[str, Any] = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
    figures |= judged(np.asarray(found.particles.rotations), made, scene.symmetry)
    figures["last"] = found.band.limit
    figures["first"] = found.history[0].limit
    figures["starts"] = started
    figures["noise"] = found.history[-1].noise
    figures["good"] = float(found.good.mean())
    if scene.junk:
        figures["auc"] = _auc(found.good + 1e-3 * np.tanh(found.poses.fit / 100), made.junk == GOOD)
    begin = time.perf_counter()
    known = orient(made.volume, made.images, unknown, **options)
    figures["known_seconds"] = time.perf_counter() - begin
    figures["known"] = judged(np.asarray(known.particles.rotations), made, scene.symmetry)["median"]
    if not scene.shift_px and scene.symmetry == "C1" and not scene.junk:
        figures["fsc"] = fsc_half(np.asarray(found.particles.rotations), made)
        figures["fsc_true"] = true_fsc(made)
    figures["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with writing(path) as temporary:
        temporary.write_text(json.dumps(figures), encoding="utf-8")
    return figures


def from_truth(case: Case, seed: int, folder: Path = FOLDER) -> float:
    """Median error of the search that begins with the true map and proceeds with that of its images, as every search does.

    No search of these images alone can be expected to end nearer to the truth; with the true map throughout, it is `known`.
    """
    path = folder / f"from_truth_{_name(case)}_{seed}.json"
    if path.exists():
        return float(json.loads(path.read_text(encoding="utf-8")))
    scene: Scene = dataclasses.replace(case.scene, seed=seed)
    made = scene.make()
    search = PoseSearch(made.images, made.particles, symmetry=scene.symmetry, shift_px=scene.shift_px)
    band = band_of(search.steps(0)[0].limit)
    prior, noise = powers_in(band, search.powers)
    estimate, poses = Estimate(resized(made.volume, band.size), prior, noise, prior), Poses.unknown(scene.count)
    near, done, key = 2, 0, jax.random.key(seed)
    while near:
        plan = search.steps(near)
        for step in plan[done:]:
            turn = jax.random.fold_in(key, done)
            estimate, poses = search.advance(step, estimate, poses, turn, search.chosen(step, poses, turn))
            done += 1
        share = resolved(estimate, plan[-1].limit)
        near = near + 1 if schedule.more_bands(near, share, search.radius, search.nyquist) else 0
    median = judged(np.asarray(search.particles_at(poses).rotations), made, scene.symmetry)["median"]
    with writing(path) as temporary:
        temporary.write_text(json.dumps(median), encoding="utf-8")
    return median


def run_peers(case: Case, limit_s: float) -> dict[str, dict[str, Any]]:
    """Figures of the peers on the stack of seed 0; each is kept as soon as it is there."""
    path = FOLDER / f"peers_{_name(case)}.json"
    told: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if told.pop("finished", False):
        return told
    made = case.scene.make()
    for name, found in all_that_apply(case.scene, made, FOLDER / f"relion_{_name(case)}", limit_s=limit_s):
        if isinstance(found, PeerError):
            told[name] = {"error": str(found)}
        else:
            figures: dict[str, Any] = judged(found.rotations, made, case.scene.symmetry)
            figures |= {"seconds": found.seconds, "cpu_seconds": found.cpu_seconds, "version": found.version}
            figures |= {"fsc": fsc_half(found.rotations, made), "fsc_true": true_fsc(made)}
            told[name] = figures
        with writing(path) as temporary:
            temporary.write_text(json.dumps(told), encoding="utf-8")
    with writing(path) as temporary:
        temporary.write_text(json.dumps(told | {"finished": True}), encoding="utf-8")
    return told


def first_run() -> dict[str, float]:
    """Seconds of the first case in this process, with all that is compiled for it."""
    scene = CASES[0].scene
    made = scene.make()
    jax.clear_caches()
    begin = time.perf_counter()
    found = abinitio(made.images, made.particles, key=jax.random.key(0))
    return {"seconds": time.perf_counter() - begin, **judged(np.asarray(found.particles.rotations), made, scene.symmetry)}


def true_fsc(made: Made) -> float:
    """`fsc_half` of the true poses."""
    return fsc_half(np.asarray(made.particles.rotations), made, align=False)


def _name(case: Case) -> str:
    return case.scene.name.replace(" ", "_").replace(",", "").replace("%", "percent")


def _auc(score: NDArray[np.floating], good: NDArray[np.bool_]) -> float:
    """Probability that a good image has a higher score than a bad one."""
    rank = np.argsort(np.argsort(score)) + 1
    n = good.sum()
    return float((rank[good].sum() - n * (n + 1) / 2) / (n * (len(good) - n)))
