"""Kernels, bytes and memory of a program as XLA compiles it for an H100, on a machine without one.

    python benchmarks/h100_program.py [--config=FILE] [--dtype=bfloat16] [--batch=128] [--sample] [--devices=8]
        [--parallel=jit] [--hlo=FILE]

prints one line of JSON for a training step, or with --sample for the sampling loop, whose body counts once. With
several devices the batch is split over them, and the figures are those of one. It needs JAX 0.11 and the packages
jax-cuda13-pjrt and jax-cuda13-plugin of the same version (`pip install --no-deps`), but neither NVIDIA's libraries nor
a driver. XLA compiles as it does on the card, except that it times no library, so it chooses no algorithms.

Bytes are those of the operands and results of every kernel, each once, as if the L2 cache saved none. The predicted
time adds up arithmetic, bytes and launches at the rates below; docs/accelerators.md compares it with measurements.
"""

import argparse
import importlib.metadata
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from speed import experiment_of

from score_sde_jax.devices.environment import KNOWN, QUICK_COMPILATION
from score_sde_jax.devices.machine import tracing_for
from score_sde_jax.devices.parallel import AXIS, Jit, Parallel, Pmap
from score_sde_jax.runs.experiment import Experiment, training_cost
from score_sde_jax.runs.flat import flatten_state

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  shared_memory_per_block: 49152  shared_memory_per_core: 233472
  threads_per_core_limit: 2048  core_count: 132  fpus_per_core: 128  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535  block_dim_limit_z: 65535  memory_bandwidth: 3352320000000  l2_cache_size: 52428800
  clock_rate_ghz: 1.98  device_memory_size: 84942979072  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024  thread_dim_limit_y: 1024  thread_dim_limit_z: 64
  device_vendor: "NVIDIA Corporation"  platform_version: "Compute Capability 9.0a"  device_address_bits: 64
  pcie_bandwidth: 34359738368  ecc_enabled: true  name: "NVIDIA H100 80GB HBM3"  driver_version: "13.0.0"
  runtime_version: "13.0.0"  compile_time_toolkit_version: "13.0.0"  dnn_version: "9.10.0"  cub_version: "3.1.2"
}
platform_name: "CUDA"  dnn_version_info { major: 9 minor: 10 patch: 0 }  device_description_str: "NVIDIA H100 80GB HBM3"
"""
PARTS = {  # patterns in the names that JAX gives operations; the first that occurs counts
    "convolutions": r"^cudnn",
    "matrix products": r"^fusion with dot",
    "weights for the network": r"/unflatten/",
    "norms of the network": r"(?i)/\w*norm\w*/",
    "collectives": r"^(all|reduce-scatter|collective)",
    "random bits": r"vmap|iota|random|threefry|philox",
    "other backward": r"transpose\(jvp",
    "other forward": r"jvp\(|/[A-Z]\w+(\.\w+)?/",
    "outside the network": r"",
}
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s64": 8, "u64": 8, "f64": 8}
SLICES, RESHAPES = {"slice", "dynamic-slice"}, {"bitcast", "convert", "copy", "reshape", "transpose"}
NO_KERNEL = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id"}
NO_KERNEL |= {"all-reduce-done", "all-gather-done", "reduce-scatter-done", "all-to-all-done", "opt-barrier"}
INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(.*)")
SMALL = 1_000_000
"""Bytes below which the time of a kernel is that of its launch."""

PRODUCT_RATE = {"bfloat16": 0.55 * 798e12, "float32": 0.5 * 495e12}
"""Assumed operations per second of convolutions and matrix products, which hide their own bytes."""
BANDWIDTH = 0.9 * 3.0e12
"""Assumed bytes per second of all other kernels."""
LAUNCH_SECONDS = 2e-6
"""Assumed time of a small kernel."""


class Program(NamedTuple):
    """A jitted function to compile, the shapes of its arguments, and its operations on one device."""

    jitted: Any
    shapes: tuple[Any, ...]
    flops: float


def main() -> None:
    """Compile the program that the flags name, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/ve/cifar10_ncsnpp_continuous.py")
    parser.add_argument("--dtype", default="bfloat16", choices=PRODUCT_RATE)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--sample", action="store_true", help="the sampling loop instead of a training step")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--parallel", default="jit", choices=("jit", "pmap", "fully_sharded"))
    parser.add_argument("--hlo", type=Path, help="file for the compiled program")
    arguments = parser.parse_args()
    if KNOWN.match(importlib.metadata.version("jaxlib")):  # as the command line on a GPU; XLA has not read it yet
        os.environ.setdefault("XLA_FLAGS", QUICK_COMPILATION)
    began = time.process_time()
    with tracing_for("gpu"):
        experiment = experiment_of(arguments.config, [f"model.dtype={arguments.dtype}"])
        if arguments.sample:
            program = sampling(experiment, arguments.batch)
        else:
            program = training(experiment, arguments.batch, over_h100s(arguments.parallel, arguments.devices))
        compiled = program.jitted.trace(*program.shapes).lower().compile()
    text = compiled.as_text()
    if arguments.hlo:
        arguments.hlo.write_text(text)
    names = ("config", "dtype", "batch", "sample", "devices", "parallel")
    figures = {name: getattr(arguments, name) for name in names}
    figures |= {"jax": jax.__version__, "cpu_seconds": round(time.process_time() - began)}
    figures |= {"temporary_GB": round(compiled.memory_analysis().temp_size_in_bytes / 1e9, 2)}
    counted = counts(text)
    figures |= predicted(counted, program.flops, arguments.dtype) | counted
    print(json.dumps(figures))


