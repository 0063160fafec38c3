"""The sizes that matter on one accelerator, each beside its share of the roofline of that machine.

`make bench-gpu` writes results/gpu.json with the name of the device. `--minutes` (8 by default) limits the time: parts that
have not begun by then are left out by name. The run measures the rates of the machine (products, transforms, copies), and these
stand for the data sheet in the roofline. It needs no file, and no package beside numpy, scipy, jax, jaxtyping, equinox,
optimistix, optax, flax, orbax-checkpoint, h5py and matplotlib: `python -m benchmarks.gpu` runs from a bare checkout.

PSFs are random with the symmetry and the size of the real ones: time does not depend on values, and waves take minutes.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks.common import Report
from benchmarks.machine import Limits, seconds
from lfjax import rotation, solvers, training
from lfjax.fri import Features, Sampling, espline, recover, view_samples
from lfjax.optics import PSF, LightField, Microscope, preset
from lfjax.performance import Device, cost, share
from lfjax.tomography import FourierSlice
from lfjax.training import loop, steps


@dataclass(frozen=True)
class Size:
    """Sizes of all parts.

    Attributes:
        pixels: N of the light-field microscope.
        depths: planes of the volume.
        support: side of the PSF in lenslets.
        lenslets: side of the light field.
        batches: frames at once.
        boxes: side of the map and number of projections.
        problems: FRI problems in a batch.
        network: lenslets of the field of the network, and of a training window.
    """

    pixels: int = 19
    depths: int = 53
    support: int = 17
    lenslets: int = 106
    batches: tuple[int, ...] = (1, 16)
    boxes: tuple[tuple[int, int], ...] = ((128, 1024), (256, 256))
    problems: int = 1000
    network: tuple[int, int] = (106, 21)


TOY = Size(5, 2, 3, 6, (2,), ((16, 8),), 4, (9, 9))
VOXELS = 3  # across a lenslet
IMPERIAL = replace(preset("25x1.0w"), pixels_per_lenslet=19, name="25x1.0w, 19 pixels per lenslet")


@dataclass(frozen=True)
class Bench:
    """A report and the machine that its rows are measured on."""

    report: Report
    device: Device
    size: Size

    def row(self, name: str, number: int, unit: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Two rows: how many of a unit per second, and the share of the roofline; the function is compiled here.

        Args:
            name: of the figure.
            number: units that one call makes.
            unit: "frames", for example.
            function: traceable.
            arguments: its arrays; operators among them.
        """
        took = seconds(jax.jit(function), *arguments)
        self.report.row(name, number / took, f"{unit}/s")
        try:
            reached = share(took, cost(function, *arguments), self.device)
        except ValueError as error:  # a factorisation, whose cost is not counted
            print(f"{name}: no roofline ({error})")
            return
        self.report.row(f"{name}: share of the roofline", reached, "1")


def measure_device(limits: Limits) -> Device:
    """The roofline of this machine: products at each precision, and bytes that are read and written in place."""
    bfloat16, tf32 = limits.bfloat16_gemm, limits.tf32_gemm
    rates = (limits.gemm / 1e12, tf32 / 1e12, bfloat16 / 1e12, limits.memory / 1e9)
    return Device(jax.devices()[0].device_kind, *rates, None, "measured in this run")


def random_psf(microscope: Microscope, depths: int, support: int) -> PSF:
    """A PSF of mirror symmetry: (D, s, s, K N, K N)."""
    shape = (depths, VOXELS, VOXELS, support * microscope.pixels_per_lenslet, support * microscope.pixels_per_lenslet)
    values = jax.random.uniform(jax.random.key(0), shape)
    values = values + jnp.flip(values, (1, 3))
    values = values + jnp.flip(values, (2, 4))
    return PSF(values / values.sum((3, 4), keepdims=True), microscope, tuple(2.0 * np.arange(depths)))


def light_field(bench: Bench) -> Iterator[str]:
    """H and H^T at Imperial's size in each precision, and ISTA on it."""
    size = bench.size
    psf = random_psf(replace(IMPERIAL, pixels_per_lenslet=size.pixels), size.depths, size.support)
    for precision in ("float32", "tf32", "bfloat16"):
        for batch in size.batches:
            yield f"light field, {precision}, batch {batch}"
            op = LightField(psf, (size.lenslets,) * 2, frames=batch, precision=precision, mirror=True, memory_gib=8.0)
            x, y = (jnp.ones((batch, *shape)) for shape in (op.in_shape, op.out_shape))
            bench.row(f"H, {precision}, batch {batch}", batch, "frames", lambda op, x: jax.vmap(op)(x), op, x)
            bench.row(f"H^T, {precision}, batch {batch}", batch, "frames", lambda op, y: jax.vmap(op.rmatvec)(y), op, y)
            if precision == "tf32":
                bench.row(
                    f"ISTA, 20 iterations, {precision}, batch {batch}", batch, "volumes", jax.vmap(ista, (None, 0)), op, y
                )
            del op, x, y


