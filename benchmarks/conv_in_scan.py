"""Time of a 3x3 convolution and of its gradients on a CPU, alone and inside `jax.lax.scan`.

    python benchmarks/conv_in_scan.py

Prints, for XLA's convolution and for that of `networks/convolution.py`, the milliseconds of one forward pass, one
gradient of the weights, one gradient of the images, and one training step, each compiled alone and in the body of a
scan, and the ratio of the two. Takes 18 s of CPU time on 2 cores of an Intel Xeon.
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from score_sde_jax.networks.convolution import convolve

Convolution = Callable[[Array, Array], Array]
NHWC = ("NHWC", "HWIO", "NHWC")


def native(x: Array, weights: Array) -> Array:
    """Return XLA's 3x3 convolution of images with weights."""
    return lax.conv_general_dilated(x, weights, (1, 1), "SAME", dimension_numbers=NHWC)


def winograd(x: Array, weights: Array) -> Array:
    """Return the same convolution by `networks/convolution.py`."""
    numbers = lax.conv_dimension_numbers(x.shape, weights.shape, NHWC)
    return convolve(x, weights, (1, 1), "SAME", dimension_numbers=numbers)


def bodies(convolution: Convolution, x: Array, weights: Array) -> dict[str, tuple[Callable[[Array], Array], Array]]:
    """Return functions from a value to one of the same shape, each with a first value, by their name.

    Args:
        convolution: function of images and weights.
        x: images.
        weights: weights of shape (3, 3, channels, channels).
    """

    def pulled_back(argument: int, cotangent: Array, values: tuple[Array, Array]) -> Array:
        return jax.vjp(convolution, *values)[1](cotangent)[argument]

    def training_step(w: Array) -> Array:
        def loss(w: Array) -> Array:
            return jnp.mean(jnp.square(convolution(jnp.tanh(convolution(x, w)), w)))

        return w - 1e-3 * jax.grad(loss)(w)

    return {
        "forward pass": (lambda y: convolution(y, weights), x),
        "gradient of the images": (lambda y: pulled_back(0, y, (y, weights)), x),
        "gradient of the weights": (lambda w: w + 1e-6 * pulled_back(1, x * w[0, 0, 0, 0], (x, w)), weights),
        "training step of two convolutions": (training_step, weights),
    }


def milliseconds(function: Callable[[Array], Array], value: Array, repeats: int) -> float:
    """Return the least time of a call, after one that compiles.

    Args:
        function: function to compile.
        value: its argument.
        repeats: number of calls.
    """
    compiled, times = jax.jit(function), []
    jax.block_until_ready(compiled(value))
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(compiled(value))
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--size", type=int, default=16, help="height and width of the images")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--length", type=int, default=3, help="iterations of the scan")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    size, channels = arguments.size, arguments.channels
    x = jax.random.normal(jax.random.key(0), (arguments.batch_size, size, size, channels))
    weights = 0.04 * jax.random.normal(jax.random.key(1), (3, 3, channels, channels))
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, images {x.shape}")
    print("| convolution | operation | alone, ms | in a scan, ms | ratio |\n|---|---|---|---|---|")
    for name, convolution in (("XLA", native), ("networks/convolution.py", winograd)):
        for operation, (body, value) in bodies(convolution, x, weights).items():
            alone = milliseconds(body, value, arguments.repeats)

            def scan(value: Array, body: Callable[[Array], Array] = body) -> Array:
                return lax.scan(lambda carry, _: (body(carry), None), value, length=arguments.length)[0]

            inside = milliseconds(scan, value, arguments.repeats) / arguments.length
            print(f"| {name} | {operation} | {alone:.3g} | {inside:.3g} | {inside / alone:.3g} |", flush=True)


if __name__ == "__main__":
    main()
