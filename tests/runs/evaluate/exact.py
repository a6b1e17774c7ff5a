"""A network that is the exact noise prediction of Gaussian data, and the files of its evaluation."""

import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from experiments import loaded
from flax import linen as nn

from score_sde_jax import keys as prng
from score_sde_jax import settings
from score_sde_jax.diffusion.sdes import VE, VP, SubVP
from score_sde_jax.runs import step as state

MEAN, STD = 0.3, 0.4
OFF, DECAY = 0.5, 0.5
"""How far the raw parameters of every run are from the exact ones, and the decay of the averages, which are exact."""
EXACT_SDES = {"ve": VE(sigma_min=0.05, sigma_max=4.0), "vp": VP(), "subvp": SubVP()}
OVERRIDES = {"ve": ["sde.sigma_min=0.05", "sde.sigma_max=4.0"], "vp": ["sde.name=vp"], "subvp": ["sde.name=subvp"]}


class Exact(nn.Module):
    """E[eps | x_t] of data that are N(MEAN, STD^2) in every pixel, conditioned on t."""

    takes_points: ClassVar[bool] = True

    kind: str = "vp"

    @nn.compact
    def __call__(self, x, condition, train=False):
        mean = self.param("mean", nn.initializers.constant(MEAN), ())
        sde, t = EXACT_SDES[self.kind], prng.bcast(condition.noise, x)
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return sigma * (x - alpha * mean) / ((alpha * STD) ** 2 + sigma**2)


def finished(kind, *assignments, base="digits"):
    """A config of the exact network, which one step at rate 0 does not change."""
    config = loaded(base, ":debug")
    del config.sampler
    known = ["model.name=exact", f"model.kind={kind}", "parameterization.name=noise", "parameterization.center=0.0"]
    known += ["parameterization.condition.name=scaled_time", "parameterization.condition.scale=1.0"]
    known += [
        f"train.ema_decay={DECAY}",
        "loss.times.name=uniform",
        "optimizer.learning_rate=0.0",
        "train.steps=1",
        "train.preview_every=0",
    ]
    return settings.from_config(config, [*known, *OVERRIDES[kind], *assignments])


def init_state(params, optimizer, averages=()):
    """A state whose average is that of `params` after one step at rate 0, while the raw parameters are not."""
    raw = jax.tree.map(
        lambda leaf: leaf + OFF * (1 + jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), params
    )
    before = jax.tree.map(lambda exact, raw: raw + (exact - raw) / DECAY, params, raw)
    return state.init_state(raw, optimizer, averages).replace(ema_params=before)


def metrics(output):
    return json.loads((output / "metrics.json").read_text())


def lines_of(output, name):
    return [json.loads(line) for line in (output / f"{name}.jsonl").read_text().splitlines()]


def column(output, name, key):
    return np.array([value for row in lines_of(output, name) for value in row[key]])
