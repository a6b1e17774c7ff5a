"""The evaluation driver, on a network that is the exact noise prediction of Gaussian data: every number is known."""

import json
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image
from runs import contents, quiet

from score_sde_jax import build, config, evaluate, measures, results
from score_sde_jax import keys as prng
from score_sde_jax.data import all_images
from score_sde_jax.errors import UserError
from score_sde_jax.losses import noise_level
from score_sde_jax.models import MODELS
from score_sde_jax.sdes import SDES, VE, VP, SubVP
from score_sde_jax.sharding import Jit
from score_sde_jax.train import train

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
MEAN, STD = 0.3, 0.4
EXACT_SDES = {"ve": VE(sigma_min=0.05, sigma_max=4.0), "vp": VP(), "subvp": SubVP()}
OVERRIDES = {"ve": ["sde.sigma_min=0.05", "sde.sigma_max=4.0"], "vp": ["sde.name=vp"], "subvp": ["sde.name=subvp"]}


class Exact(nn.Module):
    """E[eps | x_t] of data that are N(MEAN, STD^2) in every pixel; it is told t."""

    kind: str = "vp"

    @nn.compact
    def __call__(self, x, condition, train=False):
        mean = self.param("mean", nn.initializers.constant(MEAN), ())
        sde, t = EXACT_SDES[self.kind], prng.bcast(condition, x)
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return sigma * (x - alpha * mean) / ((alpha * STD) ** 2 + sigma**2)


def finished(kind, *assignments, base="digits"):
    """A config of the exact network, which one step at rate 0 does not change."""
    chosen = config.load(str(CONFIGS / f"{base}.py:debug"))
    del chosen.sampler
    known = ["model.name=exact", f"model.kind={kind}", "parameterization.name=noise", "parameterization.center=0.0"]
    known += ["parameterization.condition.name=scaled_time", "parameterization.condition.scale=1.0"]
    known += ["loss.times.name=uniform", "optimizer.learning_rate=0.0", "train.steps=1", "train.preview_every=0"]
    return build.finish(chosen, [*known, *OVERRIDES[kind], *assignments])


def metrics(output):
    return json.loads((output / "metrics.json").read_text())


def lines_of(output, name):
    return [json.loads(line) for line in (output / f"{name}.jsonl").read_text().splitlines()]


def column(output, name, key):
    return np.array([value for row in lines_of(output, name) for value in row[key]])


