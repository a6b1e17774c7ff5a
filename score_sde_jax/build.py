"""From config sections to objects; the only module that reads a config's experiment."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from score_sde_jax import config as configs
from score_sde_jax import keys as prng
from score_sde_jax import losses, parameterization, samplers
from score_sde_jax.data import Dataset
from score_sde_jax.errors import UserError
from score_sde_jax.models import BLOCK_OUTPUT
from score_sde_jax.optimizer import learning_rate_schedule
from score_sde_jax.parameterization import Parameterization
from score_sde_jax.samplers import PRIORS, Sampler
from score_sde_jax.schema import LEVELS, SCHEMA, CheckpointOptions, SamplerOptions, TrainOptions
from score_sde_jax.sdes import SDE
from score_sde_jax.sharding import Parallel
from score_sde_jax.state import LossFn, NoiseLevel, TrainState, init_state, several_steps, training_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """The objects of one config, for images of one shape."""

    sde: SDE
    network: nn.Module
    parameterization: Parameterization
    loss_fn: LossFn
    noise_level: NoiseLevel
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    sampler: Sampler
    image_shape: tuple[int, ...]
    train: TrainOptions
    relative_step_size: float | None

    def init(self, key: Array) -> TrainState:
        """State before the first step."""
        return init_state(self.init_params(key), self.optimizer)

    def init_params(self, key: Array) -> PyTree:
        """Parameters of the network at the start."""
        x, t = jnp.zeros((1, *self.image_shape)), jnp.full((1,) * (1 + len(self.image_shape)), self.sde.t_max)
        told = self.parameterization.condition(self.sde, t)
        told = None if told is None else jnp.reshape(told, -1)
        return self.network.init(key, x, told, train=False)

    def steps(self) -> Callable[..., Any]:
        """The pure function (state, batches, key[, replica]) -> (state, metrics), one step for each batch."""
        options = self.train
        step = training_step(
            self.loss_fn, self.optimizer, options.ema_decay, self.noise_level, microbatches=options.microbatches
        )
        return several_steps(step)

    def noise_fn(self, params: PyTree) -> parameterization.NoiseFn:
        """The network with these parameters as a noise prediction (x, t) -> eps_hat."""

        def network(x: Array, condition: Array | None) -> Any:
            return self.network.apply(params, x, condition, train=False)

        return self.parameterization.noise_fn(network, self.sde)

    def sample(self, params: PyTree, indices: Array, key: Array) -> tuple[Array, Array]:
        """Images number `indices` of the seed in `key`, and frames of their way; a pure function."""
        like = jnp.zeros((len(indices), *self.image_shape))
        return self.sampler(self.noise_fn(params), prng.per_image(key, indices), like)

    def step_sizes(self, sigmas: np.ndarray) -> np.ndarray | None:
        """Langevin step size at each noise level, or None where it depends on the images or there is none."""
        return None if self.relative_step_size is None else self.relative_step_size * sigmas**2


def finish(config: ConfigDict, assignments: list[str]) -> ConfigDict:
    """Complete, override and check a config as a file gives it; the result has every key."""
    with config.unlocked():
        configs.complete(config, SCHEMA)
        configs.override(config, SCHEMA, assignments)
    configs.check(config, SCHEMA)
    _refuse_contradictions(config)
    return config


def dataset(config: ConfigDict) -> Dataset:
    """The data set of section `data`."""
    return configs.construct(config, SCHEMA, "data")


def pipeline(config: ConfigDict) -> dict[str, Any]:
    """Keyword arguments of `training_batches` that section `data` holds."""
    return dataclasses.asdict(configs.options(config, SCHEMA, "data"))


def train_options(config: ConfigDict) -> TrainOptions:
    """Section `train`."""
    chosen = configs.options(config, SCHEMA, "train")
    lowest_values = dict(
        steps=1, batch_size=1, log_every=1, preview_every=0, microbatches=1, steps_per_call=1, max_skipped=0
    )
    for key, lowest in lowest_values.items():
        if getattr(chosen, key) < lowest:
            raise UserError(f"config.train.{key}={getattr(chosen, key)}: at least {lowest}")
    if not 0 <= chosen.ema_decay < 1:
        raise UserError(f"config.train.ema_decay={chosen.ema_decay}: from 0 (no averaging) to below 1")
    return chosen


def checkpoint_options(config: ConfigDict) -> CheckpointOptions:
    """Section `checkpoint`."""
    chosen = configs.options(config, SCHEMA, "checkpoint")
    for key, lowest in dict(every=1, keep=1, keep_every=0).items():
        if getattr(chosen, key) < lowest:
            raise UserError(f"config.checkpoint.{key}={getattr(chosen, key)}: at least {lowest}")
    return chosen


def parallel(config: ConfigDict) -> Parallel:
    """How the run uses the devices: section `parallel`."""
    return configs.construct(config, SCHEMA, "parallel")


def sampler_options(config: ConfigDict) -> SamplerOptions:
    """Section `sampler` around the step itself."""
    chosen = configs.options(config, SCHEMA, "sampler")
    for key in ("num_images", "batch_size", "num_frames"):
        if getattr(chosen, key) < 1:
            raise UserError(f"config.sampler.{key}={getattr(chosen, key)}: at least 1")
    return chosen


def experiment(config: ConfigDict, image_shape: tuple[int, ...]) -> Experiment:
    """Everything that training and sampling need, for a config without "auto" values."""
    make = partial(configs.construct, config, SCHEMA)
    train = train_options(config)
    schedule_options = configs.options(config, SCHEMA, "optimizer")
    schedule = learning_rate_schedule(num_steps=train.steps, **dataclasses.asdict(schedule_options))
    sde, network = make("sde"), make("model")
    how = Parameterization(
        coefficients=_bound(config, "parameterization"),
        condition=_bound(config, "parameterization.condition"),
        **dataclasses.asdict(configs.options(config, SCHEMA, "parameterization")),
    )
    times = _bound(config, "loss.times")
    score_matching_loss = partial(
        losses.score_matching_loss,
        times=times,
        weight=_bound(config, "loss.weight"),
        reduction=losses.REDUCTIONS[config.loss.reduction],
    )

    apply: Callable[..., Any] = partial(network.apply, train=True)
    if train.rematerialize:
        apply = jax.checkpoint(apply, policy=jax.checkpoint_policies.save_only_these_names(BLOCK_OUTPUT))

    def loss_fn(params: PyTree, keys: Array, x0: Array) -> Array:
        noise_fn = how.noise_fn(partial(apply, params), sde)
        return score_matching_loss(noise_fn, sde, keys, x0)

    return Experiment(
        sde=sde,
        network=network,
        parameterization=how,
        loss_fn=loss_fn,
        noise_level=partial(losses.noise_level, sde, times=times),
        optimizer=make("optimizer", schedule),
        schedule=schedule,
        sampler=_sampler(config, sde),
        image_shape=image_shape,
        train=train,
        relative_step_size=config.sampler.corrector.get("step_size"),
    )


def _bound(config: ConfigDict, path: str) -> Callable[..., Any]:
    """The function a section picks, with the section's keys bound to it."""
    section = configs.section(config, path)
    function = SCHEMA[path].choices[section.name]
    return partial(function, **{key: section[key] for key in configs.arguments(function)})


