"""RefineNet of NCSN and NCSNv2: a dilated ResNet with multi-path refinement.

Submodules have the names of the published PyTorch weights. Sources: RefineNet (arXiv 1611.06612), NCSN (arXiv
1907.05600, Appendix A), NCSNv2 (arXiv 2006.09011, Appendix B).
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from score_sde_jax.errors import UserError
from score_sde_jax.networks.layers import Image, LevelIndex, block_output, conv, mean_pool_2x2, resize_bilinear

Norm = Callable[..., nn.Module]  # Called with `name`, returns a module (x, condition) -> x.
Pool = Callable[[Image], Image]


class ConvMeanPool(nn.Module):
    """Convolution followed by the mean over 2x2 pixels."""

    features: int
    dtype: DTypeLike
    size: int = 3

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Return `x` at half the resolution."""
        return mean_pool_2x2(conv(x, self.features, size=self.size, dtype=self.dtype, name="conv"))


class ResidualBlock(nn.Module):
    """Residual block (norm, ELU, conv) twice, plus a shortcut.

    Attributes:
        features: number of output channels.
        norm: constructor of the norms.
        dtype: dtype of the computation.
        halve: whether the block halves the resolution; the shortcut is then a convolution.
        project: whether the shortcut is a convolution at the same resolution, for the first block of a dilated stage.
        dilation: dilation of the convolutions.
    """

    features: int
    norm: Norm
    dtype: DTypeLike
    halve: bool = False
    project: bool = False
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Image, condition: LevelIndex) -> Image:
        """Return `features` channels, at half the resolution if `halve`."""
        dilated = functools.partial(conv, dilation=self.dilation, dtype=self.dtype)
        h = self.norm(activation=nn.elu, name="normalize1")(x, condition)
        h = dilated(h, x.shape[-1], name="conv1")
        h = self.norm(activation=nn.elu, name="normalize2")(h, condition)
        if self.halve:
            h = ConvMeanPool(self.features, dtype=self.dtype, name="conv2")(h)
            x = ConvMeanPool(self.features, size=1, dtype=self.dtype, name="shortcut")(x)
        else:
            h = dilated(h, self.features, name="conv2")
            x = dilated(x, self.features, name="shortcut") if self.project else x
        return block_output(x + h)


class ResidualConvUnits(nn.Module):
    """Residual convolution units (RCU) of RefineNet: (norm, ELU, conv) twice plus the identity."""

    num_units: int
    norm: Norm | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Image, condition: LevelIndex) -> Image:
        """Return features of the same shape."""
        for unit in range(1, self.num_units + 1):
            h = x
            for stage in (1, 2):
                name = f"{unit}_{stage}_norm"
                h = self.norm(activation=nn.elu, name=name)(h, condition) if self.norm else nn.elu(h)
                h = conv(h, x.shape[-1], use_bias=False, dtype=self.dtype, name=f"{unit}_{stage}_conv")
            x = block_output(x + h)
        return x


class MultiResolutionFusion(nn.Module):
    """Multi-resolution fusion of RefineNet: norm, convolution and resizing of each input, then the sum."""

    features: int
    norm: Norm | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, xs: Sequence[Image], condition: LevelIndex) -> Image:
        """Return the sum at the resolution of `xs[0]`."""
        height, width = xs[0].shape[1:3]
        resized = []
        for i, x in enumerate(xs):
            if self.norm:
                x = self.norm(name=f"norms_{i}")(x, condition)
            x = conv(x, self.features, dtype=self.dtype, name=f"convs_{i}")
            resized.append(resize_bilinear(x, height, width))
        return functools.reduce(jnp.add, resized)


class ChainedResidualPooling(nn.Module):
    """Chained residual pooling (CRP) of RefineNet: two (norm, pool, conv), each added to the input."""

    norm: Norm | None
    pool: Pool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Image, condition: LevelIndex) -> Image:
        """Return ELU(x) plus the outputs of both links of the chain."""
        x = link = nn.elu(x)
        for i in range(2):
            if self.norm:
                link = self.norm(name=f"norms_{i}")(link, condition)
            link = self.pool(link)
            link = conv(link, x.shape[-1], use_bias=False, dtype=self.dtype, name=f"convs_{i}")
            x = block_output(x + link)
        return x