@pytest.fixture(scope="module", autouse=True)
def known():
    """The exact network among the models, and less optimisation, since compiling takes the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "exact", Exact)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """Two archives of images of 256 levels, to train on and held out."""
    rng = np.random.default_rng(0)
    paths = [tmp_path_factory.mktemp(name) / "images.npz" for name in ("trained", "held_out")]
    for path, num in zip(paths, (30, 21), strict=True):
        np.savez(path, images=rng.integers(0, 256, (num, 4, 4, 1), np.uint8))
    return paths


@pytest.fixture(scope="module")
def runs(tmp_path_factory, npz):
    """Function from the name of a case to its trained run: (workdir, overrides, sde, stored images, levels, range)."""
    made = {}
    cases = {
        "digits": ("vp", [], (0.0, 1.0)),
        "digits_ve": ("ve", [], (0.0, 1.0)),
        "digits_subvp": ("subvp", ["data.value_range=(-1.0, 1.0)"], (-1.0, 1.0)),
        "npz": ("vp", ["data.name=npz", f"data.dir={npz[0]}", "data.value_range=(-1.0, 1.0)"], (-1.0, 1.0)),
    }

    def run(name):
        if name not in made:
            kind, overrides, value_range = cases[name]
            workdir = tmp_path_factory.mktemp(name)
            train(finished(kind, *overrides), workdir, quiet)
            made[name] = workdir, kind, overrides, value_range
        return made[name]

    return run


def parts(sde):
    """alpha and standard deviation of a pixel at both ends of the flow, and sigma at the last."""
    t = [jnp.asarray(t) for t in (sde.t_min, sde.t_max)]
    alpha, sigma = ([float(schedule(time)) for time in t] for schedule in (sde.alpha, sde.sigma))
    return alpha, [math.hypot(a * STD, s) for a, s in zip(alpha, sigma, strict=True)], sigma[1]


def closed_form(sde, stored, levels, value_range, repeats=1):
    """Mean bits/dim over images and dequantisation noise under the linear flow and its prior, and the standard error of
    a mean over `repeats` draws of the noise.

    z = alpha_1 m + (x - alpha_0 m) S_1 / S_0 and log p(x) = log N(z; 0, sigma_1^2) + D log(S_1 / S_0), quadratic in x,
    and x = low + (v + u) h with u uniform on [0, 1).
    """
    (alpha0, alpha1), (s0, s1), sigma1 = parts(sde)
    low, high = value_range
    width, slope = (high - low) / levels, s1 / s0
    v = np.asarray(stored, float).reshape(len(stored), -1)
    a, b = slope * width, alpha1 * MEAN + (low + v * width - alpha0 * MEAN) * slope  # z = b + a u
    mean_square = b**2 + a * b + a**2 / 3
    # Var (b + a u)^2 = 4 a^2 b^2 Var u + 4 a^3 b Cov(u, u^2) + a^4 Var u^2
    variance = 4 * a**2 * b**2 / 12 + 4 * a**3 * b / 12 + a**4 * 4 / 45
    nats = mean_square / (2 * sigma1**2) + math.log(sigma1) + 0.5 * math.log(2 * math.pi) - math.log(slope)
    bits = nats / math.log(2) - math.log2(width)
    error = np.sqrt((variance / (2 * sigma1**2) ** 2).sum(1).sum() / repeats) / v.shape[1] / len(v) / math.log(2)
    return bits.mean(), error


@pytest.mark.parametrize(
    ("name", "split", "levels", "estimator"),
    [
        ("digits", "test", 17, ["divergence=exact", "num_images=100"]),
        ("digits_ve", "test", 17, ["divergence=exact", "num_images=100"]),
        ("digits_subvp", "train", 17, ["divergence=rademacher", "num_images=100"]),
        ("npz", None, 256, ["divergence=gaussian", "num_probes=4", "split=none"]),
    ],
)
def test_bits_per_dim_are_those_of_the_density(runs, name, split, levels, estimator):
    workdir, kind, overrides, value_range = runs(name)
    asked = [f"eval.{key}" for key in (*estimator, "bits_per_dim=true", "loss=false", "repeats=3", "rtol=1e-6")]
    chosen = finished(kind, *overrides, *asked, *([f"eval.split={split}"] if split else []))
    output = evaluate.evaluate(chosen, workdir, say=quiet)
    found, sde = metrics(output)["bits_per_dim"], EXACT_SDES[kind]
    if split:
        chosen.data.split = split
    stored = all_images(build.dataset(chosen))[: found["num_images"]]
    expected, noise = closed_form(sde, stored, levels, value_range, repeats=3)
    dim, probes = stored[0].size, 0.0
    if "divergence=gaussian" in estimator:  # v' J v = c |v|^2, whose variance is 2 c^2 D
        alpha, spread, _ = parts(sde)
        c = math.log(spread[1] / spread[0]) - math.log(alpha[1] / alpha[0])
        probes = abs(c) * math.sqrt(2 * dim / 4) / dim / math.log(2) / math.sqrt(3 * len(stored))
        assert found["standard_error_probes"] == pytest.approx(probes, rel=0.3)
    total = math.hypot(noise, probes)
    assert abs(found["mean"] - expected) < 4 * total + 2e-5, (found, expected)
    assert found["standard_error_noise"] == pytest.approx(total, rel=0.3)
    values = column(output, "bits_per_dim", "value").reshape(3, -1)
    assert found["standard_error"] == pytest.approx(values.mean(0).std(ddof=1) / math.sqrt(len(stored)), rel=1e-9)
    assert (found["min"], found["max"]) == (values.min(), values.max())
    assert found["not_converged"] == 0 and 14 < found["evaluations_mean"] <= found["evaluations_max"]
    with Image.open(output / "bits_per_dim.png") as picture:
        picture.load()


def test_points_have_nats_of_their_own_density(tmp_path):
    overrides = ["data.num_points=200", "data.distribution=gaussians"]
    train(finished("vp", *overrides, base="toy"), tmp_path, quiet)
    said, asked = [], ["eval.bits_per_dim=true", "eval.loss=false", "eval.divergence=exact", "eval.rtol=1e-6"]
    output = evaluate.evaluate(finished("vp", *overrides, *asked, base="toy"), tmp_path, say=said.append)
    found = column(output, "nats_per_dim", "value")
    fresh = finished("vp", *overrides, "data.seed=1", base="toy")
    x = np.asarray(all_images(build.dataset(fresh)), float)
    (alpha0, alpha1), (s0, s1), sigma1 = parts(VP())
    z = alpha1 * MEAN + (x - alpha0 * MEAN) * s1 / s0
    nats = z**2 / (2 * sigma1**2) + math.log(sigma1) + 0.5 * math.log(2 * math.pi) - math.log(s1 / s0)
    np.testing.assert_allclose(found, nats.mean(axis=1), atol=2e-4, rtol=2e-5)
    assert any("in nats, without dequantisation" in line for line in said) and "points seed 1" in said[0]
    assert "bits_per_dim" not in metrics(output)


def loss_closed_form(sde, x0, t):
    """E |eps_hat - eps|^2 per pixel at time t: the error is linear in x0 - m and eps."""
    alpha, sigma = (np.asarray(schedule(jnp.asarray(t)), float) for schedule in (sde.alpha, sde.sigma))
    variance = (alpha * STD) ** 2 + sigma**2
    return (sigma * alpha / variance) ** 2 * np.mean((x0 - MEAN) ** 2) + ((alpha * STD) ** 2 / variance) ** 2


def test_the_loss_is_the_expected_one_at_every_noise_level(runs):
    workdir, kind, overrides, _ = runs("digits")
    output = evaluate.evaluate(finished(kind, *overrides, "eval.draws=30"), workdir, say=quiet)
    sde, grid = VP(), jnp.linspace(VP().t_min, VP().t_max, 20_001)
    levels = np.asarray(noise_level(sde, prng.per_image(jax.random.key(0), jnp.arange(20_001)), times=lambda *_: grid))
    for name, split, num in (("loss", "test", 359), ("training_loss", "train", 359)):
        found = metrics(output)[name]
        x0 = all_images(build.dataset(finished(kind, f"data.split={split}")))[:num] / 16
        expected = loss_closed_form(sde, x0, grid)
        assert found["num_images"] == num
        assert abs(found["mean"] - expected.mean()) < 4 * found["standard_error"]
        assert found["standard_error"] < 0.02 * found["mean"]
        visited = column(output, name, "level").reshape(num, 30)
        assert np.ptp(np.histogram(visited, bins=10, range=(0, 1))[0]) < 30  # alike: less than one in a hundred off
        for number, (mean, error) in enumerate(
            zip(found["level_loss"], found["level_loss_standard_error"], strict=True)
        ):
            at = np.interp((number + (np.arange(100) + 0.5) / 100) / 10, levels, np.asarray(grid))
            assert abs(mean - loss_closed_form(sde, x0, at).mean()) < 4 * error, number
    with Image.open(output / "level_loss.png") as picture:
        picture.load()


class Prejudiced(nn.Module):
    """Logits that no image changes; class 3 is the most probable."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, x, condition, train=False):
        logits = self.param("logits", lambda _: jnp.where(jnp.arange(self.num_classes) == 3, 2.0, 0.0))
        return jnp.broadcast_to(logits, (len(x), self.num_classes))