def sampling_times(config: ConfigDict, sde: SDE) -> jax.Array:
    """The times that the sampler visits."""
    return configs.construct(config, SCHEMA, "sampler.times", sde)


def _sampler(config: ConfigDict, sde: SDE) -> Sampler:
    chosen = sampler_options(config)
    names = chosen.order.split("_")
    sections = [f"sampler.{name}" for name in names]

    def step(sde: SDE, noise_fn: parameterization.NoiseFn) -> samplers.Step:
        return samplers.chain(*(configs.construct(config, SCHEMA, path, sde, noise_fn) for path in sections))

    step(sde, lambda x, t: x)  # a step that refuses its keys does so here, before any work
    return Sampler(
        sde=sde,
        prior=PRIORS[chosen.prior],
        step=step,
        times=sampling_times(config, sde),
        denoise=chosen.denoise,
        num_frames=chosen.num_frames,
    )


def _refuse_contradictions(config: ConfigDict) -> None:
    """Raise UserError for sections that do not fit each other."""
    _refuse_uneven_calls(config)
    for path in LEVELS:
        number = configs.section(config, path).get("num_levels")
        if isinstance(number, int) and number < 2:
            raise UserError(f"config.{path}.num_levels={number}: a ladder has at least 2 levels")
    levels = {path: configs.section(config, path).get("num_levels") for path in LEVELS[:3]}
    told = config.parameterization.condition.name
    if told == "level_index" and config.loss.times.name != "ladder":
        raise UserError(
            "config.parameterization.condition.name=level_index needs config.loss.times.name=ladder, "
            f"not {config.loss.times.name}"
        )
    if told == "level_index" and len({value for value in levels.values() if value is not None}) > 1:
        listed = ", ".join(f"config.{path}.num_levels={value}" for path, value in levels.items() if value is not None)
        raise UserError(f"{listed}: the network is told the level's index, so these must be equal")
    if config.model.name == "ncsn" and told != "level_index":
        raise UserError(f"config.model.name=ncsn needs config.parameterization.condition.name=level_index, not {told}")
    if config.model.name.startswith("ncsnv2") and told != "none":
        raise UserError(
            f"config.model.name={config.model.name} needs config.parameterization.condition.name=none, not {told}"
        )
    if config.loss.times.name == "log_normal" and config.sde.name != "edm":
        raise UserError(f"config.loss.times.name=log_normal needs config.sde.name=edm, not {config.sde.name}")
    if config.sampler.predictor.name == config.sampler.corrector.name == "none":
        raise UserError("config.sampler: predictor and corrector are both none; choose at least one")


def _refuse_uneven_calls(config: ConfigDict) -> None:
    """Raise UserError for a length that is no multiple of the steps of a call."""
    train, per_call = train_options(config), train_options(config).steps_per_call
    lengths = {
        "train.steps": train.steps,
        "train.log_every": train.log_every,
        "train.preview_every": train.preview_every,
        "checkpoint.every": checkpoint_options(config).every,
    }
    for key, length in lengths.items():
        if length % per_call:
            raise UserError(f"config.{key}={length} must be a multiple of config.train.steps_per_call={per_call}")
