"""Every configuration that score-SDE (arXiv 2011.13456) released, compared field by field.

reference/score_sde_configs.json has the fields of the 39 released files: "common" ones, those in which a file differs,
and the common ones that are absent from a file.
"""

import json
import pathlib

import pytest
from experiments import NAMES, finished

from score_sde_jax.data import dataset_spec
from score_sde_jax.runs import build

PUBLISHED = json.loads((pathlib.Path(__file__).parent / "reference" / "score_sde_configs.json").read_text())
COMMON = PUBLISHED.pop("common")
RELEASED = {
    name: {
        field: value for field, value in (COMMON | fields).items() if field not in [*fields.get("absent", []), "absent"]
    }
    for name, fields in PUBLISHED.items()
}
"""The fields of each released file."""

UNREAD = object()
"""The method of a config does not read the field."""

UNCOMPARED = {
    "data.category": "a folder of images has one category",
    "data.tfrecords_path": "a path on the machine of its authors",
    "device": "JAX chooses the device",
    "eval.batch_size": "images in a batch of FID statistics, which an evaluation does not compute",
    "eval.begin_ckpt": "an evaluation measures the one checkpoint of --checkpoint",
    "eval.end_ckpt": "an evaluation measures the one checkpoint of --checkpoint",
    "eval.enable_sampling": "sampling is a mode of its own",
    "eval.num_samples": "images of the FID, which an evaluation does not compute",
    "training.continuouse": "a misspelling of training.continuous, which no code reads",
    "training.eval_freq": "training does not measure held-out images",
    "training.n_jitted_steps": "steps in one compiled call, which changes speed alone: train.steps_per_call",
}
"""Released fields without a counterpart here, and why."""

EXCEPTIONS = {
    ("ve/ncsnv2/bedroom", "training.continuous"): (
        "the file sets training.continuouse=False and so keeps the default True, for which its network cannot run"
    ),
}
"""Fields of single files that differ on purpose, and why."""

UNETS = {"ddpm": "ddpm", "ddpmpp": "ncsnpp", "ncsnpp": "ncsnpp"}
REFINENETS = {"ncsn": "ncsn", "ncsnv2": "ncsnv2_64", "ncsnv2_deeper": "ncsnv2_128"}
DATA = {"cifar10": {"CIFAR10"}, "celeb_a": {"CELEBA"}, "image_folder": {"LSUN", "CelebAHQ", "FFHQ"}}
SDES = {"ve": "vesde", "ddpm": "vpsde", "vp": "vpsde", "subvp": "subvpsde"}


def shape(config):
    return dataset_spec(config.data.name).shape(config.data.get("image_size"), None)


def is_unet(config):
    return config.model.name in UNETS


def levels(config):
    """Number of noise levels of a discrete method, of steps of a continuous one."""
    return config.loss.times.get("num_levels", None) or config.sampler.times.num_steps


def beta(key):
    """Rate of the continuous SDE; a discrete one has it per level."""

    def value(config):
        if config.sde.name == "ve":
            return UNREAD
        return getattr(config.sde, key) * (levels(config) if config.sde.name == "ddpm" else 1)

    return value


def sigma(key):
    return lambda config: getattr(config.sde, key) if config.sde.name == "ve" else UNREAD


def of_unet(value):
    """What U-Nets read and RefineNets do not."""
    return lambda config: value(config) if is_unet(config) else UNREAD


def embedding(config):
    # the released DDPM reads no embedding_type: its embedding is positional
    if not is_unet(config) or config.model.name == "ddpm" or config.model.embedding == "none":
        return UNREAD
    return config.model.embedding


def snr(config):
    corrector = config.sampler.corrector
    if corrector.name == "annealed_langevin":
        return (corrector.step_size / 2) ** 0.5
    return corrector.snr if corrector.name == "langevin" else UNREAD


def predictor(config):
    section = config.sampler.predictor
    assert section.get("variance", "transition") == "transition"
    return {"ancestral": "ancestral_sampling"}.get(section.name, section.name)