def test_a_classifier_has_an_accuracy_at_every_noise_level(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "wide_resnet", Prejudiced)

    def chosen(*more):
        classifier = config.load(str(CONFIGS / "digits_classifier.py:debug"))
        classifier.model = dict(name="wide_resnet", num_classes=10)
        return build.finish(classifier, ["optimizer.learning_rate=0.0", "train.steps=1", *more])

    train(chosen("train.preview_every=0"), tmp_path, quiet)
    lines = []
    output = evaluate.evaluate(chosen("eval.draws=10"), tmp_path, say=lines.append)
    for name, split in (("loss", "test"), ("training_loss", "train")):
        found = metrics(output)[name]
        labels = build.dataset(chosen(f"data.split={split}")).gather(np.arange(359))[1]
        share, logs = np.mean(labels == 3), np.log(np.exp([2.0, 0.0]) / (math.exp(2.0) + 9))
        assert found["accuracy"]["mean"] == pytest.approx(share) == found["accuracy_all_levels"]["mean"]
        assert found["level_accuracy"] == pytest.approx(
            [share] * 10, abs=2e-3
        )  # ten draws visit each bin once, but for rounding
        assert found["mean"] == pytest.approx(-share * logs[0] - (1 - share) * logs[1], rel=1e-5)
        assert found["level_loss"] == pytest.approx([found["mean"]] * 10, abs=5e-3)
    assert any(line.startswith(f"accuracy {np.mean(labels == 3):.4g} +- ") for line in lines)
    with pytest.raises(UserError, match=r"config\.eval\.bits_per_dim=True: a classifier .* has no density"):
        chosen("eval.bits_per_dim=true")


