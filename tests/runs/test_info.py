"""--mode=info against known numbers."""

import re

import pytest
from experiments import finished
from run_files import made_up
from stand_ins import NETWORKS, Conditional

from score_sde_jax.devices.costs import GradientCost
from score_sde_jax.errors import UserError
from score_sde_jax.networks import MODELS
from score_sde_jax.runs import info as drivers_info
from score_sde_jax.runs import workdir
from score_sde_jax.runs.info import info

pytestmark = pytest.mark.usefixtures("quick_compilation")

PARAMETERS = {
    "mnist_ncsn": 7_638_657,
    "cifar10_ncsn": 30_117_635,
    "celeba_ncsn": 30_117_635,
    "cifar10_ncsnv2": 29_694_083,
    "celeba": 29_694_083,
    "ffhq_ncsnv2": 94_132_611,
}

SIZES = {"mnist": 28, "cifar10": 32, "celeb_a": 64}


@pytest.mark.parametrize("costs", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["cheap", "whole"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_info_needs_no_data(name, costs, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setitem(MODELS, finished(name).model.name, NETWORKS[finished(name).model.name])
    if not costs:  # tracing the gradient of a RefineNet takes half a minute
        monkeypatch.setattr(drivers_info, "training_cost", lambda *_: GradientCost(flops=0.0, residual_bytes=0))
    lines = []
    config = finished(name, variant="")
    info(config, tmp_path / "run", lines.append)
    assert f"parameters: {PARAMETERS[name]}" in lines
    evaluations = config.sampler.times.num_levels * config.sampler.corrector.num_steps + config.sampler.denoise
    assert f"network evaluations per image (NFE): {evaluations}" in lines
    size, channels = (
        config.data.get("image_size") or SIZES[config.data.name],
        1 if config.data.name == "mnist" else 3,
    )
    assert lines[0].startswith(f"data: {config.data.name} of shape ({size}, {size}, {channels}), ")
    assert not (tmp_path / "run").exists()


def test_info_of_a_network_counted_by_hand(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "ncsn", Conditional)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    lines = []
    info(finished("cifar10_ncsn"), tmp_path / "run", lines.append)
    width, levels = 3, 3
    count = levels * width + (9 * 3 * width + width) + (9 * width * 3 + 3)
    assert f"parameters: {count}" in lines
    forward = 2 * 32 * 32 * 9 * (3 * width + width * 3)
    # backward: the gradient of both kernels, and of what enters the second convolution
    flops = forward + forward + 2 * 32 * 32 * 9 * width * 3
    assert f"FLOPs per training image: {flops:.4g} (" in "\n".join(lines)
    assert "noise levels visited by the sampler: 3, sigma = 1, 0.1, 0.01" in lines
    assert "Langevin step sizes: 0.2 at the first level to 2e-05 at the last" in lines
    assert "run: 4 steps of 8 images, 0.00064 epochs" in lines


def test_memory_is_that_of_a_microbatch_on_each_device(tmp_path):
    """State: parameters, their average, two moments and three counters; activations in proportion to the images."""
    small = "model.name=mlp", "model.width=256", "model.depth=2", "train.batch_size=4096"
    actual = []
    for microbatches in (1, 2, 4):
        lines = []
        info(finished("digits", *small, f"train.microbatches={microbatches}"), tmp_path, lines.append)
        (line,) = [line for line in lines if line.startswith("memory per device")]
        actual.append([int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:images|MiB)", line)])
    count = (64 + 64 + 1) * 256 + 2 * 257 * 256 + 257 * 64
    for microbatches, (images, state, gradient, activations, total) in zip((1, 2, 4), actual, strict=True):
        assert images == 4096 / microbatches
        assert (state, gradient) == (round((4 * 4 * count + 12) / 2**20), round(4 * count / 2**20))
        assert abs(total - state - gradient - activations) <= 2
        assert activations == pytest.approx(actual[0][3] / microbatches, rel=0.1) and activations >= 5


def test_info_of_a_run_has_the_shape_of_its_images_without_its_data(tmp_path):
    """An npz file says itself how large its images are; the config.json of a run keeps it."""
    config = finished("digits", "data.name=npz", f"data.dir={tmp_path / 'moved.npz'}", "model.name=mlp")
    with pytest.raises(UserError, match=r"moved\.npz"):
        info(config, tmp_path, [].append)
    workdir.record(tmp_path, config, made_up((8, 8, 1)))
    lines = []
    info(config, tmp_path, lines.append)
    assert lines[0].startswith("data: npz of shape (8, 8, 1), ") and any("parameters: " in line for line in lines)
