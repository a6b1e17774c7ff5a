"""One contract for every registered dataset, and each dataset against the content of its files."""

import gzip
import io
import itertools
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from test_images import area_mean

from score_sde_jax.data import DATASETS, all_images, idx, training_batches
from score_sde_jax.errors import UserError

IDX_SETS = ("mnist", "fashion_mnist")


@pytest.fixture(scope="session")
def options(data_dir, earth_dir, tmp_path_factory):
    """Options of every dataset, for made-up data."""
    folder = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for i in range(5):
        (folder / str(i % 2)).mkdir(exist_ok=True)
        pixels = rng.integers(256, size=(20 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / str(i % 2) / f"{i}.png")
    images = rng.integers(256, size=(12, 6, 6), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(12) % 3)
    prepared = {"dir": str(data_dir)}
    return {
        "digits": {},
        "mnist": prepared,
        "fashion_mnist": prepared,
        "cifar10": prepared,
        "celeb_a": prepared | {"image_size": 32},
        "earth": {"dir": str(earth_dir), "num_images": 300},
        "image_folder": {"dir": str(folder), "image_size": 16, "labels": True},
        "npz": {"dir": str(folder)},
        "points": {"num_points": 100},
    }


@pytest.fixture
def build(options):
    """Return a function that opens a dataset by name, with further options."""
    return lambda name, **more: DATASETS[name](**(options[name] | more))


def test_dir_overrides_the_environment(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    assert len(DATASETS["cifar10"](dir=str(data_dir))) == 50
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert len(DATASETS["cifar10"]()) == 50
    with pytest.raises(UserError, match=f"no data in {tmp_path}"):
        DATASETS["cifar10"](dir=str(tmp_path))


@pytest.mark.parametrize("name", DATASETS)
def test_contract(name, build):
    dataset = build(name)
    assert dataset.name == name
    images, labels = dataset.gather(np.arange(len(dataset)))
    assert images.shape == (len(dataset), *dataset.image_shape)
    assert images.dtype == (np.float32 if dataset.levels is None else np.uint8)
    assert dataset.levels is None or images.max() < dataset.levels
    assert labels.dtype == np.int32
    assert np.array_equal(np.unique(labels), np.arange(max(dataset.num_classes, 1)))
    for index in (0, len(dataset) - 1):
        assert np.array_equal(dataset[index]["image"], images[index])
        assert dataset[index]["label"] == labels[index]
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    again = build(name)  # nothing is cached, and another order
    for index in np.random.default_rng(0).permutation(len(again)):
        assert np.array_equal(again[index]["image"], images[index])


@pytest.mark.parametrize("name", DATASETS)
def test_an_epoch_of_training_holds_every_image_once(name, build):
    dataset = build(name)
    batches = itertools.islice(training_batches(dataset, batch_size=1, seed=0), len(dataset))
    streamed = np.concatenate([batch["image"] for batch in batches])
    expected = all_images(dataset)
    flat = [np.sort(x.reshape(len(x), -1).view(f"V{x[0].nbytes}"), 0) for x in (streamed, expected)]
    assert np.array_equal(*flat)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    everything = DATASETS["digits"](split="all")
    assert np.array_equal(all_images(everything).reshape(1797, 64), images)
    assert np.array_equal(everything.gather(np.arange(1797))[1], labels)
    is_test = np.arange(1797) % 5 == 4
    for split, kept, num in (("test", is_test, 359), ("train", ~is_test, 1438)):
        own_images, own_labels = DATASETS["digits"](split=split).gather(np.arange(num))
        assert np.array_equal(own_images.reshape(-1, 64), images[kept])
        assert np.array_equal(own_labels, labels[kept])


@pytest.mark.parametrize("name", IDX_SETS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_idx_files_and_tfds_data_are_the_same(name, split, archives, build):
    directory, content = archives[name]
    for dataset in (DATASETS[name](dir=str(directory), split=split), build(name, split=split)):
        assert np.array_equal(all_images(dataset), content[split][0])
        assert np.array_equal(dataset.gather(np.arange(len(dataset)))[1], content[split][1])
        assert dataset.num_classes == 10


def test_idx_files_may_be_unpacked(archives, tmp_path):
    directory, content = archives["mnist"]
    for path in directory.iterdir():
        (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    assert np.array_equal(all_images(DATASETS["mnist"](dir=str(tmp_path))), content["train"][0])


@pytest.mark.skipif(not os.path.isdir(idx.DEBIAN_FASHION_MNIST), reason="package not installed")
def test_the_debian_package_is_fashion_mnist():
    dataset = DATASETS["fashion_mnist"](split="test")
    _, labels = dataset.gather(np.arange(10_000))
    assert np.array_equal(np.bincount(labels), np.full(10, 1000))


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10_holds_the_archive(split, archives, build):
    dataset = build("cifar10", split=split)
    images, labels = archives["cifar10"][1][split]
    assert np.array_equal(all_images(dataset), images)
    assert np.array_equal(dataset.gather(np.arange(len(images)))[1], labels)


@pytest.mark.parametrize(("split", "image_size"), [("train", 64), ("test", 32)])
def test_celeb_a_is_cropped_and_resized(split, image_size, archives, build):
    rows = archives["celeb_a"][1][split]
    images = all_images(build("celeb_a", split=split, image_size=image_size))
    assert len(images) == len(rows)
    for image, row in zip(images[:6], rows[:6], strict=True):
        whole = np.asarray(Image.open(io.BytesIO(row["jpeg"])))
        exact = area_mean(whole[39:179, 19:159], image_size)
        assert np.abs(image - exact).max() <= 0.5 + 1e-3


def test_a_slice_without_cache_is_part_of_the_split(build):
    everything = all_images(build("celeb_a"))
    part = build("celeb_a", split="train[5:9]", cache_bytes=0)
    assert np.array_equal(all_images(part), everything[5:9])
    assert np.array_equal(all_images(part), everything[5:9])


def on_upper_half_circle(x):
    """Whether points are near the half circle around (0.5, -0.25) that opens downward."""
    offset = x - [0.5, -0.25]
    return (np.abs(np.linalg.norm(offset, axis=1) - 1) < 0.3) & (offset[:, 1] > -0.3)


@pytest.mark.parametrize(
    ("distribution", "holds"),
    [
        ("checkerboard", lambda x: (np.floor(x).sum(1) % 2 == 0) & (np.abs(x) <= 2).all(1)),
        ("gaussians", lambda x: np.abs(np.linalg.norm(x, axis=1) - 1.5) < 0.6),
        ("swiss_roll", lambda x: np.cos(7 * np.linalg.norm(x, axis=1) - np.arctan2(*x.T[::-1])) > -0.2),
        ("two_moons", lambda x: on_upper_half_circle(x) | on_upper_half_circle(-x)),
    ],
)
def test_points_lie_on_their_distribution(distribution, holds):
    points = all_images(DATASETS["points"](distribution=distribution, num_points=5000))
    assert holds(points).all()
    assert np.abs(points.mean(0)).max() < 0.5
    assert 0.5 < points.std() < 1.5


def test_points_are_a_function_of_their_seed():
    one, same, other = (all_images(DATASETS["points"](seed=seed)) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_checkerboard_is_uniform_on_its_squares():
    points = all_images(DATASETS["points"](num_points=8000))
    _, counts = np.unique(np.floor(points), axis=0, return_counts=True)
    assert len(counts) == 8
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("digits", {"split": "validation"}, "data.split=validation: choose one of train, test"),
        ("digits", {"image_size": 28}, "data.image_size=28: the images of digits are 8 by 8"),
        ("mnist", {"channels": 3}, "data.channels=3: the images of mnist have 1 channel$"),
        ("cifar10", {"image_size": 64}, "data.image_size=64: the images of cifar10 are 32 by 32"),
        ("cifar10", {"split": "dev"}, "data.split=dev: choose one of .*train.*, or a slice"),
        ("celeb_a", {"crop": 200}, "data.crop=200: must be >= 1 and <= 178"),
        ("celeb_a", {"channels": 2}, "data.channels=2: must be 1"),
        ("celeb_a", {"image_size": 0}, "data.image_size=0: must be >= 1"),
        ("points", {"distribution": "ring"}, "data.distribution=ring: choose one of checkerb"),
        ("points", {"num_points": 0}, "data.num_points=0: must be >= 1"),
    ],
)
def test_wrong_options_are_refused(name, more, message, build):
    with pytest.raises(UserError, match=message):
        build(name, **more)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "celeb_a"])
def test_missing_data_names_the_command(name, tmp_path):
    with pytest.raises(UserError) as error:
        DATASETS[name](dir=str(tmp_path))
    command = f"python -m score_sde_jax.data.prepare --dataset={name} --archives=ARCHIVES"
    assert f"{command} --data_dir={tmp_path}" in str(error.value)
    assert "\n" not in str(error.value)
    assert ("apt-get install" in str(error.value)) == (name == "fashion_mnist")


def test_corrupted_idx_files_are_refused(archives, tmp_path):
    for path in archives["mnist"][0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    images = tmp_path / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    unpacked = gzip.decompress(whole)
    corrupted = (whole[:-100], b"not gzip", gzip.compress(b"text"), gzip.compress(unpacked[:-1]))
    for content in corrupted:
        images.write_bytes(content)
        with pytest.raises(UserError, match=images.name):
            DATASETS["mnist"](dir=str(tmp_path))
    images.unlink()
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.*missing"):
        DATASETS["mnist"](dir=str(tmp_path))


@pytest.fixture
def shard(data_dir, tmp_path):
    """A copy of the prepared CIFAR-10 in tmp_path; the first of the two files of its split "train"."""
    shutil.copytree(data_dir / "cifar10", tmp_path / "cifar10")
    return min(tmp_path.glob("cifar10/*/cifar10-train.array_record-*"))


@pytest.mark.parametrize("damage", ["cut", "emptied", "removed", "overwritten"])
def test_a_corrupted_shard_is_refused_when_the_dataset_is_opened(shard, damage, tmp_path):
    whole = shard.read_bytes()
    shard.write_bytes({"cut": whole[: len(whole) // 2], "overwritten": b"text" * 50_000}.get(damage, b""))
    if damage == "removed":
        shard.unlink()
    with pytest.raises(UserError) as error:
        DATASETS["cifar10"](dir=str(tmp_path))
    assert f"{shard} has 0 of 25 examples" in str(error.value) and "\n" not in str(error.value)
    assert f"remove {shard.parent} and run `python -m score_sde_jax.data.prepare --dataset=cifar10" in str(error.value)
    assert len(DATASETS["cifar10"](dir=str(tmp_path), split="test")) == 10  # the other split is intact


def test_a_flipped_bit_of_a_shard_is_refused_when_it_is_read(shard, tmp_path):
    corrupted = bytearray(shard.read_bytes())
    at = corrupted.index(b"IDAT") + 100  # in an image, since the padding between records is never read
    corrupted[at] ^= 1
    shard.write_bytes(bytes(corrupted))
    dataset = DATASETS["cifar10"](dir=str(tmp_path))
    with pytest.raises(UserError, match=rf"^cifar10: corrupted data \(.+\); remove {shard.parent} and run"):
        all_images(dataset)
    batches = training_batches(DATASETS["cifar10"](dir=str(tmp_path)), batch_size=50, seed=0)
    with pytest.raises(UserError, match=r"^cifar10: corrupted data \(.+\)"):  # raised in a thread of the pipeline
        next(batches)


GOOD = np.zeros((4, 6, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": GOOD}, "no array 'images'; its keys are pictures"),
        ({"images": GOOD.astype(np.float32)}, "float32"),
        ({"images": GOOD[0, 0]}, "uint8 .num, height"),
        ({"images": GOOD[:0]}, "uint8 .num, height"),
        ({"images": GOOD[..., :2]}, "must have 1 or 3 channels in the last axis"),
        ({"images": GOOD.transpose(0, 3, 1, 2)}, r"in the last axis; .* needs images.transpose\(0, 2, 3, 1\)"),
        ({"images": GOOD / 255}, r"save np.rint\(255 \* images\)"),
        ({"images": GOOD, "labels": np.eye(4, dtype=int)}, r"one-hot labels need labels.argmax\(1\)"),
        ({"images": GOOD, "labels": np.full(4, 10**9)}, "4 integers >= 0 and < 65,536"),
        ({"images": GOOD, "labels": np.zeros(3, int)}, "4 integers >= 0"),
        ({"images": GOOD, "labels": np.zeros(4)}, "4 integers >= 0"),
        ({"images": GOOD, "labels": np.full(4, -1)}, "4 integers >= 0"),
        ({"images": np.array([None])}, "not a readable"),
    ],
)
def test_npz_with_other_arrays_is_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "images.npz", **arrays)
    with pytest.raises(UserError, match=message):
        DATASETS["npz"](dir=str(tmp_path))


def test_npz_missing_or_corrupted_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no file .*images\.npz"):
        DATASETS["npz"](dir=str(tmp_path))
    np.savez(tmp_path / "images.npz", images=GOOD)
    content = (tmp_path / "images.npz").read_bytes()
    np.save(tmp_path / "array.npy", GOOD)
    array = (tmp_path / "array.npy").read_bytes()
    (tmp_path / "images.npz").write_bytes(array)
    with pytest.raises(UserError, match=r"an npy file; save it with np\.savez"):
        DATASETS["npz"](dir=str(tmp_path))
    for corrupted in (content[:100], b"", b"text", content[:150] + b"x" + content[151:]):
        (tmp_path / "images.npz").write_bytes(corrupted)
        with pytest.raises(UserError, match="not a readable npz"):
            DATASETS["npz"](dir=str(tmp_path))


def test_npz_without_labels(tmp_path):
    np.savez(tmp_path / "images.npz", images=GOOD)
    dataset = DATASETS["npz"](dir=str(tmp_path / "images.npz"), image_size=6, channels=3)
    assert dataset.num_classes == 0
    assert dataset[3]["label"] == 0


def test_npz_of_arrays_without_names(tmp_path):
    np.savez(tmp_path / "images.npz", GOOD, np.arange(4))
    dataset = DATASETS["npz"](dir=str(tmp_path / "images.npz"))
    np.testing.assert_array_equal(dataset.gather(np.arange(4))[0], GOOD)
    assert dataset.gather(np.arange(4))[1].tolist() == [0, 1, 2, 3]


def test_npz_that_zip_cannot_read_is_refused(tmp_path):
    """Encrypted, of an unknown compression, with text for an array, and with a header that declares too much."""
    np.savez(path := tmp_path / "images.npz", images=GOOD)
    content = path.read_bytes()
    central = content.rindex(b"PK\1\2")
    for offset, value in ((6, b"\1\0"), (8, b"\x63\0")):
        changed = bytearray(content)
        changed[offset : offset + 2] = changed[central + offset + 2 : central + offset + 4] = value
        path.write_bytes(changed)
        with pytest.raises(UserError, match="not a readable npz file"):
            DATASETS["npz"](dir=str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", "hello")
    with pytest.raises(UserError, match="no array 'images'; its keys are images"):
        DATASETS["npz"](dir=str(path))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**13, 8, 8, 1)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    with pytest.raises(UserError, match=r"images\.npy declares 640,000,000,000,000 bytes of shape"):
        DATASETS["npz"](dir=str(path))
