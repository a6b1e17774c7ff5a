"""Image folders and zip files, also with unreadable files."""

import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from score_sde_jax.data import DATASETS, all_images, training_batches
from score_sde_jax.errors import UserError

image_folder = DATASETS["image_folder"]


def save(path, gray, size=(12, 10)):
    """Save an image of one gray value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), gray, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Five images of 10, 20, ..., 50 in nested folders, and files that are not images."""
    for gray, name in enumerate(["a/1.png", "a/2.bmp", "b/3.PNG", "b/deep/4.tif", "c/5.gif"], 1):
        save(tmp_path / name, 10 * gray)
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    return tmp_path


def gray_values(dataset):
    """Return the value of each image, which must be of one gray."""
    images = all_images(dataset)
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def test_images_of_every_format_are_in_order(folder):
    dataset = image_folder(dir=str(folder), image_size=4)
    assert dataset.image_shape == (4, 4, 3)
    assert gray_values(dataset) == [10, 20, 30, 40, 50]
    assert dataset.num_classes == 0


def test_a_zip_file_is_the_folder_that_it_holds(folder, tmp_path_factory):
    archive = tmp_path_factory.mktemp("zip") / "images"
    shutil.make_archive(str(archive), "zip", folder)
    zipped, plain = (image_folder(dir=str(p), image_size=4, labels=True) for p in (archive.with_suffix(".zip"), folder))
    np.testing.assert_array_equal(all_images(zipped), all_images(plain))
    assert zipped.gather(np.arange(5))[1].tolist() == [0, 0, 1, 1, 2] and zipped.num_classes == 3


def test_labels_are_the_folders_directly_below(folder):
    dataset = image_folder(dir=str(folder), image_size=4, labels=True)
    assert dataset.num_classes == 3
    assert dataset.gather(np.arange(5))[1].tolist() == [0, 0, 1, 1, 2]


def test_labels_of_an_image_outside_the_class_folders_are_refused(folder):
    save(folder / "z.png", 1)
    with pytest.raises(UserError, match=r"data.labels=True: .*z.png is in no class folder"):
        image_folder(dir=str(folder), image_size=4, labels=True)


def test_any_size_becomes_the_central_square(tmp_path):
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:10], wide[:, 10:14] = 50, 100
    Image.fromarray(wide).save(tmp_path / "wide.png")
    (image,) = all_images(image_folder(dir=str(tmp_path), image_size=2))
    assert image[..., 0].tolist() == [[50, 100], [50, 100]]
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "wide.png")
    (image,) = all_images(image_folder(dir=str(tmp_path), image_size=2, channels=1))
    assert image[..., 0].tolist() == [[50, 50], [100, 100]]


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_broken_files_are_named_once_and_skipped(folder, caplog, cache_bytes):
    whole = (folder / "b" / "3.PNG").read_bytes()
    (folder / "a" / "2.bmp").write_bytes(b"no image at all")
    (folder / "b" / "3.PNG").write_bytes(whole[: len(whole) // 2])  # only its header is readable
    with caplog.at_level(logging.WARNING):
        dataset = image_folder(dir=str(folder), image_size=4, labels=True, cache_bytes=cache_bytes)
        for _ in range(3):
            assert gray_values(dataset) == [10, 40, 40, 40, 50]
    assert dataset.gather(np.arange(5))[1].tolist() == [0, 1, 1, 1, 2]
    names = sorted(record.getMessage().split(":")[0] for record in caplog.records)
    assert names == [str(folder / "a" / "2.bmp"), str(folder / "b" / "3.PNG")]


def test_training_goes_on_past_broken_files(folder):
    (folder / "c" / "5.gif").write_bytes(b"")
    batches = training_batches(image_folder(dir=str(folder), image_size=4), batch_size=5, seed=0)
    grays = np.sort(next(batches)["image"][:, 0, 0, 0])
    np.testing.assert_array_equal(grays, [10, 10, 20, 30, 40])  # the first image follows the last


def test_a_folder_without_readable_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="no image in this folder"):
        image_folder(dir=str(tmp_path), image_size=4)
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(UserError, match="none of its 2 image files can be read"):
        image_folder(dir=str(tmp_path), image_size=4)


@pytest.mark.parametrize(
    ("dir", "message"),
    [
        ("", "--config.data.dir is missing: expected a folder or zip file"),
        ("/nowhere/at/all", "--config.data.dir=/nowhere/at/all: not a folder or zip file"),
    ],
)
def test_a_missing_folder_is_refused(dir, message):
    with pytest.raises(UserError, match=f"^{message}"):
        image_folder(dir=dir, image_size=4)
