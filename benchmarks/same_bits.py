"""Compare the bits that two checkouts compute: both train, sample, inpaint and evaluate the digits.

    python benchmarks/same_bits.py OTHER_CHECKOUT [--configs digits digits_vp ...] [--variant :debug]

Parameters, averages and the optimizer's state of the last checkpoint, samples, completions and the rows of an
evaluation must have the same bytes. Prints the number of equal arrays of each config, and the arrays that differ. Exits
with 1 if any differs. Both checkouts run on this machine, since another processor may round otherwise.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from run_outputs import checkpoint_arrays, differences

ROOT = Path(__file__).parent.parent
CONFIGS = ("digits", "digits_ve", "digits_vp", "digits_subvp")
MODES = (
    ["--mode=train"],
    ["--mode=sample", "--seed=1"],
    ["--mode=sample", "--config.task.name=inpainting"],
    ["--mode=eval", "--num_images=20", "--config.eval.bits_per_dim=True", "--config.eval.rtol=1e-3"],
)


def run(checkout: Path, config: str, workdir: Path) -> None:
    """Run all modes of one config, each in a process of its own."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(checkout), "GLIBC_TUNABLES": ""}
    for mode in MODES:
        command = [sys.executable, "main.py", f"--config=configs/{config}", f"--workdir={workdir}", *mode]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{checkout}: {' '.join(command)}\n{done.stderr}")


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Return every array that a run has saved, by its file, seed and task."""
    arrays_by_name = checkpoint_arrays(workdir)
    for path in sorted(workdir.glob("samples/**/*.npz"), key=lambda path: (len(path.name), path.name)):
        record = json.loads(path.with_name("samples.json").read_text())["description"]
        kind = path.stem.partition("-")[0]  # a set may lie in shards: images.npz, images-000000100.npz, ...
        name = f"{kind} {record['seed']} {record.get('task', {}).get('name', 'none')}"
        with np.load(path) as archive:
            for key in archive.files:
                before = arrays_by_name.get(f"samples/{name}/{key}", archive[key][:0])
                arrays_by_name[f"samples/{name}/{key}"] = np.concatenate([before, archive[key]])
    for path in sorted(workdir.glob("eval/**/*.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            for key, values in row.items():
                before = arrays_by_name.get(f"{path.name}/{key}", np.zeros((0, *np.shape(values)[1:])))
                arrays_by_name[f"{path.name}/{key}"] = np.concatenate([before, np.array(values, float)])
    return arrays_by_name


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--variant", default=":debug")
    arguments = parser.parse_args()
    num_different = 0
    for config in arguments.configs:
        with tempfile.TemporaryDirectory() as folder:
            sides = []
            for name, checkout in (("there", arguments.other.resolve()), ("here", ROOT.resolve())):
                run(checkout, f"{config}.py{arguments.variant}", Path(folder) / name)
                sides.append(arrays(Path(folder) / name))
        there, here = sides
        different = differences(there, here)
        print(
            f"{config}: {len(there | here) - len(different)} of {len(there | here)} arrays have the same bytes",
            flush=True,
        )
        for key in different:
            print(f"  {key}: {np.shape(there.get(key))} there, {np.shape(here.get(key))} here")
        num_different += len(different)
    return int(num_different > 0)


if __name__ == "__main__":
    sys.exit(main())
