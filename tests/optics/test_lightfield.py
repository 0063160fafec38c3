"""The light-field operator against an independent code and brute force.

An operator is built and applied under one `jax.jit`: one program per case, where eager operations would compile dozens.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.reference import clipped as clipped_psf, relative_error
from lfjax.errors import ParameterError
from lfjax.linop import Compose
from lfjax.optics import PSF, LightField, Microscope, compute_psf, preset
from lfjax.optics.lightfield.operator import LightFieldGram, mirror_symmetric


def random(shape, seed=0):
    """White noise, (..., *shape) in float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def projected(reference_psf, reference):
    """Images and a back-projection by H, with the small values of its PSF cut off as in the reference."""
    op = LightField(clipped_psf(reference_psf), (11, 11))

    @jax.jit
    def project(op, volumes, image):
        return jax.lax.map(op, volumes), op.T(image)

    volumes = np.stack([reference[f"vol_{name}"].transpose(2, 0, 1) for name in ("rand", "beads")])
    images, back = project(op, volumes, reference["img_rand"])
    return {"rand": images[0], "beads": images[1], "back": back}


@pytest.mark.parametrize("name", ["rand", "beads"])
def test_forward_projection_agrees_with_the_reference(projected, reference, name):
    assert relative_error(projected[name], reference[f"proj_{name}"]) <= 0.02


def test_back_projection_agrees_with_the_reference(projected, reference):
    assert relative_error(projected["back"].transpose(1, 2, 0), reference["back_rand"]) <= 0.02


def small_psf(n=5, s=3, k=3, d=2, *, symmetric=False):
    """A random PSF, mirror symmetric or not."""
    values = np.random.default_rng(0).random((d, s, s, k * n, k * n), np.float32)
    if symmetric:
        values = values + np.flip(values, (1, 3))
        values = values + np.flip(values, (2, 4))
    return PSF(jnp.asarray(values), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, n), tuple(map(float, range(d))))


@partial(jax.jit, static_argnames=("field", "margin", "mirror"))
def project(psf, x, field, *, margin=0, mirror=False):
    """Light field of a volume."""
    return LightField(psf, field, margin=margin, mirror=mirror)(x)


def brute_force(psf, volume, field):
    """Each voxel puts its image where its lenslet is: the definition."""
    n, s, k = psf.microscope.pixels_per_lenslet, psf.voxels_per_lenslet, psf.lenslets
    values, reach = np.asarray(psf.values), k // 2 * n
    image = np.zeros((field[0] * n + 2 * reach, field[1] * n + 2 * reach))
    for z, y, x in np.ndindex(*volume.shape):
        top, left = y // s * n, x // s * n
        image[top : top + k * n, left : left + k * n] += volume[z, y, x] * values[z, y % s, x % s]
    return image[reach:-reach, reach:-reach]


def test_equals_brute_force():
    psf, field = small_psf(), (3, 4)
    volume = random((2, 9, 12))
    assert relative_error(project(psf, volume, field), brute_force(psf, volume, field)) <= 1e-5


@pytest.mark.parametrize(("n", "s"), [(5, 3), (4, 2), (5, 2), (6, 3)])
@pytest.mark.parametrize("field", [(3, 4), (6, 5)])
def test_the_mirror_form_equals_brute_force(n, s, field):
    psf = small_psf(n, s, symmetric=True)
    assert mirror_symmetric(psf)
    volume = random((2, s * field[0], s * field[1]))
    assert relative_error(project(psf, volume, field, mirror=True), brute_force(psf, volume, field)) <= 1e-5


@pytest.mark.parametrize("margin", [-3, -1, 0, 1, 3])
@pytest.mark.parametrize("symmetric", [True, False])
def test_tiles_change_nothing_but_the_memory(symmetric, margin):
    psf, field = small_psf(k=5, symmetric=symmetric), (9, 14)
    sizes = []

    @jax.jit
    def both(psf, x, y):
        whole = LightField(psf, field, margin=margin, tile=field, mirror=symmetric)
        gib = whole.kernel.matrices.size * 4 / 2**30
        tiled = LightField(psf, field, margin=margin, memory_gib=0.6 * gib, mirror=symmetric)
        sizes.append((whole.tiles.tile, tiled.tiles.tile, tiled.kernel.matrices.size * 4 / 2**30 / gib))
        return (whole(x), tiled(x)), (whole.T(y), tiled.T(y))

    x, y = random((2, 3 * (9 + 2 * margin), 3 * (14 + 2 * margin)), 1), random((45, 70), 2)
    pairs = both(psf, x, y)
    ((tile, smaller, share),) = sizes
    assert tile == field
    assert smaller != field
    assert share <= 0.6
    for wanted, got in pairs:
        assert relative_error(got, wanted) <= 1e-5


