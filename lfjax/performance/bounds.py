"""The roofline model: the least time that a device needs for a computation, and the peaks of common accelerators.

Source: Williams, Waterman, Patterson, Commun. ACM 52, 65 (2009).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from lfjax.errors import require
from lfjax.performance.counting import Cost


class Device(NamedTuple):
    """Peaks of one processor, without sparsity.

    Attributes:
        name: name and model of the card.
        float32_tflops: rate in full precision, 1e12 flops per second.
        tf32_tflops: rate of float32 products at JAX's default precision; None: that is full precision.
        bfloat16_tflops: rate of bfloat16 products; None: the processor has no unit for them.
        bandwidth_gbs: memory bandwidth, 1e9 bytes per second.
        memory_gb: memory, 1e9 bytes; None: unknown.
        source: where the numbers come from.
    """

    name: str
    float32_tflops: float
    tf32_tflops: float | None
    bfloat16_tflops: float | None
    bandwidth_gbs: float
    memory_gb: float | None
    source: str

    @property
    def peaks(self) -> str:
        """The rates as text."""
        kinds = {"float32": self.float32_tflops, "tf32": self.tf32_tflops, "bfloat16": self.bfloat16_tflops}
        rates = ", ".join(f"{rate:.4g} {kind}" for kind, rate in kinds.items() if rate is not None)
        return f"{self.name}: {rates} TFLOP/s, {self.bandwidth_gbs:.4g} GB/s ({self.source})"


def _tpu(name: str, bfloat16: float, bandwidth: float, memory: float) -> Device:
    """A TPU, whose units multiply bfloat16: once at JAX's default precision, six times for a product in float32."""
    source = f"cloud.google.com/tpu/docs/{name}"
    return Device(f"TPU {name}", bfloat16 / 6, bfloat16, bfloat16, bandwidth, memory, source)


# Tensor-core rates that a datasheet gives "with sparsity" are halved. The figures of NVIDIA's documents were checked against
# quotations of them (A100, H100, H200: glennklockwood.com/garden/processors; B200, L4, T4, RTX 4090: hmc-tech.com, waredb.com,
# pcpartcomparison.com), those of the TPUs against Google's pages. Full precision on a TPU, a sixth, is assumed from JAX's
# six passes of bfloat16.
DEVICES: dict[str, Device] = {
    "v100": Device("V100 SXM2 32 GB", 15.7, None, None, 900, 32, "NVIDIA V100 datasheet"),
    "a100-40gb": Device("A100 SXM 40 GB", 19.5, 156, 312, 1555, 40, "NVIDIA A100 datasheet"),
    "a100-80gb": Device("A100 SXM 80 GB", 19.5, 156, 312, 2039, 80, "NVIDIA A100 datasheet"),
    "h100": Device("H100 SXM", 67, 494.5, 989.5, 3350, 80, "NVIDIA H100 datasheet"),
    "h100-pcie": Device("H100 PCIe", 51, 378, 756.5, 2000, 80, "NVIDIA H100 datasheet"),
    "h200": Device("H200 SXM", 67, 494.5, 989.5, 4800, 141, "NVIDIA H200 datasheet"),
    "b200": Device("B200, one of HGX", 75, 1100, 2250, 7700, 180, "NVIDIA HGX B200 datasheet"),
    "l4": Device("L4", 30.3, 60, 121, 300, 24, "NVIDIA L4 datasheet"),
    "rtx4090": Device("RTX 4090", 82.6, 82.6, 165.2, 1008, 24, "NVIDIA Ada architecture whitepaper"),
    "t4": Device("T4", 8.1, None, None, 320, 16, "NVIDIA T4 datasheet"),
    "tpu-v4": _tpu("v4", 275, 1200, 34.4),
    "tpu-v5e": _tpu("v5e", 197, 819, 16),
    "tpu-v5p": _tpu("v5p", 459, 2765, 95),
    "tpu-v6e": _tpu("v6e", 918, 1638, 32),
}
"""Accelerators by name. A CPU is not among them: measure it (`benchmarks/machine.py`), and make a `Device` of the numbers."""


def find_device(name: str, tflops: float | None = None, bandwidth_gbs: float | None = None) -> Device:
    """A device by name; measured peaks, if given, replace those of the datasheet.

    Args:
        name: one of `DEVICES`, or "cpu", which needs both numbers.
        tflops: measured rate of float32, 1e12 flops per second. Other precisions keep the datasheet's rates.
        bandwidth_gbs: measured memory bandwidth, 1e9 bytes per second.

    Raises:
        ParameterError: the name is unknown, a number is not positive, or a CPU lacks one.
    """
    require(name == "cpu" or name in DEVICES, "device", name, f"one of {', '.join(DEVICES)}, or cpu with its peaks")
    for argument, value in (("tflops", tflops), ("bandwidth_gbs", bandwidth_gbs)):
        require(value is None or value > 0, argument, value, "a positive number")
        require(name != "cpu" or value is not None, argument, value, "the measured peak of this cpu")
    if name == "cpu":
        assert tflops is not None and bandwidth_gbs is not None
        return Device("CPU", tflops, None, None, bandwidth_gbs, None, "numbers given")
    device = DEVICES[name]
    if tflops is not None:
        device = device._replace(float32_tflops=tflops, source=f"{device.source}; float32 as given")
    if bandwidth_gbs is not None:
        device = device._replace(bandwidth_gbs=bandwidth_gbs, source=f"{device.source}; bandwidth as given")
    return device


class Roofline(NamedTuple):
    """The least time for a cost.

    Attributes:
        seconds: max(arithmetic, memory).
        arithmetic: time of the flops at the peak rates of their precisions, one precision after another, in seconds.
        memory: time of the bytes at peak bandwidth, in seconds.
    """

    seconds: float
    arithmetic: float
    memory: float

    @property
    def limit(self) -> Literal["arithmetic", "memory"]:
        """The larger of the two times."""
        return "arithmetic" if self.arithmetic >= self.memory else "memory"


def roofline(cost: Cost, device: Device) -> Roofline:
    """The least time t = max(flops / peak, bytes / bandwidth), each flop at the peak rate of its precision.

    Args:
        cost: cost of one call, one frame, ...; see `lfjax.performance.cost`.
        device: see `DEVICES`.
    """
    full = device.float32_tflops
    kinds = ((cost.float32, full), (cost.tf32, device.tf32_tflops or full), (cost.bfloat16, device.bfloat16_tflops or full))
    arithmetic = sum(flops / (peak * 1e12) for flops, peak in kinds)
    memory = cost.bytes / (device.bandwidth_gbs * 1e9)
    return Roofline(max(arithmetic, memory), arithmetic, memory)


def share(seconds: float, cost: Cost, device: Device) -> float:
    """Fraction of the roofline that a program reaches: the least time over the measured time, 1 at best.

    Args:
        seconds: measured time.
        cost: cost of the measured program.
        device: the device that ran it.

    Raises:
        ParameterError: `seconds` is not positive.
    """
    require(seconds > 0, "seconds", seconds, "a positive number")
    return roofline(cost, device).seconds / seconds
