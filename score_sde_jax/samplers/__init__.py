"""Samplers: predictors, correctors, time grids, and one `lax.scan` that runs them.

A sampler step maps x from time t to time s: step(keys, x, t, s) -> x, with one PRNG key per image. A predictor
(`predictors.py`) has s < t; a corrector (`correctors.py`) stays at time t. `chain` composes steps, such as a predictor
and a corrector, and `run` applies a step along a time grid (`times.py`).
"""

from score_sde_jax.samplers.correctors import CORRECTORS
from score_sde_jax.samplers.flow import decode, encode, interpolate
from score_sde_jax.samplers.predictors import PREDICTORS
from score_sde_jax.samplers.run import PRIORS, Sampler, Samples, denoise, run
from score_sde_jax.samplers.step import Step, chain
from score_sde_jax.samplers.times import GRIDS

__all__ = [
    "CORRECTORS",
    "GRIDS",
    "PREDICTORS",
    "PRIORS",
    "Sampler",
    "Samples",
    "Step",
    "chain",
    "decode",
    "denoise",
    "encode",
    "interpolate",
    "run",
]
