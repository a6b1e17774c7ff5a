"""What training costs, read off its jaxpr: floating-point operations and memory; and how much of a device it uses."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.extend import core

Product = tuple[core.JaxprEqn, int]


def flops(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of the matrix products and convolutions of function(*args); nothing is computed.

    A multiplication and an addition count as two. Of branches the costliest counts.
    """
    return total_flops(products(function, *args))


def products(function: Callable[..., Any], *args: Any, whole: bool = False) -> list[Product]:
    """The matrix products and convolutions of function(*args), each with how often it runs; nothing is computed.

    Of branches the costliest counts. With `whole`, what is written for every platform anew, as our convolutions are, is
    one equation (a `cond` over platforms) in place of the products in it.
    """
    return list(_products(jax.make_jaxpr(function)(*args).jaxpr, whole))


def total_flops(products: Iterable[Product]) -> float:
    """Floating-point operations of these products."""
    return sum(times * _FLOPS[equation.primitive.name](equation) for equation, times in products)


PEAK_FLOPS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100": 989e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "Tesla V100": 125e12,
    "Tesla T4": 65e12,
    "TPU v6 lite": 918e12,
    "TPU v5p": 459e12,
    "TPU v5 lite": 197e12,
    "TPU v4": 275e12,
}
"""The makers' figures for dense bfloat16 (float16 before Ampere) matrix products, by the start of the device's name."""


def peak_flops() -> float | None:
    """Peak rate of a device of this machine, None where it is not known."""
    kind = jax.local_devices()[0].device_kind
    return next((peak for name, peak in PEAK_FLOPS.items() if kind.startswith(name)), None)


def device_use(flops_per_second: float) -> dict[str, float]:
    """Share of the device's peak rate that the model uses, and its memory in use in bytes, where they are known."""
    peak, memory = peak_flops(), jax.local_devices()[0].memory_stats()
    use = {} if peak is None else {"model_flop_utilisation": flops_per_second / peak}
    return use | ({"memory_in_use": float(memory["bytes_in_use"])} if memory else {})


def residual_bytes(loss: Callable[..., Any], params: Any, *args: Any) -> int:
    """Bytes that the forward pass of loss(params, *args) keeps for the gradient, beside the parameters themselves."""

    def residuals(params: Any, *args: Any) -> list[Any]:
        _, pullback = jax.vjp(lambda p: loss(p, *args), params)
        own = {id(leaf) for leaf in jax.tree.leaves(params)}  # of the parameters themselves nothing is copied
        return [leaf for leaf in jax.tree.leaves(pullback) if id(leaf) not in own]

    kept = jax.eval_shape(residuals, params, *args)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in kept)


def _products(jaxpr: core.Jaxpr, whole: bool) -> Iterator[Product]:
    for equation in jaxpr.eqns:
        if equation.primitive.name in _FLOPS or (whole and equation.params.get("branches_platforms")):
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
