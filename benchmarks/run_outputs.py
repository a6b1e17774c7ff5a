"""Outputs of a run, as values by which two runs are compared."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from score_sde_jax.runs.numbered import RECORD
from score_sde_jax.runs.reporting import read_metrics

CLOCK = re.compile("seconds|images_per_second|memory|utili[sz]ation")
"""Keys of metrics.jsonl that depend on the speed of the machine."""
PICTURES = {".png", ".gif"}


def checkpoint_steps(workdir: Path) -> list[int]:
    """Return the steps of the complete checkpoints of a run, in increasing order.

    Args:
        workdir: directory of the run.
    """
    directory = workdir / "checkpoints"
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit()) if directory.is_dir() else []


def checkpoint_arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Return every array of the newest checkpoint of a run, by its path in the state.

    Args:
        workdir: directory of the run.
    """
    path = workdir / "checkpoints" / str(checkpoint_steps(workdir)[-1]) / "state"
    with warnings.catch_warnings():  # orbax warns that the arrays get no sharding
        warnings.simplefilter("ignore")
        state = ocp.PyTreeCheckpointer().restore(path.absolute())
    flat = ocp.utils.to_flat_dict(state, sep="/")
    return {f"state/{name}": np.asarray(leaf) for name, leaf in flat.items()}


def metrics_without_times(workdir: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl without the values that depend on the clock.

    Args:
        workdir: directory of the run.
    """
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not CLOCK.search(key)} for row in rows]


def sample_sets(workdir: Path) -> dict[str, Any]:
    """Return every array of every sample set, its shards joined, and its record without the command.

    Args:
        workdir: directory of the run.
    """
    outputs: dict[str, Any] = {}
    for path in sorted(workdir.glob(f"samples/**/{RECORD}")):
        folder = path.parent
        record = json.loads(path.read_text())
        outputs[str(path.relative_to(workdir))] = {key: record[key] for key in record if key != "command"}
        columns: dict[str, list[np.ndarray]] = {}
        for shard in sorted(folder.glob("*.npz"), key=lambda shard: (len(shard.name), shard.name)):
            with np.load(shard) as archive:
                for key in archive.files:
                    columns.setdefault(key, []).append(archive[key])
        outputs |= {f"{folder.relative_to(workdir)}/{key}": np.concatenate(parts) for key, parts in columns.items()}
    return outputs


def outputs(workdir: Path) -> dict[str, Any]:
    """Return all outputs of a run without times: state, metrics, sample sets, evaluations and pictures.

    Args:
        workdir: directory of the run.
    """
    values: dict[str, Any] = {**checkpoint_arrays(workdir), "metrics.jsonl": metrics_without_times(workdir)}
    values |= sample_sets(workdir)
    evaluation = [path for path in workdir.glob("eval/**/*") if path.suffix in (".json", ".jsonl")]
    pictures = [path for path in workdir.rglob("*") if path.suffix in PICTURES]
    return values | {str(path.relative_to(workdir)): path.read_bytes() for path in [*evaluation, *pictures]}


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return the sorted names of the outputs that only one of two runs has or that differ in any bit.

    Args:
        first: outputs of a run.
        second: outputs of another run.
    """
    return [name for name in sorted(first | second) if comparable(first.get(name)) != comparable(second.get(name))]


def comparable(value: Any) -> Any:
    """Return a value that is equal only for equal bits.

    Args:
        value: an array, or anything that `==` compares.
    """
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
