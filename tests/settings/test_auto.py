"""Values "auto": computed from the data, set by the user, or adopted from a saved run."""

import numpy as np
import pytest
from experiments import finished
from PIL import Image
from run_files import made_up
from scipy.spatial.distance import pdist

from score_sde_jax import settings
from score_sde_jax.diffusion import ladder
from score_sde_jax.errors import UserError
from score_sde_jax.runs import build, workdir


@pytest.fixture(params=[1, 3], ids=["gray", "color"])
def npz(request, tmp_path):
    """An archive of small images, and its images."""
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4, request.param), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    return tmp_path / "images.npz", images


def automatic(path, *assignments):
    return finished("image_folder", "data.name=npz", f"data.dir={path}", *assignments)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_automatic_values_are_those_of_the_techniques(npz, value_range):
    path, images = npz
    config = automatic(path, f"data.value_range={value_range}")
    assert settings.automatic(config)
    config, lines = settings.resolve(config, build.dataset(config))
    assert not settings.automatic(config)
    low, high = value_range
    sigma_max = pdist(images.reshape(30, -1) / 255).max() * (high - low)
    assert config.sde.sigma_max == pytest.approx(sigma_max, rel=1e-4)
    levels = ladder.num_levels(images[0].size, 0.01, sigma_max)
    assert config.loss.times.num_levels == config.sampler.times.num_levels == levels
    step = ladder.langevin_step_size((sigma_max / 0.01) ** (1 / (levels - 1)), config.sampler.corrector.num_steps)
    assert config.sampler.corrector.step_size == pytest.approx(step, rel=1e-3)
    for path, value in [
        ("sde.sigma_max", config.sde.sigma_max),
        ("times.num_levels", levels),
        ("sampler.corrector.step_size", config.sampler.corrector.step_size),
    ]:
        assert any(f"{path} = {value}" in line for line in lines), lines
    assert settings.resolve(config, build.dataset(config)) == (config, [])


def test_the_step_size_depends_on_the_ratio_of_the_levels_of_the_grid(npz):
    """A ladder of L levels and a uniform grid of L - 1 steps have the same ratio between neighbors."""
    sizes = []
    grids = ("loss.times.num_levels=9",), ("sampler.times.name=uniform", "sampler.times.num_steps=8")
    for grid in (*grids, ("sampler.times.name=uniform", "sampler.times.num_steps=1")):
        config = automatic(npz[0], "sde.sigma_max=5.0", "loss.times.num_levels=9", *grid)
        config, _ = settings.resolve(config, build.dataset(config))
        sizes.append(config.sampler.corrector.step_size)
    assert sizes[0] == sizes[1] != sizes[2]
    for size, ratio in zip(sizes[1:], (500.0 ** (1 / 8), 500.0), strict=True):
        assert size == pytest.approx(ladder.langevin_step_size(ratio, config.sampler.corrector.num_steps), rel=1e-3)


def test_a_value_that_is_set_is_kept(npz):
    config = automatic(npz[0], "sde.sigma_max=5.0", "loss.times.num_levels=7")
    config, lines = settings.resolve(config, build.dataset(config))
    assert len(lines) == 1 and "step_size" in lines[0]
    assert (config.sde.sigma_max, config.sampler.times.num_levels) == (5.0, 7)


def test_only_automatic_values_are_adopted_from_the_run(npz, tmp_path):
    config, _ = settings.resolve(automatic(npz[0]), build.dataset(automatic(npz[0])))
    workdir.record(tmp_path / "run", config, made_up((4, 4, 1)))
    again = settings.adopt(automatic(npz[0], "train.steps=9"), workdir.saved_config(tmp_path / "run"))
    workdir.refuse_another_run(tmp_path / "run", again)
    assert again == settings.with_values(config, {"train.steps": 9})
    untouched = settings.adopt(automatic(npz[0]), {})
    assert settings.automatic(untouched) == settings.automatic(automatic(npz[0]))


def test_images_that_are_too_small_for_automatic_levels_are_refused_by_their_size(tmp_path):
    for gray in (0, 255):
        Image.new("L", (4, 4), gray).save(tmp_path / f"{gray}.png")
    config = finished("image_folder", f"data.dir={tmp_path}", "data.image_size=1")
    message = (
        r"^--config\.data\.image_size=1: .*num_levels=auto needs images of >= 6 values, got 3; choose a larger size"
    )
    with pytest.raises(UserError, match=message):
        settings.resolve(config, build.dataset(config))
