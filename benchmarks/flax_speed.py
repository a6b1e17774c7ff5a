"""Speed of the Flax networks of score-SDE of 2021 on today's JAX, to compare with that of `speed.py`.

    git clone https://github.com/yang-song/score_sde PEER
    python benchmarks/flax_speed.py --repository=PEER --network=ncsnpp --batch_size=8

Needs ml_collections. Times the repository's network in a jitted forward pass, and in a jitted training step with
dropout, the published loss, gradient clipping, Adam and the moving average. The optimizer is that of optax, since
Flax's of 2021 no longer exists. Prints images per second and CPU seconds per image; other processes change the CPU time
little.
"""

import argparse
import functools
import importlib
import statistics
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

CONFIGS = {
    "ncsnpp": "ve.cifar10_ncsnpp_continuous",
    "ddpmpp": "vp.cifar10_ddpmpp_continuous",
    "ddpm": "vp.ddpm.cifar10_continuous",
}


def main() -> None:
    """Print the best and the median images per second, and the least CPU time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", required=True, help="a clone of yang-song/score_sde")
    parser.add_argument("--network", choices=tuple(CONFIGS), required=True)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=6)
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.repository)
    config, network = original(arguments.network)
    key, x0 = jax.random.key(0), jax.random.uniform(jax.random.key(1), (arguments.batch_size, 32, 32, 3))
    params = jax.jit(functools.partial(network.init, train=False))(key, x0[:1], jnp.ones(1))["params"]
    print(f"{sum(leaf.size for leaf in jax.tree.leaves(params))} parameters, JAX {jax.__version__}")

    levels = jnp.linspace(0.1, 0.9, len(x0))
    forward = jax.jit(lambda params, x: network.apply({"params": params}, x, levels, train=False))
    report("forward", lambda: forward(params, x0), len(x0), arguments.repeats)

    optimizer = optax.chain(optax.clip_by_global_norm(config.optim.grad_clip), optax.adam(config.optim.lr))
    step = jax.jit(functools.partial(train, config, network, optimizer), donate_argnums=0)
    holder = [(params, jax.tree.map(jnp.copy, params), optimizer.init(params))]

    def training() -> Any:
        holder[0], loss = step(holder[0], x0, key)
        return holder[0], loss

    report("training", training, len(x0), arguments.repeats)


def original(name: str) -> tuple[Any, Any]:
    """Return the repository's config and network; imports that only its samplers and checkpoints need are replaced."""
    stand_ins: dict[str, dict[str, Any]] = {
        "utils": {"batch_mul": lambda a, b: jax.vmap(lambda a, b: a * b)(a, b)},
        "sde_lib": {"VESDE": object, "VPSDE": object, "subVPSDE": object},
        "models.wideresnet_noise_conditional": {},
    }
    for module, members in stand_ins.items():
        sys.modules[module] = types.ModuleType(module)
        vars(sys.modules[module]).update(members)
    vars(flax)["optim"] = types.SimpleNamespace(Optimizer=object)  # only an annotation names it
    config = importlib.import_module(f"configs.{CONFIGS[name]}").get_config()
    importlib.import_module(f"models.{config.model.name}")
    return config, importlib.import_module("models.utils").get_model(config.model.name)(config=config)


def train(config: Any, network: Any, optimizer: Any, state: Any, x0: jax.Array, key: jax.Array) -> Any:
    """Return the state after one step of the published training, and the loss."""
    params, average, opt_state = state
    key_t, key_eps, key_dropout = jax.random.split(key, 3)
    t = jax.random.uniform(key_t, (len(x0), 1, 1, 1), minval=1e-5, maxval=1.0)
    eps = jax.random.normal(key_eps, x0.shape)
    ve = config.training.sde == "vesde"
    if ve:
        sigma = config.model.sigma_min * (config.model.sigma_max / config.model.sigma_min) ** t
        x_t, condition = x0 + sigma * eps, sigma
    else:
        log_alpha = -0.25 * t**2 * (config.model.beta_max - config.model.beta_min) - 0.5 * t * config.model.beta_min
        sigma = jnp.sqrt(1 - jnp.exp(2 * log_alpha))
        x_t, condition = jnp.exp(log_alpha) * (2 * x0 - 1) + sigma * eps, 999 * t

    def loss_fn(params: Any) -> jax.Array:
        rngs = {"dropout": key_dropout}
        output = network.apply({"params": params}, x_t, condition.reshape(-1), train=True, rngs=rngs)
        error = sigma * output + eps if ve else output - eps
        return jnp.mean(0.5 * jnp.sum(error**2, axis=(1, 2, 3)))

    loss, gradient = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
    rate = config.model.ema_rate
    average = jax.tree.map(lambda old, new: rate * old + (1 - rate) * new, average, params)
    return (params, average, opt_state), loss


def report(name: str, function: Callable[[], Any], images: int, repeats: int) -> None:
    """Print the speed of a call, after one that compiles."""
    jax.block_until_ready(function())
    seconds, cpu = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    best, median = images / min(seconds), images / statistics.median(seconds)
    print(
        f"{name} images/s: best {best:.3g}, median {median:.3g}; CPU seconds an image: {min(cpu) / images:.3g}",
        flush=True,
    )


if __name__ == "__main__":
    main()
