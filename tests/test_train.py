"""Every experiment, seconds of it, on made-up data of the right format: train, go on, sample, continue.

The published networks compile for minutes; here a small network of the same arguments stands in for them, and
`pytest -m slow` takes them themselves. What they compute is tested in tests/models.
"""

import errno
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import NAMES, finished, loaded
from flax import linen as nn
from orbax.checkpoint import v1 as ocp
from PIL import Image

from score_sde_jax import build, config
from score_sde_jax import info as drivers_info
from score_sde_jax import workdir as directories
from score_sde_jax.checkpoint import Checkpoints
from score_sde_jax.errors import RunError, UserError
from score_sde_jax.info import info
from score_sde_jax.models import MODELS
from score_sde_jax.optimizer import learning_rate_schedule
from score_sde_jax.reporting import read_metrics
from score_sde_jax.sample import SampleRequest, sample
from score_sde_jax.sharding import Jit
from score_sde_jax.train import train

COLUMNS = {"step", "loss", "grad_norm", "param_norm", "update_norm", "learning_rate", "images_per_second"}
COLUMNS |= {"images_per_second_per_device", "seconds_data", "seconds_compute", "level_loss", "skipped"}
TIMES = {"images_per_second", "images_per_second_per_device", "seconds_data", "seconds_compute", "seconds_save"}


class Unconditional(nn.Module):
    """One convolution, in the place of a published network that is told nothing."""

    width: int = 128

    @nn.compact
    def __call__(self, x, condition=None, train=False):
        assert condition is None
        return nn.Conv(x.shape[-1], (3, 3))(nn.tanh(nn.Conv(self.width, (3, 3))(x)))


class Conditional(nn.Module):
    """One convolution and a bias for every level, in the place of one that is told the level's index."""

    width: int = 128
    num_levels: int = 10

    @nn.compact
    def __call__(self, x, condition, train=False):
        bias = nn.Embed(self.num_levels, self.width)(condition)
        hidden = nn.tanh(nn.Conv(self.width, (3, 3))(x) + bias[:, None, None, :])
        return nn.Conv(x.shape[-1], (3, 3))(hidden)


def unet(network):
    """The same fields and arguments, and one convolution with what it is told, if anything."""

    def call(self, x, condition, train=False, dropout_keys=None):
        assert (dropout_keys is None) == (not train or not self.dropout)
        hidden = nn.Conv(self.width, (3, 3))(x)
        if self.embedding != "none":
            hidden = hidden + nn.Dense(self.width)(jnp.sin(condition.astype(x.dtype))[:, None])[:, None, None, :]
        return nn.Conv(x.shape[-1], (3, 3))(nn.tanh(hidden))

    return type(network.__name__, (network,), {"__call__": nn.compact(call)})


NETWORKS = dict(MODELS)
"""The networks themselves, whatever stands in their place."""
STAND_INS = {"ncsn": Conditional, "ncsnv2": Unconditional, "ncsnv2_deepest": Unconditional}
STAND_INS |= {name: unet(MODELS[name]) for name in ("ddpm", "ddpmpp", "ncsnpp")}


def quiet(line):
    pass


