"""From a config to objects: the loss it describes, what the data decide, what a workdir keeps, contradictions."""

import json
import pathlib
import sys
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist

from score_sde_jax import automatic as choices
from score_sde_jax import build, config, techniques, workdir
from score_sde_jax import keys as prng
from score_sde_jax.costs import residual_bytes
from score_sde_jax.errors import UserError
from score_sde_jax.reporting import MetricsLog, read_metrics

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def finished(name, *assignments):
    return build.finish(config.load(str(CONFIGS / f"{name}.py:debug")), list(assignments))


@pytest.fixture
def npz(tmp_path):
    """An archive of small images and what is in it."""
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    return tmp_path / "images.npz", images


def automatic(path, *assignments):
    return finished("image_folder", "data.name=npz", f"data.dir={path}", *assignments)


def test_the_loss_of_a_config_is_denoising_score_matching_over_its_ladder():
    """1/2 sigma^2 |s(x + sigma eps) + eps / sigma|^2, with the score s = f / sigma of the scaled_score networks."""
    chosen = finished("toy", "parameterization.name=scaled_score", "loss.reduction=half_sum", "loss.times.num_levels=3")
    experiment = build.experiment(chosen, (2,))
    params = experiment.init(jax.random.key(1)).params
    x0 = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (64, 2)), jnp.float32)
    keys = prng.per_image(jax.random.key(5), jnp.arange(64))
    losses = np.asarray(experiment.loss_fn(params, keys, {"image": x0}))

    sigmas = np.geomspace(4.0, 0.02, 3)
    noises = [np.asarray(prng.normal(part, x0)) for part in prng.split(keys, 2)]
    candidates = []
    for sigma in sigmas:  # of every image one of the ladder's levels has been drawn, with one of its keys' noises
        for eps in noises:
            x = np.asarray(x0) + sigma * eps
            told = jnp.full((64,), np.log(sigma), jnp.float32)
            f = np.asarray(experiment.network.apply(params, jnp.asarray(x, jnp.float32), told, train=True))
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


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_automatic_values_are_the_techniques_of_the_data(npz, value_range):
    path, images = npz
    chosen = automatic(path, f"data.value_range={value_range}")
    assert choices.is_automatic(chosen)
    told = choices.choose_automatic(chosen, build.dataset(chosen))
    assert not choices.is_automatic(chosen)
    low, high = value_range
    sigma_max = pdist(images.reshape(30, -1) / 255).max() * (high - low)
    assert chosen.sde.sigma_max == pytest.approx(sigma_max, rel=1e-4)
    levels = techniques.num_levels(16, 0.01, sigma_max)
    assert chosen.loss.times.num_levels == chosen.sampler.times.num_levels == levels
    step = techniques.langevin_step_size((sigma_max / 0.01) ** (1 / (levels - 1)), chosen.sampler.corrector.num_steps)
    assert chosen.sampler.corrector.step_size == pytest.approx(step, rel=1e-3)
    for path, value in [
        ("sde.sigma_max", chosen.sde.sigma_max),
        ("times.num_levels", levels),
        ("sampler.corrector.step_size", chosen.sampler.corrector.step_size),
    ]:
        assert any(f"{path} = {value}" in line for line in told), told
    assert choices.choose_automatic(chosen, build.dataset(chosen)) == []


def test_a_value_that_is_given_is_not_chosen(npz):
    chosen = automatic(npz[0], "sde.sigma_max=5.0", "loss.times.num_levels=7")
    told = choices.choose_automatic(chosen, build.dataset(chosen))
    assert len(told) == 1 and "step_size" in told[0]
    assert (chosen.sde.sigma_max, chosen.sampler.times.num_levels) == (5.0, 7)


def test_automatic_values_are_adopted_from_the_run_and_nothing_else_is(npz, tmp_path):
    chosen = automatic(npz[0])
    choices.choose_automatic(chosen, build.dataset(chosen))
    workdir.record(tmp_path / "run", chosen, (4, 4, 1))
    again = automatic(npz[0], "train.steps=9")
    saved = workdir.saved_config(tmp_path / "run")
    workdir.adopt_automatic(again, saved)
    workdir.refuse_another_run(tmp_path / "run", again, saved)
    expected = json.loads(config.to_json(chosen))
    expected["train"]["steps"] = 9
    assert json.loads(config.to_json(again)) == expected
    untouched = automatic(npz[0])
    workdir.adopt_automatic(untouched, workdir.saved_config(tmp_path / "nothing"))
    assert choices.is_automatic(untouched)


