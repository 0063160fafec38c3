"""The light-field operator against an independent code and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.reference import clipped as clipped_psf, relative_error
from lfjax.errors import ParameterError
from lfjax.linop import Compose
from lfjax.optics import PSF, LightField, Microscope, compute_psf, preset
from lfjax.optics.lightfield.operator import LightFieldGram


@pytest.fixture(scope="module")
def clipped(reference_psf):
    """H with the small values of its PSF cut off as in the reference."""
    return LightField(clipped_psf(reference_psf), (11, 11))


@pytest.mark.parametrize("name", ["rand", "beads"])
def test_forward_projection_agrees_with_the_reference(clipped, reference, name):
    volume = jnp.asarray(reference[f"vol_{name}"]).transpose(2, 0, 1)
    assert relative_error(clipped(volume), reference[f"proj_{name}"]) <= 0.02


def test_back_projection_agrees_with_the_reference(clipped, reference):
    back = np.asarray(clipped.T(jnp.asarray(reference["img_rand"]))).transpose(1, 2, 0)
    assert relative_error(back, reference["back_rand"]) <= 0.02


def small_psf(n=5, s=3, k=3, d=2):
    values = jax.random.uniform(jax.random.key(0), (d, s, s, k * n, k * n))
    return PSF(values, Microscope(20, 0.5, 1.33, 0.52, 125, 2500, n), tuple(map(float, range(d))))


def brute_force(psf, volume, field):
    """Each voxel puts its image where its lenslet is: the definition."""
    n, s, k = psf.microscope.pixels_per_lenslet, psf.voxels_per_lenslet, psf.lenslets
    reach = k // 2 * n
    image = np.zeros((field[0] * n + 2 * reach, field[1] * n + 2 * reach))
    for z, y, x in np.ndindex(*volume.shape):
        top, left = y // s * n, x // s * n
        image[top : top + k * n, left : left + k * n] += float(volume[z, y, x]) * np.asarray(psf.values[z, y % s, x % s])
    return image[reach:-reach, reach:-reach]


def test_equals_brute_force():
    psf, field = small_psf(), (3, 4)
    op = LightField(psf, field)
    volume = np.random.default_rng(0).normal(size=op.in_shape)
    assert relative_error(op(jnp.asarray(volume, jnp.float32)), brute_force(psf, volume, field)) <= 1e-5


def mirrored(psf):
    values = psf.values + jnp.flip(psf.values, (1, 3))
    return PSF(values + jnp.flip(values, (2, 4)), psf.microscope, psf.z_um)


@pytest.mark.parametrize(("n", "s"), [(5, 3), (4, 2), (5, 2), (6, 3)])
@pytest.mark.parametrize("field", [(3, 4), (6, 5)])
def test_the_mirror_form_equals_brute_force(n, s, field):
    psf = mirrored(small_psf(n, s))
    op = LightField(psf, field)
    assert op.mirror
    volume = np.random.default_rng(0).normal(size=op.in_shape)
    assert relative_error(op(jnp.asarray(volume, jnp.float32)), brute_force(psf, volume, field)) <= 1e-5


@pytest.mark.parametrize("margin", [-3, -1, 0, 1, 3])
@pytest.mark.parametrize("symmetric", [True, False])
def test_tiles_change_nothing_but_the_memory(symmetric, margin):
    psf, field = small_psf(k=5), (9, 14)
    psf = mirrored(psf) if symmetric else psf
    whole = LightField(psf, field, margin=margin, tile=field)
    tiled = LightField(psf, field, margin=margin, memory_gib=0.6 * whole.memory_gib)
    assert whole.tiles.tile == field
    assert tiled.tiles.tile != field
    assert tiled.memory_gib <= 0.6 * whole.memory_gib
    x, y = jax.random.normal(jax.random.key(1), whole.in_shape), jax.random.normal(jax.random.key(2), whole.out_shape)
    assert relative_error(tiled(x), np.asarray(whole(x))) <= 1e-5
    assert relative_error(tiled.T(y), np.asarray(whole.T(y))) <= 1e-5


def test_the_mirror_form_takes_a_quarter_of_the_matrices():
    psf, field = mirrored(small_psf()), (60, 60)
    mirror, full = (LightField(psf, field, tile=field, mirror=mirror) for mirror in (True, False))
    assert mirror.memory_gib / full.memory_gib <= 0.27


def test_the_psf_of_a_microscope_is_mirror_symmetric():
    psf = compute_psf(preset("20x0.5"), [0.0, 15.0], voxels_per_lenslet=3, oversampling=1)
    mirror, full = LightField(psf, (6, 7)), LightField(psf, (6, 7), mirror=False)
    assert mirror.mirror
    assert not full.mirror
    x = jax.random.uniform(jax.random.key(0), full.in_shape)
    assert relative_error(mirror(x), np.asarray(full(x))) <= 1e-5


def test_bfloat16_halves_the_memory_at_its_error():
    psf = mirrored(small_psf())
    exact, narrow = LightField(psf, (6, 7)), LightField(psf, (6, 7), precision="bfloat16")
    assert narrow.memory_gib == exact.memory_gib / 2
    x = jax.random.uniform(jax.random.key(0), exact.in_shape)
    assert 1e-5 < relative_error(narrow(x), np.asarray(exact(x))) <= 1e-2


def test_too_little_memory_and_unknown_precision_are_named():
    with pytest.raises(ParameterError, match="memory_gib"):
        LightField(small_psf(), (3, 3), memory_gib=1e-9)
    with pytest.raises(ParameterError, match="precision"):
        LightField(small_psf(), (3, 3), precision="float16")


def test_frames_of_a_batch_do_not_recompile():
    op, traces = LightField(mirrored(small_psf()), (3, 4)), []

    @jax.jit
    def forward(op, x):
        traces.append(1)
        return jax.vmap(op)(x)

    for seed in range(3):
        forward(op, jax.random.uniform(jax.random.key(seed), (4, *op.in_shape)))
    assert len(traces) == 1


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("margin", [1, 2])
def test_a_negative_margin_takes_volume_away(margin, symmetric):
    psf = mirrored(small_psf(k=5)) if symmetric else small_psf(k=5)
    plain, narrow = LightField(psf, (7, 8)), LightField(psf, (7, 8), margin=-margin)
    volume = jax.random.normal(jax.random.key(1), narrow.in_shape)
    pad = 3 * margin
    assert relative_error(narrow(volume), np.asarray(plain(jnp.pad(volume, ((0, 0), (pad, pad), (pad, pad)))))) <= 1e-5


@pytest.mark.parametrize("margin", [1, 4])
def test_a_margin_adds_volume_around_the_field(margin):
    psf = small_psf()
    plain, wide = LightField(psf, (3, 4)), LightField(psf, (3, 4), margin=margin)
    volume = jax.random.normal(jax.random.key(1), plain.in_shape)
    pad = 3 * margin
    assert relative_error(wide(jnp.pad(volume, ((0, 0), (pad, pad), (pad, pad)))), np.asarray(plain(volume))) <= 1e-5
    big = LightField(psf, (3 + 2 * margin, 4 + 2 * margin))
    everywhere = jax.random.normal(jax.random.key(2), wide.in_shape)
    cut = 5 * margin
    assert relative_error(wide(everywhere), np.asarray(big(everywhere))[cut:-cut, cut:-cut]) <= 1e-5


def test_a_source_moved_by_a_lenslet_moves_its_image_by_n_pixels():
    op = LightField(small_psf(), (6, 6))
    here = op(jnp.zeros(op.in_shape).at[1, 7, 8].set(1.0))
    there = op(jnp.zeros(op.in_shape).at[1, 10, 8].set(1.0))
    np.testing.assert_allclose(np.roll(here, 5, axis=0), there, atol=1e-5)


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


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_low_rank_form_keeps_to_its_error(symmetric):
    smooth = compute_psf(preset("20x0.5"), [0.0, 10.0, 20.0], voxels_per_lenslet=5, oversampling=1)
    op = LightField(smooth, (9, 9), mirror=symmetric)
    small = op.compress(2e-2, measure=False)
    told = small.compression
    assert told.error <= 2e-2
    assert told.ranks[0] * told.ranks[1] < told.channels[0] * told.channels[1]
    assert small.memory_gib == told.memory_gib[1] < told.memory_gib[0] == op.memory_gib
    noise = jax.random.normal(jax.random.key(0), (*op.in_shape,))
    assert relative_error(small(noise), np.asarray(op(noise))) == pytest.approx(told.error, rel=0.3)
    exact = op.compress(1e-5, measure=False)
    assert relative_error(exact(noise), np.asarray(op(noise))) <= 2e-5
    image = jax.random.normal(jax.random.key(1), op.out_shape)
    assert relative_error(exact.T(image), np.asarray(op.T(image))) <= 2e-5


def test_a_low_rank_form_in_bfloat16_still_keeps_to_its_error():
    op = LightField(compute_psf(preset("20x0.5"), [0.0, 20.0], voxels_per_lenslet=5, oversampling=1), (5, 5))
    single, half = op.compress(1e-2), op.compress(1e-2, precision="bfloat16", measure=False)
    assert half.compression.error <= 1e-2
    assert half.memory_gib < 0.6 * single.memory_gib
    assert all(t > 0 for t in single.compression.seconds)


def test_what_cannot_be_compressed_is_said():
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
    psf = mirrored(small_psf(k=k)) if symmetric else small_psf(k=k)
    for margin, kind in ((-(k // 2), LightFieldGram), (-3, LightFieldGram), (0, Compose)):
        op = LightField(psf, (8, 9), margin=margin, tile=(8, 9))
        assert type(op.gram) is kind
        x = jax.random.normal(jax.random.key(0), op.in_shape)
        assert relative_error(op.gram(x), np.asarray(op.T(op(x)))) <= 1e-5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, bool])
def test_whole_numbers_of_a_camera_do_not_wrap_around(dtype):
    op = LightField(mirrored(small_psf()), (3, 4))
    frame = np.random.default_rng(0).integers(0, 2 if dtype is bool else 200, op.out_shape).astype(dtype)
    assert relative_error(op.T(frame), np.asarray(op.T(jnp.asarray(frame, jnp.float32)))) <= 1e-6
    assert relative_error(op(np.ones(op.in_shape, dtype)), np.asarray(op(jnp.ones(op.in_shape)))) <= 1e-6


@pytest.mark.parametrize(("field", "margin"), [((2, 2), 0), ((3, 9), 0), ((4, 4), -1)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_field_smaller_than_the_psf(field, margin, symmetric):
    psf = mirrored(small_psf(k=7)) if symmetric else small_psf(k=7)
    op = LightField(psf, field, margin=margin)
    x = np.random.default_rng(0).normal(size=op.in_shape).astype(np.float32)
    pad = -3 * margin
    whole = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    assert relative_error(op(x), brute_force(psf, whole, field)) <= 1e-5


def test_measuring_again_compiles_nothing_again():
    op, traces = LightField(compute_psf(preset("20x0.5"), [0.0, 20.0], 5, oversampling=1), (5, 5)), []

    @jax.jit
    def forward(op, x):
        traces.append(1)
        return op(x)

    for _ in range(2):
        forward(op.compress(0.05), jnp.ones(op.in_shape))
    assert len(traces) == 1


def test_what_keeps_all_channels_adds_none():
    op = LightField(mirrored(small_psf()), (4, 4))
    kept = op.compress(1e-7, measure=False)
    assert kept.kernel.image.components is None
    assert kept.compression.ranks == kept.compression.channels