def contents(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def timeless(row):
    """A line of metrics.jsonl without what depends on the clock."""
    return {key: value for key, value in row.items() if key not in TIMES}


def images(directory):
    archive = next(directory.glob("*.npz"))
    with np.load(archive) as loaded:
        assert loaded.files == [archive.stem]
        return loaded[archive.stem]


def restored(workdir, chosen, step):
    shape = tuple(json.loads((workdir / "config.json").read_text())["image_shape"])
    abstract = Jit().abstract(build.experiment(chosen, shape).init, jax.random.key(0))
    return Checkpoints(workdir / "checkpoints").restore(step, abstract)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Less optimisation: the runs are short, and compiling them takes the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty images of different sizes."""
    root, rng = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (33 + i, 50, 3), np.uint8)).save(root / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def where(data_dir, folder):
    """The override that points a config to its data."""

    def override(name):
        data = loaded(name).data.name
        if data in ("digits", "points"):
            return []
        return [f"data.dir={folder if data == 'image_folder' else data_dir}"]

    return override


def published(name):
    return loaded(name).model.name in STAND_INS


DRAWING = [name for name in NAMES if "sampler" in loaded(name)]  # tests/test_tasks.py trains the classifiers


def alike():
    """Names whose experiment differs from that of an earlier one in the network or its numbers alone."""
    seen, found = set(), set()
    for name in DRAWING:
        flat = config.flatten(finished(name))
        sections = ("data.name", "sde.name", "parameterization.", "loss.", "sampler.")
        what = str([(key, value) for key, value in sorted(flat.items()) if key.startswith(sections)])
        found |= {name} if what in seen and published(name) else set()
        seen.add(what)
    return found


ALIKE = alike()
RUNS = [
    pytest.param((name, published(name)), id=name, marks=[pytest.mark.slow] if name in ALIKE else [])
    for name in DRAWING
]
RUNS += [
    pytest.param((name, False), id=f"{name}-itself", marks=pytest.mark.slow) for name in DRAWING if published(name)
]


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory, where):
    """A run that stopped after 2 steps and was started again for 4: (name, workdir, overrides, lines)."""
    name, replaced = request.param
    workdir, lines, overrides = tmp_path_factory.mktemp(name.replace("/", "-")), [], where(name)
    with pytest.MonkeyPatch.context() as patch:
        for key, network in STAND_INS.items() if replaced else ():
            patch.setitem(MODELS, key, network)
        train(finished(name, *overrides, "train.steps=2", "train.preview_every=1"), workdir, lines.append)
        train(finished(name, *overrides), workdir, lines.append)
        yield name, workdir, overrides, lines


def _schedule(name):
    keys = ("learning_rate", "warmup_steps", "decay")
    return {key: value for key, value in finished(name).optimizer.items() if key in keys}


def test_a_run_leaves_what_it_promises(run):
    name, workdir, _, lines = run
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert set(row) - {"seconds_save"} == COLUMNS and row["skipped"] == 0
        levels = np.array(row.pop("level_loss"), float)
        assert np.isfinite(levels).any() and np.nanmin(levels) <= row["loss"] <= np.nanmax(levels)
        assert np.isfinite(list(row.values())).all()
    for row in rows[2:]:  # the first two steps belong to a shorter run
        expected = float(learning_rate_schedule(num_steps=4, **_schedule(name))(row["step"] - 1))
        assert row["learning_rate"] == pytest.approx(expected, rel=1e-5) and row["images_per_second"] > 0
    assert sorted(int(path.name) for path in (workdir / "checkpoints").iterdir()) == [2, 4]
    text = (workdir / "config.json").read_text()
    resolved = json.loads(text)
    assert "auto" not in text and resolved["train"]["steps"] == 4
    last = workdir / "samples" / "4"
    pictures = ["grid.png", "annealing.gif"] + (["score_field.png"] if name == "toy" else [])
    previews = [workdir / "samples" / "1" / "grid.png", workdir / "samples" / "2" / "grid.png"]
    for picture in [workdir / "loss.png", *previews, *(last / file for file in pictures)]:
        with Image.open(picture) as opened:
            opened.load()
    drawn = images(last)
    assert drawn.dtype == (np.float32 if name == "toy" else np.uint8)
    assert drawn.shape == (8, *resolved["image_shape"]) and drawn.std() > 0
    with Image.open(last / "annealing.gif") as gif:
        assert gif.n_frames > 1
    assert sum("resuming" in line and "step 2" in line for line in lines) == 1


def test_a_finished_run_does_nothing_more(run):
    name, workdir, overrides, _ = run
    before, lines = contents(workdir), []
    train(finished(name, *overrides), workdir, lines.append)
    assert contents(workdir) == before and "finished run of 4 steps" in lines[-1]


def test_more_images_go_on_where_it_stopped(run):
    """At another batch size too: image i is the same to one grey level, and what is there keeps every bit."""
    name, workdir, overrides, _ = run
    last, lines = workdir / "samples" / "4", []
    first = images(last)
    again = [*overrides, "sampler.num_images=11", "sampler.batch_size=4"]
    request = SampleRequest(command="python main.py", files=True)
    assert sample(finished(name, *again), workdir, request, lines.append) == last
    more = images(last)
    np.testing.assert_array_equal(more[:8], first)
    told = "\n".join(lines)
    assert (
        len({image.tobytes() for image in more}) == 11
        and f"images 8 to 10 of seed {loaded(name).seed}" in told
        and "repeat: python main.py" in told
    )
    evaluations = build.experiment(_adopted(workdir, name, overrides), more.shape[1:]).sampler.evaluations()
    assert f"{evaluations:,.1f} network evaluations for an image" in told
    for i, image in enumerate(more if name != "toy" else ()):
        with Image.open(last / "images" / f"{i:06d}.png") as opened:
            np.testing.assert_array_equal(np.asarray(opened).reshape(image.shape), image)
    before = contents(workdir)
    sample(finished(name, *overrides, "sampler.num_images=9"), workdir, SampleRequest(), lines.append)
    assert contents(workdir) == before


def _adopted(workdir, name, overrides):
    chosen = finished(name, *overrides)
    directories.adopt_automatic(chosen, directories.saved_config(workdir))
    return chosen


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A finished run of digits, 4 steps in one go, at a constant learning rate with every random part of the input."""
    workdir = tmp_path_factory.mktemp("digits")
    train(finished("digits", *RANDOM), workdir, quiet)
    return workdir


RANDOM = (  # large steps, so that another checkpoint draws other images
    "optimizer.decay=constant",
    "optimizer.learning_rate=0.05",
    "train.ema_decay=0.5",
    "train.preview_every=0",
    "data.flip=true",
    "data.dequantize=true",
)


def test_a_run_that_was_stopped_equals_one_that_was_not(digits, tmp_path):
    for steps in (2, 4):
        train(finished("digits", *RANDOM, f"train.steps={steps}"), tmp_path, quiet)
    straight, stopped = (restored(workdir, finished("digits", *RANDOM), 4) for workdir in (digits, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, straight, stopped)
    assert not np.array_equal(*(jax.tree.leaves(part)[0] for part in (straight.params, straight.ema_params)))
    np.testing.assert_array_equal(*(images(workdir / "samples" / "4") for workdir in (digits, tmp_path)))
    metrics = [read_metrics(workdir / "metrics.jsonl") for workdir in (digits, tmp_path)]
    for a, b in zip(*metrics, strict=True):
        assert timeless(a) == timeless(b)


@pytest.mark.parametrize("batch_size", [3, 8])
def test_image_i_depends_on_seed_and_i_alone(digits, tmp_path, batch_size):
    whole = images(digits / "samples" / "4").astype(int)
    chosen = finished("digits", *RANDOM, f"sampler.batch_size={batch_size}", "sampler.num_frames=1")
    again = images(sample(chosen, digits, SampleRequest(output=tmp_path / "again"), quiet)).astype(int)
    assert np.abs(again - whole).max() <= 1
    assert len({image.tobytes() for image in whole}) == 8


def test_another_seed_checkpoint_or_sampler_has_a_directory_of_its_own(digits, tmp_path):
    base, before = digits / "samples" / "4", contents(digits / "samples" / "4")
    other = sample(finished("digits", *RANDOM), digits, SampleRequest(seed=5), quiet)
    assert other.parent == base and np.abs(images(other).astype(int) - images(base)).max() > 1
    earlier = sample(finished("digits", *RANDOM), digits, SampleRequest(checkpoint=2), quiet)
    assert earlier == digits / "samples" / "2" and not np.array_equal(images(earlier), images(base))
    with pytest.raises(UserError, match="holds samples of another seed, sampler or checkpoint; choose another"):
        sample(finished("digits", *RANDOM), digits, SampleRequest(seed=5, output=base), quiet)
    with pytest.raises(UserError, match=r"no checkpoint of step 3; there are \[2, 4\]"):
        sample(finished("digits", *RANDOM), digits, SampleRequest(checkpoint=3), quiet)
    assert {path: data for path, data in contents(base).items() if other not in path.parents} == before


def test_another_model_or_data_is_refused_and_nothing_written(digits):
    before = contents(digits)
    for assignment, told in [
        ("model.bottleneck=16", r"model\.bottleneck: 8 there, 16 here"),
        ("data.split=all", r"data\.split: 'train' there, 'all' here"),
        ("sde.sigma_max=2.0", r"sde\.sigma_max: 1\.0 there, 2\.0 here"),
    ]:
        for attempt in (train, lambda c, w, say: sample(c, w, SampleRequest(), say)):
            with pytest.raises(UserError, match=rf"holds another run \({told}\); choose another --workdir"):
                attempt(finished("digits", *RANDOM, assignment), digits, quiet)
    with pytest.raises(UserError, match=r"batch_size=0"):
        train(finished("digits", *RANDOM, "train.batch_size=0"), digits, quiet)
    assert contents(digits) == before


def damage(checkpoint):
    for file in checkpoint.rglob("*"):
        if file.is_file() and file.stat().st_size > 200:
            file.write_bytes(file.read_bytes()[:100])


def test_a_cut_checkpoint_falls_back_and_says_so(tmp_path, caplog):
    train(finished("digits", *RANDOM), tmp_path, quiet)
    damage(tmp_path / "checkpoints" / "4")
    lines = []
    earlier = sample(finished("digits", *RANDOM), tmp_path, SampleRequest(output=tmp_path / "out"), lines.append)
    assert "checkpoint of step 2" in lines[0] and len(images(earlier)) == 8
    train(finished("digits", *RANDOM, "train.steps=5"), tmp_path, lines.append)
    assert f"checkpoint {tmp_path / 'checkpoints' / '4'} cannot be read" in caplog.text
    assert (tmp_path / "checkpoints" / "4.damaged").is_dir()
    assert any("resuming" in line and "step 2" in line for line in lines)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    for step in (4, 5):
        damage(tmp_path / "checkpoints" / str(step))
    before = contents(tmp_path / "checkpoints")
    for attempt in (train, lambda c, w, say: sample(c, w, SampleRequest(), say)):
        with pytest.raises(UserError, match=r"none of the checkpoints \[4, 5\] can be read"):
            attempt(finished("digits", *RANDOM, "train.steps=5"), tmp_path, quiet)
    assert contents(tmp_path / "checkpoints") == before


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_logged(tmp_path):
    exploding = ["optimizer.learning_rate=1e30", "train.steps=50"]
    with pytest.raises(UserError, match=r"step \d: loss .* not finite"):
        train(finished("digits", *exploding), tmp_path, quiet)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows and all(np.isfinite(row["loss"]) for row in rows)


def poisoned(monkeypatch, steps):
    """Images that are not numbers in the batches of some steps."""
    from score_sde_jax import train as driver

    batches = driver.training_batches

    def with_poison(*args, start_step=0, **keywords):
        for number, batch in enumerate(batches(*args, start_step=start_step, **keywords), start=start_step + 1):
            yield batch | {"image": batch["image"] * np.float32("nan")} if number in steps else batch

    monkeypatch.setattr(driver, "training_batches", with_poison)


def test_updates_that_are_not_finite_are_left_out_up_to_a_number(tmp_path, monkeypatch):
    poisoned(monkeypatch, {2, 3})
    with pytest.raises(
        UserError, match=r"step 3: loss nan and gradient norm nan are not finite.*max_skipped=N \(now 1"
    ):
        train(finished("digits", *RANDOM, "train.max_skipped=1", "train.log_every=4"), tmp_path / "few", quiet)
    assert sorted(path.name for path in (tmp_path / "few" / "checkpoints").iterdir()) == ["2"]
    train(finished("digits", *RANDOM, "train.max_skipped=2"), tmp_path / "run", quiet)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["skipped"] for row in rows] == [0, 1, 2, 2] and np.isnan([row["loss"] for row in rows[1:3]]).all()
    state = restored(tmp_path / "run", finished("digits"), 4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)) and int(state.skipped) == 2
    adam = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.int32]
    assert {int(count) for count in adam} == {2}  # the moments saw the two good steps