def test_the_mirror_form_takes_a_quarter_of_the_matrices():
    psf, field = small_psf(symmetric=True), (60, 60)
    mirror, full = (LightField(psf, field, tile=field, mirror=mirror) for mirror in (True, False))
    assert mirror.memory_gib / full.memory_gib <= 0.27


@pytest.fixture(scope="module")
def microscope_psf():
    """The PSF of a microscope, at the coarsest sampling."""
    return compute_psf(preset("20x0.5"), [0.0, 10.0, 20.0], voxels_per_lenslet=5, oversampling=1)


@pytest.fixture(scope="module")
def operators(microscope_psf):
    """Operators of that PSF: with its mirror symmetry, and without."""
    return {symmetric: LightField(microscope_psf, (7, 7), mirror=symmetric) for symmetric in (None, False)}


def test_the_psf_of_a_microscope_is_mirror_symmetric(operators):
    mirror, full = operators[None], operators[False]
    assert mirror.mirror
    assert not full.mirror
    x = np.abs(random(full.in_shape))
    assert relative_error(mirror(x), full(x)) <= 1e-5


def test_bfloat16_halves_the_memory_at_its_error():
    psf = small_psf(symmetric=True)
    exact, narrow = LightField(psf, (6, 7)), LightField(psf, (6, 7), precision="bfloat16")
    assert narrow.memory_gib == exact.memory_gib / 2
    x = np.abs(random(exact.in_shape))
    assert 1e-5 < relative_error(narrow(x), exact(x)) <= 1e-2


@pytest.mark.usefixtures("unchecked")
def test_too_little_memory_and_unknown_precision_are_named():
    with pytest.raises(ParameterError, match="memory_gib"):
        LightField(small_psf(), (3, 3), memory_gib=1e-9)
    with pytest.raises(ParameterError, match="precision"):
        LightField(small_psf(), (3, 3), precision="float16")


def test_frames_of_a_batch_do_not_recompile():
    op, traces = LightField(small_psf(symmetric=True), (3, 4)), []

    @jax.jit
    def forward(op, x):
        traces.append(1)
        return jax.vmap(op)(x)

    for seed in range(3):
        forward(op, random((4, *op.in_shape), seed))
    assert len(traces) == 1


def padded(volume, lenslets):
    """A volume of 3 voxels per lenslet with lenslets of zeros around it."""
    return np.pad(volume, ((0, 0), (3 * lenslets, 3 * lenslets), (3 * lenslets, 3 * lenslets)))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("margin", [1, 2])
def test_a_negative_margin_takes_volume_away(margin, symmetric):
    psf, field = small_psf(k=5, symmetric=symmetric), (7, 8)
    volume = random((2, 3 * (7 - 2 * margin), 3 * (8 - 2 * margin)))
    narrow = project(psf, volume, field, margin=-margin, mirror=symmetric)
    assert relative_error(narrow, project(psf, padded(volume, margin), field, mirror=symmetric)) <= 1e-5


@pytest.mark.parametrize("margin", [1, 4])
def test_a_margin_adds_volume_around_the_field(margin):
    psf, field, large = small_psf(), (3, 4), (3 + 2 * margin, 4 + 2 * margin)
    volume = random((2, 9, 12), 1)
    assert relative_error(project(psf, padded(volume, margin), field, margin=margin), project(psf, volume, field)) <= 1e-5
    volume, cut = random((2, 3 * large[0], 3 * large[1]), 2), 5 * margin
    wanted = project(psf, volume, large)[cut:-cut, cut:-cut]
    assert relative_error(project(psf, volume, field, margin=margin), wanted) <= 1e-5


