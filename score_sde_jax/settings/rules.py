"""Sections of a config that do not fit each other are refused here, in one line, before any work."""

from ml_collections import ConfigDict

from score_sde_jax.errors import UserError
from score_sde_jax.networks import CLASSIFIERS
from score_sde_jax.settings import reading as configs
from score_sde_jax.settings.options import checkpoint_options, eval_options, train_options
from score_sde_jax.settings.schema import LEVELS

EMBEDDINGS = {
    "fourier": ("log_sigma", "quarter_log_sigma"),
    "positional": ("scaled_time", "level_index"),
    "none": ("none",),
}
"""What each embedding of the U-Nets can be told: a logarithm, a number that counts levels, or nothing."""


def refuse_contradictions(config: ConfigDict) -> None:
    """Raise UserError for the first contradiction: it names the keys, their values and what would fit."""
    _refuse_classifiers(config)
    _refuse_uneven_calls(config)
    _refuse_levels(config)
    _refuse_conditions(config)
    _refuse_evaluations(config)
    _refuse_times(config)
    if "sampler" in config and config.sampler.predictor.name == config.sampler.corrector.name == "none":
        raise UserError("config.sampler: predictor and corrector are both none; choose at least one")


def _refuse_times(config: ConfigDict) -> None:
    """Training times that the SDE does not have, or that do not go with the weight."""
    times, weight, sde = config.loss.times.name, config.loss.weight.name, config.sde.name
    if times == "log_normal" and sde != "edm":
        raise UserError(f"config.loss.times.name=log_normal needs config.sde.name=edm, not {sde}")
    if times == "ladder" and sde == "subvp":
        raise UserError(
            "config.loss.times.name=ladder: config.sde.name=subvp has no levels; choose uniform or importance"
        )
    if weight == "likelihood_importance" and times != "importance":
        raise UserError(
            f"config.loss.weight.name=likelihood_importance needs config.loss.times.name=importance, not {times}"
        )
    if weight == "likelihood" and times == "importance":
        raise UserError(
            "config.loss.times.name=importance draws by the weight already: with it choose "
            "config.loss.weight.name=likelihood_importance, not likelihood"
        )


def _refuse_levels(config: ConfigDict) -> None:
    """A ladder of one level, and ladders of different numbers of levels where the network is told the index."""
    levels = {path: configs.section(config, path).get("num_levels") for path in LEVELS if configs.has(config, path)}
    for path, number in levels.items():
        if isinstance(number, int) and number < 2:
            raise UserError(f"config.{path}.num_levels={number}: a ladder has at least 2 levels")
    if config.parameterization.condition.name != "level_index":
        return
    if config.loss.times.name != "ladder":
        raise UserError(
            "config.parameterization.condition.name=level_index needs config.loss.times.name=ladder, "
            f"not {config.loss.times.name}"
        )
    trained = {path: number for path, number in levels.items() if path in LEVELS[:3] and number is not None}
    if len(set(trained.values())) > 1:
        listed = ", ".join(f"config.{path}.num_levels={number}" for path, number in trained.items())
        raise UserError(f"{listed}: the network is told the level's index, so these must be equal")


def _refuse_conditions(config: ConfigDict) -> None:
    """A network that is told what it cannot read."""
    told, name = config.parameterization.condition.name, config.model.name
    if name == "ncsn" and told != "level_index":
        raise UserError(f"config.model.name=ncsn needs config.parameterization.condition.name=level_index, not {told}")
    if name.startswith("ncsnv2") and told != "none":
        raise UserError(f"config.model.name={name} needs config.parameterization.condition.name=none, not {told}")
    embedding = config.model.get("embedding")
    if embedding in EMBEDDINGS and told not in EMBEDDINGS[embedding]:
        raise UserError(
            f"config.model.embedding={embedding} needs config.parameterization.condition.name="
            f"{' or '.join(EMBEDDINGS[embedding])}, not {told}"
        )


def _refuse_evaluations(config: ConfigDict) -> None:
    """Measurements that the config's objects do not have."""
    if eval_options(config).bits_per_dim and config.loss.name == "classification":
        raise UserError("config.eval.bits_per_dim=True: a classifier (config.loss.name=classification) has no density")


def _refuse_classifiers(config: ConfigDict) -> None:
    """A classifier that learns no classes, or draws images, and classes learned by what is no classifier."""
    loss, name = config.loss.name, config.model.name
    if (loss == "classification") != (name in CLASSIFIERS):
        raise UserError(
            f"config.loss.name={loss} and config.model.name={name}: classification is learned by "
            f"{', '.join(CLASSIFIERS)}, and by it alone"
        )
    if loss == "classification" and "sampler" in config:
        raise UserError("config.sampler: a classifier (config.loss.name=classification) draws no images; leave it out")


def _refuse_uneven_calls(config: ConfigDict) -> None:
    """A length that is no multiple of the steps of a call."""
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
