"""Each key is used for one draw: in training, in sampling for every task, in evaluation, in the data.

Nor does a draw come from a key that other keys are derived from.
"""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import pytest
from dry import ramps
from dry import recorded as traced
from experiments import finished
from journeys import restore
from key_recorder import recorded
from run_files import quiet
from stand_ins import LinearClassifier
from two_values import config_of, context, of_choice

from score_sde_jax import keys as prng
from score_sde_jax.data import pipeline, training_batches
from score_sde_jax.data.digits import digits
from score_sde_jax.networks import MODELS
from score_sde_jax.runs import build
from score_sde_jax.runs import workdir as directories
from score_sde_jax.runs.evaluate import evaluate
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.train import train
from score_sde_jax.tasks import TASKS

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME = "diffusion.losses:_unit"
"""Intended second draw: the loss samples the time, and its noise level is computed from the same time."""
PROBE = "diffusion.likelihood:_estimated_trace.probe"
"""Intended draw in every network evaluation: the Hutchinson probes are constant along the ODE."""
MASK = "tasks.masks:random"
"""Intended second draw: one completes the image, the other saves its observation."""

RUN = (*context("seed"), "sampler.corrector.num_steps=2", "eval.bits_per_dim=true")
LOOSE = ["task.rtol=0.1", "task.atol=0.1"]
TRAINED = {  # losses, and where they draw what others do not
    "sliced": ("loss=sliced", "diffusion.losses:sliced_score_matching_loss.project"),
    "classification": ("loss=classification", "diffusion.sdes:SDE.perturb"),
}


@pytest.fixture(autouse=True)
def linear(monkeypatch):
    monkeypatch.setitem(MODELS, "wide_resnet", LinearClassifier)


@pytest.fixture
def untrained(monkeypatch, journeys):
    """Function from overrides to the workdir of an untrained run."""
    monkeypatch.setattr(directories, "restore", restore)
    return lambda *assignments: journeys.workdir("digits", (*RUN, *assignments))


def test_the_recorder_sees_one_key_drawn_twice_and_others_once():
    with recorded() as draws:
        keys = prng.per_image(jax.random.key(0), jnp.arange(3))

        @jax.jit
        def drawn(keys):
            x = jax.lax.fori_loop(0, 2, lambda i, x: x + prng.normal(prng.fold_in(keys, i), x), jnp.zeros((3, 2)))
            return x + prng.uniform(prng.split(keys, 4)[1], x) + prng.signs(prng.split(keys, 4)[3], x)

        drawn(keys).block_until_ready()
    assert len(draws.places) == 9 and draws.shared() == {("elsewhere",)}  # part 1 of a split is number 1 folded in


def test_the_recorder_sees_a_draw_from_a_key_that_others_come_from():
    with recorded() as draws:
        keys, x = prng.per_image(jax.random.key(0), jnp.arange(3)), jnp.zeros((3, 2))
        jax.jit(lambda keys: prng.normal(keys, x) + prng.uniform(prng.fold_in(keys, 5), x))(keys).block_until_ready()
    assert len(draws.places) == 6 and draws.shared() == {("elsewhere",)}


@pytest.mark.parametrize("name", TRAINED)
def test_training_draws_from_every_key_once(name, tmp_path):
    """Initialization, times and noise of every step, and the draws of the loss."""
    key, own = TRAINED[name]
    config = finished(config_of(key), *of_choice(*key.split("=")))
    config = dataclasses.replace(config, sampler=None)  # sampling has a test of its own
    with recorded() as draws:
        train(config, tmp_path, quiet)
    assert draws.shared(TIME) == set()
    drawn = {place for places in draws.places.values() for place in places}
    assert drawn - {"elsewhere"} == {
        TIME,
        "diffusion.sdes:SDE.perturb",
        own,
    }  # elsewhere: flax, which draws the parameters


def test_dropout_draws_from_keys_of_its_own_in_every_block():
    assignments = *of_choice("model", "ddpm"), "model.multipliers=(1,)", "model.attention=()"
    experiment = build.experiment(finished("digits", *assignments), (8, 8, 1))
    params = ramps(jax.eval_shape(experiment.init, jax.random.key(0))).params
    with recorded() as draws:
        keys = prng.per_image(jax.random.key(0), jnp.arange(2))
        jax.jit(experiment.loss_fn)(params, keys, {"image": jnp.zeros((2, 8, 8, 1), jnp.uint8)}).block_until_ready()
    assert draws.shared() == set()
    places = collections.Counter(place for places in draws.places.values() for place in places)
    blocks = sum("ResidualBlock" in name for name in params["params"])
    assert places == {TIME: 2, "diffusion.sdes:SDE.perturb": 2, "networks.unet_blocks:dropout.bits": 2 * blocks}


@pytest.mark.parametrize(
    ("name", "prior"), [(name, "gaussian") for name in TASKS] + [("none", "uniform"), ("inpainting", "uniform")]
)
def test_sampling_draws_from_every_key_once(name, prior, untrained, journeys, tmp_path):
    own = of_choice("task", name)
    task = [text.format_map(journeys.places) for text in own if text.startswith(("task.", "data."))]
    task += {"inpainting": ["task.mask=random"], "interpolation": LOOSE, "reconstruction": LOOSE}.get(name, [])
    workdir = untrained(*(text for text in task if text.startswith("data.")))
    with recorded() as draws:
        config = finished("digits", *RUN, *task, f"sampler.prior={prior}")
        sample(config, workdir, SampleRequest(output=tmp_path / prior), quiet)
    assert draws.shared(MASK) == set()
    assert bool(draws.places) == (name not in ("reconstruction", "interpolation"))


def test_evaluation_draws_from_every_key_once(untrained):
    asked = ["eval.repeats=2", "eval.num_probes=2", "eval.rtol=0.1", "eval.atol=0.1", "data.dequantize=true"]
    with recorded() as draws:
        evaluate(finished("digits", *RUN, *asked), untrained("data.dequantize=true"), say=quiet)
    assert draws.shared(TIME, PROBE) == set()
    drawn = {place for places in draws.places.values() for place in places}
    assert drawn == {TIME, PROBE, "diffusion.sdes:SDE.perturb", "data.pixels:Pixels.dequantized"}


def test_the_pipeline_uses_every_count_of_a_stream_once(monkeypatch):
    """The orders of three epochs of 359 digits."""
    monkeypatch.setattr(pipeline, "READ_OPTIONS", pipeline.grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    with recorded() as draws:
        batches = training_batches(digits("test"), batch_size=100, seed=3)
        for _ in range(11):
            next(batches)
    assert draws.overlaps() == []
    streams = {generator.used()[0] for generator in draws.generators}
    assert streams == {(3, pipeline.ORDER)}


def test_the_uses_of_a_seed_have_roots_of_their_own(untrained, tmp_path):
    """Initialization, training, samples, and the two measurements of an evaluation."""
    with traced() as seen:
        train(finished("digits", *RUN, "train.preview_every=1"), tmp_path, quiet)
    init, step, *_, preview = seen.calls
    roots = {init[0], step[1], preview[2]}
    with traced() as seen:
        evaluate(finished("digits", *RUN), untrained(), say=quiet)
    roots |= {call[2] for call in seen.calls}
    assert len(roots) == 5
