"""Invented .cs files of cryoSPARC that several test files share."""

import jax
import numpy as np

from lfjax import rotation

N = 6


def fields(count=N, **more):
    """Fields of an invented refinement: two exposure groups, two half-sets."""
    draw = np.random.default_rng(0)
    found = {
        "uid": np.arange(count, dtype=np.uint64) * 3 + 2**63,
        "blob/path": np.full(count, b">J7/imported/005213665113010562610_a.mrcs"),
        "blob/idx": np.arange(count, dtype=np.uint32)[::-1],
        "blob/shape": np.full((count, 2), 32, np.uint32),
        "blob/psize_A": np.full(count, 1.31, np.float32),
        "ctf/exp_group_id": np.asarray([23, 7] * count, np.uint32)[:count],
        "ctf/accel_kv": np.full(count, 300, np.float32),
        "ctf/cs_mm": np.full(count, 2.7, np.float32),
        "ctf/amp_contrast": np.full(count, 0.1, np.float32),
        "ctf/df1_A": draw.uniform(1e4, 2e4, count).astype(np.float32),
        "ctf/df2_A": draw.uniform(1e4, 2e4, count).astype(np.float32),
        "ctf/df_angle_rad": draw.uniform(0, 3, count).astype(np.float32),
        "ctf/phase_shift_rad": np.full(count, 0.25, np.float32),
        "alignments3D/pose": draw.normal(size=(count, 3)).astype(np.float32),
        "alignments3D/shift": draw.normal(size=(count, 2)).astype(np.float32),
        "alignments3D/psize_A": np.full(count, 2.62, np.float32),
        "alignments3D/split": np.asarray([0, 1, 1] * count, np.uint32)[:count],
    }
    return found | {name: np.asarray(value) for name, value in more.items()}


def save(path, found, only=None, order=None):
    """Write fields, or those of some prefixes and the uid, as a .cs file, its rows in the order given."""
    names = [n for n in found if only is None or n == "uid" or n.startswith(only)]
    rows = np.zeros(len(found["uid"]), [(n, found[n].dtype, found[n].shape[1:]) for n in names])
    for name in names:
        rows[name] = found[name]
    with open(path, "wb") as file:
        np.save(file, rows if order is None else rows[order], allow_pickle=False)
    return path


def without(found, prefix):
    """The fields but those of a prefix."""
    return {name: value for name, value in found.items() if not name.startswith(prefix)}


def turns(table):
    """Rotations of a table of RELION's."""
    angles = [np.deg2rad(table[f"rlnAngle{a}"].to_numpy(float)) for a in ("Rot", "Tilt", "Psi")]
    with jax.enable_x64(True):
        return np.asarray(rotation.from_euler(*angles))


def several(multi):
    """Fields with poses of two classes, and these poses: in one array or in two sets."""
    draw = np.random.default_rng(3)
    found = without(fields(), "alignments3D")
    pose, shift = draw.normal(size=(N, 2, 3)).astype(np.float32), draw.normal(size=(N, 2, 2)).astype(np.float32)
    posterior = np.float32([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6], [1, 0], [0, 1]])
    values = {"pose": pose, "shift": shift, "class_posterior": posterior}
    unit = np.full(N, 1.31, np.float32)
    if multi:
        return found | {f"alignments3D_multi/{k}": v for k, v in values.items()} | {"alignments3D_multi/psize_A": unit}, pose
    for i in range(2):
        found |= {f"alignments_class_{i}/{k}": v[:, i] for k, v in values.items()} | {f"alignments_class_{i}/psize_A": unit}
    return found, pose
