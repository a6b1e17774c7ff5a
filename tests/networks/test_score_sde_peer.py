"""Our networks against those of the PyTorch repository of arXiv 2011.13456 with the same weights.

    git clone https://github.com/yang-song/score_sde_pytorch PEER
    SCORE_SDE_PYTORCH=PEER pytest -m slow tests/networks/test_score_sde_peer.py

Needs PyTorch beside JAX; skipped without either.
"""

import importlib
import os
import sys

import jax
import numpy as np
import published_unets
import pytest
from flax.traverse_util import unflatten_dict

from score_sde_jax.condition import Condition
from score_sde_jax.networks import DDPM, DDPMpp, NCSNpp

PEER = os.environ.get("SCORE_SDE_PYTORCH")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PEER is None, reason="SCORE_SDE_PYTORCH names no clone")]

PYRAMIDS = dict(progressive_input="skip", progressive_output="skip")
CASES = {
    "ve.cifar10_ncsnpp_continuous": (NCSNpp(), 32),
    "vp.cifar10_ddpmpp_continuous": (DDPMpp(), 32),
    "vp.cifar10_ncsnpp_continuous": (NCSNpp(embedding="positional"), 32),
    "vp.ddpm.cifar10_continuous": (DDPM(), 32),
    "ve.ffhq_256_ncsnpp_continuous": (NCSNpp(multipliers=(1, 1, 2, 2, 2, 2, 2), num_blocks=2, **PYRAMIDS), 256),
}


@pytest.fixture
def peer(monkeypatch):
    """The repository's registry of networks; its CUDA extension is replaced by the repository's own CPU function."""
    torch = pytest.importorskip("torch")
    cpp_extension = importlib.import_module("torch.utils.cpp_extension")
    monkeypatch.setattr(cpp_extension, "load", lambda *args, **keywords: None)
    monkeypatch.syspath_prepend(PEER)
    for module in [name for name in sys.modules if name.split(".")[0] in ("configs", "models", "op")]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("ddpm", "ncsnpp"):
        importlib.import_module(f"models.{module}")
    torch.manual_seed(0)
    return importlib.import_module("models.utils")


@pytest.mark.parametrize("name", CASES)
def test_output_is_that_of_the_peer(name, peer):
    import torch

    network, size = CASES[name]
    config = importlib.import_module(f"configs.{name}").get_config()
    config.model.dropout = 0.0
    theirs = peer.get_model(config.model.name)(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            # the last convolutions of blocks start at nearly zero, norms and biases at constants
            parameter.add_(0.05 * torch.randn_like(parameter))
    weights = {key: value.numpy() for key, value in theirs.state_dict().items() if key != "sigmas"}

    rng = np.random.default_rng(0)
    x0 = rng.uniform(-1, 1, (1, size, size, 3)).astype(np.float32)
    level = np.array([3.7 if network.embedding == "fourier" else 612.5], np.float32)
    noise = np.log(level) if network.embedding == "fourier" else level
    given = (x0 + 1) / 2 if not config.data.centered else x0
    with torch.no_grad():
        expected = theirs(torch.from_numpy(given.transpose(0, 3, 1, 2)), torch.from_numpy(level))
    expected = expected.numpy().transpose(0, 2, 3, 1) * (level if config.model.scale_by_sigma else 1)

    params = {"params": unflatten_dict(published_unets.weights_from_torch(weights))}
    shapes = jax.eval_shape(network.init, jax.random.key(0), x0, Condition(noise))
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    actual = np.asarray(jax.jit(network.apply)(params, x0, Condition(noise)))
    difference = np.abs(actual - expected).max()
    print(f"{name}: max difference {difference:.2g} of outputs of size {np.abs(expected).max():.3g}")
    assert difference < 1e-4 * np.abs(expected).max()
