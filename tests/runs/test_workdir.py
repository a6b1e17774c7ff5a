"""What a workdir keeps, on a disk or in a bucket, and the other run that it refuses."""

import pathlib
import sys
from typing import ClassVar

import pytest
from experiments import finished

from score_sde_jax.errors import UserError
from score_sde_jax.runs import workdir
from score_sde_jax.runs.reporting import MetricsLog, read_metrics


@pytest.mark.parametrize(
    ("assignment", "difference"),
    [
        ("model.width=16", "model.width=8, these settings have 16"),
        ("sde.sigma_max=3", "sde.sigma_max=2.0, these settings have 3.0"),
        ("data.dequantize=true", "data.dequantize=False, these settings have True"),
        ("parameterization.center=0.25", "parameterization.center=0.5, these settings have 0.25"),
        ("data.name=cifar10", "data.name=celeb_a, these settings have cifar10"),
    ],
)
def test_another_run_is_refused_by_name(tmp_path, assignment, difference):
    fixed = ["sde.sigma_max=2", "loss.times.num_levels=3"]
    workdir.record(tmp_path, finished("celeba", *fixed), (64, 64, 3))
    with pytest.raises(UserError) as raised:
        workdir.refuse_another_run(tmp_path, finished("celeba", *fixed, assignment))
    assert str(raised.value).startswith(f"--workdir={tmp_path}: the saved run has ") and "\n" not in str(raised.value)
    assert difference in str(raised.value)
    may_change = ["data.dir=/elsewhere", "data.flip=false", "data.cache_bytes=0", "optimizer.learning_rate=1.0"]
    workdir.refuse_another_run(tmp_path, finished("celeba", *fixed, *may_change, "sampler.denoise=false"))


def test_a_workdir_that_cannot_be_written_or_read(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file" / "run", pathlib.Path("/proc/run")):
        with pytest.raises(UserError, match=rf"--workdir={directory}: cannot be written \(.+\)"):
            workdir.record(directory, finished("digits"), (8, 8, 1))
    (tmp_path / "config.json").write_text('{"data": {')
    with pytest.raises(UserError, match=r"config\.json: not the config of a run"):
        workdir.saved_config(tmp_path)


def test_a_workdir_in_a_bucket(monkeypatch):
    """Files of a run as objects of a bucket, here one in memory; without the package one line says what to install."""
    with pytest.raises(UserError, match=r"gs://bucket/run: cannot be reached \(.*gcsfs.*\); pip install"):
        workdir.locate("gs://bucket/run")
    with pytest.raises(UserError, match=r"^--output=nowhere://run: nothing here knows"):
        workdir.locate("nowhere://run", "--output")
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol = ("gs", "gcs")
        store: ClassVar[dict] = {}
        pseudo_dirs: ClassVar[list] = [""]

    for protocol in Bucket.protocol:
        monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, protocol, Bucket)
    run = workdir.locate("gs://bucket/run")
    with workdir.claimed(run):
        workdir.record(run, finished("digits"), (8, 8, 1))
    assert workdir.saved_config(run)["image_shape"] == [8, 8, 1]
    log = MetricsLog(run, 0)
    for step in (1, 2, 3):
        log.write(step, {"loss": float(step)})
    log = MetricsLog(run, 2)
    log.write(3, {"loss": 0.5})
    assert read_metrics(run / "metrics.jsonl") == [
        {"step": step, "loss": loss} for step, loss in [(1, 1.0), (2, 2.0), (3, 0.5)]
    ]