@pytest.mark.parametrize("kind", SDES)
def test_times_visit_the_noise_levels_alike(kind):
    sde, wanted = SDES[kind](), jnp.linspace(0, 0.999, 101)
    t = measures.times_of_levels(sde, wanted, None)
    keys = prng.per_image(jax.random.key(0), jnp.arange(101))
    np.testing.assert_allclose(noise_level(sde, keys, times=lambda *_: t), wanted, atol=1e-4)
    ladder = measures.times_of_levels(sde, jnp.linspace(0, 0.999, 100), 5)
    steps, counts = np.unique(np.asarray(ladder), return_counts=True)
    np.testing.assert_allclose(steps, np.linspace(sde.t_min, sde.t_max, 5), rtol=1e-6)
    assert counts.tolist() == [20] * 5


ASKED = ["eval.bits_per_dim=true", "eval.num_images=22", "eval.batch_size=8", "eval.repeats=2", "eval.rtol=1e-3"]


@pytest.fixture
def asked(runs, tmp_path):
    """A copy of a run, and a function that evaluates it: (output, lines, calls of compiled functions)."""
    source, kind, _, _ = runs("digits")
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir, ignore=shutil.ignore_patterns("eval"))

    def ask(*more, say=None, checkpoint=None, seed=None):
        lines, calls, per_example = [], [], Jit.per_example

        def counted(self, function):
            compiled = per_example(self, function)

            def call(params, indices, *rest):
                calls.append(len(indices))
                return compiled(params, indices, *rest)

            return call

        def told(line):
            lines.append(line)
            if say:
                say(line)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Jit, "per_example", counted)
            try:
                output = evaluate.evaluate(finished(kind, *ASKED, *more), workdir, checkpoint, seed, told)
            except KilledError:
                output = None
        return output, lines, calls

    ask.workdir = workdir
    return ask


class KilledError(Exception):
    """The end of a process."""


def killer(line_wanted):
    def say(line):
        if line.startswith(line_wanted):
            raise KilledError

    return say


RESULTS = ("metrics.json", "settings.json", "loss.jsonl", "training_loss.jsonl", "bits_per_dim.jsonl")


@pytest.mark.parametrize(
    ("line", "done"), [("loss 8/22", 1), ("training loss 22/22", 6), ("bits per dim 16/44", 8), ("bits/dim", 12)]
)
def test_a_killed_evaluation_goes_on_and_repeats_nothing(asked, line, done, tmp_path):
    output, _, calls = asked()
    whole = {name: (output / name).read_bytes() for name in RESULTS}
    assert calls == [8] * 12  # 3 of each loss, 6 of 44 images; the last ones are filled up
    shutil.rmtree(output)
    _, _, before = asked(say=killer(line))
    _, _, after = asked()
    assert (len(before), len(after)) == (done, 12 - done)
    assert {name: (output / name).read_bytes() for name in RESULTS} == whole


