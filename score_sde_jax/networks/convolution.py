"""Convolution of every network: XLA's on accelerators, an equal and faster one on CPUs.

On a CPU, XLA's convolution runs below the rate of its matrix product, and its weight gradient more than 100 times
slower inside a loop (`benchmarks/conv_in_scan.py`). Winograd's algorithm, written as sums and a batched matrix product,
needs a quarter of the multiplications, and its derivatives are sums and products too. `benchmarks/speed.py` measures
whole networks.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from score_sde_jax.devices.machine import on_cpu

Pads = Sequence[tuple[int, int]]

NHWC = ("NHWC", "HWIO", "NHWC")
MIN_CHANNELS = 16  # With fewer channels the sums of Winograd cost more than its products save.
MIN_TILES = 32  # With fewer tiles in the batch the transform of the weights costs more.
MANY_TILES = 128  # With as many tiles in the batch, nine separate products are faster than one.

TILE, TAPS = 4, 3
# These points are exact in binary, and their rounding error is a fifth of that of the usual 0, +-1 and +-2.
POINTS = (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)


_native_only = contextvars.ContextVar("native_only", default=False)


@contextlib.contextmanager
def native_convolutions() -> Iterator[None]:
    """Trace every convolution as XLA's own, for programs whose operations are counted."""
    token = _native_only.set(True)
    try:
        yield
    finally:
        _native_only.reset(token)


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

    On a CPU, a 1x1 convolution of NHWC images at stride 1 is a matrix product. A 3x3 convolution with at least
    MIN_CHANNELS input and output channels, dilated or not, is `winograd`, or `im2col` for few and small images. All
    other convolutions, and all convolutions on other platforms, are XLA's.
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
    if (
        _native_only.get()
        or not on_cpu()
        or lhs.ndim != 4
        or dimension_numbers != lax.conv_dimension_numbers(lhs.shape, rhs.shape, NHWC)
        or {*window_strides, *(lhs_dilation or ()), feature_group_count} != {1}
    ):
        return native(lhs, rhs)
    dilation = (rhs_dilation[0], rhs_dilation[1]) if rhs_dilation else (1, 1)
    if isinstance(padding, str):
        window = [(n - 1) * d + 1 for n, d in zip(rhs.shape[:2], dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], window, window_strides, padding)
    if rhs.shape[:2] == (1, 1) and not np.any(padding):
        return pointwise(lhs, rhs[0, 0])
    if rhs.shape[:2] == (TAPS, TAPS) and min(rhs.shape[2:]) >= MIN_CHANNELS:
        pads = tuple((before, after) for before, after in padding)
        size = [n + sum(p) - 2 * d for n, p, d in zip(lhs.shape[1:3], pads, dilation, strict=True)]
        tiles = lhs.shape[0] * math.prod(d * -(-n // (TILE * d)) for n, d in zip(size, dilation, strict=True))
        algorithm = winograd if tiles >= MIN_TILES else im2col
        return rematerialized(lhs, rhs, algorithm=algorithm, pads=pads, dilation=dilation)
    return native(lhs, rhs)


def pointwise(
    x: Float[Array, "*places in"], w: Float[Array, "in out"], precision: lax.PrecisionLike = None
) -> Float[Array, "*places out"]:
    """Return the matrix product of the features of every pixel with `w`."""
    # The pixels are flattened into one axis. With several axes, XLA on a CPU materializes a transpose for the gradient
    # of `w`, which takes up to three times as long.
    product = jnp.dot(x.reshape(-1, x.shape[-1]), w, precision=precision)
    return product.reshape(*x.shape[:-1], w.shape[-1])


@functools.partial(jax.jit, static_argnames=("algorithm", "pads", "dilation"))
def rematerialized(
    x: Float[Array, "batch height width in"],
    w: Float[Array, "3 3 in out"],
    algorithm: Callable[..., Float[Array, "batch out_height out_width out"]],
    pads: Pads,
    dilation: tuple[int, int],
) -> Float[Array, "batch out_height out_width out"]:
    """Return `algorithm(x, w)`, rematerialized so that it stores x and w alone, as XLA's does.

    The function is jitted so that convolutions of the same shape are traced once.
    """
    return jax.checkpoint(functools.partial(algorithm, pads=pads, dilation=dilation), prevent_cse=False)(x, w)


def im2col(
    x: Float[Array, "batch height width in"],
    w: Float[Array, "3 3 in out"],
    pads: Pads,
    dilation: tuple[int, int] = (1, 1),
) -> Float[Array, "batch out_height out_width out"]:
    """Correlate `x`, padded with zeros, with `w` at stride 1, by a product of patches (im2col)."""
    size = [n + sum(p) - 2 * d for n, p, d in zip(x.shape[1:3], pads, dilation, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)])
    corners = [(i * dilation[0], j * dilation[1]) for i, j in np.ndindex(TAPS, TAPS)]
    ends = [(len(x), i + size[0], j + size[1], x.shape[-1]) for i, j in corners]
    patches = [lax.slice(x, (0, *corner, 0), end) for corner, end in zip(corners, ends, strict=True)]
    return pointwise(jnp.concatenate(patches, axis=-1), w.reshape(-1, w.shape[-1]))


def winograd(
    x: Float[Array, "batch height width in"],
    w: Float[Array, "3 3 in out"],
    pads: Pads,
    dilation: tuple[int, int] = (1, 1),
) -> Float[Array, "batch out_height out_width out"]:
    """Correlate `x`, padded with zeros, with `w` at stride 1 by Winograd's F(4x4, 3x3).

    A (G w G' * B x B') A' of 6x6 inputs is a 4x4 tile of the output. The output tiles partition the output; the input
    tiles overlap by two pixels. A dilated convolution is an undilated one of interleaved images, whose index takes two
    more axes of `x`. The computation is at least float32; the root-mean-square error is about 1e-6 of the output.

    Reference: arXiv 1509.09308, eq. 8.
    """
    stride = [TILE * d for d in dilation]
    size = [n + sum(p) - 2 * d for n, p, d in zip(x.shape[1:3], pads, dilation, strict=True)]
    tiles = [-(-n // s) for n, s in zip(size, stride, strict=True)]
    # The input has one tile more than the output, since the last output tile reads two pixels of the next input tile.
    grow = [(p[0], (t + 1) * s - n - p[0], 0) for n, p, t, s in zip(x.shape[1:3], pads, tiles, stride, strict=True)]
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    x = lax.pad(x.astype(wide), jnp.zeros((), wide), [(0, 0, 0), *grow, (0, 0, 0)])
    (rows, columns), (d, e) = tiles, dilation
    x = x.reshape(-1, rows + 1, TILE, d, columns + 1, TILE, e, x.shape[-1])
    many = len(x) * rows * d * columns * e >= MANY_TILES
    # XLA may run one batched product on one thread, whereas several products run on all threads.
    parts = [slice(i, i + 2) for i in range(0, TILE + TAPS - 1, 2)] if many else [slice(None)]
    w = w.astype(wide)
    v = combine(B, overlapping_tiles(x, 1))  # Transform along the rows of a tile.
    ys = []
    for some_rows in parts:
        vs = combine(B, overlapping_tiles(jnp.stack(v[some_rows]), 4))  # Transform along its columns.
        m = []
        for some_columns in parts:
            g = GG[some_columns, some_rows].astype(wide)
            u = jnp.dot(g.reshape(-1, TAPS**2), w.reshape(TAPS**2, -1))  # Sums would write u twice.
            m += products(jnp.stack(vs[some_columns]), u.reshape(*g.shape[:2], *w.shape[2:]))
        ys += unstack(jnp.stack(combine(A, m), 5), 0)
    y = jnp.stack(combine(A, ys), 2)
    y = y.reshape(-1, rows * stride[0], columns * stride[1], y.shape[-1])
    return y[:, : size[0], : size[1]].astype(dtype)


def products(v: Float[Array, "p q *places in"], u: Float[Array, "p q in out"]) -> list[Float[Array, "q *places out"]]:
    """Return the matrix products v[p, q] @ u[p, q], one array for each p."""
    m = jnp.einsum("pqtc,pqco->pqto", v.reshape(*v.shape[:2], -1, v.shape[-1]), u)
    return unstack(m.reshape(*v.shape[:-1], m.shape[-1]), 0)


def overlapping_tiles(x: Float[Array, "..."], axis: int) -> list[Float[Array, "..."]]:
    """Return the pixels of every input tile: its own (`axis + 1`) and the first two of the next tile."""
    pixels = unstack(x, axis + 1)
    own = [lax.slice_in_dim(pixel, 0, -1, axis=axis) for pixel in pixels]
    return own + [lax.slice_in_dim(pixel, 1, None, axis=axis) for pixel in pixels[: TAPS - 1]]


def unstack(x: Float[Array, "..."], axis: int) -> list[Float[Array, "..."]]:
    """Return the entries of `x` along `axis`.

    The gradient of `lax.split` is a concatenation. The gradient of indexing is a sum of padded arrays, which is several
    times slower.
    """
    return [lax.squeeze(part, (axis,)) for part in lax.split(x, (1,) * x.shape[axis], axis)]


def combine(matrix: np.ndarray, terms: Sequence[Float[Array, "..."]]) -> list[Float[Array, "..."]]:
    """Return the product matrix @ terms, without the terms of weight 0."""
    rows = [[(c, term) for c, term in zip(row, terms, strict=True) if c] for row in matrix]
    return [functools.reduce(jnp.add, [float(c) * term for c, term in row]) for row in rows]


def cook_toom_matrices(points: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrices (A, G, B) for which A (G w * B x) correlates `TAPS` weights w with x.

    The values of a product of polynomials at the points and its leading coefficient determine it (Lagrange
    interpolation). A correlation is the transpose of such a product: A and G evaluate, B interpolates.
    """
    z = np.array(points, float)
    others = [np.delete(z, i) for i in range(len(z))]
    scale = np.array([np.prod(p - rest) for p, rest in zip(z, others, strict=True)])
    ascending = np.polynomial.polynomial.polyfromroots
    a = np.column_stack([np.vander(z, TILE, increasing=True).T, np.eye(TILE)[-1]])
    g = np.vstack([np.vander(z, TAPS, increasing=True) / scale[:, None], np.eye(TAPS)[-1]])
    b = np.vstack([[*ascending(rest), 0] for rest in others] + [ascending(z)])
    return a, g, b


A, G, B = cook_toom_matrices(POINTS)
GG = np.einsum("pi,qj->qpij", G, G)  # G w G' = GG w, with the columns as the first axis.
