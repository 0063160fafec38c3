"""Costs against closed forms and, where its count is right, XLA; rooflines against arithmetic by hand."""

import math
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import ShapeDtypeStruct as Shape

from lfjax.errors import ParameterError
from lfjax.models.convolution import convolve
from lfjax.optics import PSF, AntiAlias, LightField, Microscope, preset
from lfjax.performance.bounds import DEVICES, Device, find_device, roofline, share
from lfjax.performance.counting import Cost, cost
from lfjax.performance.light_field_costs import abstract_light_field, operator_costs, solver_costs
from lfjax.pipeline import SOLVERS

HIGHEST = jax.lax.Precision.HIGHEST


def f32(*shape):
    return Shape(shape, jnp.float32)


def product(a, b):
    return jnp.matmul(a, b, precision=HIGHEST)


@cache
def light_field(mirror, frames=4, field=(16, 16), tile=None):
    def build(values):
        psf = PSF(values, Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 9), tuple(map(float, range(6))))
        return LightField(psf, field, tile=tile, mirror=mirror, frames=frames)

    return eqx.filter_eval_shape(build, f32(6, 3, 3, 45, 45))


def both_ways(op, frames):
    forward = cost(lambda op, x: jax.vmap(op.matvec)(x), op, f32(frames, *op.in_shape))
    return forward, cost(lambda op, y: jax.vmap(op.rmatvec)(y), op, f32(frames, *op.out_shape))


@pytest.mark.parametrize(
    ("dtype", "precision", "kind"),
    [
        ("float32", HIGHEST, "float32"),
        ("float32", None, "tf32"),
        ("bfloat16", None, "bfloat16"),
        ("complex64", None, "float32"),
    ],
)
def test_a_product_costs_2mnk_in_its_precision(dtype, precision, kind):
    m, k, n = 30, 50, 70
    a, b = Shape((m, k), dtype), Shape((k, n), dtype)
    got = cost(lambda a, b: jnp.matmul(a, b, precision=precision), a, b)
    size = jnp.dtype(dtype).itemsize
    flops = (8 if dtype == "complex64" else 2) * m * n * k
    assert got == Cost(**{kind: flops}, bytes=size * (m * k + k * n + m * n))
    assert got.flops == flops


def test_a_batch_reads_a_shared_matrix_once():
    got = cost(lambda a, x: jax.vmap(lambda x: product(a, x))(x), f32(50, 40), f32(16, 40))
    assert got == Cost(2 * 16 * 50 * 40, bytes=4 * (50 * 40 + 16 * 40 + 16 * 50))


