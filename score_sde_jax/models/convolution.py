"""The convolution of every network: XLA's own on accelerators, an equal but faster one on CPUs.

On a CPU, XLA's convolution runs below the rate of its matrix product, and its weight gradient up to
70 times slower inside a loop. Winograd's algorithm, written as sums and one product of matrices,
needs a quarter of the multiplications, and its derivatives are sums and products too.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Pads = Sequence[tuple[int, int]]

NHWC = ("NHWC", "HWIO", "NHWC")
MIN_CHANNELS = 32  # with fewer, the transforms cost more than the products save

# F(4, 3): y = A (G w * B x) is the correlation of three weights with six inputs, that is four
# outputs, in six products (Lavin and Gray, arXiv 1509.09308, section 4.3).
TILE = 4
A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
B = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24


def convolve(
    lhs: Float[Array, "..."],
    rhs: Float[Array, "..."],
    window_strides: Sequence[int],
    padding: str | Pads,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: lax.ConvDimensionNumbers | None = None,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> Float[Array, "..."]:
    """Return `lax.conv_general_dilated` of the same arguments; the hook of `nn.Conv`.

    On a CPU, a 3x3 convolution of NHWC images at stride 1 (dilated or not) with at least
    `MIN_CHANNELS` channels in and out is Winograd's F(4x4, 3x3); float32 results then differ from
    the exact ones by about 1e-5 of the largest.
    """
    native = functools.partial(
        lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    undilated = (1,) * (lhs.ndim - 2)
    dilation = tuple(rhs_dilation or undilated)
    suits_winograd = (
        dimension_numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, NHWC)
        and rhs.shape[:2] == (3, 3)
        and min(rhs.shape[2:]) >= MIN_CHANNELS
        and tuple(window_strides) == tuple(lhs_dilation or undilated) == undilated
        and dilation[0] == dilation[1]
        and feature_group_count == 1
        and lhs.dtype == jnp.float32  # the transforms would lose the few digits of a bfloat16
    ) if lhs.ndim == 4 else False
    if not suits_winograd:
        return native(lhs, rhs)
    if isinstance(padding, str):
        window = [2 * d + 1 for d in dilation]
        padding = lax.padtype_to_pads(lhs.shape[1:3], window, window_strides, padding)
    fast = functools.partial(winograd, pads=padding, dilation=dilation[0])
    return lax.platform_dependent(lhs, rhs, cpu=fast, default=native)


def winograd(
    x: Float[Array, "batch height width in"],
    w: Float[Array, "3 3 in out"],
    pads: Pads,
    dilation: int = 1,
) -> Float[Array, "batch out_height out_width out"]:
    """Correlate `x`, padded with zeros, with `w` at stride 1 by Winograd's F(4x4, 3x3).

    Tiles of the output do not overlap, so they are a reshape; those of the input overlap by two
    pixels, read from the next tile. A dilated convolution is one plain convolution of each of
    dilation^2 interleaved images, which the reshape makes two more axes.
    """
    out = [size + sum(pad) - 2 * dilation for size, pad in zip(x.shape[1:3], pads, strict=True)]
    stride = TILE * dilation
    rows, columns = (-(-size // stride) for size in out)
    grow = [
        (low, (tiles + 1) * stride - size - low, 0)
        for tiles, size, (low, _) in zip((rows, columns), x.shape[1:3], pads, strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *grow, (0, 0, 0)])
    x = x.reshape(-1, rows + 1, TILE, dilation, columns + 1, TILE, dilation, x.shape[-1])
    v = jnp.stack(combine(B, overlapping_tiles(x, 1)))
    v = jnp.stack(combine(B, overlapping_tiles(v, 4)))
    u = jnp.stack(combine(G, unstack(w, 0)))
    u = jnp.stack(combine(G, unstack(u, 1)))
    m = jnp.einsum("pqtc,pqco->pqto", v.reshape(6, 6, -1, v.shape[-1]), u)
    m = m.reshape(*v.shape[:-1], m.shape[-1])
    y = jnp.stack(combine(A, unstack(m, 0)), 5)
    y = jnp.stack(combine(A, unstack(y, 0)), 2)
    return y.reshape(y.shape[0], rows * stride, columns * stride, -1)[:, : out[0], : out[1]]


def overlapping_tiles(x: Float[Array, "..."], axis: int) -> list[Float[Array, "..."]]:
    """Return the six pixels of every tile along `axis`, whose four own are along `axis + 1`."""
    pixels = unstack(x, axis + 1)
    own = [lax.slice_in_dim(pixel, 0, -1, axis=axis) for pixel in pixels]
    return own + [lax.slice_in_dim(pixel, 1, None, axis=axis) for pixel in pixels[:2]]


def unstack(x: Float[Array, "..."], axis: int) -> list[Float[Array, "..."]]:
    """Return the entries of `x` along `axis`, with a concatenation for a gradient.

    The gradient of slices is a sum of padded arrays, several times slower.
    """
    return [lax.squeeze(part, (axis,)) for part in lax.split(x, (1,) * x.shape[axis], axis)]


def combine(matrix: np.ndarray, terms: Sequence[Float[Array, "..."]]) -> list[Float[Array, "..."]]:
    """Return matrix @ terms as sums of the terms with weights other than 0."""
    return [
        functools.reduce(
            jnp.add, [float(c) * term for c, term in zip(row, terms, strict=True) if c]
        )
        for row in matrix
    ]
