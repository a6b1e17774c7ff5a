"""Runs with an untrained checkpoint, whose raw and averaged parameters are random."""

import jax
import jax.numpy as jnp
from experiments import finished
from run_files import made_up

from score_sde_jax.runs import build
from score_sde_jax.runs import workdir as directories
from score_sde_jax.runs.checkpoint import Checkpoints


def saved_run(workdir, name, shape, *assignments):
    """A run with one checkpoint; its config, experiment, and raw and averaged parameters."""
    config = finished(name, *assignments)
    experiment = build.experiment(config, shape)
    shapes = jax.eval_shape(experiment.init, jax.random.key(0))

    def drawn(seed):
        return jax.tree.map(
            lambda leaf: 0.5 * jax.random.normal(jax.random.key(seed + leaf.size), leaf.shape), shapes.params
        )

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    raw, average = drawn(0), drawn(100)
    directories.record(workdir, config, made_up(shape))
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(1, zeros.replace(step=jnp.ones((), jnp.int32), params=raw, ema_params=average))
    checkpoints.close()
    return config, experiment, raw, average