def test_a_resume_in_the_middle_of_a_report_reports_the_same(tmp_path):
    """Steps 1 to 4 in one report: the mean over all of them, wherever the run was stopped."""
    chosen = [*RANDOM, "train.log_every=4", "checkpoint.every=1", "checkpoint.keep=5"]
    train(finished("digits", *chosen), tmp_path / "whole", quiet)
    for start in (1, 3):
        stopped = tmp_path / str(start)
        (stopped / "checkpoints").mkdir(parents=True)
        shutil.copytree(tmp_path / "whole" / "checkpoints" / str(start), stopped / "checkpoints" / str(start))
        train(finished("digits", *chosen), stopped, quiet)
        whole, again = (read_metrics(workdir / "metrics.jsonl") for workdir in (tmp_path / "whole", stopped))
        assert [timeless(row) for row in again] == [timeless(row) for row in whole] and whole[0]["step"] == 4


def test_a_final_set_that_was_cut_off_is_completed(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "samples")
    lines = []
    train(finished("digits", *RANDOM), tmp_path / "run", lines.append)
    assert "finished run of 4 steps" in lines[0]
    np.testing.assert_array_equal(images(tmp_path / "run" / "samples" / "4"), images(digits / "samples" / "4"))


def test_two_runs_in_one_workdir(digits):
    with directories.claimed(digits):
        before = contents(digits)
        with pytest.raises(UserError, match=rf"another run writes there \(process {os.getpid()} on .+\)"):
            train(finished("digits", *RANDOM, "train.steps=6"), digits, quiet)
        assert contents(digits) == before


