"""A trained run opened in Python has the parameters of its checkpoint and the objects of its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import smallest
from run_files import images, quiet, restored

from score_sde_jax import keys
from score_sde_jax.errors import UserError
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.train import train
from score_sde_jax.runs.trained import load_run

pytestmark = pytest.mark.usefixtures("quick_compilation", "blank_figures")
SETTINGS = smallest("train.preview_every=0", "train.averages.slow=0.9", "train.averages.raw=0.0")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    train(SETTINGS, directory, quiet)
    return directory


def test_load_run_returns_the_average_of_the_checkpoint_that_is_asked_for(workdir):
    for step, checkpoint in ((4, None), (2, 2)):
        state = restored(workdir, SETTINGS, step)
        assert load_run(workdir, checkpoint).step == step
        jax.tree.map(np.testing.assert_array_equal, load_run(str(workdir), checkpoint).params, state.ema_params)
        jax.tree.map(np.testing.assert_array_equal, load_run(workdir, checkpoint, "raw").params, state.params)


def test_loaded_run_draws_the_images_of_the_command(workdir):
    drawn = images(sample(SETTINGS, workdir, SampleRequest(), quiet))
    run = load_run(workdir)
    assert run.settings == SETTINGS
    image_keys = keys.per_image(keys.root(SETTINGS.seed, "sample"), jnp.arange(len(drawn)))
    like = jnp.zeros((len(drawn), *run.experiment.image_shape))
    samples = jax.jit(lambda image_keys: run.experiment.sampler(run.noise_fn(), image_keys, like))(image_keys)
    stored = run.experiment.pixels.stored(np.asarray(samples.images)).astype(int)
    assert np.abs(stored - drawn).max() <= 1  # another program may round a gray value the other way


def test_load_run_without_a_run_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=f"^directory='{tmp_path}': holds no run; train first, with --mode=train"):
        load_run(tmp_path)


def test_load_run_with_an_unknown_average_is_a_user_error(workdir):
    with pytest.raises(UserError, match="average='fast': must be one of ema, raw, slow"):
        load_run(workdir, average="fast")
