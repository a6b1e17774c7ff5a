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
    """Decode a file of any format and mode that Pillow reads, turned upright by its EXIF entry.

    channels: 3 for RGB or 1 for luma (ITU-R 601). 16 bit grey is scaled to 8 bits, and what is
    transparent is laid on white. Raises what Pillow raises for a broken file, ValueError for
    floating point pixels, whose range nothing tells.
    """
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        image = _eight_bit(_on_white(image)).convert({1: "L", 3: "RGB"}[channels])
    return np.asarray(image).reshape(image.height, image.width, channels)


def _on_white(image: Image.Image) -> Image.Image:
    """Lay an image with an alpha channel or a transparent colour on white."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # Pillow has no 16 bit alpha; the colour key is of no use
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16 bit grey to 8 bits, which Pillow's `convert` would clip."""
    if image.mode == "F":
        raise ValueError("floating point pixels")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray(((values.clip(0, 65535) + 128) // 257).astype(np.uint8))


def centre_crop(image: Uint8Image, size: int | None = None) -> SquareImage:
    """The square of `size` pixels in the middle, or the largest one; no larger than the image."""
    height, width = image.shape[:2]
    size = min(height, width) if size is None else min(size, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def resize(image: Uint8Image, size: int) -> SquareImage:
    """Resize to size by size pixels: exact means over area to shrink, bicubic to enlarge."""
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


@functools.lru_cache(maxsize=64)  # a folder of photographs has a few sizes
def area_matrix(size_in: int, size_out: int) -> Float32[np.ndarray, "size_out size_in"]:
    """Matrix that averages `size_in` pixels over `size_out` equal intervals; its rows sum to one.

    Entry (j, i) is the share of interval j that pixel i covers.
    """
    edges = np.arange(size_out + 1) * (size_in / size_out)
    pixels = np.arange(size_in)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (covered.clip(0) * (size_out / size_in)).astype(np.float32)


def check_size(image_size: int, channels: int) -> None:
    """Raise UserError for a size or a number of channels that no image has."""
    if image_size < 1:
        raise UserError(f"--config.data.image_size={image_size}: at least 1 pixel is needed")
    if channels not in (1, 3):
        raise UserError(f"--config.data.channels={channels}: choose 1 (grey) or 3 (RGB)")