def test_a_source_moved_by_a_lenslet_moves_its_image_by_n_pixels():
    psf, points = small_psf(), np.zeros((2, 2, 18, 18), np.float32)
    points[0, 1, 7, 8] = points[1, 1, 10, 8] = 1
    here, there = (project(psf, point, (6, 6)) for point in points)
    np.testing.assert_allclose(np.roll(here, 5, axis=0), there, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named():
    with pytest.raises(ParameterError, match="field"):
        LightField(small_psf(), (3.5, 4))
    with pytest.raises(ParameterError, match="margin"):
        LightField(small_psf(), (3, 4), margin=-2)
    for wrong in (9, (3, "a"), (3, float("nan")), (True, 3)):
        with pytest.raises(ParameterError, match="field"):
            LightField(small_psf(), wrong)
    with pytest.raises(ParameterError, match="margin"):
        LightField(small_psf(), (3, 4), margin="wide")
    with pytest.raises(ParameterError, match="tile"):
        LightField(small_psf(), (3, 4), tile=(0, 4))
    with pytest.raises(ParameterError, match="frames"):
        LightField(small_psf(), (3, 4), frames=0)
    with pytest.raises(ParameterError, match="margin = 1.5"):
        LightField(small_psf(), (3, 4), margin=1.5)


@pytest.mark.parametrize("symmetric", [None, False])
def test_the_low_rank_form_keeps_to_its_error(symmetric, operators):
    op = operators[symmetric]
    small = op.compress(2e-2, measure=False)
    report = small.compression
    assert report.error <= 2e-2
    assert report.ranks[0] * report.ranks[1] < report.channels[0] * report.channels[1]
    assert small.memory_gib == report.memory_gib[1] < report.memory_gib[0] == op.memory_gib
    noise, image = random(op.in_shape), random(op.out_shape, 1)
    wanted, back = op(noise), op.T(image)
    assert relative_error(small(noise), wanted) == pytest.approx(report.error, rel=0.3)
    exact = op.compress(1e-5, measure=False)
    assert relative_error(exact(noise), wanted) <= 2e-5
    assert relative_error(exact.T(image), back) <= 2e-5


def test_a_low_rank_form_in_bfloat16_still_keeps_to_its_error(operators):
    op = operators[None]
    single, half = op.compress(1e-2), op.compress(1e-2, precision="bfloat16", measure=False)
    assert half.compression.error <= 1e-2
    assert half.memory_gib < 0.6 * single.memory_gib
    assert all(t > 0 for t in single.compression.seconds)


def test_operators_that_cannot_be_compressed_are_named():
    op = LightField(small_psf(), (3, 3))
    with pytest.raises(ParameterError, match="rtol"):
        op.compress(0.0)
    with pytest.raises(ParameterError, match="rounding"):
        op.compress(1e-3, precision="bfloat16")
    with pytest.raises(ParameterError, match="exact"):
        op.compress(0.5, measure=False).compress()
    with pytest.raises(ParameterError, match="bfloat16"):
        LightField(small_psf(), (3, 3), precision="bfloat16").compress()
    with pytest.raises(ParameterError, match="jit"):
        jax.jit(lambda o: o.compress().matvec(jnp.ones(o.in_shape)))(op)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("k", [3, 5])
def test_the_gram_operator_is_the_transpose_after_the_operator(symmetric, k):
    psf = small_psf(k=k, symmetric=symmetric)

    @partial(jax.jit, static_argnames=("margin", "kind"))
    def both(psf, x, margin, kind):
        op = LightField(psf, (8, 9), margin=margin, tile=(8, 9), mirror=symmetric)
        gram = op.gram
        assert type(gram) is kind
        return gram(x), op.T(op(x))

    for margin, kind in ((-(k // 2), LightFieldGram), (-3, LightFieldGram), (0, Compose)):
        x = random((2, 3 * (8 + 2 * margin), 3 * (9 + 2 * margin)))
        assert relative_error(*both(psf, x, margin, kind)) <= 1e-5


@pytest.fixture(scope="module")
def small_operator():
    return LightField(small_psf(symmetric=True), (3, 4))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, bool])
def test_whole_numbers_of_a_camera_do_not_wrap_around(dtype, small_operator):
    op = small_operator
    frame = np.random.default_rng(0).integers(0, 2 if dtype is bool else 200, op.out_shape).astype(dtype)
    assert relative_error(op.T(frame), op.T(frame.astype(np.float32))) <= 1e-6
    assert relative_error(op(np.ones(op.in_shape, dtype)), op(np.ones(op.in_shape, np.float32))) <= 1e-6


@pytest.mark.parametrize(("field", "margin"), [((2, 2), 0), ((3, 9), 0), ((4, 4), -1)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_field_smaller_than_the_psf(field, margin, symmetric):
    psf = small_psf(k=7, symmetric=symmetric)
    x = random((2, 3 * (field[0] + 2 * margin), 3 * (field[1] + 2 * margin)))
    image = project(psf, x, field, margin=margin, mirror=symmetric)
    assert relative_error(image, brute_force(psf, padded(x, -margin), field)) <= 1e-5


def test_measuring_again_compiles_nothing_again(operators):
    op, traces = operators[None], []

    @jax.jit
    def forward(op, x):
        traces.append(1)
        return op(x)

    for rtol in (0.05, 0.05, 0.1):
        small = op.compress(rtol)
        forward(small, np.ones(op.in_shape, np.float32))
    assert len(traces) == 2  # the same operator with another time is the same, one with another error is not
    assert small.compression != op.compress(0.05, measure=False).compression


def test_a_compression_that_keeps_all_channels_adds_none():
    op = LightField(small_psf(symmetric=True), (4, 4))
    kept = op.compress(1e-7, measure=False)
    assert kept.kernel.image.components is None
    assert kept.compression.ranks == kept.compression.channels
