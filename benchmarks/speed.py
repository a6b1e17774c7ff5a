"""Speed of the training step and of the forward pass of a config, beside the matrix-product rate of the same machine.

    python benchmarks/speed.py --config=configs/cifar10_ncsn.py --batch_size=8

Needs no data: images are random. Each time is the least of several repeats, after compilation. FLOPs are those of the
mathematics (a convolution counts as a direct one), so an algorithm that needs fewer may exceed the rate.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde_jax import build, config
from score_sde_jax.costs import flops
from score_sde_jax.data import declared_shape
from score_sde_jax.errors import UserError
from score_sde_jax.sharding import Jit

MATRIX = 2048


def main() -> None:
    """Print images per second, GFLOP/s and the share of the matrix-product rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments, overrides = parser.parse_known_args()
    assignments = [override.removeprefix("--config.") for override in overrides]
    try:
        chosen = build.finish(config.load(arguments.config), assignments)
        figures = measure(chosen, arguments.batch_size, arguments.repeats)
    except UserError as error:
        parser.error(str(error))
    table = "\n".join(f"{name}: {value:.4g}" for name, value in figures.items())
    print(json.dumps(figures) if arguments.json else table)


def measure(chosen: Any, batch_size: int, repeats: int) -> dict[str, float]:
    """Figures of one config; the matrix product is timed before and after, and its best counts."""
    section = chosen.data
    shape = declared_shape(section.name, section.get("image_size"), section.get("channels"))
    if shape is None:
        raise UserError(f"config.data.name={section.name}: give config.data.image_size and channels")
    experiment, parallel = build.experiment(chosen, shape), Jit()
    parallel.check_batch("--batch_size", batch_size)
    key, x0 = jax.random.key(0), jax.random.uniform(jax.random.key(1), (batch_size, *shape))
    state = parallel.init(experiment.init, key)
    batches = parallel.shard({"image": np.asarray(x0)[None]})
    train_flops = flops(experiment.steps(), state, batches, key)

    def forward(params: Any, x: jax.Array) -> jax.Array:
        return experiment.noise_fn(params)(x, jnp.asarray(0.5 * experiment.sde.t_max))

    forward_flops = flops(forward, state.params, x0)
    rates = [matrix_rate(repeats)]
    forward_seconds = least_seconds(jax.jit(forward), (state.params, x0), repeats)
    step, holder = parallel.compiled(experiment.steps(), state, batches, key), [state]

    def train() -> Any:
        holder[0], metrics, _ = step(holder[0], batches, key, parallel.flags(False))
        return metrics

    train_seconds = least_seconds(train, (), repeats)
    rates.append(matrix_rate(repeats))
    rate = max(rates)
    return {
        "matrix product GFLOP/s": rate,
        "forward images/s": batch_size / forward_seconds,
        "forward GFLOP/s": forward_flops / forward_seconds / 1e9,
        "forward share of the matrix product": forward_flops / forward_seconds / 1e9 / rate,
        "training images/s": batch_size / train_seconds,
        "training GFLOP/s": train_flops / train_seconds / 1e9,
        "training share of the matrix product": train_flops / train_seconds / 1e9 / rate,
    }


def least_seconds(function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int) -> float:
    """Shortest wall time of a call, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def matrix_rate(repeats: int) -> float:
    """GFLOP/s of a float32 product of square matrices."""
    a = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX))
    return 2 * MATRIX**3 / least_seconds(jax.jit(jnp.matmul), (a, a), repeats) / 1e9


if __name__ == "__main__":
    main()
