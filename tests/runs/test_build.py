"""From a config to objects: the loss and its computation, contradictions, and a saved config."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import finished, loaded

from score_sde_jax import keys as prng
from score_sde_jax import settings
from score_sde_jax.condition import Condition
from score_sde_jax.devices.costs import flops, gradient_cost
from score_sde_jax.devices.machine import tracing_for
from score_sde_jax.errors import UserError
from score_sde_jax.runs import build
from score_sde_jax.runs.experiment import training_cost

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_the_loss_of_a_config_is_denoising_score_matching_over_its_ladder():
    """1/2 sigma^2 |s(x + sigma eps) + eps / sigma|^2, with the score s = f / sigma of the scaled_score networks."""
    config = finished("toy", "parameterization.name=scaled_score", "loss.reduction=half_sum", "loss.times.num_levels=3")
    experiment = build.experiment(config, (2,))
    params = jax.jit(experiment.init)(jax.random.key(1)).params
    x0 = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (64, 2)), jnp.float32)
    keys = prng.per_image(jax.random.key(5), jnp.arange(64))
    losses = np.asarray(experiment.loss_fn(params, keys, {"image": x0}))

    sigmas = np.geomspace(4.0, 0.02, 3)
    noises = [np.asarray(prng.normal(part, x0)) for part in prng.split(keys, 2)]
    candidates = []
    for sigma in sigmas:  # of every image one of the ladder's levels has been drawn, with one of its keys' noises
        for eps in noises:
            x = np.asarray(x0) + sigma * eps
            condition = jnp.full((64,), np.log(sigma), jnp.float32)
            f = np.asarray(
                experiment.network.apply(params, jnp.asarray(x, jnp.float32), Condition(condition), train=True)
            )
            score = f / sigma
            candidates.append(0.5 * sigma**2 * np.sum((score + eps / sigma) ** 2, axis=1))
    off = np.abs(np.array(candidates) - losses) / losses
    assert off.min(axis=0).max() < 1e-3
    assert len(set(off.argmin(axis=0).tolist())) == len(sigmas)  # every level, always the same noise


def test_step_sizes_follow_the_square_of_the_noise():
    experiment = build.experiment(finished("cifar10_ncsn"), (32, 32, 3))
    sigmas = np.array([1.0, 0.1, 0.01])
    np.testing.assert_allclose(experiment.step_sizes(sigmas), 2e-5 * sigmas**2 / 0.01**2)
    adaptive = build.experiment(finished("digits", "sampler.corrector.name=langevin"), (8, 8, 1))
    assert adaptive.step_sizes(sigmas) is None


@pytest.mark.parametrize(
    ("name", "assignments", "parts"),
    [
        ("digits", ["loss.times.name=uniform"], ["level_index", "needs loss.times.name=ladder", "not uniform"]),
        (
            "cifar10_ncsn",
            ["parameterization.condition.name=log_sigma"],
            ["model.name=ncsn", "level_index", "log_sigma"],
        ),
        ("celeba", ["parameterization.condition.name=log_sigma"], ["model.name=ncsnv2", "none", "log_sigma"]),
        ("ffhq_ncsnv2", ["parameterization.condition.name=log_sigma"], ["model.name=ncsnv2_deepest", "none"]),
        ("toy", ["loss.times.name=log_normal"], ["log_normal", "sde.name=edm", "not ve"]),
        ("toy", ["sampler.corrector.name=none"], ["config.sampler", "both none"]),
        (
            "digits_subvp",
            ["loss.times.name=ladder"],
            ["config.loss.times.name=ladder", "subvp has no discrete noise levels"],
        ),
        (
            "digits_ve",
            ["loss.weight.name=likelihood_importance"],
            ["needs loss.times.name=importance", "uniform"],
        ),
        (
            "digits_vp",
            ["loss.times.name=importance", "loss.weight.name=likelihood"],
            ["loss.times.name=importance", "likelihood_importance"],
        ),
        (
            "digits_vp",
            ["model.embedding=fourier"],
            ["condition.name=scaled_time: model.embedding=fourier needs", "log_sigma"],
        ),
        (
            "digits_ve",
            ["model.embedding=positional"],
            ["condition.name=log_sigma: model.embedding=positional needs", "scaled_time"],
        ),
        ("digits_ve", ["model.embedding=none"], ["model.embedding=none needs none"]),
        (
            "digits_vp",
            ["parameterization.condition.name=none"],
            ["condition.name=none: model.embedding=positional needs"],
        ),
        ("digits", ["sampler.corrector.snr=0.1"], ["sampler.corrector.snr", "annealed_langevin"]),
    ],
)
def test_sections_that_contradict_each_other(name, assignments, parts):
    with pytest.raises(UserError) as raised:
        finished(name, *assignments)
    assert all(part in str(raised.value) for part in parts), raised.value


def test_an_image_that_the_network_cannot_halve():
    experiment = build.experiment(finished("digits_ve", "model.multipliers=(1,1,1,1,1)"), (8, 8, 1))
    with pytest.raises(UserError, match=r"model\.multipliers=\(1, 1, 1, 1, 1\): .* multiple of 16, got 8x8"):
        jax.eval_shape(experiment.init, jax.random.key(0))


@pytest.mark.parametrize("key", ["train.steps", "train.log_every", "train.preview_every", "checkpoint.every"])
def test_a_length_that_calls_of_several_steps_do_not_divide(key):
    even = [f"{other}=6" for other in ("train.steps", "train.log_every", "train.preview_every", "checkpoint.every")]
    finished("digits", *even, "train.steps_per_call=3")
    with pytest.raises(UserError, match=rf"^--config\.{key}=4: must be a multiple of train\.steps_per_call=3$"):
        finished("digits", *even, "train.steps_per_call=3", f"{key}=4")


def test_levels_that_differ_are_refused():
    config = loaded("cifar10_ncsn")
    config.loss.times = dict(name="ladder", num_levels=7)  # no longer the shared number
    with pytest.raises(UserError, match=r"model\.num_levels=10, .*loss\.times\.num_levels=7.*must be equal"):
        settings.from_config(config, [])


@pytest.mark.parametrize(
    ("assignment", "part"),
    [
        ("sde.sigma_min=3.0", "sigma_min must be > 0 and < sigma_max=1.0, got 3.0"),
        ("sde.sigma_min=-1.0", "--config.sde.sigma_min=-1.0: must be >= 1e-18 and < 1e+18"),
        ("train.steps=0", "--config.train.steps=0: must be >= 1"),
        ("train.log_every=0", "--config.train.log_every=0: must be >= 1"),
        ("train.preview_every=-1", "--config.train.preview_every=-1: must be >= 0"),
        ("train.ema_decay=-0.1", "--config.train.ema_decay=-0.1: must be >= 0 and < 1"),
        ("train.microbatches=0", "--config.train.microbatches=0: must be >= 1"),
        ("train.steps_per_call=0", "--config.train.steps_per_call=0: must be >= 1"),
        ("train.steps_per_call=3", "--config.train.steps=4: must be a multiple of train.steps_per_call=3"),
        ("train.max_skipped=-1", "--config.train.max_skipped=-1: must be >= 0"),
        ("sampler.batch_size=0", "--config.sampler.batch_size=0: must be >= 1"),
        ("sampler.num_frames=0", "--config.sampler.num_frames=0: must be >= 1"),
    ],
)
def test_values_out_of_range(assignment, part):
    with pytest.raises(UserError) as raised:
        build.experiment(finished("digits", assignment), (8, 8, 1))
    assert part in str(raised.value)


@pytest.mark.parametrize("t_min", ["0.0", "1e-6", "1.0"])
def test_a_time_to_evaluate_from_that_the_sde_does_not_have(t_min):
    message = rf"^--config\.eval\.t_min={t_min}: must be >= sde\.t_min=1e-05 and < sde\.t_max=1\.0$"
    with pytest.raises(UserError, match=message):
        finished("digits", "sde.name=vp", f"eval.t_min={t_min}")
    finished("digits", "sde.name=vp", "eval.t_min=1e-5")


@pytest.mark.parametrize("key", ["every", "keep"])
def test_checkpoint_options_out_of_range(key):
    with pytest.raises(UserError, match=rf"--config\.checkpoint\.{key}=0: must be >= 1"):
        finished("digits", f"checkpoint.{key}=0")


SMALL = ("model.widths=(16,)", "model.num_blocks=2")


@functools.cache
def gradient_of(*assignments):
    """Gradient of the mean loss of 8 images, and bytes of its residuals, for a small network of the digits."""
    experiment = build.experiment(finished("digits", *SMALL, *assignments), (8, 8, 1))

    @jax.jit
    def start(key):
        def perturbed(leaf):
            return leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)

        return jax.tree.map(perturbed, experiment.init_params(key))

    params = start(jax.random.key(0))
    keys = prng.per_image(jax.random.key(1), jnp.arange(8))
    stored = jax.random.randint(jax.random.key(2), (8, 8, 8, 1), 0, 17)

    def loss(params):
        return jnp.mean(experiment.loss_fn(params, keys, {"image": stored}))

    return jax.jit(jax.grad(loss))(params), gradient_cost(loss, params).residual_bytes


def relative_difference(a, b):
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_rematerialisation_keeps_less_and_computes_the_same():
    plain, kept = gradient_of()
    again, kept_again = gradient_of("train.rematerialize=true")
    assert relative_difference(again, plain) < 1e-5
    assert kept_again < 0.5 * kept


def test_training_cost_counts_native_convolutions_once_for_the_whole_batch():
    """The operations are those of a trace for accelerators."""
    trained = build.experiment(finished("digits", *SMALL), (8, 8, 1))
    params = jax.eval_shape(trained.init_params, jax.random.key(0))
    batch, keys = trained.batch_shapes(8)

    def loss(*args):
        return jnp.mean(trained.loss_fn(*args))

    cost = training_cost(trained, params, 8)
    with tracing_for("gpu"):
        assert cost.flops == flops(jax.value_and_grad(loss), params, keys, batch)
    assert cost.flops == 8 * training_cost(trained, params, 1).flops


def test_bfloat16_computes_nearly_the_same_with_float32_parameters():
    plain, _ = gradient_of()
    half, _ = gradient_of("model.dtype=bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("float32")}
    assert 1e-4 < relative_difference(half, plain) < 3e-2  # 8 bits of precision: 4e-3 for one operation


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10_ncsn", "cifar10_ncsnv2"])
@pytest.mark.parametrize(("change", "tolerance"), [("train.rematerialize=true", 1e-4), ("model.dtype=bfloat16", 0.1)])
def test_the_same_for_refinenets(name, change, tolerance):
    def gradient(*assignments):
        config = finished(name, *assignments)
        experiment = build.experiment(config, (16, 16, 3))
        params = jax.jit(experiment.init_params)(jax.random.key(0))
        keys = prng.per_image(jax.random.key(1), jnp.arange(4))
        x0 = jax.random.randint(jax.random.key(2), (4, 16, 16, 3), 0, 256)
        return jax.jit(jax.grad(lambda p: jnp.mean(experiment.loss_fn(p, keys, {"image": x0}))))(params)

    assert relative_difference(gradient(change), gradient()) < tolerance


def test_a_network_of_more_classes_than_the_data_is_told():
    data = build.dataset(finished("digits_classes", "model.num_classes=12"))
    assert data.lines()[1:] == ["note: model.num_classes=12, but digits has 10 classes"]
    assert len(build.dataset(finished("digits_classes")).lines()) == 1


def test_attention_that_a_size_would_lose_is_told():
    """cifar10_ncsnpp has attention at 16 pixels, which images of 96 pixels do not meet."""
    config = finished("ve/cifar10_ncsnpp_continuous", variant="")
    assert build.experiment(config, (32, 32, 3)).notes() == []
    (note,) = build.experiment(config, (96, 96, 3)).notes()
    assert note == (
        "note: model.attention=(16,): no attention at 16 pixels, since the features of images of height 96 have the "
        "heights 96, 48, 24, 12"
    )


@pytest.mark.parametrize(("key", "value"), [("sde.t_max", "1e9"), ("sde.sigma_max", "1e17")])
def test_noise_that_float32_does_not_hold_is_refused(key, value):
    with pytest.raises(UserError, match=r"^--config\.sde\.name=ve with .*must be finite, alpha > 0"):
        build.experiment(finished("digits", f"{key}={value}", "sde.t_max=3" if "sigma" in key else "seed=0"), (8, 8, 1))
