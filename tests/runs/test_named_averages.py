"""Named averages of the parameters: their decays, and their use in sampling and evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from experiments import smallest
from run_files import images, quiet, restored

from score_sde_jax.errors import UserError
from score_sde_jax.runs import workdir as directories
from score_sde_jax.runs.evaluate import evaluate
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.step import init_state, training_step
from score_sde_jax.runs.train import train

pytestmark = pytest.mark.usefixtures("quick_compilation", "blank_figures")
STILL = [
    "train.preview_every=0",
    "sampler.num_images=2",
    "sampler.batch_size=2",
    "optimizer.learning_rate=0.05",
    "optimizer.decay=constant",
    "train.ema_decay=0.5",
]
TWO = [*STILL, "train.averages.slow=0.9", "train.averages.raw=0.0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train(smallest(*TWO), workdir, quiet)
    return workdir


def test_every_average_has_the_decay_of_its_name():
    """After n steps of gradient descent on a line: by the recursion, in numpy."""
    decays = {"slow": 0.9, "fast": 0.1}
    step = training_step(lambda params, keys, batch: params * batch["image"], optax.sgd(1.0), 0.5, averages=decays)
    state = init_state(jnp.asarray(3.0), optax.sgd(1.0), tuple(decays))
    params, want = 3.0, {"ema": 3.0, "slow": 3.0, "fast": 3.0}
    for number in (1.0, 2.0, -4.0):
        state, _ = step(state, {"image": jnp.full(2, number)}, jax.random.key(0))
        params -= number
        want = {name: ({"ema": 0.5} | decays)[name] * old for name, old in want.items()}
        want = {name: value + (1 - ({"ema": 0.5} | decays)[name]) * params for name, value in want.items()}
    actual = {"ema": state.ema_params, **state.averages}
    assert {name: float(value) for name, value in actual.items()} == pytest.approx(want)


def test_samples_and_measures_are_those_of_the_average_that_is_asked_for(run):
    state = restored(run, smallest(*TWO), 4)
    jax.tree.map(np.testing.assert_array_equal, state.averages["raw"], state.params)
    drawn, losses = {}, {}
    for name in ("ema", "slow", "raw"):
        config = smallest(*TWO, f"sampler.average={name}", f"eval.average={name}", "eval.num_images=8")
        output = sample(config, run, SampleRequest(), quiet)
        drawn[name] = images(output)
        losses[name] = (evaluate(config, run, say=quiet) / "loss.jsonl").read_text()
        assert (output == run / "samples" / "4") == (name == "ema")  # as older runs, whose record names no average
    assert len({array.tobytes() for array in drawn.values()}) == len(set(losses.values())) == 3
    # The same parameters under another name draw the same images.
    same = [*STILL, "train.ema_decay=0.0"]
    alone = run.parent / "alone"
    train(smallest(*same), alone, quiet)
    np.testing.assert_array_equal(images(alone / "samples" / "4"), drawn["raw"])


def test_training_draws_with_the_average_of_the_sampler(run, tmp_path):
    train(smallest(*TWO, "sampler.average=slow"), tmp_path, quiet)
    by_hand = sample(smallest(*TWO, "sampler.average=slow"), run, SampleRequest(output=tmp_path / "o"), quiet)
    np.testing.assert_array_equal(images(tmp_path / "samples" / "4"), images(by_hand))


def test_a_run_takes_up_an_average_and_lays_it_down(tmp_path):
    """A new one starts from the average that every checkpoint has."""
    train(smallest(*STILL), tmp_path, quiet)
    before = restored(tmp_path, smallest(*STILL), 4).ema_params
    more = [*STILL, "train.averages.still=0.9999999", "train.steps=6"]
    lines = []
    train(smallest(*more), tmp_path, lines.append)
    assert any("train.averages.still None -> 0.9999999" in line for line in lines)
    after = restored(tmp_path, smallest(*more), 6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), after.averages["still"], before)
    train(smallest(*STILL, "train.steps=8"), tmp_path, quiet)
    assert restored(tmp_path, smallest(*STILL), 8).averages == {}


def test_an_average_that_is_not_there(run, tmp_path):
    for path in ("sampler", "eval"):
        with pytest.raises(
            UserError, match=rf"^--config\.{path}\.average=slaw: choose one of ema, (slow, raw|raw, slow), or add it"
        ):
            smallest(*TWO, f"{path}.average=slaw")
    with pytest.raises(UserError, match=r"^--config\.train\.averages\.slow=1\.5: must be >= 0 and < 1"):
        smallest("train.averages.slow=1.5")
    with pytest.raises(UserError, match=r"^--config\.train\.averages\.ema: "):
        smallest("train.averages.ema=0.5")
    config = directories.saved_settings(run, ["train.averages.late=0.3", "sampler.average=late"])
    with pytest.raises(UserError, match=r"has the averages ema, \w+, \w+, not late"):
        sample(config, run, SampleRequest(output=tmp_path / "none"), quiet)
    assert not (tmp_path / "none").exists()
