"""Files of a workdir, and refusal of another run."""

import pathlib

import pytest
from experiments import finished
from run_files import made_up

from score_sde_jax.errors import UserError
from score_sde_jax.runs import workdir


@pytest.mark.parametrize(
    ("assignment", "difference"),
    [
        ("model.width=16", "model.width=3, these settings have 16"),
        ("sde.sigma_max=3", "sde.sigma_max=2.0, these settings have 3.0"),
        ("data.dequantize=true", "data.dequantize=False, these settings have True"),
        ("parameterization.center=0.25", "parameterization.center=0.5, these settings have 0.25"),
        ("data.name=cifar10", "data.name=celeb_a, these settings have cifar10"),
    ],
)
def test_another_run_is_refused_by_name(tmp_path, assignment, difference):
    fixed = ["sde.sigma_max=2", "loss.times.num_levels=3"]
    workdir.record(tmp_path, finished("celeba", *fixed), made_up((64, 64, 3)))
    with pytest.raises(UserError) as raised:
        workdir.refuse_another_run(tmp_path, finished("celeba", *fixed, assignment))
    assert str(raised.value).startswith(f"--workdir={tmp_path}: the saved run has ") and "\n" not in str(raised.value)
    assert difference in str(raised.value)
    may_change = ["data.dir=/elsewhere", "data.flip=false", "data.cache_bytes=0", "optimizer.learning_rate=1.0"]
    workdir.refuse_another_run(tmp_path, finished("celeba", *fixed, *may_change, "sampler.denoise=false"))


def test_a_workdir_that_cannot_be_written_or_read(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file" / "run", pathlib.Path("/proc/run")):
        claim = workdir.claimed(directory)
        with pytest.raises(UserError, match=rf"--workdir={directory}: cannot be written: ."), claim:
            pass
    (tmp_path / "config.json").write_text('{"data": {')
    with pytest.raises(UserError, match=r"config\.json: not the config of a run"):
        workdir.saved_config(tmp_path)
