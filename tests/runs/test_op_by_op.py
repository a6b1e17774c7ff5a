"""Runs operation by operation equal compiled runs up to rounding."""

import numpy as np
import pytest
from experiments import finished
from op_by_op import op_by_op
from run_files import images, quiet, timeless

from score_sde_jax.runs.reporting import read_metrics
from score_sde_jax.runs.train import train

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("name", ["digits", "digits_classes"])
def test_op_by_op_run_equals_the_compiled_run(name, tmp_path):
    config = finished(name, "train.steps=2", "train.preview_every=0")
    train(config, tmp_path / "compiled", quiet)
    with op_by_op():
        train(config, tmp_path / "op_by_op", quiet)
    compiled, alone = (read_metrics(tmp_path / kind / "metrics.jsonl") for kind in ("compiled", "op_by_op"))
    assert len(compiled) == 2
    for theirs, ours in zip(map(timeless, compiled), map(timeless, alone), strict=True):
        assert theirs.keys() == ours.keys()
        for key, value in theirs.items():
            np.testing.assert_allclose(np.array(ours[key], float), np.array(value, float), rtol=1e-3, err_msg=key)
    theirs, ours = (images(tmp_path / kind / "samples" / "2").astype(int) for kind in ("compiled", "op_by_op"))
    assert np.abs(theirs - ours).max() <= 1 and theirs.std() > 0
