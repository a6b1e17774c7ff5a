"""The configs of score-SDE (arXiv 2011.13456) in ve/, vp/ and subvp/ against fields of the released files.

reference/score_sde_configs.json is a transcription: the fields that most files share, and the differences of each file.
"""

import json
import pathlib

import pytest
from experiments import NAMES, finished

from score_sde_jax.data import dataset_spec
from score_sde_jax.runs import build

PUBLISHED = json.loads((pathlib.Path(__file__).parent / "reference" / "score_sde_configs.json").read_text())
COMMON = PUBLISHED.pop("common")
SIZES = {"CIFAR10": ("cifar10", None), "CELEBA": ("celeb_a", 64)}


@pytest.fixture(params=PUBLISHED)
def pair(request):
    """The fields of a released file, and the config of the project."""
    return COMMON | PUBLISHED[request.param], finished(request.param, variant="")


def test_there_is_a_config_for_every_file_of_the_reference():
    assert {name for name in NAMES if name.split("/")[0] in ("ve", "vp", "subvp")} == set(PUBLISHED)


def test_data(pair):
    ref, config = pair
    name, size = SIZES.get(ref["data.dataset"], ("image_folder", ref["data.image_size"]))
    assert (config.data.name, config.data.get("image_size")) == (name, size)
    assert config.data.value_range == ((-1.0, 1.0) if ref["data.centered"] else (0.0, 1.0))
    assert (config.data.flip, config.data.dequantize) == (
        ref["data.random_flip"],
        ref["data.uniform_dequantization"],
    )


def test_network(pair):
    ref, config = pair
    model = config.model
    plain = ref["model.name"] == "ddpm"
    assert model.name in ({"ddpm"} if plain else {"ddpmpp", "ncsnpp"})
    assert (model.width, model.num_blocks) == (ref["model.nf"], ref["model.num_res_blocks"])
    assert list(model.multipliers) == ref["model.ch_mult"]
    assert list(model.attention) == ref["model.attn_resolutions"] and model.dropout == ref["model.dropout"]
    embedding = ref["model.embedding_type"] if not plain else "positional"
    assert model.embedding == (embedding if ref["model.conditional"] else "none")
    if plain:
        assert (model.block, model.fir, model.skip_rescale) == ("ddpm", False, False)
        assert (model.progressive_input, model.progressive_output) == ("none", "none")
        return
    assert (model.block, model.fir) == (ref["model.resblock_type"], ref["model.fir"])
    assert model.skip_rescale == ref["model.skip_rescale"] and model.combine == ref["model.progressive_combine"]
    assert model.progressive_input == ref["model.progressive_input"].removeprefix("input_")
    assert model.progressive_output == ref["model.progressive"].removeprefix("output_")
    if model.embedding == "fourier":
        assert model.fourier_scale == ref["model.fourier_scale"]


def test_diffusion_and_parameterization(pair):
    ref, config = pair
    kind, continuous = ref["training.sde"].removesuffix("sde"), ref["training.continuous"]
    levels, sde = ref["model.num_scales"], config.sde
    condition = config.parameterization.condition
    if kind == "ve":
        assert (sde.name, sde.sigma_min, sde.sigma_max) == (
            "ve",
            ref["model.sigma_min"],
            ref["model.sigma_max"],
        )
        assert config.parameterization.name == "scaled_score" and ref["model.scale_by_sigma"]
        assert condition.name == ("log_sigma" if continuous else "level_index")
        assert continuous or condition.num_levels == levels
        assert sde.t_min == (1e-5 if continuous else 0.0)
    else:
        assert sde.name == (kind if continuous else "ddpm") and not ref["model.scale_by_sigma"]
        scale = 1 if continuous else levels  # beta of a level, and rate of the continuous limit
        betas = [ref[f"model.{key}"] / scale for key in ("beta_min", "beta_max")]
        assert [sde.beta_min, sde.beta_max] == pytest.approx(betas)
        assert config.parameterization.name == "noise"
        assert condition.name == ("scaled_time" if ref["model.conditional"] else "none")
        assert condition.get("scale", 999.0) == 999.0 and sde.get("num_levels", levels) == levels
    # networks for data in [0, 1] have the input 2 x - 1
    scaling = (0.0, 1.0) if ref["data.centered"] else (0.5, 2.0)
    assert (config.parameterization.center, config.parameterization.input_scale) == scaling
    times = config.loss.times
    assert times.name == ("uniform" if continuous else "ladder") and times.get("num_levels", levels) == levels


def test_training(pair):
    ref, config = pair
    assert config.loss.name == "denoising" and config.loss.weight.name == "simple"
    assert not ref["training.likelihood_weighting"]
    assert config.loss.reduction == ("mean" if ref["training.reduce_mean"] else "half_sum")
    fields = ("lr", "beta1", "eps", "warmup", "grad_clip", "weight_decay")
    keys = ("learning_rate", "beta1", "eps", "warmup_steps", "gradient_clip", "weight_decay")
    for field, key in zip(fields, keys, strict=True):
        assert getattr(config.optimizer, key) == ref[f"optim.{field}"], key
    assert config.optimizer.decay == "constant" and config.seed == ref["seed"]
    assert (config.train.steps, config.train.batch_size) == (
        ref["training.n_iters"] - 1,
        ref["training.batch_size"],
    )
    assert (config.train.ema_decay, config.train.log_every) == (
        ref["model.ema_rate"],
        ref["training.log_freq"],
    )
    assert config.train.preview_every == config.checkpoint.keep_every == ref["training.snapshot_freq"]
    assert config.checkpoint.every == ref["training.snapshot_freq_for_preemption"]


def test_sampling(pair):
    ref, config = pair
    sampler = config.sampler
    assert sampler.predictor.name == ref["sampling.predictor"].removesuffix("_sampling")
    assert sampler.corrector.name == ref["sampling.corrector"] and sampler.order == "corrector_predictor"
    assert sampler.denoise == ref["sampling.noise_removal"] and sampler.prior == "gaussian"
    if sampler.predictor.name == "ancestral":
        assert sampler.predictor.variance == "transition"
    if sampler.corrector.name == "langevin":
        assert (sampler.corrector.snr, sampler.corrector.num_steps) == (
            ref["sampling.snr"],
            ref["sampling.n_steps_each"],
        )
    shape = dataset_spec(config.data.name).shape(config.data.get("image_size"), None)
    evaluations = build.experiment(config, shape).sampler.nfe()
    each = 1 + (sampler.corrector.name != "none")
    assert evaluations == ref["model.num_scales"] * each + 1