VALUES = {
    "data.centered": lambda config: {(-1.0, 1.0): True, (0.0, 1.0): False}[config.data.value_range],
    "data.dataset": lambda config: DATA[config.data.name],
    "data.image_size": lambda config: shape(config)[0],
    "data.num_channels": lambda config: shape(config)[-1],
    "data.random_flip": lambda config: config.data.flip,
    "data.uniform_dequantization": lambda config: config.data.dequantize,
    "eval.bpd_dataset": lambda config: config.eval.split or "test",
    "eval.enable_bpd": lambda config: config.eval.bits_per_dim,
    "eval.enable_loss": lambda config: config.eval.loss,
    "model.attention_type": lambda config: "ddpm",  # the only one of unet_blocks.Attention
    "model.attn_resolutions": lambda config: list(config.model.attention),
    "model.beta_max": beta("beta_max"),
    "model.beta_min": beta("beta_min"),
    "model.ch_mult": lambda config: list(config.model.multipliers),
    "model.conditional": lambda config: config.model.embedding != "none",
    "model.conv_size": lambda config: 3,  # unet_blocks.conv3x3
    "model.dropout": of_unet(lambda config: config.model.dropout),
    "model.ema_rate": lambda config: config.train.ema_decay,
    "model.embedding_type": embedding,
    "model.fir": lambda config: config.model.fir,
    "model.fir_kernel": lambda config: [1, 3, 3, 1],  # resampling.fir_up and fir_down
    "model.fourier_scale": lambda config: config.model.fourier_scale if config.model.embedding == "fourier" else UNREAD,
    "model.init_scale": lambda config: 0.0,  # unet_blocks.NEARLY_ZERO: the released code replaces 0 by 1e-10
    "model.interpolation": lambda config: "bilinear",  # layers.resize_bilinear
    "model.name": lambda config: (UNETS | REFINENETS)[config.model.name],
    "model.nf": lambda config: config.model.width,
    "model.nonlinearity": lambda config: "swish" if is_unet(config) else "elu",  # silu is another name of swish
    "model.normalization": lambda config: "GroupNorm" if is_unet(config) else "InstanceNorm++",
    "model.num_res_blocks": lambda config: config.model.num_blocks,
    "model.num_scales": levels,
    "model.progressive": lambda config: {"none": "none"}.get(
        config.model.progressive_output, f"output_{config.model.progressive_output}"
    ),
    "model.progressive_combine": lambda config: config.model.combine,
    "model.progressive_input": lambda config: {"skip": "input_skip"}.get(
        config.model.progressive_input, config.model.progressive_input
    ),
    "model.resamp_with_conv": lambda config: True,  # unet_blocks.Downsample and Upsample
    "model.resblock_type": lambda config: config.model.block,
    "model.scale_by_sigma": lambda config: config.parameterization.name == "scaled_score",
    "model.sigma_begin": sigma("sigma_max"),
    "model.sigma_max": sigma("sigma_max"),
    "model.sigma_min": sigma("sigma_min"),
    "model.skip_rescale": lambda config: config.model.skip_rescale,
    "optim.amsgrad": lambda config: False,  # optimizer.adam
    "optim.beta1": lambda config: config.optimizer.beta1,
    "optim.eps": lambda config: config.optimizer.eps,
    "optim.grad_clip": lambda config: (
        -1.0 if config.optimizer.gradient_clip is None else config.optimizer.gradient_clip
    ),
    "optim.lr": lambda config: config.optimizer.learning_rate,
    "optim.optimizer": lambda config: {"adam": "Adam"}[config.optimizer.name],
    "optim.warmup": lambda config: config.optimizer.warmup_steps,
    "optim.weight_decay": lambda config: config.optimizer.weight_decay,
    "sampling.corrector": lambda config: {"annealed_langevin": "ald"}.get(
        config.sampler.corrector.name, config.sampler.corrector.name
    ),
    "sampling.method": lambda config: {"corrector_predictor": "pc"}[config.sampler.order],
    "sampling.n_steps_each": lambda config: config.sampler.corrector.get("num_steps", UNREAD),
    "sampling.noise_removal": lambda config: config.sampler.denoise,
    "sampling.predictor": predictor,
    "sampling.probability_flow": lambda config: (
        config.sampler.predictor.name in ("euler", "heun", "ddim", "dormand_prince")
    ),
    "sampling.snr": snr,
    "seed": lambda config: config.seed,
    "training.batch_size": lambda config: config.train.batch_size,
    "training.continuous": lambda config: config.loss.times.name == "uniform",
    "training.likelihood_weighting": lambda config: config.loss.weight.name == "likelihood",
    "training.log_freq": lambda config: config.train.log_every,
    "training.loss": lambda config: SDES[config.sde.name],  # one file has it in the place of training.sde
    "training.n_iters": lambda config: config.train.steps + 1,  # the released loop counts its first step as 0
    "training.reduce_mean": lambda config: config.loss.reduction == "mean",
    "training.sde": lambda config: SDES[config.sde.name],
    "training.snapshot_freq": lambda config: config.checkpoint.keep_every,
    "training.snapshot_freq_for_preemption": lambda config: config.checkpoint.every,
    "training.snapshot_sampling": lambda config: config.train.preview_every == config.checkpoint.keep_every,
}
"""The value that a released field has in a config of this project."""