class RefineBlock(nn.Module):
    """Block of RefineNet: RCUs of each input, fusion, chained pooling, RCUs of the result."""

    features: int
    norm: Norm | None
    pool: Pool
    dtype: DTypeLike
    num_output_units: int = 1

    @nn.compact
    def __call__(self, xs: Sequence[Image], condition: LevelIndex) -> Image:
        """Return `features` channels at the resolution of `xs[0]`; a single input has no fusion."""
        rcu = functools.partial(ResidualConvUnits, norm=self.norm, dtype=self.dtype)
        xs = [rcu(2, name=f"adapt_convs_{i}")(x, condition) for i, x in enumerate(xs)]
        if len(xs) > 1:
            fuse = MultiResolutionFusion(self.features, self.norm, self.dtype, name="msf")
            x = fuse(xs, condition)
        else:
            x = xs[0]
        x = ChainedResidualPooling(self.norm, self.pool, self.dtype, name="crp")(x, condition)
        return rcu(self.num_output_units, name="output_convs")(x, condition)


class Stage(NamedTuple):
    """One resolution or dilation of the backbone.

    Attributes:
        backbone: name of the residual blocks.
        refine: name of the refinement block that reads the stage.
        width: number of channels, in multiples of the width of the network.
        halve: whether the first block halves the resolution.
        dilation: dilation of the convolutions; a dilated stage keeps the resolution.
    """

    backbone: str
    refine: str
    width: int
    halve: bool = False
    dilation: int = 1


def refinenet(
    x: Image,
    condition: LevelIndex,
    stages: Sequence[Stage],
    width: int,
    *,
    norm: Norm,
    refine_norm: Norm | None,
    pool: Pool,
    dtype: DTypeLike,
) -> Image:
    """Apply the ResNet stages and their refinements; for use inside a compact method.

    The refinement of a stage has the number of channels of the next shallower stage.

    Args:
        x: images.
        condition: index of the noise level, for the norms; None if they are unconditional.
        stages: stages of the backbone, from full resolution down.
        width: number of channels at full resolution.
        norm: constructor of the norms of the backbone.
        refine_norm: constructor of the norms of the refinement; None for no norms.
        pool: pooling of the refinement.
        dtype: dtype of the computation.

    Raises:
        UserError: the image size is not divisible by 2 for every stage with `halve`.
    """
    check_divisible(x.shape[1], x.shape[2], 2 ** sum(stage.halve for stage in stages))
    block = functools.partial(ResidualBlock, norm=norm, dtype=dtype)
    h = conv(x, width, dtype=dtype, name="begin_conv")
    features = []
    for name, _, multiple, halve, dilation in stages:
        stage = functools.partial(block, multiple * width, dilation=dilation)
        h = stage(halve=halve, project=dilation > 1, name=f"{name}_0")(h, condition)
        h = stage(name=f"{name}_1")(h, condition)
        features.append(h)

    refined: list[Image] = []
    for i in reversed(range(len(stages))):
        shallower = stages[max(i - 1, 0)]
        refine = RefineBlock(
            shallower.width * width,
            refine_norm,
            pool,
            dtype,
            num_output_units=3 if i == 0 else 1,
            name=stages[i].refine,
        )
        refined = [refine([features[i], *refined], condition)]
    h = norm(activation=nn.elu, name="normalizer")(refined[0], condition)
    return conv(h, x.shape[-1], dtype=dtype, name="end_conv").astype(x.dtype)


def check_divisible(height: int, width: int, factor: int) -> None:
    """Raise UserError unless both sides are multiples of `factor`."""
    if height % factor or width % factor:
        raise UserError(
            f"--config.data.image_size={height},{width}: image size must be a multiple of {factor} for this network, "
            f"got {height}x{width}"
        )
