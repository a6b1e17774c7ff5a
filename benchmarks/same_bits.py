"""Whether two checkouts compute the same bits: the digits are trained, drawn, completed and measured in both.

python benchmarks/same_bits.py OTHER_CHECKOUT [--configs digits digits_vp ...] [--variant :debug]

Parameters, averages and the optimizer's state of the last checkpoint, samples, completions and the rows of an
evaluation must have the same bytes. The runs of both checkouts take turns on this machine, since another processor
rounds otherwise. Exits with 1 where anything differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).parent.parent
CONFIGS = ("digits", "digits_ve", "digits_vp", "digits_subvp")
MODES = (
    ["--mode=train"],
    ["--mode=sample", "--seed=1"],
    ["--mode=sample", "--config.task.name=inpainting"],
    ["--mode=eval", "--num_images=20", "--config.eval.bits_per_dim=True", "--config.eval.rtol=1e-3"],
)


def run(checkout: Path, config: str, workdir: Path) -> None:
    """All modes of one config, each in a process of its own."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(checkout), "GLIBC_TUNABLES": ""}
    for mode in MODES:
        command = [sys.executable, "main.py", f"--config=configs/{config}", f"--workdir={workdir}", *mode]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{checkout}: {' '.join(command)}\n{done.stderr}")


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Every array that a run has left, by its file, seed and task."""
    left: dict[str, np.ndarray] = {}
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    with warnings.catch_warnings():  # no sharding is asked for
        warnings.simplefilter("ignore")
        state = ocp.PyTreeCheckpointer().restore((workdir / "checkpoints" / str(step) / "state").absolute())
    left |= {f"state/{key}": np.asarray(leaf) for key, leaf in ocp.utils.to_flat_dict(state, sep="/").items()}
    for path in sorted(workdir.glob("samples/**/*.npz"), key=lambda path: (len(path.name), path.name)):
        record = json.loads(path.with_name("samples.json").read_text())["description"]
        kind = path.stem.partition("-")[0]  # a set may lie in shards: images.npz, images-000000100.npz, ...
        name = f"{kind} {record['seed']} {record.get('task', {}).get('name', 'none')}"
        with np.load(path) as archive:
            for key in archive.files:
                before = left.get(f"samples/{name}/{key}", archive[key][:0])
                left[f"samples/{name}/{key}"] = np.concatenate([before, archive[key]])
    for path in sorted(workdir.glob("eval/**/*.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            for key, values in row.items():
                before = left.get(f"{path.name}/{key}", np.zeros((0, *np.shape(values)[1:])))
                left[f"{path.name}/{key}"] = np.concatenate([before, np.array(values, float)])
    return left


def bits(array: np.ndarray | None) -> object:
    """What must be the same of an array."""
    return None if array is None else (array.dtype, array.shape, array.tobytes())


def main() -> int:
    """Run the command line; 0 where all is the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--variant", default=":debug")
    asked = parser.parse_args()
    different = 0
    for config in asked.configs:
        with tempfile.TemporaryDirectory() as folder:
            sides = []
            for name, checkout in (("there", asked.other.resolve()), ("here", ROOT.resolve())):
                run(checkout, f"{config}.py{asked.variant}", Path(folder) / name)
                sides.append(arrays(Path(folder) / name))
        there, here = sides
        wrong = [key for key in sorted(there | here) if bits(there.get(key)) != bits(here.get(key))]
        print(f"{config}: {len(here) - len(wrong)} of {len(there | here)} arrays have the same bytes", flush=True)
        for key in wrong:
            print(f"  {key}: {np.shape(there.get(key))} there, {np.shape(here.get(key))} here")
        different += len(wrong)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
