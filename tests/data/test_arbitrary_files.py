"""Arbitrary images and archives: decoded to the values of an independent encoder, and found under any name."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from hypothesis.extra import numpy as arrays
from PIL import Image

from score_sde_jax.data import finding, images
from score_sde_jax.errors import UserError

FAST = settings(deadline=None, derandomize=True, max_examples=100)


def png(values):
    """A PNG file by its specification (ISO/IEC 15948): gray, RGB or RGBA of 8 bits, or gray of 16 bits."""
    height, width, channels = values.shape
    color = {1: 0, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 8 * values.dtype.itemsize, color, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    whole = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + whole)


def values(dtype, *channels):
    shapes = strategies.tuples(*[strategies.integers(1, 12)] * 2, strategies.sampled_from(channels))
    return shapes.flatmap(lambda shape: arrays.arrays(dtype, shape))


@FAST
@given(values(np.uint8, 1, 3, 4))
def test_pixels_of_8_bits_are_those_of_the_file(pixels):
    images.check(png(pixels))
    decoded = images.decode(png(pixels), 1 if pixels.shape[2] == 1 else 3)
    if pixels.shape[2] < 4:
        np.testing.assert_array_equal(decoded, pixels)
    else:
        alpha = pixels[..., 3:] / 255
        np.testing.assert_allclose(decoded, pixels[..., :3] * alpha + 255 * (1 - alpha), atol=1)


@FAST
@given(values(np.uint16, 1), strategies.floats(1, 65535))
def test_pixels_of_16_bits_are_scaled_to_the_white_that_is_given(pixels, white):
    np.testing.assert_allclose(images.decode(png(pixels), 1), pixels / 257, atol=0.5)
    scaled = np.minimum(pixels.astype(float), white) / white * 255
    np.testing.assert_allclose(images.decode(png(pixels), 1, white), scaled, atol=0.5 + 1e-9)


@FAST
@given(values(np.uint8, 3), strategies.integers(0, 2**32), strategies.integers(0, 255))
def test_a_damaged_file_is_an_error_or_an_image(pixels, place, value):
    content = bytearray(png(pixels).getvalue())
    content[place % len(content)] = value
    try:
        decoded = images.decode(io.BytesIO(bytes(content)), 3)
    except Exception:  # Pillow raises many types
        return
    assert decoded.dtype == np.uint8 and decoded.ndim == 3


PNG = png(np.full((2, 2, 3), 90, np.uint8)).getvalue()
PARTS = strategies.text(strategies.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NAMES = strategies.lists(PARTS, min_size=1, max_size=4).map("/".join)


@FAST
@given(strategies.lists(NAMES | NAMES.map(lambda name: f"{name}.png"), max_size=6, unique=True))
def test_any_names_in_a_zip_file(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), PNG)
    before = sorted(path.parent.parent.rglob("*"))
    try:
        files = finding.find(str(path))
    except UserError as error:
        assert "no image in it" in str(error)
        return
    assert files.names == sorted(set(files.names))
    assert all(images.decode(files.open(name), 3).tolist() == [[[90] * 3] * 2] * 2 for name in files.names)
    assert sorted(path.parent.parent.rglob("*")) == before  # nothing is unpacked


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "LA", "I;16", "YCbCr", "HSV", "LAB"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_every_mode_of_every_format_is_decoded(mode, format):
    image = Image.new(mode, (5, 4))
    file = io.BytesIO()
    try:
        image.save(file, format)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"{format} has no {mode}")
    for channels in (1, 3):
        assert images.decode(io.BytesIO(file.getvalue()), channels).shape == (4, 5, channels)
        images.check(io.BytesIO(file.getvalue()))
