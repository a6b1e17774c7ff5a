"""TensorBoard and Weights & Biases with their real packages: the files of a run and of a resumed run."""

import io
import json
import struct
import time

import numpy as np
import pytest
from experiments import smallest
from PIL import Image

from score_sde_jax.runs.train import train

pytestmark = pytest.mark.usefixtures("quick_compilation", "blank_figures")


def events(folder):
    """Scalars and images of TensorBoard's event files, in the order in which they were written."""
    from tensorboardX.proto.event_pb2 import Event

    written = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        data, position = path.read_bytes(), 0
        while position < len(data):  # a length of 8 bytes, its checksum of 4, the event, its checksum of 4
            (length,) = struct.unpack_from("<Q", data, position)
            event = Event.FromString(data[position + 12 : position + 12 + length])
            written += [(event.step, value) for value in event.summary.value]
            position += length + 16
    return written


def history(path):
    """Id of the run and rows of its history in a file of Weights & Biases, a log in LevelDB's format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, whole, run_id, rows = path.read_bytes(), 7, b"", None, []
    while position < len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record, whole = Record.FromString(whole), b""
            if record.WhichOneof("record_type") == "run":
                run_id = record.run.run_id
            elif record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
    return run_id, rows


def test_loggers_of_a_resumed_run_have_the_numbers_and_grids_of_their_steps(tmp_path, monkeypatch):
    import wandb

    workdir, local = tmp_path / "run", tmp_path / "local"
    local.mkdir()
    for name, value in {"MODE": "offline", "DIR": str(local), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    overrides = ["train.preview_every=1", "train.tensorboard=true", "train.wandb=true", "sampler.num_images=5"]
    try:
        train(smallest(*overrides, "train.steps=2"), workdir, [].append)
        time.sleep(1.1)  # Weights & Biases names a folder by its second
        train(smallest(*overrides, "train.steps=3"), workdir, [].append)
    finally:
        wandb.teardown()

    logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    grids = {step: (workdir / "samples" / str(step) / "grid.png").read_bytes() for step in (1, 2, 3)}
    assert [row["step"] for row in logged] == [1, 2, 3]

    written = events(workdir / "tensorboard")
    for row in logged:
        for key in ("loss", "grad_norm", "learning_rate"):
            (value,) = (v.simple_value for step, v in written if (step, v.tag) == (row["step"], key))
            assert value == np.float32(row[key])
        for i, loss in enumerate(row["level_loss"]):
            values = [v.simple_value for step, v in written if (step, v.tag) == (row["step"], f"level_loss/{i}")]
            assert values == ([] if loss is None else [np.float32(loss)])
    shown = {step: v.image.encoded_image_string for step, v in written if v.HasField("image")}
    assert set(shown) == {1, 2, 3}
    for step, picture in shown.items():
        np.testing.assert_array_equal(pixels(picture), pixels(grids[step]))

    first, second = sorted(local.glob("wandb/offline-run-*/*.wandb"))
    run_id = (workdir / "wandb_run").read_text()
    assert history(first)[0] == history(second)[0] == run_id
    rows = history(first)[1] + history(second)[1]
    assert [row["_step"] for row in rows] == [1, 2, 3]
    for row, numbers in zip(rows, logged, strict=True):
        assert row["loss"] == numbers["loss"] and row["learning_rate"] == numbers["learning_rate"]
        assert {k for k in row if k.startswith("level_loss")} == {
            f"level_loss/{i}" for i, loss in enumerate(numbers["level_loss"]) if loss is not None
        }
        (picture,) = local.glob(f"wandb/offline-run-*/files/{row['samples/path']}")
        np.testing.assert_array_equal(pixels(picture.read_bytes()), pixels(grids[row["_step"]]))


def pixels(png):
    with Image.open(io.BytesIO(png)) as opened:
        return np.asarray(opened.convert("RGB"))