def test_a_line_that_was_cut_short_is_measured_again(asked):
    output, _, _ = asked()
    whole = {name: (output / name).read_bytes() for name in RESULTS}
    for cut in (1, 2, 100):
        for name in ("loss.jsonl", "bits_per_dim.jsonl"):
            (output / name).write_bytes(whole[name][:-cut])
        (output / "metrics.json").unlink()
        _, _, calls = asked()
        assert len(calls) == (0 if cut == 1 else 2)  # without its end, a line is still whole
        assert {name: (output / name).read_bytes() for name in RESULTS} == whole


def test_a_finished_evaluation_does_nothing_more(asked):
    output, _, _ = asked()
    before = contents(output)
    again, lines, calls = asked("eval.batch_size=5")
    assert again == output and calls == [] and contents(output) == before
    assert f"{output} holds all of it already; nothing to do" in lines


def test_other_settings_have_a_directory_of_their_own(asked):
    output, _, _ = asked("eval.loss=false")
    before = contents(output)
    others = [
        asked("eval.loss=false", *more, **keywords)[0]
        for more, keywords in [
            (["eval.split=train"], {}),
            (["eval.rtol=1e-4"], {}),
            (["eval.divergence=gaussian"], {}),
            (["eval.num_images=9"], {}),
            ([], {"seed": 7}),
        ]
    ]
    assert len({output, *others}) == 6 and all(other.parent == output for other in others)
    assert {path: data for path, data in contents(output).items() if path.parent == output} == before
    values = column(output, "bits_per_dim", "value")
    fewer, seeded = column(others[3], "bits_per_dim", "value"), column(others[4], "bits_per_dim", "value")
    # The noise of image i in repeat r depends on the seed, r and i alone.
    np.testing.assert_allclose(fewer.reshape(2, 9), values.reshape(2, 22)[:, :9], rtol=1e-6)
    assert (np.abs(seeded - values) > 1e-4).all() and (np.abs(values[:22] - values[22:]) > 1e-4).all()


def test_more_repeats_go_on_where_the_first_stopped(asked):
    output, _, _ = asked("eval.repeats=1", "eval.loss=false")
    first = lines_of(output, "bits_per_dim")
    again, _, calls = asked("eval.repeats=3", "eval.loss=false")
    assert again == output and len(calls) == 6 and lines_of(output, "bits_per_dim")[:3] == first
    assert metrics(output)["bits_per_dim"]["repeats"] == 3
    assert asked("eval.loss=false")[2] == [] and metrics(output)["bits_per_dim"]["repeats"] == 3
    assert asked()[2] == [8] * 6 and set(metrics(output)) >= {"loss", "training_loss", "bits_per_dim"}


def test_the_batch_size_changes_nothing(asked):
    output, _, _ = asked()
    columns = ("loss", "loss"), ("loss", "level_loss"), ("bits_per_dim", "value"), ("bits_per_dim", "evaluations")
    whole = [column(output, *where) for where in columns]
    shutil.rmtree(output)
    asked("eval.batch_size=5")
    for before, where in zip(whole, columns, strict=True):
        np.testing.assert_allclose(column(output, *where), before, rtol=2e-5)


def test_images_whose_solver_gives_up_are_named_and_left_out(asked):
    output, lines, _ = asked("eval.loss=false", "eval.repeats=1", "eval.rtol=1e-6", "eval.atol=1e-7")
    counts, values = (column(output, "bits_per_dim", key) for key in ("evaluations", "value"))
    few = int(counts.min())
    late = np.flatnonzero(counts > few)
    assert 0 < len(late) < len(counts) and not any("gave up" in line for line in lines)
    output, lines, _ = asked(
        "eval.loss=false", "eval.repeats=1", "eval.rtol=1e-6", "eval.atol=1e-7", f"eval.max_evaluations={few}"
    )
    found = metrics(output)["bits_per_dim"]
    assert found["not_converged_images"] == [[0, image] for image in late] and found["not_converged"] == len(late)
    assert found["mean"] == pytest.approx(np.delete(values, late).mean(), rel=1e-6)
    assert any(
        f"gave up on {len(late)} of 22, which are left out: images {late[0]} (repeat 0)" in line for line in lines
    )
    output, lines, _ = asked("eval.loss=false", "eval.max_evaluations=8")
    found = metrics(output)["bits_per_dim"]
    assert found["not_converged"] == 44 and found["mean"] is found["standard_error"] is found["max"] is None
    assert any(line.startswith("bits/dim unknown") for line in lines)