def over_h100s(parallel: str, number: int) -> Parallel:
    """Return an execution on H100s of one machine that this one does not have."""
    topology = topologies.get_topology_desc(platform="cuda", target_config=H100, topology=f"1x{number}x1")
    execution = Pmap() if parallel == "pmap" else Jit(fully_sharded=parallel == "fully_sharded")
    return execution.over(topologies.make_mesh(topology, (number,), (AXIS,)))


def training(experiment: Experiment, batch: int, parallel: Parallel) -> Program:
    """Return the call of one training step."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(experiment.init_params, key), jax.eval_shape(experiment.init, key)
    if not parallel.fully_sharded:
        state = jax.eval_shape(flatten_state, state, state.params)
    images, _ = experiment.batch_shapes(batch)
    batches = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), images)
    places = (parallel.placement(state), parallel.batches, parallel.replicated, parallel.batched)
    flags = jax.ShapeDtypeStruct((parallel.mesh.size,), bool)
    shapes = tuple(map(placed, (state, batches, key, flags), places))
    flops = batch // parallel.mesh.size * training_cost(experiment, params, 1).flops
    return Program(parallel.train(experiment.steps, state), shapes, flops)


def sampling(experiment: Experiment, batch: int) -> Program:
    """Return the call that generates one batch of images."""
    parallel, key = over_h100s("jit", 1), jax.eval_shape(lambda: jax.random.key(0))
    params, indices = jax.eval_shape(experiment.init_params, key), jax.ShapeDtypeStruct((batch,), jnp.int32)
    shapes = tuple(placed(each, parallel.replicated) for each in (params, indices, key))
    return Program(jax.jit(lambda *args: experiment.sample(*args, {}).images), shapes, 0.0)


def placed(tree: Any, places: Any) -> Any:
    """Return shapes with their places: one for all leaves, or a tree of them."""
    if isinstance(places, jax.sharding.Sharding):
        places = jax.tree.map(lambda leaf: places, tree)
    return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree, places)


class Kernel(NamedTuple):
    """A kernel, library call or copy of a compiled program.

    Attributes:
        kind: what it does.
        part: part of the program that it belongs to, one of PARTS.
        size: bytes of the operands and results.
        source: name that JAX gave the operation.
        in_loop: whether it runs once per iteration of a loop.
    """

    kind: str
    part: str
    size: int
    source: str
    in_loop: bool


class Instruction(NamedTuple):
    """An instruction of optimized HLO."""

    name: str
    shape: str
    operation: str
    operands: list[str]
    rest: str


def kernels(text: str) -> Iterator[Kernel]:
    """Yield the kernels of a compiled program; those of a loop's body once.

    Args:
        text: optimized HLO.
    """
    computations, entry, name = dict[str, list[Instruction]](), "", ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line):
            name = head[2]
            computations[name] = []
            entry = name if head[1] else entry
        elif name and (found := INSTRUCTION.match(re.sub(r"/\*.*?\*/", "", line))):
            what, shape, operation, operands, rest = found.groups()
            names = [operands] if operation == "parameter" else re.findall(r"%([\w.\-]+)", operands)
            computations[name].append(Instruction(what, shape, operation, names, rest))

    def walk(computation: str, in_loop: bool) -> Iterator[Kernel]:
        shapes = {each.name: each.shape for each in computations[computation]}
        for each in computations[computation]:
            if each.operation in ("while", "call", "conditional"):
                for called in re.findall(r"(?:body|to_apply|_computation)=%?([\w.\-]+)", each.rest):
                    yield from walk(called, in_loop or each.operation == "while")
            elif each.operation not in NO_KERNEL:
                fused = re.search(r"calls=%?([\w.\-]+)", each.rest)
                inside = computations[fused[1]] if fused and each.operation == "fusion" else []
                read = [bytes_of(shapes.get(operand, "")) for operand in each.operands]
                if inside:
                    read = list(map(min, read, bytes_read(inside)))
                kind, source = kind_of(each, inside), re.search(r'op_name="([^"]*)"', each.rest)
                named = source[1] if source else ""
                part = next(part for part, pattern in PARTS.items() if re.search(pattern, f"{kind} {named}"))
                yield Kernel(kind, part, bytes_of(each.shape) + sum(read), named, in_loop)

    yield from walk(entry, in_loop=False)


def kind_of(instruction: Instruction, inside: list[Instruction]) -> str:
    """Return what a kernel does, from its instruction and those that it fuses."""
    if instruction.operation == "custom-call":
        target = re.search(r'custom_call_target="(?:__)?([^"]+)"', instruction.rest)
        return target[1] if target else "custom-call"
    if instruction.operation != "fusion":
        return instruction.operation
    for what in ("dot", "convolution", "reduce"):
        if any(each.operation == what for each in inside):
            return f"fusion with {what}"
    return "fusion with transpose" if "transpose" in instruction.name else "fusion, elementwise"


def bytes_read(inside: list[Instruction]) -> list[int]:
    """Return the bytes that a fusion reads of each of its operands: of one that it only slices, those of the slices."""
    shapes = {each.name: each.shape for each in inside}

    def read(name: str) -> int:
        total = 0
        for each in inside:
            if name in each.operands:
                if each.operation in SLICES:
                    total += numbers_in(each.shape)
                elif each.operation in RESHAPES:
                    total += read(each.name)
                else:
                    return numbers_in(shapes[name])
        return total

    operands = {int(each.operands[0]): each for each in inside if each.operation == "parameter"}
    return [
        read(each.name) * bytes_of(each.shape) // max(1, numbers_in(each.shape)) for _, each in sorted(operands.items())
    ]


def counts(text: str) -> dict[str, dict[str, list[float]]]:
    """Count the kernels of a compiled program, by kind, by part, and by whether they are in a loop.

    Args:
        text: optimized HLO.

    Returns:
        For each: launches, launches of less than SMALL bytes, and gigabytes read and written.
    """
    groups: dict[str, dict[str, list[float]]] = {"kinds": {"all": [0, 0, 0.0]}, "parts": {}, "loop": {}}
    for each in kernels(text):
        own = (
            ("kinds", "all"),
            ("kinds", each.kind),
            ("parts", each.part),
            ("loop", "in" if each.in_loop else "before"),
        )
        for group, name in own:
            row = groups[group].setdefault(name, [0, 0, 0.0])
            row[0] += 1
            row[1] += each.size < SMALL
            row[2] += each.size / 1e9
    return {
        group: {
            name: [n, small, round(size, 3)]
            for name, (n, small, size) in sorted(rows.items(), key=lambda row: -row[1][0])
        }
        for group, rows in groups.items()
    }


def numbers_in(shape: str) -> int:
    """Return the numbers in an array, from its HLO shape."""
    dims = re.search(r"\[([\d,]*)\]", shape)
    return math.prod(int(n) for n in dims[1].split(",") if n) if dims else 0


def bytes_of(shape: str) -> int:
    """Return the bytes of an array or a tuple of arrays, from its HLO shape."""
    found = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(BYTES.get(dtype, 4) * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in found)


def predicted(counted: dict[str, dict[str, list[float]]], flops: float, dtype: str) -> dict[str, float]:
    """Predict the milliseconds of a program from its counts and operations."""
    _, small, gigabytes = counted["kinds"]["all"]
    hidden = sum(counted["parts"].get(part, [0, 0, 0])[2] for part in ("convolutions", "matrix products"))
    arithmetic, memory = flops / PRODUCT_RATE[dtype], 1e9 * (gigabytes - hidden) / BANDWIDTH
    launches = small * LAUNCH_SECONDS
    milliseconds = {"arithmetic": arithmetic, "memory": memory, "launches": launches}
    milliseconds["step"] = sum(milliseconds.values())
    return {f"{name}_ms": round(1e3 * seconds, 2) for name, seconds in milliseconds.items()}


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
