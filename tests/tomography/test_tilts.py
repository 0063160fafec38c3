"""Tilt images of Warp, M and RELION 5: poses, offsets, defocus and dose of each, against images made from known positions."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from lfjax.errors import DataWarning, FileError, ParameterError
from lfjax.io import write_stack, write_star
from lfjax.tomography import read_particles

SIZE, PIXEL, FINE = 32, 6.0, 1.5
POINTS = np.array([[5.0, 1.0, -3.0], [-4.0, 3.5, 2.0], [0.5, -6.0, 4.5], [2.0, 4.0, 6.0]])
ALIGNMENT = np.array([[1.5, -42.0, 83.0], [0.5, -3.0, 84.0], [-1.0, 27.0, 85.5], [2.0, 55.0, 82.0]])  # x, y, z
VISIBLE = np.array([[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 1, 1]])
POSES = np.array([[10.0, 40.0, -70.0], [-120.0, 100.0, 33.0], [75.0, 160.0, 5.0]])
FRAMES = np.array([[30.0, 20.0, 10.0], [-45.0, 60.0, 80.0], [150.0, 95.0, -20.0]])
OFFSETS = np.array([[4.0, -7.0, 9.0], [-3.0, 6.0, 2.0], [5.0, 5.0, -8.0]])
POSITIONS = np.array([[300.0, -500.0, 200.0], [-900.0, 100.0, -350.0], [50.0, 620.0, 400.0]])  # angstroms from the centre
DOSE, DEFOCUS = np.array([12.0, 0.0, 3.0, 30.0]), np.array([31000.0, 30000.0, 30500.0, 32000.0])


def matrices(degrees):
    """RELION's matrices of rot, tilt, psi, by SciPy."""
    return Rotation.from_euler("ZYZ", degrees, degrees=True).inv().as_matrix()


PROJECTIONS = Rotation.from_euler("xyz", ALIGNMENT, degrees=True).as_matrix()  # right-handed: x first, then y, then z


def blobs(centres, *axes):
    """Sum of Gaussians of width 1.6 pixels over the named axes, each given by its coordinates."""
    return sum(np.exp(-sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) / (2 * 1.6**2)) for centre in centres)


def images(p):
    """What the camera sees of particle p at its visible tilts: the points turned, displaced and summed along z."""
    x = np.arange(SIZE) - SIZE // 2
    placed = (matrices(FRAMES[p]) @ (matrices(POSES[p]) @ POINTS.T - OFFSETS[p][:, None] / PIXEL)).T
    seen = [(PROJECTIONS[t] @ placed.T).T for t in np.flatnonzero(VISIBLE[p])]
    return np.stack([blobs(points[:, :2], x[None, :], x[:, None]) for points in seen]) * np.sqrt(2 * np.pi) * 1.6


def columns(prefix, values, suffix=""):
    return {
        f"{prefix}{name}{suffix}": values[:, i]
        for i, name in enumerate(("Rot", "Tilt", "Psi") if "To" in prefix or "An" in prefix else "XYZ")
    }


def tables(tmp_path):
    for p in range(3):
        write_stack(tmp_path / f"{p}_stack2d.mrcs", images(p), PIXEL)
    optics = {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["g"], "rlnVoltage": [300.0], "rlnSphericalAberration": [2.7]}
    optics |= {
        "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [PIXEL],
        "rlnImageSize": [SIZE],
        "rlnImageDimensionality": [2],
    }
    optics |= {"rlnTomoTiltSeriesPixelSize": [FINE], "rlnCtfDataAreCtfPremultiplied": [1]}
    particles = {"rlnTomoName": ["TS_1"] * 3, "rlnTomoParticleName": [f"TS_1/{p}" for p in range(3)], "rlnOpticsGroup": [1] * 3}
    particles |= columns("rlnAngle", POSES) | columns("rlnTomoSubtomogram", FRAMES)
    particles |= columns("rlnOrigin", OFFSETS, "Angst") | columns("rlnCenteredCoordinate", POSITIONS, "Angst")
    particles |= {
        "rlnTomoVisibleFrames": ["[" + ",".join(map(str, row)) + "]" for row in VISIBLE],
        "rlnRandomSubset": [1, 2, 1],
    }
    particles |= {"rlnImageName": [f"{p}_stack2d.mrcs" for p in range(3)]}
    general = pd.DataFrame({"rlnTomoSubTomosAre2DStacks": [1]})
    return {"general": general, "optics": pd.DataFrame(optics), "particles": pd.DataFrame(particles)}


