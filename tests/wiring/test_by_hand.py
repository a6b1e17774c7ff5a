"""A config without default values: all numbers and files of its run against objects built by hand."""

import functools
import json
import shutil

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_hand import DIFFUSION, Dropping
from dry import recorded
from PIL import Image
from run_files import images, quiet, restored

from score_sde_jax import keys as prng
from score_sde_jax.condition import Condition
from score_sde_jax.data import DATASETS
from score_sde_jax.networks import MODELS
from score_sde_jax.runs import build, pictures
from score_sde_jax.runs.evaluate import evaluate
from score_sde_jax.runs.reporting import read_metrics
from score_sde_jax.runs.step import NUM_BINS
from score_sde_jax.runs.train import train
from score_sde_jax.samplers import PRIORS

pytestmark = pytest.mark.usefixtures("quick_compilation")
SHAPE = (8, 8, 1)


@pytest.fixture(scope="module", autouse=True)
def dropping():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "dropping", Dropping)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, dropping):
    workdir = tmp_path_factory.mktemp("run")
    train(by_hand.config(), workdir, quiet)
    return workdir


def parameters(seed):
    """Return parameters without zeros."""
    shapes = jax.eval_shape(by_hand.NETWORK.init, jax.random.key(0), jnp.zeros((1, *SHAPE)), Condition(jnp.zeros(1)))
    return jax.tree.map(lambda leaf: 0.3 * jax.random.normal(jax.random.key(seed + leaf.size), leaf.shape), shapes)


@functools.cache
def steps_by_hand():
    """Yield parameters, their average, loss and noise level of each image, and the gradient norm of each step."""
    optimizer, root = by_hand.optimizer(), by_hand.key("train")

    @jax.jit
    def init():
        return by_hand.NETWORK.init(
            by_hand.key("init"), jnp.zeros((1, *SHAPE)), Condition(jnp.full(1, 5.0 * DIFFUSION.t_max))
        )

    @jax.jit
    def advance(params, average, state, step, x0):
        keys = prng.per_image(jax.random.fold_in(root, step), jnp.arange(6))

        def mean(params):
            losses = by_hand.loss(params, keys, x0)
            return jnp.mean(losses), losses

        gradient, losses = jax.grad(mean, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda old, new: 0.7 * old + 0.3 * new, average, params)
        level = DIFFUSION.normalized_log_nsr(by_hand.TIMES(DIFFUSION, prng.split(keys, 2)[0]))
        return params, average, state, losses, level, optax.tree.norm(gradient)

    params = average = init()
    state, steps_so_far = optimizer.init(params), []
    for step in range(3):
        x0 = jnp.asarray(by_hand.training_rows(step, 6))
        params, average, state, *seen = advance(params, average, state, step, x0)
        steps_so_far.append((params, average, *map(np.asarray, seen)))
    return steps_so_far


