"""Flat vectors: they are another form of the same state, and training in them is the same training."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from experiments import finished, smallest

from score_sde_jax.devices.machine import tracing_for
from score_sde_jax.errors import UserError
from score_sde_jax.networks import trainable
from score_sde_jax.networks.optimizer import OPTIMIZERS
from score_sde_jax.runs import build
from score_sde_jax.runs.checkpoint import Checkpoints
from score_sde_jax.runs.flat import LEAVES_PER_VECTOR, Flat, flatten, flatten_state, unflatten_state
from score_sde_jax.runs.step import init_state, training_step
from score_sde_jax.runs.train import _Run, _steps_per_call, train

RNG = np.random.default_rng(0)
SHAPES = {"conv": (3, 3, 4, 5), "dense": (4, 5), "bias": (5,), "scalar": (), "fixed_frequencies": (7,)}
PARAMS = {name: jnp.asarray(RNG.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}
OPTIONS = [{}, {"weight_decay": 0.1}, {"gradient_clip": 0.01}, {"weight_decay": 0.1, "gradient_clip": 0.01}]


def loss_fn(params, keys, x):
    """A loss whose gradient differs for every parameter but the fixed one, which has none."""
    total = sum(
        jnp.sum(jnp.sin((i + 1) * leaf)) for i, (name, leaf) in enumerate(params.items()) if name[:5] != "fixed"
    )
    return total * x + jax.vmap(jax.random.normal)(keys)


def trained(flat, options, steps=3, x=1.0):
    """The state and the metrics after steps in flat vectors or not."""
    optimizer = OPTIMIZERS["adam"](optax.constant_schedule(0.01), **options)
    state = init_state(PARAMS, optimizer, ["slow"])
    step = jax.jit(training_step(loss_fn, optimizer, 0.9, averages={"slow": 0.99}))
    state = flatten_state(state, state.params) if flat else state
    for _ in range(steps):
        state, metrics = step(state, jnp.full(4, x), jax.random.key(0))
    assert isinstance(state.params, Flat) == flat
    return unflatten_state(state), metrics


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_steps_in_flat_vectors_are_the_same_steps(options):
    for actual, expected in zip(*(jax.tree.leaves(trained(flat, options)) for flat in (True, False)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_state_has_its_structure_again(options):
    states = [trained(flat, options, steps=1)[0] for flat in (True, False)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    assert [leaf.shape for leaf in jax.tree.leaves(states[0])] == [leaf.shape for leaf in jax.tree.leaves(states[1])]


def test_an_update_that_is_not_finite_changes_no_vector():
    state, metrics = trained(True, {}, steps=1, x=jnp.nan)
    jax.tree.map(np.testing.assert_array_equal, state.params, PARAMS)
    assert int(state.skipped) == 1 and np.isnan(metrics.update_norm)


def test_decay_leaves_fixed_parameters_alone():
    state, _ = trained(True, {"weight_decay": 0.1})
    np.testing.assert_array_equal(state.params["fixed_frequencies"], PARAMS["fixed_frequencies"])
    assert jax.tree.leaves(trainable(flatten(PARAMS))) == [False, True]


@pytest.mark.parametrize("number", [1, LEAVES_PER_VECTOR, 3 * LEAVES_PER_VECTOR + 1])
def test_many_parameters_are_few_vectors(number):
    params = {f"w{i:04d}": np.full((i % 3 + 1,), i, np.float32) for i in range(number)}
    flat = jax.jit(flatten)(params)
    assert len(flat.vectors) == -(-number // LEAVES_PER_VECTOR)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(Flat.tree)(flat), params)


def test_weights_of_convolutions_have_their_output_channels_first():
    weights = flatten({"conv": PARAMS["conv"]}).vectors["trained_0"]
    np.testing.assert_array_equal(weights.reshape(5, 3, 3, 4), jnp.moveaxis(PARAMS["conv"], -1, 0))


def test_nothing_but_trees_like_the_parameters_is_flattened():
    state = {"params": PARAMS, "other": {"conv": PARAMS["conv"]}, "step": jnp.zeros((), jnp.int32)}
    flat = flatten_state(state, PARAMS)
    assert isinstance(flat["params"], Flat) and flat["other"] is not None and flat["step"].dtype == jnp.int32
    jax.tree.map(np.testing.assert_array_equal, unflatten_state(flat), state)


def test_gradients_through_the_tree_are_those_of_the_vectors():
    """The tree is a linear function of the vectors, whose transpose is `like`."""
    cotangent = jax.tree.map(jnp.cos, PARAMS)
    flat = flatten(PARAMS)
    (pulled,) = jax.vjp(Flat.tree, flat)[1](cotangent)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), pulled, flat.like(cotangent))


def run(directory, *assignments):
    """Train the digits for four steps or more, with previews; the metrics and all checkpoints."""
    options = ("optimizer.decay=constant", "train.preview_every=2", "checkpoint.every=2", "checkpoint.keep=5")
    train(smallest(*options, *assignments), directory, say=lambda line: None)
    metrics = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    checkpoints = Checkpoints(directory / "checkpoints")
    abstract = jax.eval_shape(build.experiment(smallest(), (8, 8, 1)).init, jax.random.key(0))
    whole = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=PLACE), abstract)
    return metrics, {step: checkpoints.restore(step, whole) for step in checkpoints.steps()}


PLACE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.mark.usefixtures("blank_figures")
def test_a_run_is_the_same_and_each_continues_the_other(tmp_path):
    expected, states = run(tmp_path / "parameters", "train.flat=False")
    actual, flat_states = run(tmp_path / "flat", "train.flat=True")
    run(tmp_path / "changed", "train.flat=True", "train.steps=2")
    changed, changed_states = run(tmp_path / "changed", "train.flat=False")
    for metrics, checkpoints in ((actual, flat_states), (changed, changed_states)):
        assert [line["step"] for line in metrics] == [line["step"] for line in expected]
        for name in ("loss", "grad_norm", "param_norm", "update_norm"):
            np.testing.assert_allclose([m[name] for m in metrics], [m[name] for m in expected], rtol=1e-5)
        for step in states:  # Adam divides by the root of a moment, which may be as small as its rounding
            jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), checkpoints[step], states[step])


@pytest.mark.parametrize(
    ("backend", "assignments", "expected"),
    [
        ("gpu", (), True),
        ("cpu", (), False),
        ("cpu", ("train.flat=True",), True),
        ("gpu", ("train.flat=False",), False),
        ("gpu", ("parallel.fully_sharded=True",), False),
    ],
)
def test_accelerators_train_in_flat_vectors_unless_told_otherwise(backend, assignments, expected, tmp_path):
    settings = finished("digits", *assignments)
    experiment = build.experiment(settings, (8, 8, 1))
    with tracing_for(backend):
        assert _Run(settings, tmp_path, experiment, settings.parallel(), print).flat == expected


@pytest.mark.parametrize(
    ("start", "assignments", "expected"),
    [
        (0, ("train.steps=1000", "train.log_every=100", "checkpoint.every=500"), 10),
        (0, ("train.steps=1000", "train.log_every=100", "checkpoint.every=500", "train.preview_every=4"), 4),
        (996, ("train.steps=1000", "train.log_every=100", "checkpoint.every=500"), 4),
        (997, ("train.steps=1000", "train.log_every=100", "checkpoint.every=500"), 1),
        (0, ("train.steps=35", "train.log_every=35", "checkpoint.every=35"), 7),
        (0, ("train.steps=1000", "train.log_every=100", "checkpoint.every=500", "train.steps_per_call=2"), 2),
    ],
)
def test_steps_of_a_call_divide_every_length_and_the_first_step(start, assignments, expected):
    settings = finished("digits", "train.preview_every=0", *assignments)
    with tracing_for("gpu"):
        assert _steps_per_call(settings, start) == expected
    assert _steps_per_call(settings, start) == (settings.train.steps_per_call or 1)


def test_a_fully_sharded_state_is_not_flat_too():
    with pytest.raises(UserError, match=r"^--config\.train\.flat=True: contradicts parallel\.fully_sharded=True"):
        finished("digits", "train.flat=True", "parallel.fully_sharded=True")