def test_a_convolution_costs_two_flops_per_tap():
    def valid(x, k):
        return jax.lax.conv_general_dilated(x, k, (2, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    got = cost(valid, f32(2, 21, 22, 5), f32(3, 4, 5, 7))
    outputs = 2 * 10 * 19 * 7
    assert got == Cost(tf32=2 * outputs * 3 * 4 * 5, bytes=4 * (2 * 21 * 22 * 5 + 3 * 4 * 5 * 7 + outputs))
    # `convolve` has two forms: this is the one for accelerators
    assert cost(convolve, f32(8, 9, 3), f32(3, 3, 3, 6)).tf32 == 2 * 8 * 9 * 6 * 27


def test_transforms_cost_5_n_log_n_and_real_ones_half():
    n = 32 * 48
    real = cost(jnp.fft.rfft2, f32(7, 32, 48))
    assert real.flops == pytest.approx(7 * 2.5 * n * math.log2(n)) and real.bytes == 7 * (4 * n + 8 * 32 * 25)
    assert cost(jnp.fft.irfft2, Shape((7, 32, 25), jnp.complex64)).flops == pytest.approx(7 * 2.5 * n * math.log2(n))
    assert cost(jnp.fft.ifft2, Shape((7, 32, 48), jnp.complex64)).flops == pytest.approx(7 * 5 * n * math.log2(n))


def test_a_scan_counts_once_per_iteration():
    def chain(a, x):
        return jax.lax.scan(lambda x, _: (product(a, x), None), x, None, length=10)[0]

    one = cost(product, f32(64, 64), f32(64, 16))
    assert cost(chain, f32(64, 64), f32(64, 16)) == 10 * one
    assert cost(jax.jit(jax.checkpoint(chain)), f32(64, 64), f32(64, 16)) == 10 * one


def test_elements_are_fused_between_kernels():
    n = 1000
    assert cost(lambda x, y: jnp.exp(2 * x + y) - 1, f32(n), f32(n)) == Cost(4 * n, bytes=4 * 3 * n)
    assert cost(lambda x: jnp.sum(x**2), f32(n)) == Cost(2 * n, bytes=4 * (n + 1))
    assert cost(lambda x: (x.reshape(10, 100).T, 2 * x[:50]), f32(n)) == Cost(50, bytes=4 * (50 + 50))
    assert cost(lambda x: jnp.concatenate([x[:10], x[-20:]]), f32(n)) == Cost(bytes=4 * (30 + 30))
    assert cost(lambda x: x.at[:10].add(1.0), f32(n)).bytes == 4 * (2 * 10)
    assert cost(lambda x: jax.lax.dynamic_update_slice(x, x[-10:], (0,)), f32(n)) == Cost(bytes=4 * (10 + 10))
    between = cost(lambda a, x: product(a, jnp.tanh(product(a, x))), f32(8, 8), f32(8, 8))
    assert between == Cost(2 * 2 * 8**3 + 64, bytes=4 * 64 * (3 + 2 + 3))


def test_dead_code_costs_nothing():
    assert cost(lambda a: (product(a, a), a)[1], f32(64, 64)) == Cost()


def test_the_most_expensive_branch_counts():
    got = cost(lambda on, a: jax.lax.cond(on, lambda a: product(a, a), lambda a: a, a), Shape((), jnp.bool_), f32(9, 9))
    assert got.flops == 2 * 9**3


@pytest.mark.parametrize("function", [jnp.linalg.svd, lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 1, lambda x: x / 2, x)])
def test_functions_of_unknown_cost_are_refused(function):
    with pytest.raises(ParameterError, match="function holds (svd|while)"):
        cost(function, f32(4, 4))


def test_the_mirror_form_costs_as_derived():
    """Real matrices with four columns per frequency, cosine and sine transforms as products, parities and twists."""
    frames, op = 4, light_field(True)
    (y, x), (ky, kx, o, i) = op.tiles.tile, op.kernel.matrices.shape
    assert (o, i, ky, kx) == (81, 54, 10, 10)
    flops = frames * 2 * 4 * ky * kx * o * i
    numbers = ky * kx * o * i
    for channels in (i, o):
        rows, both = 2 * kx * y, 4 * ky * kx
        # transforms along x and then y; signs of the twist; sums, differences and roots of the parities
        flops += frames * channels * (2 * rows * x + 2 * both * y + 2 * both + 4 * y * x)
        # parity: in, out; first transform: in, out; second: in, out; twist: in, out; product: in (or out)
        numbers += frames * channels * (3 * y * x + 2 * rows + 4 * both)
    for got in both_ways(op, frames):
        assert got.flops == pytest.approx(flops, rel=0.01) and got.bytes == pytest.approx(4 * numbers, rel=0.02)
        assert got.tf32 == got.bfloat16 == 0


def test_the_full_form_costs_as_derived():
    """Complex products as stacked real ones, 8 per element and frequency; 2.5 n log2 n per channel and transform."""
    frames, op = 4, light_field(False)
    (y, x), (ky, kx, o, i) = op.kernel.shape, op.kernel.matrices.shape
    flops = frames * (2 * 2 * ky * kx * o * i + (i + o / 2) * 2.5 * y * x * math.log2(y * x))
    for got in both_ways(op, frames):
        assert got.flops == pytest.approx(flops, rel=0.04)


def test_the_precision_of_an_operator_shows_in_its_cost():
    full, *narrow = (
        operator_costs(abstract_light_field(preset("20x0.5"), (-10.0, 0.0, 10.0), 3, 9, 2, precision), 2)["H"]
        for precision in ("float32", "tf32", "bfloat16")
    )
    assert [bool(c.tf32) for c in narrow] == [True, False] and narrow[1].bfloat16 == narrow[0].tf32
    assert all(c.flops == pytest.approx(full.flops, rel=0.01) for c in narrow) and narrow[1].bytes < full.bytes


@pytest.mark.parametrize("tile", [None, (8, 8)])
def test_flops_agree_with_xla_where_its_count_is_right(tile):
    """The mirror form has neither loops nor FFTs. XLA also counts selections and recomputation, and fuses less."""
    op = light_field(True, tile=tile)
    ours = cost(lambda op, x: jax.vmap(op.matvec)(x), op, f32(4, *op.in_shape))
    arrays, rest = eqx.partition(op, lambda leaf: isinstance(leaf, Shape | jax.Array))
    run = jax.jit(lambda arrays, x: jax.vmap(eqx.combine(arrays, rest).matvec)(x))
    theirs = run.lower(arrays, f32(4, *op.in_shape)).compile().cost_analysis()
    assert theirs["flops"] == pytest.approx(ours.flops, rel=0.05)
    assert ours.bytes <= theirs["bytes accessed"] <= 2 * ours.bytes


@pytest.mark.parametrize("name", SOLVERS)
def test_an_iteration_is_one_h_and_one_transpose(name):
    op, batch = light_field(True), 4
    pair = sum(operator_costs(op, batch).values(), Cost())
    once, whole = solver_costs(op, name, 7, batch)
    applications = 5 if name == "admm" else 1
    assert once.flops == pytest.approx(applications * pair.flops, rel=0.06)
    start = whole - 7 * once  # lambda_max, the first image or two, the sensitivity: no power iteration
    assert 0.4 * pair.flops <= start.flops <= 3 * pair.flops


def test_smoothing_is_counted_in_both_directions():
    op = light_field(True)
    microscope = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 9)
    smooth = eqx.filter_eval_shape(AntiAlias, microscope, tuple(map(float, range(6))), 3, op.in_shape[1:])
    plain, smoothed = (solver_costs(op, "richardson_lucy", 3, 4, a)[0] for a in (None, smooth))
    z, y, x = op.in_shape
    assert smoothed.flops - plain.flops == pytest.approx(2 * 2 * z * y * x * (y + x), rel=0.02)


