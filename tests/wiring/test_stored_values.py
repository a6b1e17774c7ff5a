"""Files, pictures and messages of samples with pixels from -1 to 1: gray levels, observations, errors, distances.

The runs are untrained; the tests repeat their sampling and convert the images by hand.
"""

import dataclasses
import functools
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dry import recorded as traced
from experiments import SMALLEST, smallest
from PIL import Image
from run_files import arrays, images
from saved_runs import saved_run

from score_sde_jax import keys as prng
from score_sde_jax.data import DATASETS, Pixels
from score_sde_jax.diffusion.sdes import VP
from score_sde_jax.errors import UserError
from score_sde_jax.runs import batch_sampler, pictures
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.tasks import TASKS, TaskSetup

pytestmark = pytest.mark.usefixtures("quick_compilation")
RANGE = "data.value_range=(-1.0,1.0)"
TEST = DATASETS["digits"](split="test").gather(np.arange(359))[0]
GRAYS = np.round(255 * np.arange(17) / 16).astype(np.uint8)
"""Stored gray values of the 17 levels of the digits."""


def to_gray(x):
    """Return stored values of x_0 without dequantization: -1 is black and 1 is white."""
    return np.round(255 * np.clip((np.asarray(x) + 1) / 2, 0, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with value range (-1, 1), and a function that samples with its parameters by hand."""
    workdir = tmp_path_factory.mktemp("run")
    _, experiment, _, average = saved_run(workdir, "digits", (8, 8, 1), *SMALLEST, RANGE)

    def drawn(task, num, given):
        asked = dataclasses.replace(experiment, task=task)
        given = {name: jnp.asarray(rows) for name, rows in given.items()}
        return jax.jit(asked.sample)(average, jnp.arange(num), prng.root(0, "sample"), given)

    return workdir, drawn


def asked(run, *assignments, **request):
    """Return directory, arrays and lines of --mode=sample."""
    lines = []
    config = smallest(RANGE, *assignments)
    output = sample(config, run[0], SampleRequest(**request), lines.append)
    return output, arrays(output), lines


def observed(indices):
    return (2 * TEST[indices].astype(np.float32) / 16 - 1)[:, None]


def picture(path):
    with Image.open(path) as opened:
        return np.asarray(opened)


def test_images_are_stored_by_their_range(run):
    _, result, _ = asked(run, "sampler.num_images=5", "sampler.batch_size=2", seed=0)
    np.testing.assert_array_equal(result["images"], to_gray(run[1](TASKS["none"](), 5, {}).images))


def test_levels_are_undone_for_dequantized_runs_alone(tmp_path):
    """A dequantized run stores only its 17 gray values; another run stores any."""
    grays = {}
    for dequantize in ("true", "false"):
        workdir = tmp_path / dequantize
        config, *_ = saved_run(workdir, "digits", (8, 8, 1), *SMALLEST, RANGE, f"data.dequantize={dequantize}")
        grays[dequantize] = set(np.unique(images(sample(config, workdir, SampleRequest(), lambda line: None))))
    assert grays["true"] <= set(GRAYS) and not grays["false"] <= set(GRAYS)


def test_what_is_known_is_shown_and_kept_for_every_sample_of_an_image(run):
    """Three completions of each digit through random masks, in several batches."""
    task = ["task.name=inpainting", "task.mask=random", "task.fraction=0.4", "task.samples_per_image=3"]
    output, result, _ = asked(run, *task, "sampler.num_images=7", "sampler.batch_size=4")
    rows = np.arange(7) // 3
    drawn = run[1](TASKS["inpainting"](mask="random", fraction=0.4), 7, {"observed": observed(rows)})
    want = to_gray(drawn.images)
    np.testing.assert_array_equal(result["images"], want)
    hidden = result["given"] == 128
    np.testing.assert_array_equal(result["given"][~hidden], GRAYS[TEST[rows]][~hidden])
    np.testing.assert_array_equal(result["images"][~hidden], GRAYS[TEST[rows]][~hidden])
    assert 0.3 < hidden.mean() < 0.5 and len({mask.tobytes() for mask in hidden}) == 7
    strips = [np.stack([result["given"][i], *want[i : i + 3], GRAYS[TEST[i // 3]]]) for i in (0, 3)]
    np.testing.assert_array_equal(picture(output / "observed.png"), np.asarray(pictures.strips(np.stack(strips))))


def test_errors_of_a_round_trip_are_in_gray_levels(run):
    loose = dict(rtol=1e-2, atol=1e-2)
    assignments = ["task.name=reconstruction", "sampler.num_images=3", *(f"task.{k}={v}" for k, v in loose.items())]
    output, result, lines = asked(run, *assignments, "sampler.batch_size=3")
    before = observed(np.arange(3))
    drawn = run[1](TASKS["reconstruction"](**loose), 3, {"observed": before})
    errors = 255 / 2 * np.abs(np.asarray(drawn.images) - before[:, 0]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(result["errors"], errors, rtol=1e-3)
    assert f"mean absolute error of the round trip: {result['errors'].mean():.3g} of 255 gray levels" in lines
    record = json.loads((output / "samples.json").read_text())
    assert record["network_evaluations_per_image"] == pytest.approx(np.asarray(drawn.nfe).mean(), abs=0.06)
    strips = np.stack([result["images"], GRAYS[TEST[:3]]], axis=1)
    np.testing.assert_array_equal(picture(output / "observed.png"), np.asarray(pictures.strips(strips)))


def test_distances_to_training_images_are_those_of_what_is_stored(run):
    output, result, lines = asked(run, "sampler.num_images=3", neighbors=300)
    training = GRAYS[DATASETS["digits"](split="train").gather(np.arange(1438))[0]]
    apart = result["images"][:3].reshape(-1, 1, 64) / 255.0 - training.reshape(1, -1, 64) / 255.0
    distances = np.sort(np.linalg.norm(apart, axis=2), axis=1)[:, :300]
    with np.load(output / "neighbors.npz") as archive:
        np.testing.assert_allclose(archive["distances"][:3], distances, rtol=1e-6)
        nearest = archive["distances"][:, 0]
    assert f"{np.median(nearest):.3g}" != f"{np.median(distances):.3g}"
    end_of_line = f"images {np.median(nearest):.3g}, smallest {nearest.min():.3g}"
    assert any(line.endswith(end_of_line) for line in lines), (end_of_line, lines)


def test_a_set_that_goes_on_keeps_and_shows_what_it_has(run):
    """Extra arrays stay aligned with the images, and the grid shows the first 64 images."""
    task = "task.name=inpainting", "task.mask=top"
    (evaluations,) = set(np.asarray(run[1](TASKS["none"](), 1, {}).nfe).tolist())
    for num in (3, 7, 8):
        output, result, lines = asked(run, *task, f"sampler.num_images={num}", "sampler.batch_size=4")
        assert f"NFE per image: {evaluations:.1f}" in lines
        assert len(result["images"]) == len(result["given"]) == num
        np.testing.assert_array_equal(result["images"][:, 4:], GRAYS[TEST[:num]][:, 4:])
        np.testing.assert_array_equal(result["given"][:, 4:], GRAYS[TEST[:num]][:, 4:])
        np.testing.assert_array_equal(picture(output / "grid.png"), np.asarray(pictures.grid(result["images"])))


def test_sets_of_other_settings_never_share_a_directory(run, tmp_path):
    """Images depend on the seed (0 included) and on every key of the sampler that affects them."""
    shutil.copytree(run[0], tmp_path / "run")  # other tests do not continue its sets
    run = tmp_path / "run", run[1]
    small = "sampler.num_images=1", "sampler.batch_size=1"
    variants = ["sampler.denoise=false", "sampler.prior=gaussian", "sampler.temperature=0.5"]
    variants += ["sampler.order=predictor_corrector", "sampler.corrector.step_size=0.05"]
    with traced():
        base = asked(run, *small, seed=0)[0]
        outputs = [asked(run, variant, *small)[0] for variant in variants]
        outputs.append(asked(run, "seed=3", *small)[0])
        assert len({base, *outputs}) == len(variants) + 2
        assert asked(run, "seed=3", *small, seed=0)[0] == base == run[0] / "samples" / "1"


def test_frames_show_the_way_to_the_first_images(run, tmp_path):
    output, result, _ = asked(run, "sampler.num_frames=2", output=tmp_path / "frames")
    grids = [picture(output / "grid.png"), np.asarray(pictures.grid(result["images"]))]
    with Image.open(output / "annealing.gif") as gif:
        assert gif.n_frames == 3
        gif.seek(2)
        grids.append(np.asarray(gif.convert("L")))
        gif.seek(0)
        assert not np.array_equal(np.asarray(gif.convert("L")), grids[0])
    assert np.array_equal(grids[0], grids[1]) and np.array_equal(grids[1], grids[2])


def test_an_image_that_is_not_finite_is_named_by_its_number(run, tmp_path):
    """The index does not depend on the batch."""

    def draw(self, params, key, first):
        result = drawn(self, params, key, first)
        return result._replace(finite=np.arange(first, first + 4) != 6)

    drawn = batch_sampler.BatchSampler.draw
    with pytest.MonkeyPatch.context() as patch, traced():
        patch.setattr(batch_sampler.BatchSampler, "draw", draw)
        with pytest.raises(UserError, match=r"^sample 6 is not finite: "):
            asked(run, "sampler.num_images=8", "sampler.batch_size=4", output=tmp_path / "set")


def setup(**more):
    """Return the task setup of a run on the digits."""
    pixels = Pixels(levels=17, value_range=(-1.0, 1.0))
    held_out = functools.partial(DATASETS["digits"], split="test")
    return TaskSetup(image_shape=(8, 8, 1), pixels=pixels, sde=VP(), held_out=held_out, about_held_out={}, **more)


def test_labels_cycle_or_are_the_label_of_the_task():
    for label, want in ((None, [3, 4, 0, 1]), (0, [0] * 4), (4, [4] * 4)):
        inputs = TASKS["class_conditional"](label=label).inputs(setup(num_classes=5))
        assert inputs(np.arange(3, 7))["label"].tolist() == want


def test_pairs_of_an_interpolation_are_neighbors():
    task = TASKS["interpolation"](num_between=2)
    rows = task.inputs(setup()).source_indices(np.arange(12)).tolist()
    assert rows == list(itertools.chain(*([pair] * 4 for pair in ([0, 1], [2, 3], [4, 5]))))
