"""The RefineNet that NCSN and NCSNv2 share: a dilated ResNet and its multi-path refinement.

Sources: RefineNet (arXiv 1611.06612), NCSN (arXiv 1907.05600, appendix A), NCSNv2
(arXiv 2006.09011, appendix B). Submodules carry the names of the published PyTorch weights.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from score_sde_jax.errors import UserError
from score_sde_jax.networks.layers import Image, LevelIndex, block_output, conv, mean_pool_2x2, resize_bilinear

Norm = Callable[..., nn.Module]  # called with `name`; gives a module (x, condition) -> x
Pool = Callable[[Image], Image]


class ConvMeanPool(nn.Module):
    """A convolution, then the mean of 2x2 pixels."""

    features: int
    dtype: DTypeLike
    size: int = 3

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Return `x` at half the resolution."""
        return mean_pool_2x2(conv(x, self.features, size=self.size, dtype=self.dtype, name="conv"))


class ResidualBlock(nn.Module):
    """norm, ELU, conv, norm, ELU, conv, plus a shortcut.

    The shortcut is the identity in a plain block and a convolution in one that halves the
    resolution (`halve`) or enters a dilated stage (`project`).
    """

    features: int
    norm: Norm
    dtype: DTypeLike
    halve: bool = False
    project: bool = False
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Image, condition: LevelIndex) -> Image:
        """Return the block's output, with `features` channels."""
        dilated = functools.partial(conv, dilation=self.dilation, dtype=self.dtype)
        h = nn.elu(self.norm(name="normalize1")(x, condition))
        h = dilated(h, x.shape[-1], name="conv1")
        h = nn.elu(self.norm(name="normalize2")(h, condition))
        if self.halve:
            h = ConvMeanPool(self.features, dtype=self.dtype, name="conv2")(h)
            x = ConvMeanPool(self.features, size=1, dtype=self.dtype, name="shortcut")(x)
        else:
            h = dilated(h, self.features, name="conv2")
            x = dilated(x, self.features, name="shortcut") if self.project else x
        return block_output(x + h)


class ResidualConvUnits(nn.Module):
    """RefineNet's RCU: units of (norm, ELU, conv) twice, each unit with a residual sum."""

    num_units: int
    norm: Norm | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Image, condition: LevelIndex) -> Image:
        """Return `x` after all units, in the same shape."""
        for unit in range(1, self.num_units + 1):
            h = x
            for stage in (1, 2):
                if self.norm:
                    h = self.norm(name=f"{unit}_{stage}_norm")(h, condition)
                h = conv(
                    nn.elu(h),
                    x.shape[-1],
                    use_bias=False,
                    dtype=self.dtype,
                    name=f"{unit}_{stage}_conv",
                )
            x = block_output(x + h)
        return x


class MultiResolutionFusion(nn.Module):
    """RefineNet's MSF: a norm and a convolution of each input, resized to the first, summed."""

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
    """RefineNet's CRP: a chain of two (norm, pool, conv), every link added to the input."""

    norm: Norm | None
    pool: Pool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Image, condition: LevelIndex) -> Image:
        """Return ELU(x) plus both links of the chain."""
        x = link = nn.elu(x)
        for i in range(2):
            if self.norm:
                link = self.norm(name=f"norms_{i}")(link, condition)
            link = self.pool(link)
            link = conv(link, x.shape[-1], use_bias=False, dtype=self.dtype, name=f"convs_{i}")
            x = block_output(x + link)
        return x


class RefineBlock(nn.Module):
    """RefineNet's block: RCU of each input, fusion, chained pooling, RCU of the result."""

    features: int
    norm: Norm | None
    pool: Pool
    dtype: DTypeLike
    num_output_units: int = 1

    @nn.compact
    def __call__(self, xs: Sequence[Image], condition: LevelIndex) -> Image:
        """Return `features` channels at the resolution of `xs[0]`; a single input is not fused."""
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
    """One resolution or dilation of the backbone, and the refinement that ends there."""

    backbone: str
    refine: str
    width: int  # channels, in multiples of the network's width
    halve: bool = False  # the first block halves the resolution
    dilation: int = 1  # above 1 the stage keeps the resolution


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
    """Run a ResNet down the stages and refine its features back up; call it in a compact method.

    The refinement of a stage gives as many channels as the next shallower stage has.

    Raises UserError if the image cannot be halved as often as the stages ask.
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
    h = nn.elu(norm(name="normalizer")(refined[0], condition))
    return conv(h, x.shape[-1], dtype=dtype, name="end_conv").astype(x.dtype)


def check_divisible(height: int, width: int, factor: int) -> None:
    """Raise UserError unless both sides are multiples of `factor`."""
    if height % factor or width % factor:
        raise UserError(f"image size {height}x{width}: this network needs sides that are multiples of {factor}")