def test_a_large_microscope_takes_no_memory():
    depths = tuple((1.1 * np.arange(-26.0, 27.0)).tolist())
    op = abstract_light_field(preset("25x1.0w"), depths, 3, 106, 16, "float32")
    assert op.in_shape == (53, 318, 318) and 2 * op.psf_reach + 1 == 17
    assert isinstance(op.kernel.matrices, Shape) and op.kernel.matrices.shape == (58, 58, 361, 477)
    products = 8 * 58 * 58 * 361 * 477
    transforms = 2 * 116 * 106 * (106 + 116) * (361 + 477)
    assert operator_costs(op, 16)["H"].flops == pytest.approx(products + transforms, rel=0.02)


def test_the_roofline_takes_the_slower_of_two():
    device = Device("toy", 10.0, 100.0, None, 1000.0, None, "this test")
    bound = roofline(Cost(float32=1e12, tf32=1e13, bfloat16=2e12, bytes=1e11), device)
    assert bound.arithmetic == pytest.approx(0.1 + 0.1 + 0.2) and bound.memory == pytest.approx(0.1)
    assert bound.seconds == bound.arithmetic and bound.limit == "arithmetic"
    moved = Cost(bytes=1e12)
    assert roofline(moved, device).limit == "memory" and share(4.0, moved, device) == pytest.approx(0.25)
    with pytest.raises(ParameterError, match="seconds = 0"):
        share(0, moved, device)


def test_devices_are_found_and_plausible():
    for device in DEVICES.values():
        assert device.float32_tflops <= (device.tf32_tflops or math.inf) <= (device.bfloat16_tflops or math.inf)
        assert 100 < device.bandwidth_gbs < 1e4 and device.source
    assert find_device("h100", bandwidth_gbs=3000.0).bandwidth_gbs == 3000
    assert find_device("cpu", 0.2, 20.0)[1:5] == (0.2, None, None, 20.0)


@pytest.mark.parametrize(
    ("arguments", "says"), [(("gpu",), "h100"), (("cpu", 0.2), "bandwidth_gbs = None"), (("h100", -1.0), "tflops = -1")]
)
def test_unknown_devices_are_refused(arguments, says):
    with pytest.raises(ParameterError, match=says):
        find_device(*arguments)


def test_costs_add_up():
    assert Cost(1, 2, 3, 4) + 2 * Cost(1, 1, 1, 1) - Cost(float32=1) == Cost(2, 4, 5, 6)
    assert Cost(2, 4, 6, 8) / 2 == Cost(1, 2, 3, 4)