def ista(op: LightField, y: Array) -> Array:
    """Twenty iterations on one frame; the step size is known for a whole recording."""
    problem = solvers.Problem(op, y)
    solver = solvers.ISTA(1e-3, step_size=1.0)
    return solvers.iterate(solver, problem, solver.init(problem, None), 20)[0].x


def small_model(bench: Bench) -> Iterator[str]:
    """The network that comes with the package, on a whole field and in one step of training."""
    yield "the small model"
    model = training.small_model()
    voxels, pixels = model.recipe.cells
    side, window = bench.size.network
    for batch in bench.size.batches:
        frames = jnp.ones((batch, side * pixels[0], side * pixels[1]))
        bench.row(f"small model, batch {batch}", batch, "volumes", lambda net, y: jax.vmap(net)(y), model.network, frames)
    yield "a step of training"
    count, options = 4, training.Options()
    depths = len(model.recipe.volume.z_um)
    frames = np.ones((count, window * pixels[0], window * pixels[1]), np.float32)
    volumes = np.ones((count, depths, window * voxels[0], window * voxels[1]), np.float32)
    data = training.TrainingSet(frames, volumes, [], pixels, voxels)
    plan = loop.prepare(model.network, None, data, None, training.LossWeights(), options)
    state, batch = steps.start(model.network, None, plan), data.batch(0, 0, count, 0)
    step = jax.jit(lambda state, batch: steps.advance(plan, state, batch))
    bench.report.row(f"training, {count} windows of {window} lenslets", 1 / seconds(step, state, batch), "steps/s")


def projections(bench: Bench) -> Iterator[str]:
    """Projection and back-projection of maps."""
    for side, count in bench.size.boxes:
        yield f"projections of {side}^3"
        op = FourierSlice(rotation.random_rotations(jax.random.key(0), count), side)
        x, y = jnp.ones(op.in_shape), jnp.ones(op.out_shape)
        bench.row(f"projection, {side}^3", count, "images", lambda op, x: op(x), op, x)
        bench.row(f"back-projection, {side}^3", count, "images", lambda op, y: op.rmatvec(y), op, y)


def points(bench: Bench) -> Iterator[str]:
    """Six points in space from three projections at unknown angles, in batches and float64."""
    yield "FRI"
    number = bench.size.problems
    with jax.enable_x64(True):
        sampling = Sampling(espline(0.55 * np.arange(-3, 4)), 13)
        features = Features.exponential(sampling, 3, 0.55)
        rng = np.random.default_rng(0)
        places = jnp.asarray(rng.uniform(-1.5, 1.5, (number, 6, 3)))
        amplitudes = jnp.asarray(rng.permuted(np.tile(np.linspace(0.5, 1.5, 6), (number, 1)), axis=1))
        turns = rotation.random_rotations(jax.random.key(1), 3 * number).reshape(number, 3, 3, 3)
        samples = jax.jit(jax.vmap(partial(view_samples, sampling)))(places, amplitudes, turns, jnp.zeros((number, 3, 2)))
        find = jax.vmap(lambda y: recover(sampling, y, 6, features, view_steps=0, steps=0).points)
        bench.row(f"FRI, six points, batch {number}", number, "problems", find, samples)


def main() -> None:
    """Measure the machine, then one part after another while there is time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="small sizes, nothing written: what CI runs")
    parser.add_argument("--minutes", type=float, default=8.0, help="time after which no further part begins")
    options = parser.parse_args()
    begun = time.perf_counter()
    report = Report("gpu", options.toy)
    limits = Limits.measure(toy=options.toy)
    device = measure_device(limits)
    rates = {
        "float32": limits.gemm,
        "tf32": limits.tf32_gemm,
        "bfloat16": limits.bfloat16_gemm,
        "complex64": limits.complex_gemm,
    }
    for name, rate in rates.items():
        report.row(f"machine: product in {name}", rate / 1e12, "TFLOP/s")
    report.row("machine: transforms", limits.fft / 1e12, "TFLOP/s")
    report.row("machine: memory", limits.memory / 1e9, "GB/s")
    bench, failed = Bench(report, device, TOY if options.toy else Size()), []
    for part in (light_field, small_model, projections, points):
        name = part.__name__
        try:
            for name in part(bench):
                if time.perf_counter() - begun > 60 * options.minutes:
                    print(f"{name}: left out, {options.minutes:g} minutes are over")
                    break
                print(f"-- {name}, {time.perf_counter() - begun:.0f} s", flush=True)
        except Exception:  # minutes on such a machine are few: the other parts still run, and the run fails at the end
            traceback.print_exc()
            failed.append(name)
        report.write()
    report.row("the whole run", time.perf_counter() - begun, "s", f"<= {60 * options.minutes:g}", not failed)
    report.write()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
