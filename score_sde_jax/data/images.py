"""Pure functions on images: decode, crop and resize."""

import functools
import io

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from score_sde_jax.errors import UserError

Uint8Image = UInt8[np.ndarray, "height width channels"]
SquareImage = UInt8[np.ndarray, "side side channels"]


def decode(file: str | io.BytesIO, channels: int) -> Uint8Image:
    """Decode an image file to uint8, rotated by its EXIF orientation.

    16-bit gray is scaled to 8 bits. Transparent pixels are composited on white.

    Args:
        file: path or content of a file in any format that Pillow reads.
        channels: 3 for RGB, 1 for luma (ITU-R 601).

    Raises:
        ValueError: floating-point pixels, whose range is not known.
        Exception: Pillow's error for a corrupted file.
    """
    with Image.open(file) as source:
        image = ImageOps.exif_transpose(source)
        image = _eight_bit(_on_white(image)).convert({1: "L", 3: "RGB"}[channels])
    return np.asarray(image).reshape(image.height, image.width, channels)


def _on_white(image: Image.Image) -> Image.Image:
    """Composite an image with an alpha channel or a transparent color on white."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # Pillow cannot apply a transparent color to 16-bit gray
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit gray to 8 bits; Pillow's `convert` would clip it."""
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray(((values.clip(0, 65535) + 128) // 257).astype(np.uint8))


def center_crop(image: Uint8Image, size: int | None = None) -> SquareImage:
    """Return the central square of an image.

    Args:
        image: image of any size.
        size: height and width of the square, in pixels; by default, and at most, the smaller side of the image.
    """
    height, width = image.shape[:2]
    size = min(height, width) if size is None else min(size, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def resize(image: Uint8Image, size: int) -> SquareImage:
    """Resize an image to size x size pixels, by exact area averages to shrink and bicubic to enlarge.

    Args:
        image: image of any size.
        size: height and width of the result, in pixels, >= 1.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    if min(height, width) < size:
        mode = image[..., 0] if image.shape[2] == 1 else image
        enlarged = Image.fromarray(mode).resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(enlarged).reshape(size, size, image.shape[2])
    rows, columns = area_matrix(height, size), area_matrix(width, size)
    shrunk = np.tensordot(rows, image.astype(np.float32), 1)  # (size, width, channels)
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


def check_size(image_size: int, channels: int) -> None:
    """Check the options `image_size` and `channels` of a dataset.

    Args:
        image_size: height and width in pixels.
        channels: channels.

    Raises:
        UserError: `image_size` is not positive, or `channels` is neither 1 nor 3.
    """
    if image_size < 1:
        raise UserError(f"--config.data.image_size={image_size}: must be >= 1")
    if channels not in (1, 3):
        raise UserError(f"--config.data.channels={channels}: must be 1 (gray) or 3 (RGB)")
