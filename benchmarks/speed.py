"""Speed of the training step and of the forward pass of a config, and the matrix-product rate of the same machine.

    python benchmarks/speed.py --config=configs/cifar10_ncsn.py --batch_size=8

Prints images per second, CPU seconds per image, GFLOP/s, and the share of the matrix-product rate. Images are random,
so no data are needed. Each time is the least of several repeats, after compilation; other processes change the CPU time
little. Samplers run the forward pass in a loop, which computes once what depends on the parameters alone. The loop is
timed too, on all devices (JAX_NUM_CPU_DEVICES). FLOPs are those of the mathematics (a convolution counts as a direct
one), so an algorithm that needs fewer may exceed the rate. `--products` times every convolution and matrix product of
the two alone as well, and prints their share of the CPU time.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde_jax import settings
from score_sde_jax.data import dataset_spec
from score_sde_jax.devices.costs import Product, flops, products
from score_sde_jax.devices.parallel import Jit
from score_sde_jax.errors import UserError
from score_sde_jax.networks.convolution import native_convolutions, rematerialized
from score_sde_jax.runs import build
from score_sde_jax.runs.experiment import Experiment

MATRIX = 2048
PASSES = 5


def main() -> None:
    """Print images per second, GFLOP/s and the share of the matrix-product rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--products", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments, overrides = parser.parse_known_args()
    assignments = [override.removeprefix("--config.") for override in overrides]
    try:
        experiment = experiment_of(arguments.config, assignments)
        figures = measure(experiment, arguments.batch_size, arguments.repeats, arguments.products)
    except UserError as error:
        parser.error(str(error))
    table = "\n".join(f"{name}: {value:.4g}" for name, value in figures.items())
    print(json.dumps(figures) if arguments.json else table)


def experiment_of(config: str, assignments: Sequence[str] = ()) -> Experiment:
    """Return the experiment of a config, for images of the shape that its dataset declares."""
    options = settings.from_config(settings.load(config), assignments)
    section = options.data
    shape = dataset_spec(section.name).shape(section.get("image_size"), section.get("channels"))
    if shape is None:
        raise UserError(f"--config.data.name={section.name}: needs --config.data.image_size and --config.data.channels")
    return build.experiment(options, shape)


def measure(experiment: Experiment, batch_size: int, repeats: int, with_products: bool = False) -> dict[str, float]:
    """Return the figures of one config; the matrix-product rate is the better of one before and one after."""
    parallel, shape = Jit(), experiment.image_shape
    parallel.check_batch("--batch_size", batch_size)
    key, x0 = jax.random.key(0), jax.random.uniform(jax.random.key(1), (batch_size, *shape))
    state = parallel.init(experiment.init, key)
    batches = parallel.shard(random_batches(experiment, batch_size))
    shapes = jax.eval_shape(lambda *arguments: arguments, state, batches, key)

    def forward(params: Any, x: jax.Array) -> jax.Array:
        return experiment.noise_fn(params)(x, jnp.asarray(0.5 * experiment.sde.t_max))

    def passes(params: Any, indices: jax.Array, key: jax.Array, x: jax.Array) -> jax.Array:
        del indices, key
        return jax.lax.scan(lambda x, _: (x - 0.01 * forward(params, x), None), x, length=PASSES)[0]

    rates = [matrix_rate(repeats)]
    inputs = (state.params, np.arange(batch_size), key, np.asarray(x0))
    looped_seconds = least_seconds(parallel.per_example(passes), inputs, repeats)
    forward_seconds = least_seconds(jax.jit(forward), (state.params, x0), repeats)
    step, holder = parallel.compiled(experiment.steps, state, batches, key), [state]

    def train() -> Any:
        holder[0], metrics, _ = step(holder[0], batches, key, parallel.flags(False))
        return metrics

    train_seconds = least_seconds(train, (), repeats)
    rates.append(matrix_rate(repeats))
    figures = {
        "matrix product GFLOP/s": max(rates),
        "forward in a loop images/s": PASSES * batch_size / looped_seconds.wall,
    }
    for name, seconds, function, arguments in (
        ("forward", forward_seconds, forward, (shapes[0].params, x0)),
        ("training", train_seconds, experiment.steps, shapes),
    ):
        figures[f"{name} images/s"] = batch_size / seconds.wall
        figures[f"{name} CPU seconds an image"] = seconds.cpu / batch_size
        with native_convolutions():
            figures[f"{name} GFLOP/s"] = flops(function, *arguments) / seconds.wall / 1e9
        figures[f"{name} share of the matrix product"] = figures[f"{name} GFLOP/s"] / max(rates)
        if with_products:
            product_seconds = seconds_in(products(function, *arguments, whole=[rematerialized.__name__]), repeats)
            figures[f"{name} share spent in products"] = product_seconds / seconds.cpu
    return figures


def random_batches(experiment: Experiment, batch_size: int) -> dict[str, np.ndarray]:
    """Return one training batch of random examples as stored, with an axis for the steps of a call."""
    rng, (shapes, _) = np.random.default_rng(0), experiment.batch_shapes(batch_size)
    shape, levels = (1, *shapes["image"].shape), experiment.pixels.levels
    random = rng.standard_normal(shape) if levels is None else rng.integers(0, levels, shape)
    return {
        "image": random.astype(shapes["image"].dtype),
        "label": rng.integers(0, max(experiment.num_classes, 1), (1, batch_size), np.int32),
    }


def seconds_in(products: list[Product], repeats: int) -> float:
    """Return the CPU seconds of all products, each kind timed once, alone."""
    known: dict[str, float] = {}
    total = 0.0
    for equation, times in products:
        kind = str((equation.primitive, [variable.aval for variable in equation.invars], equation.params))
        if kind not in known:
            known[kind] = alone(equation, repeats)
        total += times * known[kind]
    return total


def alone(equation: Any, repeats: int) -> float:
    """Return the CPU seconds of one product of random operands."""
    keys = jax.random.split(jax.random.key(0), len(equation.invars))
    operands = [jax.random.normal(k, v.aval.shape, v.aval.dtype) for k, v in zip(keys, equation.invars, strict=True)]
    function = jax.jit(lambda *operands: equation.primitive.bind(*operands, **equation.params))
    return least_seconds(function, tuple(operands), repeats).cpu


class Seconds(NamedTuple):
    """Least times of several calls: wall-clock time, and CPU time of all cores together."""

    wall: float
    cpu: float


def least_seconds(function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int) -> Seconds:
    """Return the least times of a call, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    wall, cpu = [], []
    for _ in range(repeats):
        starts = time.perf_counter(), time.process_time()
        jax.block_until_ready(function(*arguments))
        wall.append(time.perf_counter() - starts[0])
        cpu.append(time.process_time() - starts[1])
    return Seconds(min(wall), min(cpu))


def matrix_rate(repeats: int) -> float:
    """Return the GFLOP/s of a float32 product of square matrices."""
    a = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX))
    return 2 * MATRIX**3 / least_seconds(jax.jit(jnp.matmul), (a, a), repeats).wall / 1e9


if __name__ == "__main__":
    main()
