"""A run whose workdir is a bucket: the real clients of Google Cloud Storage and a store in this process."""

import importlib
import io
import json
import os
import signal
import sys

import numpy as np
import pytest
from bucket import served
from experiments import smallest
from PIL import Image
from run_files import quiet, restored, timeless

from score_sde_jax.errors import StoppedError, UserError
from score_sde_jax.runs import workdir
from score_sde_jax.runs.evaluate import evaluate
from score_sde_jax.runs.reporting import read_metrics
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.train import train

pytestmark = pytest.mark.usefixtures("quick_compilation", "blank_figures")

STEADY = ("optimizer.decay=constant", "checkpoint.every=2", "checkpoint.keep=1", "sampler.num_images=4")


@pytest.fixture
def store(monkeypatch):
    """Objects of the bucket "bucket", with the clients of this process pointed at them."""
    from etils.epath import backend

    with served() as (store, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        backend.fsspec_backend._get_filesystem.cache_clear()
        yield store
        backend.fsspec_backend._get_filesystem.cache_clear()


def names(store, folder):
    """What lies in a folder of the bucket."""
    inside = [name.removeprefix(f"{folder}/") for name in store.names("bucket") if name.startswith(f"{folder}/")]
    return sorted({name.partition("/")[0] for name in inside})


@pytest.mark.slow
def test_run_in_a_bucket_equals_one_on_a_disk(store, tmp_path, monkeypatch):
    """Train, stop by a signal, resume past a corrupted checkpoint, sample twice and evaluate."""
    monkeypatch.chdir(tmp_path)
    where = workdir.locate("gs://bucket/runs/one")

    def stop_after_step_3(line):
        if line.startswith("step 3/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="step") as stopped:
        train(smallest(*STEADY, "train.steps=40"), where, stop_after_step_3)
    assert stopped.value.status == 128 + signal.SIGTERM
    (saved,) = map(int, names(store, "runs/one/checkpoints"))  # keep=1: the earlier ones are deleted
    assert 3 <= saved < 40

    longer = smallest(*STEADY, f"train.steps={saved + 4}", "train.preview_every=1", "checkpoint.keep=2")
    lines = []
    train(longer, where, lines.append)
    assert any(f"step {saved:,}" in line for line in lines)
    train(longer, tmp_path / "disk", quiet)
    for step in range(saved + 1, saved + 4):
        assert "grid.png" in names(store, f"runs/one/samples/{step}")
    rows, on_disk = (read_metrics(run / "metrics.jsonl") for run in (where, tmp_path / "disk"))
    assert list(map(timeless, rows)) == list(map(timeless, on_disk))

    last = saved + 4
    corrupted = [name for name in store.names("bucket") if name.startswith(f"runs/one/checkpoints/{last}/state/")]
    for name in corrupted:
        store.put("bucket", name, b"")
    train(longer, where, lines.append)
    assert f"{last}.damaged" in names(store, "runs/one/checkpoints")
    leaves = zip(*(leaves_of(run, longer, last) for run in (where, tmp_path / "disk")), strict=True)
    assert all(np.array_equal(one, other) for one, other in leaves)

    for number in (6, 9):
        drawn = smallest(*STEADY, f"sampler.num_images={number}")
        outputs = [sample(drawn, run, SampleRequest(files=True), quiet) for run in (where, tmp_path / "disk")]
        assert str(outputs[0]) == f"gs://bucket/runs/one/samples/{last}"
    assert len(names(store, f"runs/one/samples/{last}/images")) == 9
    for i in range(9):
        data = (outputs[0] / "images" / f"{i:06d}.png").read_bytes()
        with Image.open(io.BytesIO(data)) as here, Image.open(outputs[1] / "images" / f"{i:06d}.png") as there:
            np.testing.assert_array_equal(np.asarray(here), np.asarray(there))

    measured = smallest(*STEADY, "eval.num_images=5")
    results = [evaluate(measured, run, say=quiet) / "metrics.json" for run in (where, tmp_path / "disk")]
    assert json.loads(results[0].read_text()) == json.loads(results[1].read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]  # nothing of the bucket is on this disk


def leaves_of(run, config, step):
    import jax

    return jax.tree.leaves(restored(run, config, step))


def test_locate_without_the_package_of_buckets_names_it(monkeypatch):
    from etils.epath import backend

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for protocol in ("gs", "gcs"):
        monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, protocol, raising=False)
    backend.fsspec_backend._get_filesystem.cache_clear()
    with pytest.raises(
        UserError, match=r"^--workdir=gs://bucket/run: cannot be reached \(.*gcsfs.*\); pip install gcsfs$"
    ):
        workdir.locate("gs://bucket/run")


def test_locate_with_an_unknown_scheme_names_the_flag():
    with pytest.raises(
        UserError, match=r"^--output=nowhere://run: unsupported scheme; use a path, or gs://bucket/run$"
    ):
        workdir.locate("nowhere://run", "--output")
