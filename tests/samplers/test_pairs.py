"""Every predictor with every corrector, in both orders, on VE, VP and sub-VP: moments of the samples."""

import functools
import itertools

import jax
import jax.numpy as jnp
import pytest
from closed_forms import SKEWED, assert_moments

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.sdes import VE, VP, SubVP
from score_sde_jax.samplers import CORRECTORS, GRIDS, PREDICTORS, Step, chain, denoise

# The published ranges, with less noise on VE and a later end on VP, so that few steps go far enough.
DIFFUSIONS = {"ve": VE(sigma_min=0.05, sigma_max=5.0), "vp": VP(t_min=1e-3), "subvp": SubVP(t_min=1e-3)}
OPTIONS = {
    "dormand_prince": {"rtol": 1e-3, "atol": 1e-3},
    "annealed_langevin": {"step_size": 0.1},
    "langevin": {"snr": 0.15},
}
PAIRS = [pair for pair in itertools.product(PREDICTORS, CORRECTORS) if pair != ("none", "none")]
ORDERS = {"corrector_predictor": 1, "predictor_corrector": -1}
NUM_STEPS, SHAPE = 60, (64, 8, 8, 1)
SPLIT = jax.jit(prng.split, static_argnums=1)


@functools.cache
def compiled(kind: str, name: str, **more: int) -> Step:
    """A step of the registries, compiled once for all the pairs that it is in."""
    sde = DIFFUSIONS[kind]
    step = (PREDICTORS | CORRECTORS)[name](sde, SKEWED.noise_fn(sde), **OPTIONS.get(name, {}), **more)
    return Step(jax.jit(step.call_with_nfe), nfe=None)


@functools.cache
def start(kind: str) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
    """Prior samples, times, and the keys of each step."""
    keys = prng.per_image(jax.random.key(11), jnp.arange(SHAPE[0]))
    times = list(GRIDS["uniform"](DIFFUSIONS[kind], num_steps=NUM_STEPS))
    return DIFFUSIONS[kind].prior(keys, jnp.zeros(SHAPE)), times, [prng.fold_in(keys, i) for i in range(1, len(times))]


@pytest.fixture(autouse=True)
def compiled_keys(monkeypatch):
    """Keys of the steps of a chain, by one compiled program: outside of `jit`, each call would trace it again."""
    monkeypatch.setattr(prng, "split", SPLIT)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("predictor", "corrector"), PAIRS)
@pytest.mark.parametrize("kind", DIFFUSIONS)
def test_pair_recovers_a_skewed_mixture(kind, predictor, corrector, order):
    """Moments 1 to 3 within 4 standard errors and the bias of 60 steps."""
    sde = DIFFUSIONS[kind]
    # A corrector without a predictor must reach the data distribution by itself.
    repeats = {} if corrector == "none" else {"num_steps": 24 if predictor == "none" else 1}
    steps = compiled(kind, corrector, **repeats), compiled(kind, predictor)
    step = chain(*steps[:: ORDERS[order]])
    x, times, keys = start(kind)
    for key, (t, s) in zip(keys, itertools.pairwise(times), strict=True):
        x = step(key, x, t, s)
    assert_moments(denoise(sde, SKEWED.noise_fn(sde), x, times[-1]), SKEWED, bias=0.06)
