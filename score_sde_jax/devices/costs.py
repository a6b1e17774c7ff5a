"""Cost of a program, counted in its jaxpr: floating-point operations and memory; and the utilization of a device."""

import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
import re
import resource
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import jax
from jax.extend import core

from score_sde_jax.errors import UserError

Product = tuple[core.JaxprEqn, int]


def flops(function: Callable[..., Any], *args: Any) -> float:
    """Count the floating-point operations of the matrix products and convolutions of a function, by tracing it.

    A multiplication and an addition count as two. A conditional counts its costliest branch.

    Args:
        function: function to trace.
        *args: its arguments, or their shapes.
    """
    return total_flops(products(function, *args))


def products(function: Callable[..., Any], *args: Any, whole: Collection[str] = ()) -> list[Product]:
    """List the matrix products and convolutions of a function, by tracing it.

    A conditional counts its costliest branch.

    Args:
        function: function to trace.
        *args: its arguments, or their shapes.
        whole: names of jitted functions that are one equation, instead of the products in them.

    Returns:
        Each equation with the number of its executions.
    """
    return list(_products(jax.make_jaxpr(function)(*args).jaxpr, whole))


def total_flops(products: Iterable[Product]) -> float:
    """Sum the floating-point operations of products.

    Args:
        products: equations with the numbers of their executions.
    """
    return sum(times * _FLOPS[equation.primitive.name](equation) for equation, times in products)


PEAK_FLOPS: tuple[tuple[str, float | None, float], ...] = (
    # Pattern of the full device kind, peak for bfloat16, peak for float32. Published figures, without sparsity, which
    # doubles NVIDIA's. Those of H100 SXM and PCIe and of TPU v4 to v5p were compared with a source.
    # By default JAX computes float32 products in TF32 on GPUs since Ampere, in float32 on older GPUs, which have no
    # bfloat16, and in bfloat16 on TPUs.
    ("NVIDIA B200", 2250e12, 1125e12),
    ("NVIDIA H200", 989.5e12, 494.7e12),
    ("NVIDIA H200 NVL", 835.5e12, 417.7e12),
    (r"NVIDIA GH200 \d+GB", 989.5e12, 494.7e12),
    (r"NVIDIA H100 \d+GB HBM3", 989.5e12, 494.7e12),  # SXM
    ("NVIDIA H100 NVL", 835.5e12, 417.7e12),
    ("NVIDIA H100 PCIe", 756.5e12, 378.2e12),
    (r"(NVIDIA )?A100[- ](SXM4|PCIE)-\d+GB|NVIDIA A100 80GB PCIe", 312e12, 156e12),
    ("NVIDIA L40S", 362e12, 183e12),
    ("NVIDIA L4", 121e12, 60e12),
    (r"Tesla V100-SXM2-\d+GB", None, 15.7e12),
    (r"Tesla V100-PCIE-\d+GB", None, 14e12),
    ("Tesla T4", None, 8.1e12),
    # Google's pages of each version, as in jax/_src/pallas/mosaic/tpu_info.py: of a chip, or for TPU7x of one core.
    ("TPU7x", 1153.5e12, 1153.5e12),
    ("TPU v6 lite|TPU v6e", 918e12, 918e12),
    ("TPU v5|TPU v5p", 459e12, 459e12),  # libtpu calls v5p "TPU v5"
    ("TPU v5 lite|TPU v5e", 197e12, 197e12),
    ("TPU v4", 275e12, 275e12),
)


def peak_flops(dtype: str, device_kind: str | None = None) -> float | None:
    """Return the peak rate of matrix products, in operations per second and device; None if it is not known.

    Args:
        dtype: type of the factors, "float32" or "bfloat16".
        device_kind: name of the device as JAX reports it, by default that of the first device of this process.
    """
    if jax.config.jax_default_matmul_precision not in (None, "default"):  # type: ignore[attr-defined]
        return None
    kind = jax.local_devices()[0].device_kind if device_kind is None else device_kind
    for pattern, bfloat16, float32 in PEAK_FLOPS:
        if re.fullmatch(pattern, kind):
            return {"bfloat16": bfloat16, "float32": float32}.get(dtype)
    return None