@pytest.mark.parametrize(
    ("assignment", "difference"),
    [
        ("model.width=16", "model.width: 8 there, 16 here"),
        ("sde.sigma_max=3", "sde.sigma_max: 2.0 there, 3.0 here"),
        ("data.flip=false", "data.flip: True there, False here"),
        ("parameterization.center=0.25", "parameterization.center: 0.5 there, 0.25 here"),
        ("data.name=cifar10", "data.name: 'celeb_a' there, 'cifar10' here"),
    ],
)
def test_another_run_is_refused_by_name(tmp_path, assignment, difference):
    fixed = ["sde.sigma_max=2", "loss.times.num_levels=3"]
    workdir.record(tmp_path, finished("celeba", *fixed), (64, 64, 3))
    saved = workdir.saved_config(tmp_path)
    with pytest.raises(UserError) as raised:
        workdir.refuse_another_run(tmp_path, finished("celeba", *fixed, assignment), saved)
    assert str(raised.value).startswith(f"{tmp_path} holds another run (") and "\n" not in str(raised.value)
    assert difference in str(raised.value)
    moved = finished("celeba", *fixed, "data.dir=/elsewhere", "optimizer.learning_rate=1.0", "sampler.denoise=false")
    workdir.refuse_another_run(tmp_path, moved, saved)  # what a run may change on its way


