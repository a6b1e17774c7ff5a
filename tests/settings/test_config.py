"""Configs: published fields, overrides, and one line for every wrong setting."""

import json
import sys

import pytest
from experiments import CONFIGS, NAMES

from configs.families.methods import METHODS
from score_sde_jax import settings
from score_sde_jax.errors import UserError
from score_sde_jax.runs import build
from score_sde_jax.settings import Settings


def finished(name: str, *assignments: str) -> Settings:
    return settings.from_config(settings.load(str(CONFIGS / name)), assignments)


def message(name: str, *assignments: str) -> str:
    with pytest.raises(UserError) as raised:
        finished(name, *assignments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("variant", ["", ":debug"])
@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_complete_and_accepted(name, variant):
    config = finished(f"{name}.py{variant}")
    again = settings.from_saved(json.loads(json.dumps(settings.plain(config))) | {"image_shape": [8, 8, 1]})
    assert again == config  # JSON has lists for tuples


# arXiv 1907.05600 (Appendix B) and 2006.09011 (Appendix B) with the released configurations.
PUBLISHED = {
    "mnist_ncsn": (1.0, 10, 2e-5, 100, 1e-3, 128, 200_000),
    "cifar10_ncsn": (1.0, 10, 2e-5, 100, 1e-3, 128, 200_000),
    "celeba_ncsn": (1.0, 10, 2e-5, 100, 1e-3, 128, 200_000),
    "cifar10_ncsnv2": (50.0, 232, 6.2e-6, 5, 1e-4, 128, 300_000),
    "celeba": (90.0, 500, 3.3e-6, 5, 1e-4, 128, 210_000),
    "ffhq_ncsnv2": (348.0, 2311, 9e-7, 3, 1e-4, 32, 80_000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_fields(name):
    sigma_max, levels, step_lr, each, learning_rate, batch_size, steps = PUBLISHED[name]
    c = finished(f"{name}.py")
    assert (c.sde.sigma_max, c.sde.sigma_min) == (sigma_max, 0.01)
    assert c.loss.times.num_levels == c.sampler.times.num_levels == levels
    assert c.sampler.corrector.step_size * c.sde.sigma_min**2 == pytest.approx(step_lr)
    assert c.sampler.corrector.num_steps == each
    assert (c.optimizer.learning_rate, c.train.batch_size, c.train.steps) == (learning_rate, batch_size, steps)
    assert c.loss.reduction == "half_sum" and c.loss.weight.name == "simple"
    assert c.sampler.denoise == ("v2" in name or name == "celeba")


# sampling evaluations, image size, EMA decay, Adam's epsilon, flips, dequantization, channels of the network
MORE = {
    "mnist_ncsn": (1000, None, 0.0, 1e-8, False, True, 64),
    "cifar10_ncsn": (1000, None, 0.0, 1e-8, True, True, 128),
    "celeba_ncsn": (1000, 32, 0.0, 1e-8, True, True, 128),
    "cifar10_ncsnv2": (1161, None, 0.999, 1e-8, True, False, 128),
    "celeba": (2501, 64, 0.999, 1e-8, True, False, 128),
    "ffhq_ncsnv2": (6934, 256, 0.999, 1e-3, True, False, 128),
}


@pytest.mark.parametrize("name", MORE)
def test_more_published_fields(name):
    evaluations, image_size, ema_decay, eps, flip, dequantize, width = MORE[name]
    c = finished(f"{name}.py")
    shape = (image_size or 32, image_size or 32, 3)
    assert build.experiment(c, shape).sampler.nfe() == evaluations
    assert c.data.get("image_size") == image_size
    assert (c.train.ema_decay, c.optimizer.eps, c.optimizer.beta1, c.optimizer.beta2) == (ema_decay, eps, 0.9, 0.999)
    assert (c.optimizer.weight_decay, c.optimizer.gradient_clip) == (0.0, None)
    assert (c.optimizer.warmup_steps, c.optimizer.decay) == (0, "constant")
    assert (c.data.flip, c.data.dequantize, c.model.width) == (flip, dequantize, width)
    assert c.data.value_range == (0.0, 1.0) and c.sampler.prior == "uniform"
    assert (c.parameterization.center, c.parameterization.input_scale) == (0.5, 2.0)


def test_a_shared_number_of_levels_follows():
    c = finished("digits.py", "sampler.times.num_levels=7")
    assert c.loss.times.num_levels == c.parameterization.condition.num_levels == 7
    for path in ("model", "parameterization.condition", "loss.times", "sampler.times"):
        c = finished("cifar10_ncsn.py", f"{path}.num_levels=5")
        levels = [c.model, c.parameterization.condition, c.loss.times, c.sampler.times]
        assert [section.num_levels for section in levels] == [5] * 4


def test_a_new_name_starts_its_section_from_the_new_defaults_in_any_order():
    for order in (1, -1):
        assignments = ["sampler.corrector.name=langevin", "sampler.corrector.snr=0.2"][::order]
        corrector = finished("digits.py", *assignments).sampler.corrector
        assert (corrector.name, corrector.snr, corrector.num_steps) == ("langevin", 0.2, 1)


def test_the_same_name_again_changes_nothing():
    assert finished("digits.py", "sde.name=ve") == finished("digits.py")


def test_values_are_parsed_by_what_the_constructor_takes():
    c = finished("digits.py", "model.widths=(16,)", "data.flip=true", "optimizer.gradient_clip=1", "sde.sigma_max=2")
    assert (c.model.widths, c.data.flip, c.optimizer.gradient_clip, c.sde.sigma_max) == ((16,), True, 1, 2)


@pytest.mark.parametrize(
    ("assignments", "parts"),
    [
        (["train.stps=3"], ["train.stps", "steps"]),
        (["nothing.here=3"], ["nothing.here"]),
        (["train.steps=1.5"], ["train.steps=1.5", "integer"]),
        (["train.steps=many"], ["train.steps=many", "integer"]),
        (["data.flip=3"], ["data.flip=3", "True or False"]),
        (["model.widths=8"], ["model.widths=8", "expected numbers such as 1,2"]),
        (["sde.sigma_min=auto"], ["sde.sigma_min=auto", "number"]),
        (["loss.reduction=max"], ["loss.reduction=max", "mean, half_sum"]),
        (["data.name=imagenet"], ["data.name=imagenet", "celeb_a"]),
        (["model.name=vit"], ["model.name=vit", "ncsnv2"]),
        (["sde.name=vpp"], ["sde.name=vpp", "subvp"]),
        (["sampler.predictor.name=magic"], ["sampler.predictor.name=magic", "heun"]),
        (["sampler.corrector.snr=0.1"], ["sampler.corrector.snr", "annealed_langevin"]),
        (["sampler.corrector.name=none"], ["predictor and corrector are both none"]),
        (["loss.times.name=uniform"], ["level_index: needs", "ladder"]),
        (["loss.times.name=log_normal", "parameterization.condition.name=log_sigma"], ["log_normal: needs", "edm"]),
        (["parameterization.condition.name=none", "model.name=ncsn"], ["ncsn needs", "level_index"]),
        (["model.name=ncsnv2"], ["ncsnv2 needs", "none"]),
        (["parallel.name=pmap", "parallel.fully_sharded=true"], ["fully_sharded: parallel.name=pmap has no options"]),
        (["model.name=ncsn", "model.num_levels=3"], ["model.num_levels=3", "must be equal"]),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(assignments, parts):
    error = message("digits.py", *assignments)
    assert all(part in error for part in parts), error


@pytest.mark.parametrize(
    ("assignments", "parts"),
    [
        (["sde.sigma_min=3.0"], ["--config.sde: sigma_min must be > 0 and < sigma_max=1.0, got 3.0"]),
        (["sampler.corrector.step_size=2.5"], ["--config.sampler.corrector.step_size=2.5: must be > 0 and < 2"]),
        (["train.batch_size=0"], ["train.batch_size=0: must be >= 1"]),
        (["train.ema_decay=1.0"], ["train.ema_decay=1.0"]),
        (["sampler.num_images=0"], ["sampler.num_images=0"]),
    ],
)
def test_a_value_out_of_range_is_refused(assignments, parts):
    with pytest.raises(UserError) as raised:
        build.experiment(finished("digits.py", *assignments), (8, 8, 1))
    assert all(part in str(raised.value) for part in parts), raised.value


def test_files_without_a_config_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"digit\.py: no such file or packaged config; did you mean .*digits\.py"):
        settings.load(str(CONFIGS / "digit.py"))
    with pytest.raises(UserError, match="unknown variant 'tiny'; the only one is debug"):
        settings.load(str(CONFIGS / "digits.py:tiny"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match=r"empty\.py: the file defines no function get_config"):
        settings.load(str(tmp_path / "empty.py"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def get_config(): pass", "get_config failed (TypeError: "),
        ("def get_config(name): return missing", "get_config failed (NameError: "),
        ("def get_config(name): return {}", "get_config must return an ml_collections.ConfigDict, not dict"),
        ("def get_config(name): pass", "get_config must return an ml_collections.ConfigDict, not NoneType"),
    ],
)
def test_load_of_a_file_whose_function_fails_is_refused(tmp_path, body, message):
    file = tmp_path / "mine.py"
    file.write_text(body)
    with pytest.raises(UserError) as raised:
        settings.load(str(file))
    assert str(raised.value).startswith(f"--config={file}: {message}")


def test_load_of_a_missing_file_names_the_packaged_config_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^--config=configs/digits\.py: no such file; --config=digits names"):
        settings.load("configs/digits.py")


@pytest.mark.parametrize("name", ["digits", "digits:debug", "ve/cifar10_ncsnpp_continuous"])
def test_load_of_a_packaged_name_equals_load_of_its_file(tmp_path, monkeypatch, name):
    file, _, variant = name.partition(":")
    monkeypatch.chdir(tmp_path)
    by_name, by_file = settings.load(name), settings.load(str(CONFIGS / f"{file}.py:{variant}"))
    assert by_name.to_json() == by_file.to_json()


def test_load_of_a_user_file_may_import_its_own_folder_and_the_packaged_families(tmp_path):
    folder = tmp_path / "configs" / "mine"
    folder.mkdir(parents=True)
    (folder / "base.py").write_text("STEPS = 7\n")
    text = "from configs import digits\nfrom configs.mine.base import STEPS\n\n\ndef get_config(name=''):\n"
    text += "    config = digits.get_config(name)\n    config.train.steps = STEPS\n    return config\n"
    (folder / "run.py").write_text(text)
    config, digits = settings.load(f"{folder / 'run.py'}:debug"), settings.load("digits:debug")
    digits.train.steps = 7
    assert config.to_json() == digits.to_json()
    assert not {str(tmp_path), str(CONFIGS.parent / "share")} & set(sys.path)


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("digits", "digits"),
        ("digits:debug", "digits-debug"),
        ("ve/cifar10_ncsnpp", "ve/cifar10_ncsnpp"),
        (f"{CONFIGS}/digits.py", "digits"),
        (f"{CONFIGS}/vp/ddpm/cifar10.py:debug", "vp/ddpm/cifar10-debug"),
        (f"{__file__}:debug", "test_config-debug"),
    ],
)
def test_run_name_of_a_config_and_a_variant(argument, name):
    assert settings.run_name(argument) == name


@pytest.mark.parametrize("name", METHODS)
def test_sections_of_a_method_are_its_own(name):
    """A value set in one section, or in one config, changes no other."""
    config, other = METHODS[name].sections(), METHODS[name].sections()
    before = settings.flatten(other.copy_and_resolve_references().to_dict())
    sections = [config.sde, config.parameterization.condition, config.loss.times, config.loss.weight]
    sections += [config.sampler.times, config.sampler.predictor, config.sampler.corrector]
    for i, section in enumerate(sections):
        section.name = f"section {i}"
    assert [section.name for section in sections] == [f"section {i}" for i in range(len(sections))]
    assert settings.flatten(other.copy_and_resolve_references().to_dict()) == before
    assert settings.flatten(METHODS[name].sections().copy_and_resolve_references().to_dict()) == before
