"""Runs of two steps on the digits; network and classifier are small, and compile quickly."""

import pytest
from experiments import finished, smallest
from run_files import quiet
from stand_ins import LinearClassifier

from score_sde_jax.networks import MODELS
from score_sde_jax.runs.train import train


@pytest.fixture(scope="module", autouse=True)
def linear():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "wide_resnet", LinearClassifier)
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run of two steps on the digits."""
    workdir = tmp_path_factory.mktemp("digits")
    train(smallest("train.steps=2", "train.preview_every=0"), workdir, quiet)
    return workdir


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of two steps."""
    workdir, lines = tmp_path_factory.mktemp("classifier"), []
    train(finished("digits_classifier", "train.steps=2", "train.preview_every=0"), workdir, lines.append)
    assert not (workdir / "samples").exists() and any(line.startswith("step 2/2: loss=2.") for line in lines)
    return workdir
