"""Every configuration of score-SDE (arXiv 2011.13456) as published, field by field.

reference/score_sde_configs.json has the fields of the released files: those that most share, and what differs.
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
    """The fields of a released file, and our config."""
    return COMMON | PUBLISHED[request.param], finished(request.param, variant="")


def test_there_is_a_config_for_every_released_file():
    assert {name for name in NAMES if name.split("/")[0] in ("ve", "vp", "subvp")} == set(PUBLISHED)


def test_data(pair):
    theirs, ours = pair
    name, size = SIZES.get(theirs["data.dataset"], ("image_folder", theirs["data.image_size"]))
    assert (ours.data.name, ours.data.get("image_size")) == (name, size)
    assert ours.data.value_range == ((-1.0, 1.0) if theirs["data.centered"] else (0.0, 1.0))
    assert (ours.data.flip, ours.data.dequantize) == (theirs["data.random_flip"], theirs["data.uniform_dequantization"])


def test_network(pair):
    theirs, ours = pair
    model = ours.model
    plain = theirs["model.name"] == "ddpm"
    assert model.name in ({"ddpm"} if plain else {"ddpmpp", "ncsnpp"})
    assert (model.width, model.num_blocks) == (theirs["model.nf"], theirs["model.num_res_blocks"])
    assert list(model.multipliers) == theirs["model.ch_mult"]
    assert list(model.attention) == theirs["model.attn_resolutions"] and model.dropout == theirs["model.dropout"]
    told = theirs["model.embedding_type"] if not plain else "positional"
    assert model.embedding == (told if theirs["model.conditional"] else "none")
    if plain:
        assert (model.block, model.fir, model.skip_rescale) == ("ddpm", False, False)
        assert (model.progressive_input, model.progressive_output) == ("none", "none")
        return
    assert (model.block, model.fir) == (theirs["model.resblock_type"], theirs["model.fir"])
    assert model.skip_rescale == theirs["model.skip_rescale"] and model.combine == theirs["model.progressive_combine"]
    assert model.progressive_input == theirs["model.progressive_input"].removeprefix("input_")
    assert model.progressive_output == theirs["model.progressive"].removeprefix("output_")
    if model.embedding == "fourier":
        assert model.fourier_scale == theirs["model.fourier_scale"]


def test_diffusion_and_what_the_network_says_and_is_told(pair):
    theirs, ours = pair
    kind, continuous = theirs["training.sde"].removesuffix("sde"), theirs["training.continuous"]
    levels, sde = theirs["model.num_scales"], ours.sde
    told = ours.parameterization.condition
    if kind == "ve":
        assert (sde.name, sde.sigma_min, sde.sigma_max) == ("ve", theirs["model.sigma_min"], theirs["model.sigma_max"])
        assert ours.parameterization.name == "scaled_score" and theirs["model.scale_by_sigma"]
        assert told.name == ("log_sigma" if continuous else "level_index")
        assert continuous or told.num_levels == levels
        assert sde.t_min == (1e-5 if continuous else 0.0)
    else:
        assert sde.name == (kind if continuous else "ddpm") and not theirs["model.scale_by_sigma"]
        scale = 1 if continuous else levels  # beta of a level, and rate of the continuous limit
        betas = [theirs[f"model.{key}"] / scale for key in ("beta_min", "beta_max")]
        assert [sde.beta_min, sde.beta_max] == pytest.approx(betas)
        assert ours.parameterization.name == "noise"
        assert told.name == ("scaled_time" if theirs["model.conditional"] else "none")
        assert told.get("scale", 999.0) == 999.0 and sde.get("num_levels", levels) == levels
    # networks for data in [0, 1] see 2 x - 1
    seen = (0.0, 1.0) if theirs["data.centered"] else (0.5, 2.0)
    assert (ours.parameterization.center, ours.parameterization.input_scale) == seen
    times = ours.loss.times
    assert times.name == ("uniform" if continuous else "ladder") and times.get("num_levels", levels) == levels


def test_training(pair):
    theirs, ours = pair
    assert ours.loss.name == "denoising" and ours.loss.weight.name == "simple"
    assert not theirs["training.likelihood_weighting"]
    assert ours.loss.reduction == ("mean" if theirs["training.reduce_mean"] else "half_sum")
    fields = ("lr", "beta1", "eps", "warmup", "grad_clip", "weight_decay")
    keys = ("learning_rate", "beta1", "eps", "warmup_steps", "gradient_clip", "weight_decay")
    for field, key in zip(fields, keys, strict=True):
        assert getattr(ours.optimizer, key) == theirs[f"optim.{field}"], key
    assert ours.optimizer.decay == "constant" and ours.seed == theirs["seed"]
    assert (ours.train.steps, ours.train.batch_size) == (theirs["training.n_iters"] - 1, theirs["training.batch_size"])
    assert (ours.train.ema_decay, ours.train.log_every) == (theirs["model.ema_rate"], theirs["training.log_freq"])
    assert ours.train.preview_every == ours.checkpoint.keep_every == theirs["training.snapshot_freq"]
    assert ours.checkpoint.every == theirs["training.snapshot_freq_for_preemption"]


def test_sampling(pair):
    theirs, ours = pair
    sampler = ours.sampler
    assert sampler.predictor.name == theirs["sampling.predictor"].removesuffix("_sampling")
    assert sampler.corrector.name == theirs["sampling.corrector"] and sampler.order == "corrector_predictor"
    assert sampler.denoise == theirs["sampling.noise_removal"] and sampler.prior == "gaussian"
    if sampler.predictor.name == "ancestral":
        assert sampler.predictor.variance == "transition"
    if sampler.corrector.name == "langevin":
        assert (sampler.corrector.snr, sampler.corrector.num_steps) == (
            theirs["sampling.snr"],
            theirs["sampling.n_steps_each"],
        )
    shape = dataset_spec(ours.data.name).shape(ours.data.get("image_size"), None)
    evaluations = build.experiment(ours, shape).sampler.nfe()
    each = 1 + (sampler.corrector.name != "none")
    assert evaluations == theirs["model.num_scales"] * each + 1