def test_losses_and_noise_levels_are_those_of_the_same_objects_by_hand():
    experiment = build.experiment(by_hand.config(), SHAPE)
    params, keys = parameters(0), prng.per_image(jax.random.key(1), jnp.arange(6))
    stored = np.random.default_rng(2).integers(17, size=(6, *SHAPE), dtype=np.uint8)
    x0, label = jnp.asarray(by_hand.training_images(keys, stored)), jnp.zeros(6, jnp.int32)

    @jax.jit
    def built():
        training = experiment.loss_fn(params, keys, {"image": stored, "label": label})
        held_out = experiment.held_out_loss(params, keys, {"image": x0, "label": label})
        return training, held_out, experiment.normalized_log_nsr(keys)

    @jax.jit
    def want():
        t = by_hand.TIMES(DIFFUSION, prng.split(keys, 2)[0])
        losses = (by_hand.loss(params, keys, x0, held_out=held_out) for held_out in (False, True))
        return *losses, DIFFUSION.normalized_log_nsr(t)

    for a, b in zip(built(), want(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    training, held_out, _ = want()
    assert np.abs(training - held_out).max() > 1e-2


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("order", ["corrector_predictor", "predictor_corrector"])
def test_samples_are_those_of_the_same_sampler_by_hand(prior, order):
    experiment = build.experiment(by_hand.config(f"sampler.prior={prior}", f"sampler.order={order}"), SHAPE)
    params, key = parameters(0), jax.random.key(3)
    built = jax.jit(experiment.sample)(params, jnp.arange(3), key, {})
    sampler, keys = by_hand.sampler(prior, order), prng.per_image(key, jnp.arange(3))
    want = jax.jit(lambda params: sampler(by_hand.noise_fn(params), keys, jnp.zeros((3, *SHAPE))))(params)
    for name, a, b in zip(want._fields, built, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_run_trains_by_hand_from_the_data_on(run):
    """Compare losses, norms and losses per noise level in metrics.jsonl, and the parameters of the checkpoint."""
    steps, rows = steps_by_hand(), read_metrics(run / "metrics.jsonl")
    for (params, _, losses, level, grad_norm), row in zip(steps, rows, strict=True):
        assert row["loss"] == pytest.approx(losses.mean(), rel=1e-5)
        assert row["grad_norm"] == pytest.approx(float(grad_norm), rel=1e-4)
        assert row["param_norm"] == pytest.approx(float(optax.tree.norm(params)), rel=1e-5)
        bins = np.clip(np.floor(level * NUM_BINS), 0, NUM_BINS - 1)
        want = [losses[bins == i].mean() if (bins == i).any() else None for i in range(NUM_BINS)]
        assert row["level_loss"] == [None if value is None else pytest.approx(value, rel=1e-5) for value in want]
    state = restored(run, by_hand.config(), 3)
    for built, want in zip((state.params, state.ema_params), steps[-1][:2], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), built, want)


def test_a_run_leaves_the_images_of_its_averaged_parameters_by_hand(run):
    """Compare the preview after two steps and the final set after three, in the dequantized gray levels."""
    steps = steps_by_hand()
    sampler = by_hand.sampler("uniform", "predictor_corrector")

    @jax.jit
    def drawn(params, indices):
        keys = prng.per_image(by_hand.key("sample"), indices)
        return sampler(by_hand.noise_fn(params), keys, jnp.zeros((len(indices), *SHAPE))).images

    for (raw, average, *_), num, compare in ((steps[1], 3, "preview"), (steps[2], 5, "set")):
        batches = [jnp.arange(first, first + 3) for first in range(0, num, 3)]  # their lengths enter the Langevin step
        want, of_raw = (
            np.concatenate([by_hand.stored(drawn(params, indices)) for indices in batches])[:num]
            for params in (average, raw)
        )
        assert not np.array_equal(want, of_raw)
        if compare == "set":
            np.testing.assert_array_equal(images(run / "samples" / "3"), want)
            continue
        with Image.open(run / "samples" / "2" / "grid.png") as shown:
            np.testing.assert_array_equal(np.asarray(shown), np.asarray(pictures.grid(want)))


def test_an_evaluation_measures_the_averaged_parameters_by_hand(run):
    """Compare the losses of all images of another split, and of as many training images, both dequantized."""
    output = evaluate(by_hand.config("eval.split=train", "eval.num_images=4", "eval.draws=3"), run, say=quiet)
    average = steps_by_hand()[-1][1]

    @jax.jit
    def losses(stored, draw):
        keys = prng.per_image(jax.random.fold_in(by_hand.key("evaluate"), 1), jnp.arange(4))
        key_noise, key_loss, _ = prng.split(prng.fold_in(keys, draw), 3)
        unit = (stored + prng.uniform(key_noise, stored)) / by_hand.LEVELS
        x0 = by_hand.LOW + (by_hand.HIGH - by_hand.LOW) * unit
        return by_hand.loss(average, key_loss, x0, held_out=True)

    results = json.loads((output / "metrics.json").read_text())
    for name, split in (("loss", "train"), ("training_loss", "test")):
        stored = DATASETS["digits"](split=split).gather(np.arange(4))[0].astype(np.float32)
        want = np.stack([losses(stored, i) for i in range(3)], axis=1)
        (line,) = (output / f"{name}.jsonl").read_text().splitlines()
        np.testing.assert_allclose(json.loads(line)["loss"], want, rtol=1e-4)
        assert results[name]["mean"] == pytest.approx(want.mean(), rel=1e-4)
        error = want.mean(axis=1).std(ddof=1) / 2
        assert results[name]["standard_error"] == pytest.approx(error, rel=1e-3)
    assert results["checkpoint_step"] == 3


@pytest.mark.parametrize("change", ["loss.reduction=mean", "loss.weight.sigma_data=0.5", "loss.times.num_levels=5"])
def test_results_of_another_loss_have_a_directory_of_their_own(run, tmp_path, change):
    """In a copy of the run, whose rows other tests do not continue."""
    asked, copy = ("eval.split=train", "eval.num_images=4", "eval.draws=3"), tmp_path / "run"
    shutil.copytree(run, copy)
    with recorded():
        first = evaluate(by_hand.config(*asked), copy, say=quiet)
        other = evaluate(by_hand.config(*asked, change), copy, say=quiet)
    assert other.parent == first == copy / "eval" / "3"
