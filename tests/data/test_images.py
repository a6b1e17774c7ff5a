"""Decoding, cropping and resizing against independent computations."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from score_sde_jax.data import images


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


def area_mean(values, size):
    """Resize a square image by exact area averages: repeat pixels to the common multiple, average blocks."""
    common = math.lcm(len(values), size)
    fine = np.repeat(values.astype(np.float64), common // len(values), 0)
    fine = np.repeat(fine, common // len(values), 1)
    block = common // size
    return fine.reshape(size, block, size, block, -1).mean((1, 3))


@pytest.mark.parametrize(("size_in", "size_out"), [(140, 64), (7, 3), (10, 5), (9, 9), (17, 16)])
def test_resize_is_the_mean_over_area(size_in, size_out):
    image = np.random.default_rng(0).integers(256, size=(size_in, size_in, 3), dtype=np.uint8)
    exact = area_mean(image, size_out)
    difference = np.abs(images.resize(image, size_out) - exact)
    assert difference.max() <= 0.5 + 1e-3  # rounded to the nearest level


def test_resize_treats_rows_and_columns_apart():
    image = np.zeros((6, 4, 1), np.uint8)
    image[:3, :2] = 200
    assert np.array_equal(images.resize(image, 2)[..., 0], [[200, 0], [0, 0]])


@pytest.mark.parametrize(("size_in", "size_out"), [(140, 64), (5, 2), (1000, 7)])
def test_area_matrix_keeps_the_mean(size_in, size_out):
    matrix = images.area_matrix(size_in, size_out)
    np.testing.assert_allclose(matrix.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(matrix.sum(0), size_out / size_in, rtol=1e-4)


def test_enlarging_keeps_a_ramp():
    ramp = np.broadcast_to((10 * np.arange(16) + 20)[None, :, None], (16, 16, 3)).astype(np.uint8)
    enlarged = images.resize(ramp, 64)
    centers = (np.arange(64) + 0.5) / 4 - 0.5
    inside = slice(12, -12)  # at the edges the kernel is cut off
    expected = np.broadcast_to((10 * centers + 20)[inside, None], (64, 40, 3))
    np.testing.assert_allclose(enlarged[:, inside], expected, atol=0.51 + 1e-3)


def test_center_crop_takes_the_rows_and_columns_of_celeb_a():
    rows, columns = np.mgrid[:218, :178].astype(np.uint8)
    crop = images.center_crop(np.stack([rows, columns], -1), 140)
    assert crop.shape == (140, 140, 2)
    assert crop[0, 0].tolist() == [39, 19]
    assert crop[-1, -1].tolist() == [178, 158]


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 5), (6, 9), (9, 6), (4, 8), (7, 7)])
@pytest.mark.parametrize("size", [None, 3, 7])
def test_center_crop_is_the_middle_of_the_largest_square_or_of_a_size(height, width, size):
    """The two margins of an axis differ by at most one row or column; the larger one is at the bottom or right."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    crop = images.center_crop(np.stack([rows, columns], -1), size)
    side = min(height, width, size or height)
    assert crop.shape == (side, side, 2)
    for axis, length in enumerate((height, width)):
        kept = np.unique(crop[..., axis])
        before, after = kept[0], length - 1 - kept[-1]
        assert len(kept) == side and 0 <= int(after) - int(before) <= 1


COLORS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 120, 200]]], np.uint8)


def test_decode_color_to_gray_is_luma():
    gray = images.decode(encoded(Image.fromarray(COLORS)), 1)[..., 0]
    np.testing.assert_allclose(gray, COLORS @ [0.299, 0.587, 0.114], atol=0.51)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_decode_scales_16_bits_to_8(format):
    values = np.array([[0, 255, 256, 257], [30_000, 40_000, 65_000, 65_535]], np.uint16)
    for channels in (1, 3):
        decoded = images.decode(encoded(Image.fromarray(values), format), channels)
        assert decoded.shape == (2, 4, channels)
        np.testing.assert_allclose(decoded, (values / 257)[..., None].repeat(channels, 2), atol=0.5)


def test_decode_composites_transparent_pixels_on_white():
    alpha = np.array([[255, 0], [128, 64]], np.uint8)
    image = Image.fromarray(np.concatenate([COLORS, alpha[..., None]], -1))
    share = alpha[..., None] / 255
    expected = COLORS * share + 255 * (1 - share)
    np.testing.assert_allclose(images.decode(encoded(image), 3), expected, atol=1.0)


def test_decode_palette_with_and_without_transparency():
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    plain = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    assert images.decode(encoded(image), 3).tolist() == plain
    keyed = [[[10, 20, 30], [255] * 3], [[70, 80, 90], [255] * 3]]
    assert images.decode(encoded(image, transparency=1), 3).tolist() == keyed
    assert images.decode(encoded(image, "GIF"), 3).tolist() == plain


def test_decode_cmyk():
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[..., 0], inks[..., 3] = 255, 51  # cyan at four fifths of full light
    decoded = images.decode(encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100), 3)
    np.testing.assert_allclose(decoded, np.broadcast_to([0, 204, 204], (8, 8, 3)), atol=3)


def test_decode_one_bit_and_gray_with_alpha():
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert images.decode(encoded(bits), 3).tolist() == [[[0] * 3, [255] * 3]]
    gray = Image.fromarray(np.array([[[100, 255], [100, 0]]], np.uint8), "LA")
    assert images.decode(encoded(gray), 1).tolist() == [[[100], [255]]]


def test_decode_turns_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    decoded = images.decode(encoded(Image.fromarray(COLORS), exif=exif), 3)
    assert np.array_equal(decoded, np.rot90(COLORS, -1))


def test_decode_refuses_floating_point():
    with pytest.raises(ValueError, match="floating-point"):
        images.decode(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), 1)