def utilization(flops_per_second: float, dtype: str) -> dict[str, float]:
    """Return the model FLOPs utilization of a device; nothing if its peak rate is not known.

    Args:
        flops_per_second: operations that a device does for the model per second, without recomputation.
        dtype: type that the model computes in.
    """
    peak = peak_flops(dtype)
    return {} if peak is None else {"model_flops_utilization": flops_per_second / peak}


def memory_limit() -> int:
    """Return the memory in bytes of the smallest local device; of a CPU device, its share of the host's memory.

    In a container it is the memory that the control group allows.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    limits = [each["bytes_limit"] for each in stats if "bytes_limit" in each]
    return min(limits) if limits else host_memory() // len(stats)


def host_memory() -> int:
    """Return the memory in bytes that this process can have, without swap."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such control group, or "max"
            limits.append(int(pathlib.Path(path).read_text()))
    return min(limits)


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Raise UserError if a device has less memory than an array or program needs at least.

    Args:
        needed: bytes on each device.
        what: what needs them.
        remedy: what a user can do.
    """
    available = memory_limit()
    if needed > available:
        raise UserError(
            f"{what} at least {needed / 2**30:,.1f} GiB on each device, which has {available / 2**30:,.1f} GiB; "
            f"{remedy}"
        )


def program_bytes(program: jax.stages.Compiled) -> int:
    """Return the memory in bytes that a program needs on each device, by XLA's own count; 0 if XLA does not count it.

    Args:
        program: compiled program.
    """
    stats = program.memory_analysis()
    return 0 if stats is None else stats.argument_size_in_bytes + stats.temp_size_in_bytes


def memory_use() -> dict[str, int]:
    """Return memory in bytes: now and at most of the fullest local device, or at most of the process on a CPU."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    known = [each for each in stats if each]
    if not known:  # a CPU has no allocator of its own, and its arrays lie in the memory of the process
        unit = 1 if sys.platform == "darwin" else 1024
        return {"process_peak_memory_bytes": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    keys = {"device_memory_bytes": "bytes_in_use", "device_peak_memory_bytes": "peak_bytes_in_use"}
    return {name: max(each[key] for each in known) for name, key in keys.items() if key in known[0]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientCost:
    """Cost of a loss and its gradient.

    Attributes:
        flops: floating-point operations of the matrix products and convolutions.
        residual_bytes: bytes that the forward pass keeps for the gradient, without the parameters themselves.
    """

    flops: float
    residual_bytes: int


def gradient_cost(loss: Callable[..., Any], params: Any, *args: Any) -> GradientCost:
    """Return the cost of loss(params, *args) and its gradient; nothing is computed.

    Args:
        loss: function to a scalar.
        params: arrays, or their shapes, that the gradient is with respect to.
        *args: other arguments of `loss`.
    """

    def gradient(params: Any, *args: Any) -> tuple[list[Any], Any]:
        value, pullback = jax.vjp(lambda p: loss(p, *args), params)
        own = {id(leaf) for leaf in jax.tree.leaves(params)}  # parameters among the residuals are not copied
        residuals = [leaf for leaf in jax.tree.leaves(pullback) if id(leaf) not in own]
        return residuals, pullback(jax.numpy.ones_like(value))

    traced, shapes = jax.make_jaxpr(gradient, return_shape=True)(params, *args)
    kept, _ = shapes
    return GradientCost(
        flops=total_flops(_products(traced.jaxpr)),
        residual_bytes=sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in kept),
    )


def _products(jaxpr: core.Jaxpr, whole: Collection[str] = ()) -> Iterator[Product]:
    for equation in jaxpr.eqns:
        if equation.primitive.name in _FLOPS or equation.params.get("name") in whole:
            yield equation, 1
            continue
        inner = [list(_products(sub, whole)) for sub in _inner(equation)]
        if equation.primitive.name == "cond":
            inner = [max(inner, key=total_flops, default=[])]
        for product, times in itertools.chain(*inner):
            yield product, times * equation.params.get("length", 1)


def _inner(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _dot_flops(equation: core.JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = _shape(equation.invars[0])
    return 2.0 * math.prod(_shape(equation.outvars[0])) * math.prod(left[axis] for axis in contracted)


def _conv_flops(equation: core.JaxprEqn) -> float:
    kernel = _shape(equation.invars[1])
    out_features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * math.prod(_shape(equation.outvars[0])) * math.prod(kernel) / out_features


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


_FLOPS = {"dot_general": _dot_flops, "conv_general_dilated": _conv_flops}
