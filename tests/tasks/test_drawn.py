"""--mode=sample of every task: its files, and resuming."""

import contextlib
import json

import numpy as np
import pytest
from drawing import TEST, archive, as_stored, drawn
from experiments import finished, smallest
from op_by_op import op_by_op
from PIL import Image
from run_files import contents, quiet
from stand_ins import NETWORKS

from score_sde_jax.data import DATASETS
from score_sde_jax.errors import UserError
from score_sde_jax.networks import MODELS
from score_sde_jax.runs import pictures
from score_sde_jax.runs.reporting import read_metrics
from score_sde_jax.runs.sample import SampleRequest
from score_sde_jax.runs.train import train
from score_sde_jax.tasks.observed import open_mask

pytestmark = pytest.mark.usefixtures("quick_compilation", "blank_figures")


@pytest.mark.parametrize("programs", [op_by_op, pytest.param(contextlib.nullcontext, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["digits_classifier", "cifar10_classifier"])
def test_classifiers_train_and_resume_without_samples(name, programs, tmp_path, data_dir, monkeypatch):
    monkeypatch.setitem(MODELS, "wide_resnet", NETWORKS["wide_resnet"])
    where, lines = [] if name.startswith("digits") else [f"data.dir={data_dir}"], []
    with programs():
        for steps in (2, 4, 4):
            train(finished(name, f"train.steps={steps}", *where), tmp_path, lines.append)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["loss"] == pytest.approx(np.log(10), rel=1e-5)  # the last layer starts at zero
    for row in rows:
        levels = np.array(row["level_loss"], float)
        assert np.nanmin(levels) - 1e-6 <= row["loss"] <= np.nanmax(levels) + 1e-6
    assert not (tmp_path / "samples").exists() and any("step 2" in line and "Resuming" in line for line in lines)
    assert "finished run of 4 steps" in lines[-1]


def test_inpainting_completes_held_out_digits_and_resumes(digits):
    """Image i completes test image i; known pixels keep their gray levels; more images resume the set."""
    task = ["task.name=inpainting", "task.mask=left"]
    directory = drawn(digits, *task, "sampler.num_images=5")
    assert directory.parent == digits / "samples" / "2" and directory.name.startswith("inpainting-")
    first = archive(directory)
    assert set(first) == {"images", "given"}
    want = as_stored(TEST[:5])
    np.testing.assert_array_equal(first["images"][:, :, 4:], want[:, :, 4:])
    np.testing.assert_array_equal(first["given"][:, :, 4:], want[:, :, 4:])
    assert (first["given"][:, :, :4] == 128).all() and not np.array_equal(first["images"], want)
    described = json.loads((directory / "samples.json").read_text())["description"]["task"]
    assert described["source"] == {"data": "digits", "split": "test"} and described["mask"] == "left"
    strips = pictures.strips(np.stack([first["given"], first["images"], want], axis=1))
    with Image.open(directory / "observed.png") as shown:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(strips))

    assert drawn(digits, *task, "sampler.num_images=11", "sampler.batch_size=4") == directory
    more = archive(directory)
    assert len(more["images"]) == len(more["given"]) == 11
    np.testing.assert_array_equal(more["images"][:5], first["images"])
    np.testing.assert_array_equal(more["images"][:, :, 4:], as_stored(TEST[:11])[:, :, 4:])


def test_samples_per_image_completes_a_digit_through_several_masks(digits):
    task = ["task.name=inpainting", "task.mask=random", "task.fraction=0.3", "task.samples_per_image=3"]
    result = archive(drawn(digits, *task, "sampler.num_images=7"))
    want = as_stored(TEST[np.arange(7) // 3])
    hidden = result["given"] == 128  # or one of the few known pixels of this gray
    np.testing.assert_array_equal(result["given"][~hidden], want[~hidden])
    np.testing.assert_array_equal(result["images"][~hidden], want[~hidden])
    assert 0.2 < hidden.mean() < 0.4 and len({mask.tobytes() for mask in hidden}) == 7
    other = archive(drawn(digits, *task, "sampler.num_images=3", "sampler.batch_size=3", request=SampleRequest(seed=1)))
    assert not np.array_equal(other["given"], result["given"][:3])  # a mask depends on the seed


def test_known_pixels_keep_their_level_in_a_dequantized_run(tmp_path):
    assignments = ["data.dequantize=true", "train.preview_every=0", "sampler.num_images=4"]
    train(smallest("train.steps=2", *assignments), tmp_path, quiet)
    result = archive(drawn(tmp_path, "task.name=inpainting", *assignments))
    for array in result.values():
        np.testing.assert_array_equal(array[:, :, :4], as_stored(TEST[:4])[:, :, :4])


def test_tasks_do_not_mix_in_a_directory(digits, tmp_path):
    base = drawn(digits, "sampler.num_images=4")
    assert base == digits / "samples" / "2"
    description = json.loads((base / "samples.json").read_text())["description"]
    assert set(description) == {"checkpoint_step", "parameters", "seed", "sampler"}  # no key for the task
    places = {
        drawn(digits, "task.name=inpainting", f"task.mask={mask}", "sampler.num_images=2") for mask in ("top", "bottom")
    }
    assert len(places) == 2
    with pytest.raises(UserError, match="holds samples of another seed, sampler or checkpoint"):
        drawn(digits, "task.name=super_resolution", request=SampleRequest(output=next(iter(places))))


def test_images_of_files(digits, tmp_path):
    """An image, a folder and an npz of another size are cropped, resized and converted to gray."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(pixels):
        large = Image.fromarray(image.repeat(3, 0).repeat(3, 1))
        padded = Image.new("RGB", (30, 24))
        padded.paste(large, (3, 0))
        padded.save(tmp_path / "folder" / f"{i}.png")
    np.savez(tmp_path / "images.npz", images=pixels[..., :1].repeat(2, 1).repeat(2, 2))
    np.save(tmp_path / "mask.npy", np.arange(64).reshape(8, 8) % 3 == 0)
    gray = np.stack([np.asarray(Image.fromarray(image).convert("L"))[..., None] for image in pixels])
    hidden = np.arange(64).reshape(8, 8) % 3 == 0
    for source, want in (("folder", gray), ("folder/1.png", gray[1:]), ("images.npz", pixels[..., :1])):
        task = ["task.name=inpainting", f"task.mask={tmp_path / 'mask.npy'}", f"task.source={tmp_path / source}"]
        result = archive(drawn(digits, *task, "sampler.num_images=4"))["images"]
        want = np.resize(want, (4, 8, 8, 1))  # the first follows the last
        np.testing.assert_array_equal(result[:, ~hidden], want[:, ~hidden])
        assert not np.array_equal(result[:, hidden], want[:, hidden])
    mask = Image.fromarray((255 * hidden).astype(np.uint8))
    mask.save(tmp_path / "mask.png")
    of_png = archive(drawn(digits, *task, f"task.mask={tmp_path / 'mask.png'}", "sampler.num_images=4"))["images"]
    np.testing.assert_array_equal(of_png, result)


def test_super_resolution_keeps_the_means(digits):
    result = archive(drawn(digits, "task.name=super_resolution", "task.factor=4", "sampler.num_images=3"))

    def means(images):
        return images.reshape(3, 2, 4, 2, 4).mean((2, 4))

    want = means(as_stored(TEST[:3])[..., 0])
    np.testing.assert_allclose(result["given"][:, ::4, ::4, 0], want, atol=0.5)
    values = result["images"][..., 0].astype(float)
    inside = means((values > 0) & (values < 255)) == 1  # blocks without clipped pixels
    np.testing.assert_allclose(means(values)[inside], want[inside], atol=0.51)


def test_classes_cycle_and_are_saved_as_labels(digits, classifier):
    task = ["task.name=class_conditional", f"task.classifier={classifier}", "sampler.num_images=12"]
    directory = drawn(digits, *task)
    result = archive(directory)
    np.testing.assert_array_equal(result["labels"], np.arange(12) % 10)
    with Image.open(directory / "classes.png") as shown:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(pictures.grid(result["images"][:10], columns=10)))
    described = json.loads((directory / "samples.json").read_text())["description"]["task"]
    assert described["classifier_step"] == 2 and described["scale"] == 1.0
    again = DATASETS["npz"](dir=str(directory))  # a dataset with labels
    assert again.num_classes == 10
    threes = archive(drawn(digits, *task, "task.label=3"))
    assert (threes["labels"] == 3).all()
    np.testing.assert_array_equal(threes["images"][3], result["images"][3])  # image i depends on seed, i and class
    unguided = archive(drawn(digits, *task, "task.scale=0.0"))["images"].astype(int)
    plain = archive(drawn(digits, "sampler.num_images=12"))["images"]
    assert np.abs(unguided - plain).max() <= 1


def test_reconstruction_and_interpolation_save_errors_and_pictures(digits):
    loose = ["task.rtol=1e-3", "task.atol=1e-3", "task.max_evaluations=2000"]
    lines = []
    directory = drawn(digits, "task.name=reconstruction", *loose, "sampler.num_images=3", lines=lines)
    result = archive(directory)
    error_lines = [line for line in lines if line.startswith("mean absolute error of the round trip")]
    assert len(error_lines) == 1 and result["errors"].shape == (3,) and (directory / "observed.png").exists()
    stored = np.abs(result["images"].astype(float) - as_stored(TEST[:3])).mean((1, 2, 3))
    assert (result["errors"] > 0).all() and (stored <= result["errors"] + 0.5).all()  # they are clipped
    number = json.loads((directory / "samples.json").read_text())["network_evaluations_per_image"]
    assert number > 14
    directory = drawn(digits, "task.name=interpolation", "task.num_between=2", *loose, "sampler.num_images=6")
    rows = archive(directory)["images"].reshape(-1, 8, 8, 1)
    with Image.open(directory / "interpolation.png") as shown:
        want = pictures.strips(np.concatenate([rows, np.full((2, 8, 8, 1), 255, np.uint8)]).reshape(2, 4, 8, 8, 1), 1)
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(want))
    with pytest.raises(UserError, match=r"sample 0 is not finite.*max_evaluations"):
        drawn(digits, "task.name=reconstruction", "task.max_evaluations=10", "sampler.num_images=3")


def test_neighbors_of_an_existing_set(digits, tmp_path):
    directory = drawn(digits, "sampler.num_images=4")
    kept = (directory / "images.npz").read_bytes()
    lines = []
    assert drawn(digits, "sampler.num_images=4", request=SampleRequest(neighbors=3), lines=lines) == directory
    assert (directory / "images.npz").read_bytes() == kept and any("already holds" in line for line in lines)
    with np.load(directory / "neighbors.npz") as loaded:
        indices, distances = loaded["indices"], loaded["distances"]
    images = archive(directory)["images"]
    training = as_stored(DATASETS["digits"](split="train").gather(np.arange(1438))[0])
    apart = np.linalg.norm((images[:, None].astype(float) - training).reshape(len(images), 1438, 64) / 255, axis=2)
    np.testing.assert_allclose(distances, np.sort(apart, axis=1)[:, :3], rtol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(apart, indices, axis=1), distances, rtol=1e-6)
    with Image.open(directory / "neighbors.png") as shown:
        want = pictures.strips(np.concatenate([images[:, None], training[indices]], axis=1))
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(want))
    before = contents(digits)
    for number in (0, 1439):
        with pytest.raises(UserError, match=f"--neighbors={number}: must be >= 1 and <= 1,438, the number of training"):
            drawn(digits, "sampler.num_images=40", request=SampleRequest(neighbors=number))
    assert contents(digits) == before  # refused before an image is drawn


@pytest.mark.parametrize("white", [1, 7, 255])
def test_a_mask_is_hidden_above_half_of_its_largest_value(tmp_path, white):
    """Programs save masks as 0 and 1 or as 0 and 255, with and without EXIF rotation."""
    hidden = np.arange(64).reshape(8, 8) % 3 == 0
    exif = Image.Exif()
    exif[0x0112] = 6  # photographs are turned upright, masks are not
    for name in ("mask.png", "mask.tif", "mask.bmp"):
        options = {"exif": exif} if name == "mask.png" else {}
        Image.fromarray((hidden * white).astype(np.uint8)).save(tmp_path / name, **options)
        mask, _ = open_mask(str(tmp_path / name), (8, 8, 1))
        np.testing.assert_array_equal(mask[..., 0], ~hidden)
    for array in (hidden, hidden * white, hidden[..., None], hidden[None] * 1.0):
        np.save(tmp_path / "mask.npy", array)
        np.testing.assert_array_equal(open_mask(str(tmp_path / "mask.npy"), (8, 8, 3))[0][..., 0], ~hidden)


def test_a_task_says_what_it_observes_and_leaves_out(digits, tmp_path):
    for i in range(2):
        Image.fromarray(np.full((9, 9), 90 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("")
    lines = []
    drawn(digits, "task.name=inpainting", f"task.source={tmp_path}", "sampler.num_images=2", lines=lines)
    assert "observed: image_folder, 2 examples of shape (8, 8, 1); left out: 1 .txt" in lines
