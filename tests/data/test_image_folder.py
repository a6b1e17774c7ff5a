"""Image folders and zip files, also with unreadable files."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from score_sde_jax.data import DATASETS, all_images
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


def test_unreadable_files_leave_the_set_counted_and_named(folder, caplog):
    whole = (folder / "b" / "3.PNG").read_bytes()
    (folder / "a" / "2.bmp").write_bytes(b"no image at all")
    (folder / "b" / "3.PNG").write_bytes(whole[: len(whole) // 2])  # only its header is readable
    with pytest.raises(UserError, match=r": 2 of 5 image files cannot be read \(a/2\.bmp: .*max_unreadable=0\.4$"):
        image_folder(dir=str(folder), image_size=4)
    assert not caplog.records
    dataset = image_folder(dir=str(folder), image_size=4, labels=True, max_unreadable=0.4)
    assert gray_values(dataset) == [10, 40, 50] and dataset.gather(np.arange(3))[1].tolist() == [0, 1, 2]
    names = sorted(record.getMessage().split(":")[0] for record in caplog.records)
    assert names == [str(folder / "a" / "2.bmp"), str(folder / "b" / "3.PNG")]
    assert dataset.lines() == [
        "data: image_folder, 3 examples of shape (4, 4, 3) in 3 classes (a 1, b 1, c 1); left out: 1 .txt, 1 hidden, "
        "2 unreadable"
    ]


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_file_whose_middle_is_damaged_is_replaced_by_the_next(folder, caplog, cache_bytes):
    noise = np.random.default_rng(0).integers(256, size=(80, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "b" / "3.PNG")
    content = bytearray((folder / "b" / "3.PNG").read_bytes())
    content[5000:6000] = bytes(1000)
    (folder / "b" / "3.PNG").write_bytes(content)
    dataset = image_folder(dir=str(folder), image_size=4, labels=True, cache_bytes=cache_bytes)
    for _ in range(3):
        assert gray_values(dataset) == [10, 20, 40, 40, 50]
    assert dataset.gather(np.arange(5))[1].tolist() == [0, 0, 1, 1, 2]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{folder / 'b' / '3.PNG'}: replaced by the next image, not readable (")
    (folder / "c" / "5.gif").unlink()
    (folder / "c" / "5.png").write_bytes(content)
    with pytest.raises(UserError, match=r"2 of 5 image files cannot be read.*5\.png \(.*max_unreadable"):
        image_folder(dir=str(folder), image_size=4, cache_bytes=cache_bytes)


def test_a_folder_without_readable_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="no image in it"):
        image_folder(dir=str(tmp_path), image_size=4)
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(UserError, match=r"none of its 2 image files can be read \(a\.png: cannot identify"):
        image_folder(dir=str(tmp_path), image_size=4)


def test_images_of_12_of_16_bits_are_told_and_can_be_scaled(tmp_path):
    gray = np.tile(np.arange(16, dtype=np.uint16) * 16, (16, 1))
    for i in range(3):
        Image.fromarray(gray + i).save(tmp_path / f"{i}.png")
    dark = image_folder(dir=str(tmp_path), image_size=16, channels=1)
    assert dark.lines()[1:] == [
        "note: the images are nearly black, with a mean of 0.479 of 255; the largest stored value is 242; "
        "--config.data.max_value=242 makes it white"
    ]
    scaled = image_folder(dir=str(tmp_path), image_size=16, channels=1, max_value=242.0)
    np.testing.assert_array_equal(scaled.gather(np.array([2]))[0][0, :, :, 0], np.rint((gray + 2) / 242 * 255))
    assert len(scaled.lines()) == 1


def test_images_that_just_miss_black_are_told(tmp_path):
    """Values of 12 bits stored in 16 have a mean of 8 and a maximum of 15 of 255."""
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(4096, size=(16, 16), dtype=np.uint16)).save(tmp_path / f"{i}.png")
    (note,) = image_folder(dir=str(tmp_path), image_size=8, channels=1).lines()[1:]
    assert re.fullmatch(r"note: the images are nearly black, .* is 4,0\d\d; --config.data.max_value=40\d\d .*", note)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.5, np.nan]], np.float32), "values that are not finite"),
        (np.array([[0.5, -2.0]], np.float32), "values from -2 to 0.5; black is 0, so add an offset"),
        (np.array([[-1000, 2000]], np.int32), "values from -1000 to 2000; black is 0, so add an offset"),
        (np.array([[0, 70_000]], np.int32), r"values from 0 to 70000; --config\.data\.max_value=V makes the value V"),
    ],
)
def test_values_that_are_no_gray_levels_are_refused_for_all_files_at_once(tmp_path, values, message):
    for i in range(3):
        Image.fromarray(values).save(tmp_path / f"{i}.tif")
    for max_value in (None, 2000.0) if "offset" in message or "finite" in message else (None,):
        with pytest.raises(UserError, match=rf"none of its 3 image files can be read \(0\.tif: {message}"):
            image_folder(dir=str(tmp_path), image_size=2, max_value=max_value)


def test_frames_and_pages_that_are_not_read_are_told(folder):
    frames = [Image.fromarray(np.full((9, 9), gray, np.uint8)) for gray in (60, 70, 80)]
    for name in ("d/6.gif", "d/7.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    dataset = image_folder(dir=str(folder), image_size=4)
    assert gray_values(dataset) == [10, 20, 30, 40, 50, 60, 60]
    assert "note: 2 files have several frames or pages, of which the first is read" in dataset.lines()


def test_images_that_are_not_square(tmp_path):
    rows, columns = np.mgrid[:30, :40].astype(np.uint8)
    Image.fromarray(np.stack([rows, columns, rows], -1)).save(tmp_path / "a.png")
    (image,) = all_images(image_folder(dir=str(tmp_path), image_size=(10, 20)))
    assert image.shape == (10, 20, 3)  # of rows 5 to 24 and all columns
    np.testing.assert_allclose(image[:, 0, 0], 5.5 + 2 * np.arange(10), atol=0.51)
    np.testing.assert_allclose(image[0, :, 1], 0.5 + 2 * np.arange(20), atol=0.51)


@pytest.mark.parametrize(
    ("dir", "message"),
    [
        ("", "--config.data.dir is missing: expected a folder or zip file"),
        ("/nowhere/at/all", "--config.data.dir=/nowhere/at/all: no such folder or zip file"),
    ],
)
def test_a_missing_folder_is_refused(dir, message):
    with pytest.raises(UserError, match=f"^{message}"):
        image_folder(dir=dir, image_size=4)
