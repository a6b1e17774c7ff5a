"""Small networks in the place of the published ones, which compile for minutes: the same fields and arguments."""

import jax.numpy as jnp
from flax import linen as nn

from score_sde_jax.networks import MODELS, WideResNet


class Unconditional(nn.Module):
    """One convolution, in place of a published unconditional network."""

    width: int = 128

    @nn.compact
    def __call__(self, x, condition, train=False):
        assert condition.noise is None
        return nn.Conv(x.shape[-1], (3, 3))(nn.tanh(nn.Conv(self.width, (3, 3))(x)))


class Conditional(nn.Module):
    """One convolution and a bias for every level, in place of a network conditioned on the level index."""

    width: int = 128
    num_levels: int = 10

    @nn.compact
    def __call__(self, x, condition, train=False):
        bias = nn.Embed(self.num_levels, self.width)(condition.noise)
        hidden = nn.tanh(nn.Conv(self.width, (3, 3))(x) + bias[:, None, None, :])
        return nn.Conv(x.shape[-1], (3, 3))(hidden)


class LinearClassifier(WideResNet):
    """One layer of pixels and condition, with the fields and the zero initialization of the real network."""

    @nn.compact
    def __call__(self, x, condition, train=False):
        features = jnp.concatenate([x.reshape(len(x), -1), condition.noise[:, None]], axis=1)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros)(features)


def unet(network):
    """The same fields and arguments, and one convolution with the condition, if there is one."""

    def call(self, x, condition, train=False, dropout_keys=None):
        assert (dropout_keys is None) == (not train or not self.dropout)
        hidden = nn.Conv(self.width, (3, 3))(x)
        if self.embedding != "none":
            hidden = hidden + nn.Dense(self.width)(jnp.sin(condition.noise.astype(x.dtype))[:, None])[:, None, None, :]
        return nn.Conv(x.shape[-1], (3, 3))(nn.tanh(hidden))

    return type(network.__name__, (network,), {"__call__": nn.compact(call)})


NETWORKS = dict(MODELS)
"""The networks themselves, whatever stands in their place."""
STAND_INS = {"ncsn": Conditional, "ncsnv2": Unconditional, "ncsnv2_deepest": Unconditional}
STAND_INS |= {name: unet(MODELS[name]) for name in ("ddpm", "ddpmpp", "ncsnpp")}
