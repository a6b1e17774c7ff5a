"""The debug variant of every config, with its own network, on made-up data: train, resume, sample, continue.

`op_by_op` runs one config of each network without compiling a whole program. `pytest -m slow` runs the others too, and
compiles all of them.
"""

import contextlib
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import NAMES, finished, loaded
from op_by_op import Pickled, compiled_network, op_by_op
from PIL import Image
from run_files import contents, images
from stand_ins import NETWORKS, STAND_INS, Conditional, Unconditional

from score_sde_jax import settings
from score_sde_jax.condition import Condition
from score_sde_jax.networks import MODELS
from score_sde_jax.networks.optimizer import learning_rate_schedule
from score_sde_jax.runs import build
from score_sde_jax.runs import workdir as directories
from score_sde_jax.runs.info import info
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.train import train
from score_sde_jax.settings.choices import arguments

pytestmark = pytest.mark.usefixtures("quick_compilation")

COLUMNS = {"step", "loss", "grad_norm", "param_norm", "update_norm", "learning_rate", "images_per_second"}
COLUMNS |= {"images_per_second_per_device", "seconds_data", "seconds_compute", "level_loss", "skipped"}
COLUMNS |= {"process_peak_memory_bytes"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty images of different sizes."""
    root, rng = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (33 + i, 50, 3), np.uint8)).save(root / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def where(data_dir, folder, earth_dir):
    """The override that points a config to its data."""

    def override(name):
        data = loaded(name).data.name
        if data in ("digits", "points"):
            return []
        overrides = [f"data.dir={ {'image_folder': folder, 'earth': earth_dir}.get(data, data_dir) }"]
        # the automatic number of levels has a test of its own, with a network for which a hundred levels take no time
        return overrides + (["loss.times.num_levels=3"] if name == "image_folder" else [])

    return override


DRAWING = [name for name in NAMES if "sampler" in loaded(name)]  # tests/tasks trains the classifiers
ONE_OF_EACH_NETWORK = list({loaded(name).model.name: name for name in reversed(DRAWING)}.values())
ORBAX = ("digits", "digits_ve", "toy")
"""Configs whose runs have checkpoints by Orbax, which takes a second for the hundreds of arrays of a large network."""
COMPILED = [pytest.param((name, True), id=f"{name}-compiled", marks=pytest.mark.slow) for name in DRAWING]
LONG_TO_COMPILE = {"ncsnv2_deeper", "ncsnv2_deepest"}
DEFAULT = {name for name in ONE_OF_EACH_NETWORK if loaded(name).model.name not in LONG_TO_COMPILE}


def op_by_op_or_compiled(names):
    """Runs of these configs operation by operation, and with -m slow compiled runs of all configs."""
    marks = {name: [] if name in DEFAULT else [pytest.mark.slow] for name in names}
    return [pytest.param((name, False), id=name, marks=marks[name]) for name in names] + COMPILED


@contextlib.contextmanager
def programs(compiled):
    with contextlib.nullcontext() if compiled else op_by_op():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, where):
    """Return runs that were stopped after 2 steps and resumed for 3: (name, workdir, overrides, lines)."""

    @functools.cache
    def trained(name, compiled):
        workdir, lines, overrides = tmp_path_factory.mktemp(name.replace("/", "-")), [], [*where(name), "train.steps=3"]
        with pytest.MonkeyPatch.context() as patch:
            if not compiled and name not in ORBAX:
                patch.setattr("score_sde_jax.runs.train.Checkpoints", Pickled)
            train(finished(name, *overrides, "train.steps=2", "train.preview_every=1"), workdir, lines.append)
            train(finished(name, *overrides), workdir, lines.append)
        return name, workdir, overrides, lines

    yield trained
    compiled_network.cache_clear()


@pytest.fixture(scope="module", params=op_by_op_or_compiled(DRAWING))
def run(request, trained):
    """A run of every config."""
    with programs(request.param[1]):
        yield trained(*request.param)


@pytest.fixture(scope="module", params=op_by_op_or_compiled(ORBAX))
def finished_run(request, trained):
    """A run of these configs; with -m slow of every config."""
    with programs(request.param[1]):
        yield trained(*request.param)


def _schedule(name):
    keys = ("learning_rate", "warmup_steps", "decay")
    return {key: getattr(finished(name).optimizer, key) for key in keys}


def test_a_run_leaves_what_it_promises(run):
    name, workdir, _, lines = run
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert set(row) - {"seconds_save"} == COLUMNS and row["skipped"] == 0
        levels = np.array(row.pop("level_loss"), float)
        assert np.isfinite(levels).any() and np.nanmin(levels) <= row["loss"] <= np.nanmax(levels)
        assert np.isfinite(list(row.values())).all()
    for row in rows[2:]:  # the first two steps belong to a shorter run
        expected = float(learning_rate_schedule(num_steps=3, **_schedule(name))(row["step"] - 1))
        assert row["learning_rate"] == pytest.approx(expected, rel=1e-5) and row["images_per_second"] > 0
    assert sorted(int(path.name) for path in (workdir / "checkpoints").iterdir()) == [2, 3]
    text = (workdir / "config.json").read_text()
    resolved = json.loads(text)
    assert "auto" not in text and resolved["train"]["steps"] == 3
    last = workdir / "samples" / "3"
    pictures = ["grid.png", "annealing.gif"] + (["score_field.png"] if name == "toy" else [])
    previews = [workdir / "samples" / "1" / "grid.png", workdir / "samples" / "2" / "grid.png"]
    for picture in [workdir / "loss.png", *previews, *(last / file for file in pictures)]:
        with Image.open(picture) as opened:
            opened.load()
    drawn = images(last)
    assert drawn.dtype == (np.float32 if name == "toy" else np.uint8)
    assert drawn.shape[1:] == tuple(resolved["image_shape"]) and len(drawn) >= 8 and drawn.std() > 0  # tests add more
    with Image.open(last / "annealing.gif") as gif:
        assert gif.n_frames > 1
    assert sum("Resuming" in line and "step 2" in line for line in lines) == 1


def test_a_finished_run_does_nothing_more(finished_run):
    name, workdir, overrides, _ = finished_run
    before, lines = contents(workdir), []
    train(finished(name, *overrides), workdir, lines.append)
    assert contents(workdir) == before and "finished run of 3 steps" in lines[-1]


def test_more_images_go_on_where_it_stopped(finished_run):
    """Also at another batch size: image i is the same to one gray level, and existing images keep every bit."""
    name, workdir, overrides, _ = finished_run
    last, lines = workdir / "samples" / "3", []
    first = images(last)
    again = [*overrides, "sampler.num_images=11", "sampler.batch_size=4"]
    request = SampleRequest(command="python main.py", files=True)
    assert sample(finished(name, *again), workdir, request, lines.append) == last
    more = images(last)
    np.testing.assert_array_equal(more[:8], first)
    printed = "\n".join(lines)
    assert (
        len({image.tobytes() for image in more}) == 11
        and f"images 8 to 10 of seed {loaded(name).seed}" in printed
        and "repeat: python main.py" in printed
    )
    evaluations = build.experiment(_adopted(workdir, name, overrides), more.shape[1:]).sampler.nfe()
    assert f"NFE per image: {evaluations:,.1f}" in printed
    for i, image in enumerate(more if name != "toy" else ()):
        with Image.open(last / "images" / f"{i:06d}.png") as opened:
            np.testing.assert_array_equal(np.asarray(opened).reshape(image.shape), image)
    before = contents(workdir)
    sample(finished(name, *overrides, "sampler.num_images=9"), workdir, SampleRequest(), lines.append)
    assert contents(workdir) == before


def _adopted(workdir, name, overrides):
    return settings.adopt(finished(name, *overrides), directories.saved_config(workdir))


def test_automatic_choices_are_said_saved_and_kept(tmp_path, folder, monkeypatch):
    monkeypatch.setitem(MODELS, "ncsnv2", Unconditional)
    overrides = [f"data.dir={folder}", "data.image_size=8", "train.steps=1"]
    said, lines = [], []
    info(finished("image_folder", *overrides), tmp_path / "none", said.append)
    train(finished("image_folder", *overrides), tmp_path / "run", lines.append)
    technique_lines = [line for line in lines if "technique" in line]
    assert technique_lines == [line for line in said if "technique" in line] and len(technique_lines) == 3
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())
    levels = resolved["loss"]["times"]["num_levels"]
    assert resolved["sampler"]["times"]["num_levels"] == levels > 2
    for key, value in [
        ("sde.sigma_max", resolved["sde"]["sigma_max"]),
        ("loss.times.num_levels, sampler.times.num_levels", levels),
        ("sampler.corrector.step_size", resolved["sampler"]["corrector"]["step_size"]),
    ]:
        assert any(line.startswith(f"{key} = {value} ") for line in technique_lines), (key, technique_lines)
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


def test_the_stand_ins_take_the_arguments_of_what_they_stand_for():
    for name, network in STAND_INS.items():
        assert set(arguments(network)) - {"dtype"} == set(arguments(NETWORKS[name])) - {"dtype"}
    x = jnp.zeros((2, 4, 4, 3))
    for network, noise in ((Conditional(8, 3), jnp.zeros(2, jnp.int32)), (Unconditional(8), None)):
        out, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), x, Condition(noise))
        assert out.shape == x.shape
