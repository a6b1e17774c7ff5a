"""Settings that identify a run, and settings that may change when it resumes."""

import shutil
import sys

import jax
import numpy as np
import pytest
from experiments import finished, smallest
from run_files import contents, images, quiet, restored

from score_sde_jax import settings
from score_sde_jax.devices.parallel import Jit
from score_sde_jax.errors import UserError
from score_sde_jax.runs import checkpoint
from score_sde_jax.runs import workdir as directories
from score_sde_jax.runs.evaluate import evaluate
from score_sde_jax.runs.info import info
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.train import train
from score_sde_jax.settings import identity

pytestmark = pytest.mark.usefixtures("quick_compilation", "blank_figures")

OPTIONS = ("train.preview_every=0", "optimizer.decay=constant", "sampler.num_images=2", "sampler.batch_size=2")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A finished run of 4 steps."""
    workdir = tmp_path_factory.mktemp("digits")
    train(smallest(*OPTIONS), workdir, quiet)
    return workdir


@pytest.fixture
def run(digits, tmp_path):
    """A copy of the run, to resume."""
    shutil.copytree(digits, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("steps", [4, 6], ids=["finished", "unfinished"])
def test_train_with_another_seed_is_refused_and_sampling_is_not(run, steps):
    before = contents(run)
    with pytest.raises(UserError, match=r"the saved run has seed=\d+, these settings have 9; use another --workdir"):
        train(smallest(*OPTIONS, f"train.steps={steps}", "seed=9"), run, quiet)
    assert contents(run) == before
    sample(smallest(*OPTIONS, "seed=9", "sampler.num_images=1"), run, SampleRequest(), quiet)


def test_every_section_is_in_one_list():
    """A section identifies the run, or only training depends on it, or it is for sampling and evaluation."""
    sections = {path.partition(".")[0] for path in settings.flatten(settings.plain(smallest()))}
    training = {path for path in identity.TRAINING if "." not in path}
    assert sections == set(identity.RUN) | training | {identity.SEED, "sampler", "task", "eval"}
    assert not set(identity.RUN) & training


@pytest.mark.parametrize("key", identity.CHANGEABLE)
def test_a_changeable_key_is_one_of_training(key):
    assert key in identity.TRAINING and key.partition(".")[0] in identity.RUN


CHANGES = {
    "data.flip=true": "data.flip False -> True",
    "optimizer.gradient_clip=1.0": "optimizer.gradient_clip None -> 1.0",
    "optimizer.weight_decay=0.01": "optimizer.weight_decay 0.0 -> 0.01",
    "optimizer.warmup_steps=2": "optimizer.warmup_steps 0 -> 2",
    "optimizer.decay=cosine": "optimizer.decay constant -> cosine",
    "train.batch_size=4": "train.batch_size 8 -> 4",
    "train.log_every=2": "train.log_every 1 -> 2",
    "loss.reduction=half_sum": "loss.reduction mean -> half_sum",
    "checkpoint.keep=3": "checkpoint.keep 2 -> 3",
}


@pytest.mark.parametrize("changes", [[change] for change in list(CHANGES)[:2]] + [list(CHANGES)], ids=len)
def test_a_run_resumes_with_other_training_settings_and_prints_them(run, changes):
    lines = []
    train(smallest(*OPTIONS, "train.steps=5", *changes), run, lines.append)
    message = next(line for line in lines if line.startswith("Changed settings: "))
    assert any("Resuming" in line for line in lines)
    printed = message.removeprefix("Changed settings: ").split(", ")
    assert sorted(printed) == sorted(["train.steps 4 -> 5", *(CHANGES[change] for change in changes)])
    assert directories.saved_settings(run) == smallest(*OPTIONS, "train.steps=5", *changes)
    assert any("resume at image 16" in line for line in lines) == ("train.batch_size=4" in changes)
    sample(smallest(*OPTIONS, *changes), run, SampleRequest(), quiet)


@pytest.mark.parametrize("change", ["optimizer.gradient_clip=1.0", "optimizer.weight_decay=0.01"])
def test_moments_survive_a_change_of_the_optimizer(run, change):
    """Moments and counts include the four steps of the old optimizer, whose state has another structure."""
    train(smallest(*OPTIONS, "train.steps=5", change), run, quiet)
    before = restored(run, smallest(*OPTIONS), 4)
    after = restored(run, smallest(*OPTIONS, change), 5)
    structures = [jax.tree.structure(state.opt_state) for state in (before, after)]
    assert structures[0] != structures[1]
    counts = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.dtype == np.int32]
    assert [int(count) for count in counts] == [5, 5]
    for old, new in zip(second_moments(before), second_moments(after), strict=True):
        # nu' = 0.999 nu + 0.001 g^2; new moments would have only the last term
        assert np.all(np.asarray(new) >= 0.99 * np.asarray(old))


def second_moments(state):
    leaves = jax.tree.leaves_with_path(state.opt_state)
    return [leaf for path, leaf in leaves if ".nu" in jax.tree_util.keystr(path)]


def test_saved_settings_are_those_of_the_run_with_overrides(run):
    """The saved settings differ from those of the config file; overrides change them."""
    saved = directories.saved_settings(run)
    assert saved == smallest(*OPTIONS)
    longer = directories.saved_settings(run, ["train.steps=6", "sampler.num_images=3"])
    assert longer == smallest(*OPTIONS, "train.steps=6", "sampler.num_images=3")
    assert len(images(sample(directories.saved_settings(run, ["sampler.num_images=3"]), run, SampleRequest()))) == 3
    assert (evaluate(directories.saved_settings(run, ["eval.num_images=8"]), run, say=quiet) / "metrics.json").exists()
    lines = []
    info(saved, run, lines.append)
    assert any(line.startswith("run: 4 steps of 8 images") for line in lines)


REFUSED = [
    ("model.width=16", "model.width=4, these settings have 16"),
    ("data.value_range=(-1.0,1.0)", "data.value_range"),
    ("train.batch_size=0", "must be >= 1"),
    ("sde.sigma_min=2.0", "must be > 0 and < sigma_max"),
    ("sampler.corrector.step_size=2.5", "--config.sampler.corrector.step_size=2.5: must be > 0 and < 2"),
    ("train.steps_per_call=3 train.steps=6 train.log_every=3 checkpoint.every=3", "does not divide step 4"),
    ("train.tensorboard=true", "needs pip install"),
    ("data.split=most", "choose one of train, test, all"),
    ("seed=-1", "--config.seed=-1: must be >= 0 and < "),
    ("optimizer.learning_rate=1e400", "--config.optimizer.learning_rate=1e400: must be >= 0"),
    ("parameterization.center=1e400", "--config.parameterization.center=1e400: must be >= -1e+18 and < 1e+18"),
    ("train.averages.a/b=0.5", "--config.train.averages.a/b: a name has letters"),
    ("train.averages=3", "--config.train.averages=3: expected names with numbers, such as {'slow': 0.9999}"),
]


@pytest.mark.parametrize(("changes", "part"), REFUSED)
def test_a_refused_command_leaves_the_workdir_as_it_was(run, tmp_path, changes, part, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    before = contents(run)
    for workdir in (run, tmp_path / "new"):
        if "model" in changes or "value_range" in changes or "steps_per_call" in changes:
            workdir = run  # not refused in a new run
        with pytest.raises(UserError) as raised:
            train(smallest(*OPTIONS, *changes.split()), workdir, quiet)
        assert part in str(raised.value) and "\n" not in str(raised.value)
        assert contents(run) == before and not (tmp_path / "new").exists()


def test_a_network_that_does_not_fit_the_images_leaves_no_workdir(tmp_path):
    """The error appears only when the shape of the images is known."""
    with pytest.raises(UserError, match=r"--config\.model\.patch=3: "):
        train(finished("digits", *OPTIONS, "model.patch=3"), tmp_path / "new", quiet)
    assert not (tmp_path / "new").exists()


def test_a_program_that_fails_to_compile_changes_no_file_of_a_run(run, monkeypatch):
    """The compiler fails, for example, if the memory does not suffice."""

    def fails(*_):
        raise MemoryError

    before = {path: data for path, data in contents(run).items() if path.name != directories.LOCK}
    monkeypatch.setattr(Jit, "compiled", fails)
    with pytest.raises(MemoryError):
        train(smallest(*OPTIONS, "train.steps=6", "train.batch_size=4"), run, quiet)
    assert {path: data for path, data in contents(run).items() if path.name != directories.LOCK} == before


@pytest.mark.parametrize(
    "text", ["null", "[]", "3", "{}", '{"image_shape": null}', '{"image_shape": [2.5]}', '{"image_shape": []}', "\xff"]
)
def test_an_invalid_config_json_is_refused(run, text):
    (run / "config.json").write_bytes(text.encode("latin-1"))
    for attempt in (train, info, lambda config, run, say: sample(config, run, SampleRequest(), say)):
        with pytest.raises(UserError, match=r"config\.json: not the config of a run \("):
            attempt(smallest(*OPTIONS), run, quiet)


def test_a_saved_value_auto_is_refused(run):
    config = run / "config.json"
    config.write_text(config.read_text().replace('"sigma_max": 1.0', '"sigma_max": "auto"'))
    with pytest.raises(UserError, match=r"config\.json: has no value for sde\.sigma_max, which is auto"):
        sample(directories.saved_settings(run), run, SampleRequest(), quiet)


def test_a_checkpoint_of_another_model_leaves_the_workdir_as_it_was(run):
    """The network of this version may have other parameters."""
    config = run / "config.json"
    config.write_text(config.read_text().replace('"width": 4', '"width": 16'))
    before = contents(run)
    for attempt in (train, lambda config, run, say: sample(config, run, SampleRequest(), say)):
        with pytest.raises(UserError, match=r"holds another model: \S+ is \S+ .* there, .* here"):
            attempt(smallest(*OPTIONS, "model.width=16", "train.steps=6"), run, quiet)
    assert contents(run) == before


def test_sampling_reads_the_averages_alone(run, monkeypatch):
    loaded_entries, load = [], checkpoint.Checkpoints._load

    def recording(self, step, entries):
        loaded_entries.append(sorted(entries))
        return load(self, step, entries)

    monkeypatch.setattr(checkpoint.Checkpoints, "_load", recording)
    sample(smallest(*OPTIONS), run, SampleRequest(), quiet)
    evaluate(smallest(*OPTIONS, "eval.num_images=8"), run, say=quiet)
    assert loaded_entries == [["ema_params", "step"]] * 2