def test_a_checkpoint_is_chosen_as_for_sampling(asked):
    for checkpoint, told in [(3, r"no checkpoint of step 3; there are \[1\]"), ("best", "keeps no best checkpoint")]:
        with pytest.raises(UserError, match=told):
            asked(checkpoint=checkpoint)
    assert not (asked.workdir / "eval").exists()
    shutil.copytree(asked.workdir / "checkpoints", asked.workdir / "best")
    assert asked("eval.bits_per_dim=false", checkpoint="best")[0] == asked.workdir / "eval" / "1"


def test_held_out_images_of_another_directory(runs, npz, tmp_path):
    workdir, kind, overrides, _ = runs("npz")
    lines = []
    output = evaluate.evaluate(finished(kind, *overrides, f"eval.dir={npz[1]}"), workdir, say=lines.append)
    assert metrics(output)["loss"]["num_images"] == metrics(output)["training_loss"]["num_images"] == 21
    assert not any("note" in line for line in lines)
    other = evaluate.evaluate(finished(kind, *overrides), workdir, say=lines.append)
    assert other != output and metrics(other)["loss"]["num_images"] == 30 and "training_loss" not in metrics(other)
    assert any("these are images that the run trains on, nothing is held out" in line for line in lines)
    for more, told in [
        ("eval.split=test", r"config\.eval\.split=test: npz has no splits; name .* config\.eval\.dir"),
        (f"eval.dir={tmp_path / 'nowhere'}", r"config\.eval\.dir='.*nowhere': there is no file"),
    ]:
        with pytest.raises(UserError, match=told):
            evaluate.evaluate(finished(kind, *overrides, more), workdir, say=quiet)
    np.savez(tmp_path / "larger.npz", images=np.zeros((3, 5, 5, 1), np.uint8))
    with pytest.raises(UserError, match=r"images of shape \(5, 5, 1\); the run was trained on \(4, 4, 1\)"):
        evaluate.evaluate(finished(kind, *overrides, f"eval.dir={tmp_path / 'larger.npz'}"), workdir, say=quiet)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("eval.split=dev", r"config\.eval\.split='dev': choose one of train, test, all"),
        ("eval.dir=there", "config.eval.dir=there: digits lie in no directory"),
        ("eval.loss=false eval.bits_per_dim=false", "loss and bits_per_dim are both False; nothing to evaluate"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_leaves_nothing(asked, more, told):
    with pytest.raises(UserError, match=told) as raised:
        asked(*more.split())
    assert "\n" not in str(raised.value) and not (asked.workdir / "eval").exists()


def test_more_images_than_there_are_and_an_exact_divergence_of_many(asked, monkeypatch):
    _, lines, calls = asked("eval.num_images=400", "eval.bits_per_dim=false", "eval.batch_size=100")
    assert any("digits test has 359 images, fewer than config.eval.num_images=400" in line for line in lines)
    assert len(calls) == 8
    monkeypatch.setattr(evaluate, "MANY_DIRECTIONS", 63)
    lines = asked("eval.loss=false", "eval.divergence=exact")[1]
    assert any("an exact divergence takes 64 derivatives" in line for line in lines)


def test_rows_keep_every_digit_of_float32(tmp_path):
    values = np.random.default_rng(0).normal(size=50).astype(np.float32)
    values[3] = np.nan
    rows = results.Rows(tmp_path / "rows.jsonl")
    rows.append({"value": values, "good": values > 0})
    read = results.Rows(tmp_path / "rows.jsonl").columns
    np.testing.assert_array_equal(np.array(read["value"], np.float32), values)
    assert read["value"][3] is None and read["good"] == (values > 0).tolist() and len(rows) == 50
