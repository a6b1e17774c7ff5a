"""Every experiment, seconds of it, on made-up data of the right format: train, go on, sample, continue."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from score_sde_jax import build, config
from score_sde_jax.checkpoint import Checkpoints
from score_sde_jax.errors import UserError
from score_sde_jax.info import info
from score_sde_jax.reporting import read_metrics
from score_sde_jax.sample import SampleRequest, sample
from score_sde_jax.sharding import DataParallel
from score_sde_jax.train import train

pytestmark = pytest.mark.slow  # compiling a training step and a sampler for every config takes minutes

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
QUICK = {"digits", "fashion_mnist", "mnist", "toy"}  # the others compile a RefineNet, which takes minutes
NAMES = [
    path.stem if path.stem in QUICK else pytest.param(path.stem, marks=pytest.mark.slow)
    for path in sorted(CONFIGS.glob("*.py"))
    if path.stem != "families"
]


def finished(name, *assignments):
    return build.finish(config.load(str(CONFIGS / f"{name}.py:debug")), list(assignments))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Twenty images of different sizes."""
    root, rng = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (33 + i, 50, 3), np.uint8)).save(root / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def where(data_dir, folder):
    """The override that points a config to its data."""

    def override(name):
        data = config.load(str(CONFIGS / f"{name}.py")).data.name
        if data in ("digits", "points"):
            return []
        return [f"data.dir={folder if data == 'image_folder' else data_dir}"]

    return override


@pytest.fixture(scope="session", params=NAMES)
def run(request, tmp_path_factory, where):
    """A run that stopped after 2 steps and was started again for 4: (name, workdir, overrides, lines)."""
    workdir, lines = tmp_path_factory.mktemp(request.param), []
    overrides = where(request.param)
    train(finished(request.param, *overrides, "train.steps=2"), workdir, lines.append)
    train(finished(request.param, *overrides), workdir, lines.append)
    return request.param, workdir, overrides, lines


def contents(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def images(workdir, step=4):
    archive = next((workdir / "samples" / str(step)).glob("*.npz"))
    with np.load(archive) as loaded:
        return loaded[archive.stem]


def state(workdir, chosen, step, image_shape):
    experiment = build.experiment(chosen, image_shape)
    abstract = DataParallel().abstract(experiment.init, jax.random.key(0))
    return Checkpoints(workdir / "checkpoints").restore(step, abstract)


def test_a_run_leaves_what_it_promises(run):
    name, workdir, _, lines = run
    rows = read_metrics(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all({"step", "loss", "grad_norm", "learning_rate", "images_per_second"} == set(row) for row in rows)
    assert sorted(int(path.name) for path in (workdir / "checkpoints").iterdir()) == [2, 4]
    resolved = json.loads((workdir / "config.json").read_text())
    assert "auto" not in (workdir / "config.json").read_text() and resolved["train"]["steps"] == 4
    pictures = ["grid.png", "annealing.gif"] + (["score_field.png"] if name == "toy" else [])
    for picture in [workdir / "loss.png", *(workdir / "samples" / "4" / file for file in pictures)]:
        with Image.open(picture) as opened:
            assert opened.size[0] > 10
    drawn = images(workdir)
    assert drawn.dtype == (np.float32 if name == "toy" else np.uint8)
    assert drawn.shape == (8, *resolved["image_shape"]) and drawn.std() > 0
    assert any("resuming" in line and "step 2" in line for line in lines)


def test_a_finished_run_does_nothing_more(run):
    name, workdir, overrides, _ = run
    before, lines = contents(workdir), []
    train(finished(name, *overrides), workdir, lines.append)
    assert contents(workdir) == before and "finished run of 4 steps" in lines[-1]


def test_more_images_go_on_where_it_stopped(run):
    name, workdir, overrides, _ = run
    first, lines = images(workdir), []
    request = SampleRequest(command="python main.py", files=True)
    sample(finished(name, *overrides, "sampler.num_images=11", "sampler.batch_size=4"), workdir, request, lines.append)
    drawn = images(workdir)
    np.testing.assert_array_equal(drawn[:8], first)
    assert len(drawn) == 11 and "images 8 to 10 of seed 0" in " ".join(lines)
    if name != "toy":
        assert len(list((workdir / "samples" / "4" / "images").glob("*.png"))) == 11
    before = contents(workdir)
    sample(finished(name, *overrides, "sampler.num_images=9"), workdir, SampleRequest(), lines.append)
    assert contents(workdir) == before


@pytest.mark.parametrize("name", ["digits", "toy"])
def test_image_i_depends_on_seed_and_i_alone(name, tmp_path, where):
    overrides = [*where(name), "train.steps=1", "sampler.num_frames=1"]
    train(finished(name, *overrides), tmp_path, lambda line: None)
    whole = images(tmp_path, 1).astype(float)
    again = sample(
        finished(name, *overrides, "sampler.batch_size=3"),
        tmp_path,
        SampleRequest(output=tmp_path / "b"),
        lambda line: None,
    )
    with np.load(next(again.glob("*.npz"))) as archive:
        np.testing.assert_allclose(archive[archive.files[0]], whole, atol=1.0 if name == "digits" else 1e-4)
    other = sample(finished(name, *overrides), tmp_path, SampleRequest(seed=5), lambda line: None)
    assert other.parent == tmp_path / "samples" / "1"  # another seed has a directory of its own
    with np.load(next(other.glob("*.npz"))) as archive:
        assert np.abs(archive[archive.files[0]] - whole).max() > 0.1


@pytest.mark.parametrize("name", ["digits", pytest.param("cifar10_ncsn", marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_equals_one_that_was_not(name, tmp_path, where):
    overrides = [
        *where(name),
        "optimizer.decay=constant",
        "train.preview_every=0",
        "data.flip=true",
        "data.dequantize=true",
    ]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(finished(name, *overrides), straight, lambda line: None)
    for steps in (2, 4):
        train(finished(name, *overrides, f"train.steps={steps}"), stopped, lambda line: None)
    shape = json.loads((straight / "config.json").read_text())["image_shape"]
    a, b = (state(workdir, finished(name, *overrides), 4, tuple(shape)) for workdir in (straight, stopped))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    np.testing.assert_array_equal(images(straight), images(stopped))


def test_another_model_or_data_is_refused_and_nothing_written(tmp_path):
    train(finished("digits", "train.steps=1"), tmp_path, lambda line: None)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"holds another run \(model.bottleneck: 8 there, 16 here\)"):
        train(finished("digits", "model.bottleneck=16"), tmp_path, lambda line: None)
    with pytest.raises(UserError, match=r"holds another run \(data.split: 'train' there, 'all' here\)"):
        train(finished("digits", "data.split=all"), tmp_path, lambda line: None)
    with pytest.raises(UserError, match=r"model.bottleneck"):
        sample(finished("digits", "model.bottleneck=16"), tmp_path, SampleRequest(), lambda line: None)
    assert contents(tmp_path) == before


def test_a_cut_checkpoint_falls_back_and_says_so(tmp_path, caplog):
    train(finished("digits"), tmp_path, lambda line: None)
    for file in (tmp_path / "checkpoints" / "4").rglob("*"):
        if file.is_file() and file.stat().st_size > 200:
            file.write_bytes(file.read_bytes()[:100])
    lines = []
    train(finished("digits", "train.steps=5"), tmp_path, lines.append)
    assert "checkpoints/4 cannot be read" in caplog.text
    assert any("resuming" in line and "step 2" in line for line in lines)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"step \d: loss .* not finite"):
        train(finished("digits", "optimizer.learning_rate=1e30", "train.steps=50"), tmp_path, lambda line: None)
    assert all(np.isfinite(row["loss"]) for row in read_metrics(tmp_path / "metrics.jsonl"))


def test_sampling_before_training(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint to sample from; train first"):
        sample(finished("digits"), tmp_path / "nothing", SampleRequest(), lambda line: None)


@pytest.mark.slow
def test_automatic_choices_are_said_saved_and_kept(tmp_path, folder):
    overrides = [f"data.dir={folder}", "train.steps=1", "sampler.corrector.step_size=auto"]
    lines = []
    train(finished("image_folder", *overrides), tmp_path, lines.append)
    said = " ".join(lines)
    resolved = json.loads((tmp_path / "config.json").read_text())
    assert f"sde.sigma_max = {resolved['sde']['sigma_max']}" in said
    assert f"num_levels = {resolved['loss']['times']['num_levels']}" in said
    assert f"step_size = {resolved['sampler']['corrector']['step_size']}" in said
    lines.clear()
    train(finished("image_folder", *overrides), tmp_path, lines.append)
    assert "technique" not in " ".join(lines) and "finished" in lines[-1]


PARAMETERS = {
    "mnist_ncsn": 7_638_657,
    "cifar10_ncsn": 30_117_635,
    "celeba_ncsn": 30_117_635,
    "cifar10_ncsnv2": 29_694_083,
    "celeba": 29_694_083,
    "ffhq_ncsnv2": 94_132_611,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_info_needs_no_data(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    lines = []
    chosen = build.finish(config.load(str(CONFIGS / f"{name}.py")), [])
    info(chosen, tmp_path / "run", lines.append)
    assert f"parameters: {PARAMETERS[name]}" in lines
    evaluations = chosen.sampler.times.num_levels * chosen.sampler.corrector.num_steps + chosen.sampler.denoise
    assert f"network evaluations per image (NFE): {evaluations}" in lines
    assert not (tmp_path / "run").exists()
