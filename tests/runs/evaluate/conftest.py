"""The exact network among the models, and trained runs of it."""

import numpy as np
import pytest
from exact import Exact, finished, init_state
from run_files import quiet

from score_sde_jax.networks import MODELS
from score_sde_jax.runs import experiment
from score_sde_jax.runs.train import train


@pytest.fixture(scope="module", autouse=True)
def known(quick_compilation, blank_figures):
    """Register the exact network, and make training return raw parameters that differ from their average."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "exact", Exact)
        patch.setattr(experiment, "init_state", init_state)
        yield


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """Two archives of images of 256 levels, to train on and held out."""
    rng = np.random.default_rng(0)
    paths = [tmp_path_factory.mktemp(name) / "images.npz" for name in ("trained", "held_out")]
    for path, num in zip(paths, (30, 21), strict=True):
        np.savez(path, images=rng.integers(0, 256, (num, 4, 4, 1), np.uint8))
    return paths


@pytest.fixture(scope="module")
def runs(tmp_path_factory, npz):
    """Function from the name of a case to its trained run: (workdir, kind, overrides, range of the values)."""
    made = {}
    cases = {
        "digits": ("vp", [], (0.0, 1.0)),
        "digits_ve": ("ve", [], (0.0, 1.0)),
        "digits_subvp": ("subvp", ["data.value_range=(-1.0, 1.0)"], (-1.0, 1.0)),
        "npz": ("vp", ["data.name=npz", f"data.dir={npz[0]}", "data.value_range=(-1.0, 1.0)"], (-1.0, 1.0)),
    }

    def run(name):
        if name not in made:
            kind, overrides, value_range = cases[name]
            workdir = tmp_path_factory.mktemp(name)
            train(finished(kind, *overrides), workdir, quiet)
            made[name] = workdir, kind, overrides, value_range
        return made[name]

    return run
