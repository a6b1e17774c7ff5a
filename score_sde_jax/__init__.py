"""Score-based generative models of images as pure functions in JAX.

The names below are the public interface of the package; its subpackages hold the rest.
"""

from score_sde_jax import keys, samplers
from score_sde_jax.condition import Condition
from score_sde_jax.data import DATASETS, Pixels, training_batches
from score_sde_jax.devices.parallel import PARALLEL
from score_sde_jax.diffusion.losses import TIMES, WEIGHTS, score_matching_loss
from score_sde_jax.diffusion.parameterization import CONDITIONS, PARAMETERIZATIONS, Parameterization
from score_sde_jax.diffusion.sdes import DDPM, EDM, SDE, SDES, VE, VP, SubVP
from score_sde_jax.errors import RunError, StoppedError, UserError
from score_sde_jax.networks import MODELS
from score_sde_jax.samplers import CORRECTORS, GRIDS, PREDICTORS, Sampler
from score_sde_jax.version import __version__

__all__ = [
    "CONDITIONS",
    "CORRECTORS",
    "DATASETS",
    "DDPM",
    "EDM",
    "GRIDS",
    "MODELS",
    "PARALLEL",
    "PARAMETERIZATIONS",
    "PREDICTORS",
    "SDE",
    "SDES",
    "TIMES",
    "VE",
    "VP",
    "WEIGHTS",
    "Condition",
    "Parameterization",
    "Pixels",
    "RunError",
    "Sampler",
    "StoppedError",
    "SubVP",
    "UserError",
    "__version__",
    "keys",
    "samplers",
    "score_matching_loss",
    "training_batches",
]
