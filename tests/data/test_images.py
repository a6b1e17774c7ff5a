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
    difference = np.abs(images.resize(image, (size_out, size_out)) - exact)
    assert difference.max() <= 0.5 + 1e-3  # rounded to the nearest level


def test_resize_treats_rows_and_columns_apart():
    image = np.zeros((6, 4, 1), np.uint8)
    image[:3, :2] = 200
    assert np.array_equal(images.resize(image, (2, 2))[..., 0], [[200, 0], [0, 0]])


@pytest.mark.parametrize(("size_in", "size_out"), [(140, 64), (5, 2), (1000, 7)])
def test_area_matrix_keeps_the_mean(size_in, size_out):
    matrix = images.area_matrix(size_in, size_out)
    np.testing.assert_allclose(matrix.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(matrix.sum(0), size_out / size_in, rtol=1e-4)


def test_enlarging_keeps_a_ramp():
    ramp = np.broadcast_to((10 * np.arange(16) + 20)[None, :, None], (16, 16, 3)).astype(np.uint8)
    enlarged = images.resize(ramp, (64, 64))
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
@pytest.mark.parametrize("size", [3, 7])
def test_center_crop_is_the_middle(height, width, size):
    """The two margins of an axis differ by at most one row or column; the larger one is at the bottom or right."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    crop = images.center_crop(np.stack([rows, columns], -1), size)
    side = min(height, width, size)
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


@pytest.mark.parametrize("ratio", [(1, 1), (1, 3), (4, 2), (5, 7)])
@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 5), (70, 50), (1, 40)])
def test_crop_is_the_largest_central_part_of_a_ratio(height, width, ratio):
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    crop = images.crop(np.stack([rows, columns], -1), ratio)
    exact = np.array(ratio) * min(height / ratio[0], width / ratio[1])
    assert (np.abs(np.array(crop.shape[:2]) - exact) <= 0.5 + (exact < 1)).all() and crop.size
    assert crop.shape[0] == height or crop.shape[1] == width
    for axis, length in enumerate((height, width)):
        kept = np.unique(crop[..., axis])
        assert 0 <= (length - 1 - int(kept[-1])) - int(kept[0]) <= 1


def test_resize_to_a_shape_that_is_not_square():
    image = np.random.default_rng(0).integers(256, size=(12, 12, 3), dtype=np.uint8)
    exact = image.reshape(4, 3, 6, 2, 3).mean((1, 3))
    assert np.abs(images.resize(image, (4, 6)) - exact).max() <= 0.5 + 1e-3
    assert images.resize(image, (24, 6)).shape == (24, 6, 3)


def tiff(values, **tags):
    return encoded(Image.fromarray(values), "TIFF", tiffinfo=tags.get("tiffinfo", {}))


def test_decode_floating_point_is_0_to_1_or_to_the_value_that_is_given():
    values = np.array([[0.0, 0.5], [0.25, 1.0]], np.float32)
    np.testing.assert_allclose(images.decode(tiff(values), 1)[..., 0], 255 * values, atol=0.5)
    np.testing.assert_allclose(images.decode(tiff(8 * values), 1, 8.0)[..., 0], 255 * values, atol=0.5)
    with pytest.raises(ValueError, match=r"values from 0 to 8; --config\.data\.max_value=V makes the value V white"):
        images.decode(tiff(8 * values), 1)
    for bad in (np.nan, np.inf, -1.0):
        values[0, 0] = bad
        for white in (None, 8.0):
            with pytest.raises(ValueError, match=r"values that are not finite|add an offset"):
                images.decode(tiff(values), 1, white)


def test_decode_integers_up_to_the_value_that_is_given_or_tagged():
    values = np.array([[0, 1000], [2048, 4095]], np.uint16)
    want = np.rint(values / 4095 * 255)
    assert np.array_equal(images.decode(tiff(values), 1, 4095.0)[..., 0], want)
    tagged = tiff(values, tiffinfo={images.MAX_SAMPLE_VALUE: 4095})
    assert np.array_equal(images.decode(tagged, 1)[..., 0], want)
    assert images.largest(tiff(values)) == 4095 and images.largest(encoded(Image.fromarray(COLORS))) is None


def refuses(function, content):
    try:
        function(io.BytesIO(content))
    except Exception:  # Pillow raises many types
        return True
    return False


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF"])
def test_check_refuses_the_cut_files_that_decode_refuses(format):
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8))
    whole = encoded(image, format).getvalue()
    assert not refuses(images.check, whole)
    for length in (0, 1, 20, len(whole) // 2, len(whole) - 100):
        assert refuses(lambda file: images.decode(file, 3), whole[:length])
        assert refuses(images.check, whole[:length])


def test_check_decodes_only_files_with_an_unexpected_end(monkeypatch):
    decoded = []
    monkeypatch.setattr(images, "decode", lambda file, *_: decoded.append(file))
    for format in ("PNG", "JPEG", "GIF", "BMP"):
        images.check(encoded(Image.fromarray(COLORS), format))
    assert not decoded
    images.check(cut := io.BytesIO(encoded(Image.fromarray(COLORS), "JPEG").getvalue() + bytes(100)))
    assert decoded == [cut]


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    large = Image.new("L", (11, 10))
    with pytest.raises(ValueError, match="110 pixels, more than 100; shrink it"):
        images.decode(encoded(large), 1)
    monkeypatch.setattr(images, "LARGE", 100)
    photo = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None], 256, 0))
    small = images.decode(encoded(photo, "JPEG"), 1, None, (4, 4))
    assert small.shape == (32, 32, 1) and np.ptp(small) > 200  # eight times as large as asked for
