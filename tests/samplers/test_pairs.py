"""Every predictor with every corrector, in both orders, on VE, VP and sub-VP: moments of the samples."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from closed_forms import SKEWED, assert_moments

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.sdes import VE, VP, SubVP
from score_sde_jax.samplers import CORRECTORS, GRIDS, PREDICTORS, Step, chain, denoise, run

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
# Without a predictor, only the corrector moves samples to the data distribution, which takes more steps.
ALONE = {"num_steps": 24}
STEPS = [(name, {}) for name in PREDICTORS]
STEPS += [(name, more) for more in ({"num_steps": 1}, ALONE) for name in CORRECTORS if name != "none"]


@functools.cache
def compiled(kind: str) -> Callable:
    """Samples with the steps of two numbers: one compiled program has all steps and serves all pairs."""
    sde = DIFFUSIONS[kind]

    def step(noise_fn, number):
        make = PREDICTORS | CORRECTORS
        steps = [make[name](sde, noise_fn, **OPTIONS.get(name, {}), **more) for name, more in STEPS]
        moves = [step.call_with_nfe for step in steps]
        return Step(lambda *inputs: jax.lax.switch(number, moves, *inputs), nfe=None)

    @jax.jit
    def draw(numbers):
        noise_fn, times = SKEWED.noise_fn(sde), GRIDS["uniform"](sde, num_steps=NUM_STEPS)
        keys = prng.per_image(jax.random.key(11), jnp.arange(SHAPE[0]))
        both = chain(*(step(noise_fn, number) for number in numbers))
        x = run(both, times, keys, sde.prior(keys, jnp.zeros(SHAPE))).images
        return denoise(sde, noise_fn, x, times[-1])

    return draw


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("predictor", "corrector"), PAIRS)
@pytest.mark.parametrize("kind", DIFFUSIONS)
def test_pair_recovers_a_skewed_mixture(kind, predictor, corrector, order):
    """Moments 1 to 3 within 4 standard errors and the bias of 60 steps."""
    repeats = {} if corrector == "none" else ALONE if predictor == "none" else {"num_steps": 1}
    numbers = [STEPS.index(step) for step in ((corrector, repeats), (predictor, {}))]
    assert_moments(compiled(kind)(numbers[:: ORDERS[order]]), SKEWED, bias=0.06)