@pytest.fixture(params=RELEASED)
def pair(request):
    """The name and fields of a released file, and the config of this project."""
    return request.param, RELEASED[request.param], finished(request.param, variant="")


def test_there_is_a_config_for_every_released_file():
    assert len(RELEASED) == 39
    assert {name for name in NAMES if name.split("/")[0] in ("ve", "vp", "subvp")} == set(RELEASED)


def test_every_released_field_is_compared_or_has_a_reason():
    fields = {field for released in RELEASED.values() for field in released}
    assert len(fields) == 78 and fields == {*VALUES, *UNCOMPARED} and not {*VALUES} & {*UNCOMPARED}
    assert all(field in RELEASED[name] for name, field in EXCEPTIONS)


def test_config_has_the_released_value_of_every_field(pair):
    name, ref, config = pair
    for field in ref.keys() & VALUES.keys():
        value = VALUES[field](config)
        if value is UNREAD:
            continue
        if field == "data.dataset":
            assert ref[field] in value
        elif (name, field) in EXCEPTIONS:
            assert value != ref[field], f"{field}: no exception any more"
        else:
            expected = pytest.approx(ref[field]) if isinstance(ref[field], float) else ref[field]
            assert value == expected, field


def test_config_has_what_the_released_code_does_without_a_field(pair):
    _, ref, config = pair
    sde, condition, model = config.sde, config.parameterization.condition, config.model
    continuous, num_levels = config.loss.times.name == "uniform", ref["model.num_scales"]
    if model.name == "ddpm":
        assert (model.block, model.fir, model.skip_rescale) == ("ddpm", False, False)
        assert (model.progressive_input, model.progressive_output) == ("none", "none")
        assert model.embedding == ("positional" if ref["model.conditional"] else "none")
    if sde.name == "ve":
        embedded = "none" if model.name.startswith("ncsnv2") else "log_sigma" if continuous else "level_index"
        assert condition.name == embedded and condition.get("num_levels", num_levels) == num_levels
        assert model.name != "ncsn" or model.num_levels == num_levels
        assert config.parameterization.name == ("scaled_score" if ref["model.scale_by_sigma"] else "score")
        assert sde.t_min == (1e-5 if continuous else 0.0)
    else:
        assert continuous or sde.name == "ddpm"
        assert config.parameterization.name == "noise"
        assert condition.name == ("scaled_time" if ref["model.conditional"] else "none")
        assert condition.get("scale", 999.0) == 999.0 and sde.get("num_levels", num_levels) == num_levels
    # networks for data in [0, 1] have the input 2 x - 1
    scaling = (0.0, 1.0) if ref["data.centered"] else (0.5, 2.0)
    assert (config.parameterization.center, config.parameterization.input_scale) == scaling
    assert config.loss.name == "denoising" and config.loss.weight.name == "simple"
    assert config.optimizer.decay == "constant" and config.sampler.prior == "gaussian"
    nfe = build.experiment(config, shape(config)).sampler.nfe()
    predicts, corrects = config.sampler.predictor.name != "none", config.sampler.corrector.get("num_steps", 0)
    assert nfe == num_levels * (predicts + corrects) + 1
