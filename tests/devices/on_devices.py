"""One step and one batch of samples in each mode; test_parallel.py runs it in processes with several devices.

    python tests/devices/on_devices.py OUTPUT.npz MODE[,MODE ...]

The step is gradient descent with rate 1 on clipped gradients, so the change of the parameters is the clipped gradient;
Adam would hide a factor.
"""

import dataclasses
import pathlib
import re
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from experiments import SMALLEST
from jax.flatten_util import ravel_pytree
from stand_ins import LinearClassifier

from score_sde_jax import keys as prng
from score_sde_jax import settings
from score_sde_jax.devices.machine import tracing_for
from score_sde_jax.devices.parallel import Jit, Parallel, Pmap, bytes_per_device
from score_sde_jax.networks import MODELS
from score_sde_jax.runs import build
from score_sde_jax.runs.flat import flatten_state, unflatten_state
from score_sde_jax.runs.step import init_state, several_steps, training_step
from score_sde_jax.tasks import ClassConditional, Inpainting

CLIP = 0.05
OPTIMIZER = optax.chain(optax.clip_by_global_norm(CLIP), optax.sgd(1.0))
DIGITS = str(pathlib.Path(__file__).parents[2] / "configs" / "digits.py:debug")


def main() -> None:
    """Write the results of some modes, as mode/name.

    "mlp" is jit with a network that compiles fast, "microbatches" is jit with two parts of a batch, "jit_flat" and
    "pmap_flat" train in flat vectors.
    """
    jax.config.update("jax_default_matmul_precision", "highest")
    modes = {"jit": Jit(), "microbatches": Jit(), "fully_sharded": Jit(fully_sharded=True), "pmap": Pmap()}
    modes |= {"mlp": Jit(), "jit_flat": Jit(), "pmap_flat": Pmap()}
    unet, mlp = prepared(), prepared(*SMALLEST)
    results = {}
    for name in sys.argv[2].split(","):
        microbatches = 2 if name == "microbatches" else 1
        values = results_of(modes[name], *(mlp if name == "mlp" else unet), microbatches, name.endswith("flat"))
        results |= {f"{name}/{key}": value for key, value in values.items()}
    if jax.process_index() == 0:
        np.savez(sys.argv[1], **results)


def prepared(*assignments: str) -> tuple[build.Experiment, Callable]:
    """Return an experiment and its initial state, one function for all modes, which JAX traces once."""
    config = settings.from_config(settings.load(DIGITS), ["sampler.num_frames=2", *assignments])
    experiment = build.experiment(config, (8, 8, 1))
    return experiment, lambda key: init_state(jittered(experiment.init_params(key), key), OPTIMIZER)


def results_of(
    parallel: Parallel, experiment: build.Experiment, init: Callable, microbatches: int = 1, flat: bool = False
) -> dict[str, np.ndarray]:
    """Return gradient, metrics and images of one mode."""
    stored = np.random.default_rng(0).integers(17, size=(1, 16, 8, 8, 1), dtype=np.uint8)
    rows = slice(16 * jax.process_index() // jax.process_count(), 16 * (jax.process_index() + 1) // jax.process_count())
    batches = parallel.shard({"image": stored[:, rows]})
    with tracing_for("gpu"):  # where the parameters are drawn on the CPU of the first process
        state, key = parallel.init(init, jax.random.key(0)), jax.random.key(1)
    sizes = [shard.data.nbytes for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards[:1]]
    expected = bytes_per_device(state, jax.device_count(), parallel.fully_sharded)
    assert sum(sizes) == expected, (sum(sizes), expected)
    params = jax.tree.map(jnp.copy, state.params)
    state = parallel.apply(flatten_state, state, params) if flat else state
    step = training_step(experiment.loss_fn, OPTIMIZER, 0.5, experiment.normalized_log_nsr, microbatches)
    compiled = parallel.compiled(several_steps(step), state, batches, key)
    state, metrics, vote = compiled(state, batches, key, parallel.flags(False))
    collectives = len(re.findall(r" all-reduce(?:-start)?\(", compiled.as_text()))
    vote_of_all = compiled(jax.tree.map(jnp.copy, state), batches, key, parallel.flags(jax.process_index() == 0))[2]
    state = parallel.apply(unflatten_state, state)
    result = {"bytes": np.asarray(expected), "collectives": np.asarray(collectives)}
    result |= {"gradient": whole(params) - whole(state.params)}
    result |= {"average": whole(state.ema_params), **{k: np.asarray(v) for k, v in metrics._asdict().items()}}
    result["level_loss"] = result["level_loss"] / np.maximum(result.pop("level_count"), 1e-9)
    assert not vote and vote_of_all
    if microbatches > 1 or flat:
        return result
    latents = jax.random.normal(jax.random.key(1), (16, 8, 8, 1))
    for start, inputs in {"": {}, "given_": {"latents": latents}}.items():
        sample = parallel.per_example(experiment.sample)
        samples = sample(params, jnp.arange(16), prng.root(0, "sample"), inputs)
        result |= {start + key: np.asarray(value) for key, value in samples._asdict().items()}
    sample = parallel.per_example(dataclasses.replace(experiment, task=Inpainting(mask="random")).sample)
    samples = sample(params, jnp.arange(16), prng.root(0, "sample"), {"observed": latents[:, None]})
    result |= {"given_part_" + key: np.asarray(value) for key, value in samples._asdict().items()}
    return result | {"given_class_images": classes(parallel, experiment, params)}


def classes(parallel: Parallel, experiment: build.Experiment, params) -> np.ndarray:
    """Return images of every class, by an untrained classifier of one layer, which compiles fast."""
    MODELS["wide_resnet"] = LinearClassifier
    config = settings.from_config(settings.load(DIGITS.replace("digits.py", "digits_classifier.py")), [])
    classifier = build.experiment(config, (8, 8, 1))
    other = parallel.init(lambda key: jittered(classifier.init_params(key), key), jax.random.key(3))
    guided = dataclasses.replace(experiment, task=ClassConditional(), classifier=classifier)
    inputs = {"label": jnp.arange(16, dtype=jnp.int32) % 10}
    sample = parallel.per_example(guided.sample)
    return np.asarray(sample((params, other), jnp.arange(16), prng.root(0, "sample"), inputs).images)


def jittered(params, key: jax.Array):
    """Perturb the parameters, so that no gradient is zero."""
    vector, restored = ravel_pytree(params)  # one draw: a draw for every leaf compiles for seconds
    return restored(vector + 0.1 * jax.random.normal(key, vector.shape))


def whole(params) -> np.ndarray:
    """Return all parameters in one array, from all devices."""
    gathered = jax.jit(lambda tree: tree, out_shardings=Jit().replicated)(params)
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(gathered)])


if __name__ == "__main__":
    from score_sde_jax.devices import processes

    if len(sys.argv) > 3:  # coordinator, number of processes, number of this process
        processes.start("on", sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    main()
