"""Down- and upsampling of images by 2, as sums of shifted slices: no gather, scatter or grouped convolution.

The FIR filter (1, 3, 3, 1) is that of StyleGAN2 (arXiv 1912.04958), as in NCSN++ (arXiv 2011.13456, Appendix H). Images
are padded with zeros.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Image = Float[Array, "batch height width channels"]

TAPS = 4
"""Length of the FIR filter."""

HEIGHT, WIDTH = 1, 2


def mean_down(x: Image) -> Image:
    """Halve the resolution by the mean over 2x2 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def nearest_up(x: Image) -> Image:
    """Double the resolution by repeating every pixel 2x2 times (nearest neighbor)."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def fir_down(x: Image) -> Image:
    """Halve the resolution by the filter (1, 3, 3, 1) / 8 along both axes, centered on pixel pairs."""
    for axis in (HEIGHT, WIDTH):
        even, odd = _pairs(x, axis)
        x = (_shift(odd, 1, axis) + 3 * even + 3 * odd + _shift(even, -1, axis)) * 0.125
    return x


def fir_up(x: Image, border: int = 0) -> Image:
    """Double the resolution by zeros between pixels and the filter (1, 3, 3, 1) / 4 along both axes.

    An output pixel is the mean of the two nearest inputs with weights 3/4 and 1/4.

    Args:
        x: images.
        border: 1 to extend the output by one pixel on every side, where the filter still reaches the image; else 0.
    """
    for axis in (HEIGHT, WIDTH):
        even = (_shift(x, 1, axis) + 3 * x) * 0.25
        odd = (3 * x + _shift(x, -1, axis)) * 0.25
        y = _interleave(even, odd, axis)
        if border:
            first, last = (lax.slice_in_dim(x, i, i + 1, axis=axis) * 0.25 for i in (0, x.shape[axis] - 1))
            y = jnp.concatenate([first, y, last], axis)
        x = y
    return x


def fir_blur(x: Image) -> Image:
    """Filter with (1, 3, 3, 1) / 8 along both axes; the output has one pixel more in height and width.

    A 3x3 convolution without padding at stride 2 then halves the resolution.
    """
    for axis in (HEIGHT, WIDTH):
        padded = _pad(x, axis, 2, 2)
        size = x.shape[axis] + 1
        a, b, c, d = (lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(TAPS))
        x = (a + 3 * b + 3 * c + d) * 0.125
    return x


def _pairs(x: Image, axis: int) -> tuple[Image, Image]:
    """Return the pixels of even and of odd index along `axis`."""
    shape = (*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    even, odd = lax.split(x.reshape(shape), (1, 1), axis + 1)
    return lax.squeeze(even, (axis + 1,)), lax.squeeze(odd, (axis + 1,))


def _interleave(even: Image, odd: Image, axis: int) -> Image:
    """Invert `_pairs`."""
    shape = (*even.shape[:axis], 2 * even.shape[axis], *even.shape[axis + 1 :])
    return jnp.stack([even, odd], axis + 1).reshape(shape)


def _shift(x: Image, steps: int, axis: int) -> Image:
    """Shift `x` along `axis`: pixel i of the result is pixel i - steps, or zero beyond the border."""
    return _pad(x, axis, steps, -steps)


def _pad(x: Image, axis: int, before: int, after: int) -> Image:
    """Pad `x` with zeros along `axis`; negative numbers crop it."""
    config = [(before, after, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)