def series(**world):
    """A tomogram of RELION 5: its row, and its tilts."""
    row = {
        "rlnTomoName": "TS_1",
        "rlnTomoTiltSeriesPixelSize": FINE,
        "rlnTomoHand": -1.0,
        "rlnTomoTiltSeriesStarFile": "ts.star",
    }
    tilts = {"rlnTomoXTilt": ALIGNMENT[:, 0], "rlnTomoYTilt": ALIGNMENT[:, 1], "rlnTomoZRot": ALIGNMENT[:, 2]}
    tilts |= {"rlnTomoXShiftAngst": [1.0, -2.0, 3.0, 4.0], "rlnTomoYShiftAngst": 0.0, "rlnMicrographPreExposure": DOSE}
    tilts |= {
        "rlnDefocusU": DEFOCUS + 100,
        "rlnDefocusV": DEFOCUS - 100,
        "rlnDefocusAngle": 25.0,
        "rlnCtfScalefactor": [0.7, 1.0, 0.9, 0.6],
    }
    return pd.DataFrame([row | world]), pd.DataFrame(tilts)


def written(tmp_path, changed=None, world=None, tilts=None):
    plain, table = series()
    write_star(tmp_path / "tomograms.star", {"global": plain if world is None else world})
    write_star(tmp_path / "ts.star", {"TS_1": table if tilts is None else tilts})
    write_star(tmp_path / "particles.star", changed or tables(tmp_path))
    return tmp_path / "particles.star"


def expected_poses():
    turns, shifts, depths = [], [], []
    for p in range(3):
        for t in np.flatnonzero(VISIBLE[p]):
            turns.append(PROJECTIONS[t] @ matrices(FRAMES[p]) @ matrices(POSES[p]))
            shifts.append(-(PROJECTIONS[t] @ matrices(FRAMES[p]) @ OFFSETS[p])[:2] / PIXEL)
            depths.append((PROJECTIONS[t] @ (POSITIONS[p] - matrices(FRAMES[p]) @ OFFSETS[p]))[2])
    return np.array(turns), np.array(shifts), np.array(depths)


def test_the_projector_of_a_tilt_stack_makes_its_images(tmp_path):
    bare = tables(tmp_path)
    bare["optics"]["rlnCtfDataAreCtfPremultiplied"] = 0  # the images below have no CTF
    found = read_particles(written(tmp_path, bare), tomograms=tmp_path / "tomograms.star", ctf=False)
    found.check()
    x = np.arange(SIZE) - SIZE // 2
    volume = blobs(POINTS, x[None, None, :], x[None, :, None], x[:, None, None])
    made, seen = found.particles.projector(SIZE)(jnp.asarray(volume, jnp.float32)), found.images()
    assert seen.shape == (VISIBLE.sum(), SIZE, SIZE)
    assert np.linalg.norm(made - seen) <= 2e-4 * np.linalg.norm(seen)


def test_every_tilt_has_its_pose_defocus_and_dose(tmp_path):
    found = read_particles(written(tmp_path), tomograms=tmp_path / "tomograms.star")
    turns, shifts, depths = expected_poses()
    np.testing.assert_allclose(found.particles.rotations, turns, atol=2e-6)
    np.testing.assert_allclose(found.particles.shifts, shifts, atol=1e-5)
    tilt = np.concatenate([np.flatnonzero(row) for row in VISIBLE])
    ctf = found.particles.ctf
    np.testing.assert_allclose(ctf.defocus_u_angstrom, DEFOCUS[tilt] + 100 - depths, rtol=1e-6)  # the hand is -1
    np.testing.assert_allclose(ctf.defocus_v_angstrom, DEFOCUS[tilt] - 100 - depths, rtol=1e-6)
    np.testing.assert_allclose(ctf.exposure_per_angstrom2, DOSE[tilt])
    np.testing.assert_array_equal(ctf.applied, 2)
    np.testing.assert_array_equal(found.particles.half, np.repeat([1, 2, 1], VISIBLE.sum(axis=1)))
    assert list(found.tables["particles"]["rlnTomoParticleName"]) == [
        f"TS_1/{p}" for p in np.repeat(range(3), VISIBLE.sum(axis=1))
    ]
    assert "dose weights: exposures of 0 to 30 electrons per square angstrom" in found.notes


def test_a_dose_weight_is_the_curve_of_grant_and_grigorieff(tmp_path):
    path = written(tmp_path)
    ctf = read_particles(path, tomograms=tmp_path / "tomograms.star").particles.ctf
    k = np.array([0.01, 0.05, 0.08])[:, None]
    plain = type(ctf)(*(getattr(ctf, n) for n in ("defocus_u_angstrom", "defocus_v_angstrom", "angle_rad")), scale=ctf.scale)
    dose = DOSE[np.concatenate([np.flatnonzero(row) for row in VISIBLE])]
    weight = np.exp(-dose / (2 * (0.245 * k**-1.665 + 2.81)))
    np.testing.assert_allclose(ctf.power(k, 0.0), plain.power(k, 0.0) * weight**2, rtol=1e-4, atol=1e-6)
    world, _ = series(rlnCtfBfactorPerElectronDose=4.0)
    found = read_particles(written(tmp_path, world=world), tomograms=tmp_path / "tomograms.star").particles.ctf
    np.testing.assert_allclose(found.b_factor_angstrom2, 4 * dose)
    assert found.exposure_per_angstrom2 is None