def test_the_best_checkpoint_is_kept_apart(tmp_path):
    losses = [*RANDOM, "checkpoint.every=1", "checkpoint.keep=1", "checkpoint.keep_best=true"]
    train(finished("digits", *losses), tmp_path, quiet)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    best = min(rows, key=lambda row: row["loss"])["step"]
    assert [int(path.name) for path in (tmp_path / "best").iterdir()] == [best]
    lines, request = [], SampleRequest(checkpoint="best", output=tmp_path / "out")
    sample(finished("digits", *losses), tmp_path, request, lines.append)
    assert f"checkpoint of step {best} " in lines[0]
    shutil.rmtree(tmp_path / "best")
    with pytest.raises(UserError, match=r"keeps no best checkpoint; train with --config\.checkpoint\.keep_best=True"):
        sample(finished("digits", *losses), tmp_path, request, quiet)


def test_a_full_disk(digits, tmp_path, monkeypatch):
    """The last checkpoint stays, and the run goes on from it."""
    shutil.copytree(digits, tmp_path / "run")
    save = ocp.training.Checkpointer.save_checkpointables_async

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", full)
    longer = finished("digits", *RANDOM, "train.steps=6")
    with pytest.raises(RunError, match=r"checkpoints/6 cannot be saved \(.*No space left on device\)"):
        train(longer, tmp_path / "run", quiet)
    monkeypatch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", save)
    lines = []
    train(longer, tmp_path / "run", lines.append)
    assert any("resuming" in line and "step 4" in line for line in lines)
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_device_that_is_lost(digits, tmp_path, monkeypatch):
    shutil.copytree(digits, tmp_path / "run")

    def lost(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone\nand more")

    monkeypatch.setattr(Jit, "compiled", lambda *_: lost)
    with pytest.raises(RunError, match=r"a device or another process failed \(INTERNAL: the device is gone\)$"):
        train(finished("digits", *RANDOM, "train.steps=6"), tmp_path / "run", quiet)
    assert RunError.status == 1


@pytest.mark.parametrize(
    ("assignments", "part"),
    [
        (["data.image_size=16"], r"data\.image_size=16: the images of .* are 8 by 8"),
        (["data.channels=3"], r"data\.channels=3: the images of .* have 1"),
    ],
)
def test_data_that_differ_from_the_config(tmp_path, assignments, part):
    path = tmp_path / "data.npz"
    np.savez(path, images=np.zeros((20, 8, 8, 1), np.uint8))
    chosen = finished("digits", "data.name=npz", f"data.dir={path}", *assignments)
    with pytest.raises(UserError, match=part):
        train(chosen, tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_sampling_before_training(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint; train first"):
        sample(finished("digits"), tmp_path / "nothing", SampleRequest(), quiet)
    assert not (tmp_path / "nothing").exists()


def test_automatic_choices_are_said_saved_and_kept(tmp_path, folder, monkeypatch):
    monkeypatch.setitem(MODELS, "ncsnv2", Unconditional)
    overrides = [f"data.dir={folder}", "data.image_size=8", "train.steps=1"]
    said, lines = [], []
    info(finished("image_folder", *overrides), tmp_path / "none", said.append)
    train(finished("image_folder", *overrides), tmp_path / "run", lines.append)
    chosen = [line for line in lines if "technique" in line]
    assert chosen == [line for line in said if "technique" in line] and len(chosen) == 3
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())
    levels = resolved["loss"]["times"]["num_levels"]
    assert resolved["sampler"]["times"]["num_levels"] == levels > 2
    for key, value in [
        ("sde.sigma_max", resolved["sde"]["sigma_max"]),
        ("loss.times.num_levels", levels),
        ("sampler.corrector.step_size", resolved["sampler"]["corrector"]["step_size"]),
    ]:
        assert any(line.startswith(f"{key} = {value} ") for line in chosen), (key, chosen)
    Image.new("RGB", (9, 9), "white").save(folder / "new.png")  # other data would choose otherwise
    Image.new("RGB", (9, 9), "black").save(folder / "newer.png")
    try:
        lines.clear()
        train(finished("image_folder", *overrides), tmp_path / "run", lines.append)
        assert "technique" not in " ".join(lines) and "finished" in lines[-1]
        again = finished("image_folder", *overrides, "sampler.num_images=9")
        assert len(images(sample(again, tmp_path / "run", SampleRequest(), lines.append))) == 9
        assert json.loads((tmp_path / "run" / "config.json").read_text()) == resolved
    finally:
        (folder / "new.png").unlink()
        (folder / "newer.png").unlink()


# -------------------------------------------------------------------------------------- info

PARAMETERS = {
    "mnist_ncsn": 7_638_657,
    "cifar10_ncsn": 30_117_635,
    "celeba_ncsn": 30_117_635,
    "cifar10_ncsnv2": 29_694_083,
    "celeba": 29_694_083,
    "ffhq_ncsnv2": 94_132_611,
}


@pytest.mark.parametrize("costs", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["cheap", "whole"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_info_needs_no_data(name, costs, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setitem(MODELS, finished(name).model.name, NETWORKS[finished(name).model.name])
    if not costs:  # tracing the gradient of a RefineNet takes half a minute
        monkeypatch.setattr(drivers_info, "training_flops", lambda *_: 0.0)
        monkeypatch.setattr(drivers_info, "residual_bytes", lambda *_: 0)
    lines = []
    chosen = finished(name, variant="")
    info(chosen, tmp_path / "run", lines.append)
    assert f"parameters: {PARAMETERS[name]}" in lines
    evaluations = chosen.sampler.times.num_levels * chosen.sampler.corrector.num_steps + chosen.sampler.denoise
    assert f"network evaluations per image (NFE): {evaluations}" in lines
    assert lines[0].startswith(f"data: {chosen.data.name} of shape ")
    assert not (tmp_path / "run").exists()


def test_info_of_a_network_counted_by_hand(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "ncsn", Conditional)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    lines = []
    info(finished("cifar10_ncsn"), tmp_path / "run", lines.append)
    width, levels = 8, 3
    count = levels * width + (9 * 3 * width + width) + (9 * width * 3 + 3)
    assert f"parameters: {count}" in lines
    forward = 2 * 32 * 32 * 9 * (3 * width + width * 3)
    # backward: the gradient of both kernels, and of what enters the second convolution
    flops = forward + forward + 2 * 32 * 32 * 9 * width * 3
    assert f"FLOPs per training image: {flops:.4g} (" in "\n".join(lines)
    assert "noise levels visited by the sampler: 3, sigma = 1, 0.1, 0.01" in lines
    assert "Langevin step sizes: 0.2 at the first level to 2e-05 at the last" in lines
    assert "run: 4 steps of 8 images, 0.00064 epochs" in lines


def test_the_stand_ins_take_the_arguments_of_what_they_stand_for():
    for name, network in STAND_INS.items():
        assert set(config.arguments(network)) - {"dtype"} == set(config.arguments(NETWORKS[name])) - {"dtype"}
    x = jnp.zeros((2, 4, 4, 3))
    for network, told in ((Conditional(8, 3), jnp.zeros(2, jnp.int32)), (Unconditional(8), None)):
        out, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), x, told)
        assert out.shape == x.shape
