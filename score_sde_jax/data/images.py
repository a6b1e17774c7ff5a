"""Pure functions on images: decode, crop and resize."""

import functools
import io
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from score_sde_jax.errors import UserError

Uint8Image = UInt8[np.ndarray, "height width channels"]
Size = tuple[int, int]
"""Height and width of an image, in pixels."""

MAX_PIXELS = 2**29
"""Largest number of pixels of an image that is decoded; JPEG files with more are decoded at a smaller scale."""
LARGE = 2**26
"""Number of pixels beyond which an image is decoded at a smaller scale, if its format can do so."""
ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "GIF": b"\0;"}
"""Bytes near the end of every complete file of a format."""
MAX_SAMPLE_VALUE, BITS_PER_SAMPLE = 281, 258
"""Numbers of two tags of TIFF files."""

# Above this number Pillow warns, and above twice this number it refuses.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def check(file: Path | io.BytesIO, max_value: float | None = None) -> bool:
    """Read the beginning and the end of an image file, and return whether it has several frames or pages.

    The whole file is read only if its end is not as expected, or if it has floating-point numbers or 32-bit integers.

    Args:
        file: path or content of the file.
        max_value: as in `decode`.

    Raises:
        Exception: that of `decode`.
    """
    with Image.open(file) as source:
        _check_size(source)
        end, decoded = ENDS.get(source.format or ""), source.mode in ("F", "I")
        is_animated = bool(getattr(source, "is_animated", False))
    if decoded or (end is not None and end not in _tail(file)):
        decode(file, 1, max_value)
    return is_animated


def _tail(file: Path | io.BytesIO) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()[-64:]
    with file.open("rb") as opened:
        opened.seek(-min(64, file.stat().st_size), os.SEEK_END)
        return opened.read()


def _check_size(source: Image.Image) -> None:
    if source.width * source.height > MAX_PIXELS and source.format != "JPEG":
        raise ValueError(f"{source.width * source.height:,} pixels, more than {MAX_PIXELS:,}; shrink it")


def decode(
    file: Path | io.BytesIO, channels: int, max_value: float | None = None, size: Size | None = None
) -> Uint8Image:
    """Decode an image file to uint8, rotated by its EXIF orientation; transparent pixels are composited on white.

    Args:
        file: path or content of a file in any format that Pillow decodes.
        channels: 3 for RGB, 1 for luma (ITU-R 601).
        max_value: value that becomes white, for pixels of more than 8 bits; None means the largest value in the tags of
            a TIFF file, or 65,535 for integers and 1 for floating-point numbers.
        size: height and width to which the image will be resized; a very large JPEG file is decoded at a smaller scale.

    Raises:
        ValueError: more than MAX_PIXELS pixels, or values outside 0 to `max_value`.
        Exception: Pillow's error for a corrupted file.
    """
    with Image.open(file) as source:
        _check_size(source)
        if size and source.width * source.height > LARGE:
            source.draft(source.mode, (8 * size[1], 8 * size[0]))
        white = max_value or _max_value_of_tags(source)
        image = ImageOps.exif_transpose(source)
        image = _eight_bit(_on_white(image), white).convert({1: "L", 3: "RGB"}[channels])
    return np.asarray(image).reshape(image.height, image.width, channels)


def largest(file: Path | io.BytesIO) -> float | None:
    """Return the largest stored value of an image of more than 8 bits per value; None for others.

    Args:
        file: path or content of the file.
    """
    with Image.open(file) as source:
        return float(np.asarray(source).max()) if source.mode.startswith(("I", "F")) else None


def _max_value_of_tags(source: Image.Image) -> float | None:
    """Return the largest value in the tags of a TIFF file: the declared one, or that of 9 to 15 bits per value."""
    tags = getattr(source, "tag_v2", {})
    declared = tags.get(MAX_SAMPLE_VALUE)
    bits = tags.get(BITS_PER_SAMPLE)
    declared = declared[0] if isinstance(declared, tuple) else declared
    bits = bits[0] if isinstance(bits, tuple) else bits
    if isinstance(declared, int | float) and declared > 0:
        return float(declared)
    return float(2**bits - 1) if isinstance(bits, int) and 8 < bits < 16 else None


def _on_white(image: Image.Image) -> Image.Image:
    """Composite an image with an alpha channel or a transparent color on white."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # Pillow cannot apply a transparent color to 16-bit gray
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _eight_bit(image: Image.Image, white: float | None) -> Image.Image:
    """Scale integers of 16 or 32 bits and floating-point numbers to 8 bits, since Pillow's `convert` clips them."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float64)
    default = 1.0 if image.mode == "F" else 65535.0
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("values that are not finite")
    if low < 0:
        raise ValueError(f"values from {low:g} to {high:g}; black is 0, so add an offset to the negative values")
    if white is None and high > default:
        raise ValueError(f"values from {low:g} to {high:g}; --config.data.max_value=V makes the value V white")
    return Image.fromarray(np.rint(values.clip(0, white or default) * (255 / (white or default))).astype(np.uint8))


def crop(image: Uint8Image, size: Size) -> Uint8Image:
    """Return the largest central part of an image with the shape of `size`.

    Args:
        image: image of any size.
        size: height and width whose ratio the part has.
    """
    height, width = image.shape[:2]
    if height * size[1] > width * size[0]:
        height = max(1, round(width * size[0] / size[1]))
    else:
        width = max(1, round(height * size[1] / size[0]))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def center_crop(image: Uint8Image, size: int) -> Uint8Image:
    """Return a central square of an image.

    Args:
        image: image of any size.
        size: height and width of the square, in pixels; at most, the smaller side of the image.
    """
    size = min(size, *image.shape[:2])
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def resize(image: Uint8Image, size: Size) -> Uint8Image:
    """Resize an image, by exact area averages to shrink and bicubic to enlarge.

    Args:
        image: image of any size.
        size: height and width of the result, in pixels, >= 1.
    """
    height, width, channels = image.shape
    if (height, width) == tuple(size):
        return image
    if height < size[0] or width < size[1]:
        mode = image[..., 0] if channels == 1 else image
        enlarged = Image.fromarray(mode).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return np.asarray(enlarged).reshape(*size, channels)
    rows, columns = area_matrix(height, size[0]), area_matrix(width, size[1])
    shrunk = np.tensordot(rows, image.astype(np.float32), 1)  # (rows, width, channels)
    shrunk = np.einsum("jw,iwc->ijc", columns, shrunk, optimize=True)
    return np.rint(shrunk).astype(np.uint8)


@functools.lru_cache(maxsize=64)  # the images of a folder often share a few sizes
def area_matrix(size_in: int, size_out: int) -> Float32[np.ndarray, "size_out size_in"]:
    """Return the matrix that averages `size_in` pixels over `size_out` equal intervals.

    Entry (j, i) is the share of interval j that pixel i covers, so rows sum to one.

    Args:
        size_in: number of pixels.
        size_out: number of intervals.
    """
    edges = np.arange(size_out + 1) * (size_in / size_out)
    pixels = np.arange(size_in)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (covered.clip(0) * (size_out / size_in)).astype(np.float32)


def check_size(size: Size, channels: int) -> None:
    """Check the shape of the images of a dataset.

    Args:
        size: height and width in pixels.
        channels: channels.

    Raises:
        UserError: a size is not positive, or `channels` is neither 1 nor 3.
    """
    if min(size) < 1:
        raise UserError(f"--config.data.image_size={min(size)}: must be >= 1")
    if channels not in (1, 3):
        raise UserError(f"--config.data.channels={channels}: must be 1 (gray) or 3 (RGB)")