def test_projection_matrices_of_relion_4_say_the_same(tmp_path):
    """Rows of the matrices in one file, positions in pixels from the corner of the tomogram."""
    new = read_particles(written(tmp_path), tomograms=tmp_path / "tomograms.star")
    world, tilts = series(rlnTomoSizeX=4000, rlnTomoSizeY=4001, rlnTomoSizeZ=1000)
    rows = {
        f"rlnTomoProj{a}": [f"[{','.join(map(repr, [*m[i], 7.0]))}]" for m in PROJECTIONS.tolist()] for i, a in enumerate("XYZ")
    }
    old = tilts.drop(columns=[c for c in tilts if c.startswith("rlnTomo")]).assign(**rows, rlnTomoProjW="[0,0,0,1]")
    changed = tables(tmp_path)
    corner = POSITIONS / FINE + np.array([2000, 2000.5, 500])
    table = changed["particles"].drop(columns=[c for c in changed["particles"] if c.startswith("rlnCentered")])
    changed["particles"] = table.assign(**columns("rlnCoordinate", corner))
    write_star(tmp_path / "particles.star", changed)
    write_star(tmp_path / "tomograms.star", {"global": world.drop(columns="rlnTomoTiltSeriesStarFile"), "TS_1": old})
    found = read_particles(tmp_path / "particles.star", tomograms=tmp_path / "tomograms.star")
    np.testing.assert_allclose(found.particles.rotations, new.particles.rotations, atol=1e-6)
    np.testing.assert_allclose(found.particles.ctf.defocus_u_angstrom, new.particles.ctf.defocus_u_angstrom, rtol=1e-6)


@pytest.mark.parametrize(
    ("block", "change", "words"),
    [
        ("general", {"rlnTomoSubTomosAre2DStacks": 0}, "not 2-D stacks; expected 2-D stacks, rlnTomoSubTomosAre2DStacks = 1"),
        ("particles", {"rlnTomoName": "TS_9"}, "0 rows for tomogram 'TS_9'"),
        (
            "particles",
            {"rlnTomoVisibleFrames": "[1,1]"},
            r"row 1, rlnTomoVisibleFrames '\[1,1\]'; expected 0 or 1 for each of 4",
        ),
        ("optics", {"rlnBeamTiltX": 0.3}, "rlnBeamTiltX: RELION has removed odd aberrations"),
        ("tilts", {"rlnTomoYTilt": None}, "no projections of tomogram TS_1; expected rlnTomoYTilt"),
        ("tilts", {"rlnMicrographPreExposure": None}, "ts.star: block 'TS_1' has no column rlnMicrographPreExposure"),
        ("tilts", {"rlnDefocusV": [1.0, float("nan"), 1.0, 1.0]}, "TS_1, row 2, column rlnDefocusV: nan"),
        ("world", {"rlnTomoHand": None}, "no column rlnTomoHand"),
    ],
)
def test_what_is_missing_is_named(tmp_path, block, change, words):
    world, tilts = series()
    found = tables(tmp_path) | {"world": world, "tilts": tilts}
    gone = [name for name, value in change.items() if value is None]
    found[block] = found[block].drop(columns=gone).assign(**{k: v for k, v in change.items() if v is not None})
    path = written(tmp_path, {k: found[k] for k in ("general", "optics", "particles")}, found["world"], found["tilts"])
    with pytest.raises(FileError, match=words):
        read_particles(path, tomograms=tmp_path / "tomograms.star")


def test_tomograms_are_asked_for(tmp_path):
    path = written(tmp_path)
    with pytest.raises(FileError, match="--tomograms tomograms.star"):
        read_particles(path)
    with pytest.raises(FileError, match="no.star"):
        read_particles(path, tomograms=tmp_path / "no.star")
    with pytest.raises(ParameterError, match="tomograms"):
        read_particles(tmp_path / "a.cs", tomograms=tmp_path / "tomograms.star")


def test_tilts_of_warp_are_rows_with_their_own_pose_and_dose_weight(shared):
    """The B-factor of Warp is minus 4 A^2 per electron and square angstrom, its scale the cosine of the tilt."""
    with pytest.warns(DataWarning, match="rlnCtfBfactor from -507 to -13"):
        found = read_particles(shared / "data/cryo/sta_testing_bin8.star")
    table = found.tables["particles"]
    np.testing.assert_allclose(found.particles.ctf.b_factor_angstrom2, -table["rlnCtfBfactor"])
    np.testing.assert_allclose(found.particles.ctf.scale, table["rlnCtfScalefactor"], rtol=1e-6)
    assert "dose weights: rlnCtfBfactor -13 to -507, read as a decay" in found.notes
    with pytest.warns(DataWarning, match="1 A in the header of .*, 1.96 A in the particle file"):
        found.check()
