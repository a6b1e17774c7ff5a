"""What a function costs, read off its jaxpr: floating-point operations and the memory that its gradient keeps."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def flops(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of the matrix products and convolutions of function(*args); nothing is computed.

    A multiplication and an addition count as two. Of branches the costliest counts.
    """
    return _flops(jax.make_jaxpr(function)(*args).jaxpr)


def residual_bytes(loss: Callable[..., Any], params: Any, *args: Any) -> int:
    """Bytes that the forward pass of loss(params, *args) keeps for the gradient, beside the parameters themselves."""

    def residuals(params: Any, *args: Any) -> list[Any]:
        _, pullback = jax.vjp(lambda p: loss(p, *args), params)
        own = {id(leaf) for leaf in jax.tree.leaves(params)}  # of the parameters themselves nothing is copied
        return [leaf for leaf in jax.tree.leaves(pullback) if id(leaf) not in own]

    kept = jax.eval_shape(residuals, params, *args)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in kept)


def _flops(jaxpr: core.Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            total += _dot_flops(equation)
        elif name == "conv_general_dilated":
            total += _conv_flops(equation)
        inner = [_flops(sub) for sub in _inner(equation)]
        if name == "cond":
            total += max(inner, default=0.0)
        else:
            total += sum(inner) * equation.params.get("length", 1)
    return total


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