def test_a_workdir_that_cannot_be_written_or_read(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file" / "run", pathlib.Path("/proc/run")):
        with pytest.raises(UserError, match=rf"--workdir={directory}: cannot be written \(.+\)"):
            workdir.record(directory, finished("digits"), (8, 8, 1))
    (tmp_path / "config.json").write_text('{"data": {')
    with pytest.raises(UserError, match=r"config\.json: not the config of a run"):
        workdir.saved_config(tmp_path)


@pytest.mark.parametrize(
    ("name", "assignments", "parts"),
    [
        ("digits", ["loss.times.name=uniform"], ["level_index", "config.loss.times.name=ladder", "not uniform"]),
        (
            "cifar10_ncsn",
            ["parameterization.condition.name=log_sigma"],
            ["model.name=ncsn", "level_index", "log_sigma"],
        ),
        ("celeba", ["parameterization.condition.name=log_sigma"], ["model.name=ncsnv2", "none", "log_sigma"]),
        ("ffhq_ncsnv2", ["parameterization.condition.name=log_sigma"], ["model.name=ncsnv2_deepest", "none"]),
        ("toy", ["loss.times.name=log_normal"], ["log_normal", "config.sde.name=edm", "not ve"]),
        ("toy", ["sampler.corrector.name=none"], ["config.sampler", "both none"]),
        ("digits_subvp", ["loss.times.name=ladder"], ["config.loss.times.name=ladder", "subvp has no levels"]),
        (
            "digits_ve",
            ["loss.weight.name=likelihood_importance"],
            ["needs config.loss.times.name=importance", "uniform"],
        ),
        (
            "digits_vp",
            ["loss.times.name=importance", "loss.weight.name=likelihood"],
            ["loss.times.name=importance", "likelihood_importance"],
        ),
        ("digits_vp", ["model.embedding=fourier"], ["embedding=fourier needs", "log_sigma", "not scaled_time"]),
        ("digits_ve", ["model.embedding=positional"], ["embedding=positional needs", "scaled_time", "not log_sigma"]),
        ("digits_ve", ["model.embedding=none"], ["embedding=none needs", "condition.name=none"]),
        ("digits_vp", ["parameterization.condition.name=none"], ["embedding=positional needs", "not none"]),
        ("digits", ["sampler.corrector.snr=0.1"], ["sampler.corrector.snr", "annealed_langevin"]),
    ],
)
def test_sections_that_contradict_each_other(name, assignments, parts):
    with pytest.raises(UserError) as raised:
        finished(name, *assignments)
    assert all(part in str(raised.value) for part in parts), raised.value


def test_an_image_that_the_network_cannot_halve():
    experiment = build.experiment(finished("digits_ve", "model.multipliers=(1,1,1,1,1)"), (8, 8, 1))
    with pytest.raises(UserError, match=r"model\.multipliers=\(1, 1, 1, 1, 1\) .* multiple of 16 pixels, not 8 by 8"):
        jax.eval_shape(experiment.init, jax.random.key(0))


def test_levels_that_differ_are_refused():
    loaded = config.load(str(CONFIGS / "cifar10_ncsn.py"))
    loaded.loss.times = dict(name="ladder", num_levels=7)  # no longer the shared number
    with pytest.raises(UserError, match=r"model\.num_levels=10, .*loss\.times\.num_levels=7.*must be equal"):
        build.finish(loaded, [])


@pytest.mark.parametrize(
    ("assignment", "part"),
    [
        ("sde.sigma_min=3.0", "sigma_min=3.0 must be above 0 and below sigma_max=1.0"),
        ("sde.sigma_min=-1.0", "sigma_min=-1.0 must be above 0"),
        ("train.steps=0", "config.train.steps=0: at least 1"),
        ("train.log_every=0", "config.train.log_every=0: at least 1"),
        ("train.preview_every=-1", "config.train.preview_every=-1: at least 0"),
        ("train.ema_decay=-0.1", "config.train.ema_decay=-0.1: from 0"),
        ("train.microbatches=0", "config.train.microbatches=0: at least 1"),
        ("train.steps_per_call=0", "config.train.steps_per_call=0: at least 1"),
        ("train.steps_per_call=3", "config.train.steps=4 must be a multiple of config.train.steps_per_call=3"),
        ("train.max_skipped=-1", "config.train.max_skipped=-1: at least 0"),
        ("sampler.batch_size=0", "config.sampler.batch_size=0: at least 1"),
        ("sampler.num_frames=0", "config.sampler.num_frames=0: at least 1"),
    ],
)
def test_values_out_of_range(assignment, part):
    with pytest.raises(UserError) as raised:
        build.experiment(finished("digits", assignment), (8, 8, 1))
    assert part in str(raised.value)


@pytest.mark.parametrize("key", ["every", "keep"])
def test_checkpoint_options_out_of_range(key):
    with pytest.raises(UserError, match=rf"config\.checkpoint\.{key}=0: at least 1"):
        build.checkpoint_options(finished("digits", f"checkpoint.{key}=0"))


def gradient_of(chosen):
    """Gradient of the mean loss of 8 images, and the parameters it is taken at."""
    experiment = build.experiment(chosen, (8, 8, 1))
    params = experiment.init_params(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    keys = prng.per_image(jax.random.key(1), jnp.arange(8))
    x0 = jax.random.uniform(jax.random.key(2), (8, 8, 8, 1))

    def loss(params):
        return jnp.mean(experiment.loss_fn(params, keys, {"image": x0}))

    return jax.jit(jax.grad(loss))(params), residual_bytes(loss, params)


def relative_difference(a, b):
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


SMALL = ("model.widths=(16,)", "model.num_blocks=2")


def test_rematerialisation_keeps_less_and_computes_the_same():
    plain, kept = gradient_of(finished("digits", *SMALL))
    again, kept_again = gradient_of(finished("digits", *SMALL, "train.rematerialize=true"))
    assert relative_difference(again, plain) < 1e-5
    assert kept_again < 0.5 * kept


def test_bfloat16_computes_nearly_the_same_with_float32_parameters():
    plain, _ = gradient_of(finished("digits", *SMALL))
    half, _ = gradient_of(finished("digits", *SMALL, "model.dtype=bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("float32")}
    assert 1e-4 < relative_difference(half, plain) < 3e-2  # 8 bits of precision: 4e-3 for one operation


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10_ncsn", "cifar10_ncsnv2"])
@pytest.mark.parametrize(("change", "tolerance"), [("train.rematerialize=true", 1e-4), ("model.dtype=bfloat16", 0.1)])
def test_the_same_for_refinenets(name, change, tolerance):
    def gradient(*assignments):
        chosen = finished(name, *assignments)
        experiment = build.experiment(chosen, (16, 16, 3))
        params = experiment.init_params(jax.random.key(0))
        keys = prng.per_image(jax.random.key(1), jnp.arange(4))
        x0 = jax.random.uniform(jax.random.key(2), (4, 16, 16, 3))
        return jax.jit(jax.grad(lambda p: jnp.mean(experiment.loss_fn(p, keys, {"image": x0}))))(params)

    assert relative_difference(gradient(change), gradient()) < tolerance


def test_a_workdir_in_a_bucket(monkeypatch):
    """Files of a run as objects of a bucket, here one in memory; without the package one line says what to install."""
    with pytest.raises(UserError, match=r"gs://bucket/run: cannot be reached \(.*gcsfs.*\); pip install"):
        workdir.locate("gs://bucket/run")
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol = ("gs", "gcs")
        store: ClassVar[dict] = {}
        pseudo_dirs: ClassVar[list] = [""]

    for protocol in Bucket.protocol:
        monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, protocol, Bucket)
    run = workdir.locate("gs://bucket/run")
    with workdir.claimed(run):
        workdir.record(run, finished("digits"), (8, 8, 1))
    assert workdir.saved_config(run)["image_shape"] == [8, 8, 1]
    log = MetricsLog(run, 0)
    for step in (1, 2, 3):
        log.write(step, {"loss": float(step)})
    log = MetricsLog(run, 2)
    log.write(3, {"loss": 0.5})
    assert read_metrics(run / "metrics.jsonl") == [
        {"step": step, "loss": loss} for step, loss in [(1, 1.0), (2, 2.0), (3, 0.5)]
    ]
