"""How fast a processor can be at best: the roofline model, and peaks of common accelerators.

Source: Williams, Waterman, Patterson, Commun. ACM 52, 65 (2009).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from lfjax.errors import require
from lfjax.performance.counting import Cost


class Device(NamedTuple):
    """Peaks of one processor, without sparsity.

    Attributes:
        name: with the model of the card.
        float32_tflops: 1e12 flops a second in full precision.
        tf32_tflops: of float32 products at JAX's default precision; None where that is full precision.
        bfloat16_tflops: of products of bfloat16; None where there is no unit for them.
        bandwidth_gbs: of its memory, 1e9 bytes a second.
        memory_gb: 1e9 bytes; None if it is not known.
        source: of the numbers.
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
        """The numbers in words."""
        kinds = {"float32": self.float32_tflops, "tf32": self.tf32_tflops, "bfloat16": self.bfloat16_tflops}
        rates = ", ".join(f"{rate:.4g} {kind}" for kind, rate in kinds.items() if rate is not None)
        return f"{self.name}: {rates} TFLOP/s, {self.bandwidth_gbs:.4g} GB/s ({self.source})"


def _tpu(name: str, bfloat16: float, bandwidth: float, memory: float) -> Device:
    """A TPU, whose units multiply bfloat16: once at JAX's default precision, six times for a product in float32."""
    return Device(f"TPU {name}", bfloat16 / 6, bfloat16, bfloat16, bandwidth, memory, f"Cloud TPU documentation, {name}")


# Tensor-core rates that a datasheet gives "with sparsity" are halved.
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
    """A device by name, with peaks that were measured in place of those of the datasheet where they are given.

    Args:
        name: in `DEVICES`; or "cpu", which needs both numbers.
        tflops: of float32, in 1e12 flops a second. Other precisions then keep the datasheet's rates.
        bandwidth_gbs: of memory, in 1e9 bytes a second.

    Raises:
        ParameterError: an unknown name, a number that is not positive, or a CPU without numbers.
    """
    require(name == "cpu" or name in DEVICES, "device", name, f"one of {', '.join(DEVICES)}, or cpu with its peaks")
    for argument, value in (("tflops", tflops), ("bandwidth_gbs", bandwidth_gbs)):
        require(value is None or value > 0, argument, value, "a positive number")
        require(name != "cpu" or value is not None, argument, value, "the peak of this cpu, which no table holds")
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
    """The least time that a cost takes.

    Attributes:
        seconds: max(arithmetic, memory).
        arithmetic: seconds of flops at the peak of their precision, one precision after another.
        memory: seconds of bytes at peak bandwidth.
    """

    seconds: float
    arithmetic: float
    memory: float

    @property
    def limit(self) -> Literal["arithmetic", "memory"]:
        """Which of the two binds."""
        return "arithmetic" if self.arithmetic >= self.memory else "memory"


def roofline(cost: Cost, device: Device) -> Roofline:
    """t = max(flops / peak, bytes / bandwidth). The precision of each flop is in the cost.

    Args:
        cost: of one call, one frame, ...; see `lfjax.performance.counting`.
        device: see `DEVICES`.
    """
    full = device.float32_tflops
    kinds = ((cost.float32, full), (cost.tf32, device.tf32_tflops or full), (cost.bfloat16, device.bfloat16_tflops or full))
    arithmetic = sum(flops / (peak * 1e12) for flops, peak in kinds)
    memory = cost.bytes / (device.bandwidth_gbs * 1e9)
    return Roofline(max(arithmetic, memory), arithmetic, memory)


def share(seconds: float, cost: Cost, device: Device) -> float:
    """Share of the roofline that was reached: the least time over the time measured, 1 at best.

    Args:
        seconds: measured.
        cost: of what was measured.
        device: that it was measured on.

    Raises:
        ParameterError: `seconds` is not positive.
    """
    require(seconds > 0, "seconds", seconds, "a positive number")
    return roofline(cost, device).seconds / seconds
