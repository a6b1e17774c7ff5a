"""Samplers: a step is step(keys, x, t, s) -> x, and one `lax.scan` runs them all and carries what they remember.

`keys` holds one PRNG key for every image, so image number i depends on (seed, i) alone. Predictors (`predictors.py`)
move from time t to time s < t; correctors (`correctors.py`) move at time t; `chain` composes them; time grids are in
`times.py`.
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
