"""One experiment without default values, as overrides and as objects built by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from experiments import finished
from flax import linen as nn

from score_sde_jax import keys as prng
from score_sde_jax import samplers
from score_sde_jax.data import DATASETS
from score_sde_jax.diffusion import losses, parameterization
from score_sde_jax.diffusion.parameterization import Parameterization
from score_sde_jax.diffusion.sdes import VP
from score_sde_jax.samplers import correctors, predictors, times

SEED, LEVELS, LOW, HIGH = 5, 17, -0.5, 1.5
ASSIGNMENTS = (
    "seed=5 data.split=test data.flip=true data.dequantize=true data.value_range=(-0.5,1.5) "
    "model.name=dropping model.width=6 model.dropout=0.3 "
    "sde.name=vp sde.t_min=0.001 sde.t_max=0.9 sde.beta_min=0.2 sde.beta_max=15.0 "
    "parameterization.name=edm parameterization.sigma_data=0.7 parameterization.center=0.2 "
    "parameterization.input_scale=1.5 parameterization.condition.name=scaled_time "
    "parameterization.condition.scale=5.0 "
    "loss.times.name=ladder loss.times.num_levels=7 loss.weight.name=edm loss.weight.sigma_data=0.3 "
    "loss.reduction=half_sum "
    "optimizer.learning_rate=0.01 optimizer.warmup_steps=1 optimizer.decay=cosine optimizer.beta1=0.8 "
    "optimizer.beta2=0.95 optimizer.eps=1e-4 optimizer.weight_decay=0.05 optimizer.gradient_clip=20.0 "
    "train.steps=3 train.batch_size=6 train.ema_decay=0.7 train.log_every=1 train.preview_every=2 "
    "checkpoint.every=3 sampler.prior=uniform sampler.temperature=0.7 sampler.denoise=false "
    "sampler.order=predictor_corrector sampler.num_images=5 sampler.batch_size=3 sampler.num_frames=2 "
    "sampler.times.name=log_snr sampler.times.num_steps=3 "
    "sampler.predictor.name=ancestral sampler.predictor.variance=transition "
    "sampler.corrector.name=langevin sampler.corrector.snr=0.2 sampler.corrector.num_steps=2 "
    "sampler.corrector.norms=batch sampler.corrector.shrink=true "
    "train.microbatches=2 train.rematerialize=true train.max_skipped=1 parallel.fully_sharded=true"
)


class Dropping(nn.Module):
    """A perceptron with dropout of its hidden features, by its dropout keys."""

    width: int = 4
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x, condition, train=False, dropout_keys=None):
        assert (dropout_keys is None) != train
        h = nn.Dense(self.width)(x.reshape(len(x), -1)) + nn.Dense(self.width)(condition.noise[:, None])
        if train:
            h = jnp.where(prng.uniform(dropout_keys, h) < self.dropout, 0.0, h)
        return nn.Dense(x[0].size)(nn.tanh(h)).reshape(x.shape)


def config(*assignments):
    return finished("digits", *ASSIGNMENTS.split(), *assignments)


NETWORK = Dropping(width=6, dropout=0.3)
DIFFUSION = VP(t_min=0.001, t_max=0.9, beta_min=0.2, beta_max=15.0)
MEANING = Parameterization(
    coefficients=functools.partial(parameterization.edm, sigma_data=0.7),
    condition=functools.partial(parameterization.scaled_time, scale=5.0),
    center=0.2,
    input_scale=1.5,
)
TIMES = functools.partial(losses.ladder, num_levels=7)


def noise_fn(params, **more):
    return MEANING.noise_fn(lambda x, condition: NETWORK.apply(params, x, condition, **more), DIFFUSION)


def loss(params, keys, x0, held_out=False):
    """Return the loss of each image, in training or held out."""
    more = dict(train=False) if held_out else dict(train=True, dropout_keys=prng.fold_in(keys, 2**31 - 1))
    return losses.score_matching_loss(
        noise_fn(params, **more),
        DIFFUSION,
        keys,
        x0,
        times=TIMES,
        weight=functools.partial(losses.edm, sigma_data=0.3),
        reduction=losses.half_sum,
    )


def optimizer():
    """AdamW with gradient clipping; its rate rises from 0 for one step and falls as a cosine for two."""
    schedule = optax.join_schedules(
        [optax.linear_schedule(0.0, 0.01, 1), optax.cosine_decay_schedule(0.01, 2)], boundaries=[1]
    )
    adam = optax.adamw(schedule, b1=0.8, b2=0.95, eps=1e-4, weight_decay=0.05)
    return optax.chain(optax.clip_by_global_norm(20.0), adam)


def sampler(prior, order):
    def step(sde, noise_fn):
        steps = {
            "corrector": correctors.langevin(sde, noise_fn, snr=0.2, num_steps=2, norms="batch", shrink=True),
            "predictor": predictors.ancestral(sde, noise_fn, variance="transition"),
        }
        return samplers.chain(*(steps[name] for name in order.split("_")))

    return samplers.Sampler(
        sde=DIFFUSION,
        prior={"uniform": lambda sde, keys, like: prng.uniform(keys, like), "gaussian": VP.prior}[prior],
        step=step,
        times=times.log_snr(DIFFUSION, num_steps=3),
        denoise=False,
        num_frames=2,
        temperature=0.7,
    )


def training_rows(step, batch_size):
    """Return the rows of a batch of digits: shuffled by numpy, mirrored and dequantized by the key of each image."""
    stored = DATASETS["digits"](split="test").gather(np.arange(359))[0]

    def stream(number, counter):
        return np.random.Generator(np.random.Philox(key=np.array([SEED, number], np.uint64), counter=counter))

    order = stream(0, 0).permutation(len(stored))
    rows = []
    for position in range(step * batch_size, (step + 1) * batch_size):  # within the first epoch
        rows.append(stored[order[position]])
    keys = prng.per_image(jax.random.fold_in(key("train"), step), jnp.arange(batch_size))
    return training_images(keys, np.stack(rows))


def training_images(keys, stored):
    """Mirror and dequantize images by two streams of the key of each image, and map them to the value range."""
    mirror = prng.uniform(prng.fold_in(keys, 2**31 - 4), jnp.zeros(len(stored)))
    images = np.where(np.asarray(mirror)[:, None, None, None] < 0.5, stored[:, :, ::-1], stored).astype(np.float32)
    noise = np.asarray(prng.uniform(prng.fold_in(keys, 2**31 - 3), jnp.asarray(images)))
    return np.float32(LOW) + np.float32(HIGH - LOW) * ((images + noise) / np.float32(LEVELS))


def key(purpose):
    """Return the root key of one use of the seed."""
    return jax.random.fold_in(jax.random.key(SEED), ["init", "train", "sample", "evaluate"].index(purpose))


def stored(x):
    """Round dequantized images down to their level, one of 17."""
    level = np.clip(np.floor((np.asarray(x) - LOW) / (HIGH - LOW) * LEVELS), 0, LEVELS - 1)
    return np.round(255 * level / (LEVELS - 1)).astype(np.uint8)
