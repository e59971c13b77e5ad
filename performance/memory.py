r"""How much memory the gradient through a flow takes, and how its cost grows.

    python performance/memory.py --device cpu --json memory.json

Three tables, for a Glow of three levels with 128 channels and random weights: against its depth, with all activations
kept and with constant memory; against the number of images; against the number of pixels. The peak is of tensors that
the decode and its gradient make: parameters are not counted.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import normflows as nf
import torch
from measuring import machine, show, spread, waited
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captum_dcf.generators import NormalizingFlowGenerator
from captum_dcf.models.glow import glow

LEVELS, CHANNELS = 3, 128


class LiveTensors(TorchDispatchMode):
    r"""Adds up the storages that operations make and that are still alive, and remembers the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {StorageWeakRef(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        output = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if _is_tensor(leaf) and StorageWeakRef(leaf.untyped_storage()) not in known:
                self.sizes[StorageWeakRef(leaf.untyped_storage())] = leaf.untyped_storage().nbytes()
        self.sizes = {storage: size for storage, size in self.sizes.items() if not storage.expired()}
        self.peak = max(self.peak, sum(self.sizes.values()))
        return output


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def peak_mebibytes(work: Callable[[], Any], device: torch.device) -> float:
    r"""The most memory that ``work`` holds in tensors it makes itself."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with LiveTensors() as live:
        work()
    return live.peak / 2**20


def random_glow(steps: int, side: int, device: torch.device) -> nf.MultiscaleFlow:
    r"""A Glow whose couplings are not the identity, as they are before training."""
    torch.manual_seed(0)
    flow = glow((3, side, side), (steps,) * LEVELS, (CHANNELS,) * LEVELS)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if name.endswith("net.4.weight"):  # the last convolution of a coupling network
                parameter.normal_(std=0.01)
        flow.inverse_and_log_det(torch.rand(16, 3, side, side))
    return flow.to(device).eval().requires_grad_(False)


class Work:
    r"""The gradient of a random linear function of the decoded images."""

    def __init__(self, flow: nf.MultiscaleFlow, images: int, side: int, device: torch.device) -> None:
        self.generator = NormalizingFlowGenerator(flow)
        with torch.no_grad():
            self.latents = self.generator.encode(torch.rand(images, 3, side, side, device=device))
        self.weights = torch.randn(images, 3, side, side, device=device)

    def gradient(self, memory: str) -> Tensor:
        self.generator.memory = memory
        z = self.latents.clone().requires_grad_()
        return torch.autograd.grad((self.generator.decode(z) * self.weights).sum(), z)[0]

    def in_double(self) -> Work:
        # MPS has no float64.
        return copy.deepcopy(self).to(torch.device("cpu"), torch.float64)

    def to(self, device: torch.device, dtype: torch.dtype) -> Work:
        self.generator.to(device, dtype)
        self.latents, self.weights = self.latents.to(device, dtype), self.weights.to(device, dtype)
        return self


def against_depth(steps: int, images: int, side: int, device: torch.device, repetitions: int) -> dict[str, Any]:
    r"""Peak, time and gradient with all activations kept ("full") and with constant memory."""
    work = Work(random_glow(steps, side, device), images, side, device)
    double = work.in_double()
    with double.generator.constant():
        truth = double.gradient("full")
    seconds: dict[str, list[float]] = {"full": [], "constant": []}
    with work.generator.constant():
        gradients = {memory: work.gradient(memory).cpu() for memory in seconds}
        peaks = {memory: peak_mebibytes(lambda memory=memory: work.gradient(memory), device) for memory in seconds}
        for _ in range(repetitions):
            for memory, times in seconds.items():
                with waited(device) as taken:
                    work.gradient(memory)
                times.append(taken())
    full, constant = gradients["full"], gradients["constant"]
    return {
        "full_mebibytes": peaks["full"],
        "constant_mebibytes": peaks["constant"],
        "full_seconds": spread(seconds["full"]),
        "constant_seconds": spread(seconds["constant"]),
        "time_ratio": spread([slow / fast for fast, slow in zip(seconds["full"], seconds["constant"])]),
        "relative_difference_per_image": relative(constant, full),
        "relative_error_of_full_in_float32": relative(full, truth),
        "relative_error_of_constant_in_float32": relative(constant, truth),
    }


def against_size(images: int, side: int, device: torch.device, repetitions: int) -> dict[str, Any]:
    r"""Cost of one gradient at 8 steps per level."""
    work = Work(random_glow(8, side, device), images, side, device)
    seconds = []
    with work.generator.constant():
        peak = peak_mebibytes(lambda: work.gradient("full"), device)
        for _ in range(repetitions):
            with waited(device) as taken:
                work.gradient("full")
            seconds.append(taken())
    return {
        "mebibytes": peak,
        "seconds": spread(seconds),
        "kibibytes_per_image": 1024 * peak / images,
        "milliseconds_per_image": 1000 * median(seconds) / images,
        "microseconds_per_pixel": 1e6 * median(seconds) / (images * side * side),
    }


def relative(gradient: Tensor, reference: Tensor) -> dict[str, float]:
    r"""Norm of the difference over the norm, per image."""
    return spread(((gradient - reference).norm(dim=1) / reference.norm(dim=1)).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (there, live tensors are counted)")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 16, 32], help="steps of flow per level")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--side", type=int, default=32, help="pixels")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    options = parser.parse_args()
    device, repetitions = torch.device(options.device), options.repetitions
    depth = {n: against_depth(n, options.images, options.side, device, repetitions) for n in options.steps}
    figures = {
        "machine": machine(device),
        "steps_per_level": depth,
        "images": {n: against_size(n, options.side, device, repetitions) for n in (1, 4, 16, 64)},
        "side": {n: against_size(4, n, device, repetitions) for n in (16, 32, 64)},
    }
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
