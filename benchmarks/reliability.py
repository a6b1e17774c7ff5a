"""Kill, stop, corrupt and resume runs, and compare their outputs with those of uninterrupted runs.

    python benchmarks/reliability.py > docs/reliability.md

Prints the page docs/reliability.md: one row for each kind of interruption, and the distribution of the kills. Exits
with status 1 if a row differs from the specification. Results accumulate in --folder: a second call skips the trials
that are complete and continues the others, and `--only=kills` runs only the trials whose name contains "kills". Takes
about an hour on 2 cores of an Intel Xeon that other programs use too.
"""

import argparse
import dataclasses
import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from run_outputs import checkpoint_steps, differences, metrics_without_times, outputs
from run_processes import COMPILED, RESUMED, ROOT, SAMPLE, STEP, Run, kill_all

STEPS, EVERY = 2000, 20
SAVE_SECONDS = 0.5
NUM_SAMPLES, NUM_COMPLETIONS = 2400, 1200
RUN = [
    "--config=configs/digits.py:debug",
    f"--config.train.steps={STEPS}",
    "--config.train.log_every=7",  # no divisor of EVERY: the mean of a report spans a resume
    "--config.train.preview_every=0",
    f"--config.checkpoint.every={EVERY}",
    "--config.data.flip=True",
    "--config.data.dequantize=True",
]
TRAIN = [*RUN, "--mode=train"]
SAMPLING = [*RUN, "--mode=sample", "--config.sampler.corrector.num_steps=60"]
SAMPLE_FLAGS = [*SAMPLING, "--seed=1", f"--num_images={NUM_SAMPLES}"]
INPAINT_FLAGS = [*SAMPLING, "--config.task.name=inpainting", f"--num_images={NUM_COMPLETIONS}"]
EVAL_FLAGS = [
    *RUN,
    "--mode=eval",
    "--config.eval.draws=200",
    "--config.eval.bits_per_dim=True",
    "--config.eval.repeats=4",
    "--config.eval.rtol=1e-3",
    "--config.eval.atol=1e-3",
    "--config.eval.batch_size=4",
]
REFERENCES = {"train": TRAIN, "sample": SAMPLE_FLAGS, "inpainting": INPAINT_FLAGS, "eval": EVAL_FLAGS}
"""Flags of the uninterrupted runs."""
STARTS = 10
"""One of this many kills falls before the process has made progress."""


class Bench:
    """The folder of a benchmark: results so far, the uninterrupted runs, and the workdirs of the trials.

    Attributes:
        folder: directory of everything below.
        seed: seed of the moments of the interruptions.
        references: directory of the workdirs of the uninterrupted runs.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        """Open the folder.

        Args:
            folder: directory, which is made if it does not exist.
            seed: seed of the moments of the interruptions.
        """
        self.folder, self.seed, self.references = folder, seed, folder / "references"
        (folder / "results").mkdir(parents=True, exist_ok=True)

    def load(self, name: str) -> dict[str, Any]:
        """Return the results of a trial so far.

        Args:
            name: name of the trial.
        """
        path = self.folder / "results" / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {"name": name}

    def save(self, entry: dict[str, Any]) -> None:
        """Write the results of a trial so far, and the machine and the commit.

        Args:
            entry: the results.
        """
        versions = entry.setdefault("versions", [])
        if (version := _version()) not in versions:
            versions.append(version)
        part = self.folder / "results" / f".{entry['name']}.part"
        part.write_text(json.dumps(entry, indent=1))
        part.replace(self.folder / "results" / f"{entry['name']}.json")

    def run(self, flags: Sequence[str], workdir: Path, **options: Any) -> Run:
        """Start a process of main.py.

        Args:
            flags: its flags without --workdir.
            workdir: its --workdir.
            **options: further arguments of `Run`.
        """
        return Run([*flags, f"--workdir={workdir}"], self.folder / "cache", **options)

    def finish_references(self) -> None:
        """Train, sample, inpaint and evaluate without any interruption, unless an earlier call has done it."""
        for name, flags in REFERENCES.items():
            workdir, mark = self.references / name, self.references / f"{name}.complete"
            if mark.exists():
                continue
            _log(f"{name}, uninterrupted")
            shutil.rmtree(workdir, ignore_errors=True)
            if name != "train":
                self.copy_trained(workdir)
            self.run(flags, workdir, save_seconds=SAVE_SECONDS).finish()
            mark.touch()

    def copy_trained(self, workdir: Path) -> None:
        """Copy settings and checkpoints of the uninterrupted training run, unless an earlier call has done it.

        Args:
            workdir: directory to copy them into.
        """
        if not workdir.exists():
            part = workdir.with_name("part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(self.references / "train" / "checkpoints", part / "checkpoints")
            shutil.copy(self.references / "train" / "config.json", part)
            part.rename(workdir)

    def compare(self, workdir: Path, name: str = "train") -> tuple[bool, str]:
        """Compare the outputs of a run with those of an uninterrupted one.

        Args:
            workdir: directory of the run.
            name: name of the uninterrupted run.

        Returns:
            Whether all bits are the same, and a clause that says so.
        """
        first, second = outputs(workdir), outputs(self.references / name)
        different = differences(first, second)
        if different:
            return False, f"{len(different)} of {len(first | second)} outputs differ ({', '.join(different[:4])})"
        return True, f"all {len(second)} outputs are identical"


# ------------------------------------------------------------------------- kill -9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Killing:
    """The run of a trial of kills, and the measures of its progress.

    Attributes:
        flags: flags of main.py.
        total: number of units, such as steps, of the whole run.
        first: number of units before the first kill.
        progress: function of a process and its workdir: number of units that it has reached.
        saved: function of a workdir: number of units that are saved in it.
        pause: longest time in seconds from the moment when the target is reached to the kill.
        unit: noun for a unit, in the plural.
        reference: name of the uninterrupted run to compare with.
    """

    flags: list[str]
    total: int
    first: int
    progress: Callable[[Run, Path], int]
    saved: Callable[[Path], int]
    pause: float
    unit: str
    reference: str = "train"


def kill(bench: Bench, entry: dict[str, Any], workdir: Path, killing: Killing, times: int) -> tuple[str, bool]:
    """Kill a run `times` times at moments that are spread evenly over it, then let it finish.

    One kill of STARTS falls before the process has made progress. A training run has to resume from the newest
    complete checkpoint each time.
    """
    kills = entry.setdefault("kills", [])
    right = True
    for number in range(len(kills), times):
        rng = random.Random(f"{bench.seed} {killing.unit} {number}")
        target = killing.first + (number + rng.random()) / times * (0.98 * killing.total - killing.first)
        saved, began = killing.saved(workdir), time.monotonic()
        run = bench.run(killing.flags, workdir, save_seconds=SAVE_SECONDS)
        if number % STARTS == STARTS - 1:
            deadline = began + rng.uniform(0.0, entry.get("start_seconds", 4.0))
            while time.monotonic() < deadline and killing.progress(run, workdir) <= saved:
                time.sleep(0.005)
        else:
            while run.process.poll() is None and killing.progress(run, workdir) <= saved:
                time.sleep(0.005)
            entry["start_seconds"] = time.monotonic() - began
            while run.process.poll() is None and killing.progress(run, workdir) < target:
                time.sleep(0.005)
            time.sleep(rng.uniform(0.0, killing.pause))
        if run.process.poll() is not None:
            run.finish()  # raises if it has failed
            break
        run.end(signal.SIGKILL)
        kills.append(
            {
                "at": max(killing.progress(run, workdir), saved),
                "saved": saved,
                "resumed": run.last(RESUMED) if run.has_line(COMPILED) else None,
                "saving": _is_saving(workdir),
            }
        )
        bench.save(entry)
        if (number + 1) % 10 == 0:
            _log(f"  {number + 1} kills, the last at {kills[-1]['at']} of {killing.total} {killing.unit}")
    bench.run(killing.flags, workdir, save_seconds=SAVE_SECONDS).finish()
    right &= len(kills) == times
    places = [one["at"] for one in kills]
    text = f"{len(kills)} kills, at {min(places):,} to {max(places):,} of {killing.total:,} {killing.unit}"
    if killing.unit == "steps":
        resumed = [one for one in kills if one["resumed"] is not None]
        right &= all(one["resumed"] == one["saved"] for one in resumed)
        text += (
            f"; {sum(one['saving'] for one in kills)} of them while a checkpoint was being written; {len(resumed)} "
            "runs reached their first step, each from the newest complete checkpoint"
        )
    same, clause = bench.compare(workdir, killing.reference)
    entry["tenths"] = np.histogram(places, bins=10, range=(0, killing.total))[0].tolist()
    return f"{text}; {clause}", right and same


def _is_saving(workdir: Path) -> bool:
    folder = workdir / "checkpoints"
    return folder.is_dir() and any("tmp" in path.name for path in folder.iterdir())


def _newest(workdir: Path) -> int:
    """Return the step of the newest complete checkpoint, or 0."""
    return max(checkpoint_steps(workdir), default=0)


def _shards(workdir: Path) -> list[Path]:
    return list(workdir.glob("samples/**/images*.npz"))


def _saved_images(workdir: Path) -> int:
    return sum(len(np.load(path)["images"]) for path in _shards(workdir))


def _evaluated_lines(workdir: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in workdir.glob(f"eval/{STEPS}/*.jsonl"))


def kill_training(bench: Bench, entry: dict[str, Any], workdir: Path, times: int) -> tuple[str, bool]:
    """Kill --mode=train."""
    killing = Killing(
        flags=TRAIN,
        total=STEPS,
        first=EVERY,
        progress=lambda run, _: run.last(STEP),
        saved=_newest,
        pause=0.6,
        unit="steps",
    )
    return kill(bench, entry, workdir, killing, times)


def kill_sampling(
    bench: Bench, entry: dict[str, Any], workdir: Path, times: int, *, reference: str = "sample"
) -> tuple[str, bool]:
    """Kill --mode=sample of unconditional samples, or of completed images (reference "inpainting")."""
    completes = reference == "inpainting"
    bench.copy_trained(workdir)
    killing = Killing(
        flags=INPAINT_FLAGS if completes else SAMPLE_FLAGS,
        total=NUM_COMPLETIONS if completes else NUM_SAMPLES,
        first=0,
        progress=lambda run, _: run.last(SAMPLE),
        saved=_saved_images,
        pause=0.2,
        unit="completed images" if completes else "samples",
        reference=reference,
    )
    text, right = kill(bench, entry, workdir, killing, times)
    shards = len(_shards(workdir))
    return f"{text}; they lie in {shards} shards", right and shards > 1


def kill_evaluation(bench: Bench, entry: dict[str, Any], workdir: Path, times: int) -> tuple[str, bool]:
    """Kill --mode=eval while it measures the loss and bits per dimension."""
    bench.copy_trained(workdir)
    killing = Killing(
        flags=EVAL_FLAGS,
        total=_evaluated_lines(bench.references / "eval"),
        first=0,
        progress=lambda _, directory: _evaluated_lines(directory),
        saved=_evaluated_lines,
        pause=0.05,
        unit="batches",
        reference="eval",
    )
    return kill(bench, entry, workdir, killing, times)


# ------------------------------------------------------------------------- signals, corruption, several processes


def send_signals(
    bench: Bench, entry: dict[str, Any], workdir: Path, number: signal.Signals, times: int
) -> tuple[str, bool]:
    """Send a signal to runs at steps that are spread evenly; each saves and exits with 128 + number."""
    del entry
    right, slowest, saved = True, 0.0, list[int]()
    for index in range(times):
        run = bench.run(TRAIN, workdir)
        run.wait_for(COMPILED)
        while run.process.poll() is None and run.last(STEP) < (index + random.random()) / times * 0.9 * STEPS:
            time.sleep(0.005)
        status, taken = run.end(number)
        slowest = max(slowest, taken)
        right &= status == 128 + number and run.last(RESUMED) == (saved[-1] if saved else 0)
        saved.append(_newest(workdir))
        right &= run.has_line(f"after step {saved[-1]:,}")
    bench.run(TRAIN, workdir).finish()
    same, clause = bench.compare(workdir)
    steps = ", ".join(f"{step:,}" for step in saved)
    return (
        f"exit status {128 + number} each time, within {slowest:.1f} s; saved at steps {steps}; {clause}",
        right and same,
    )


def damage(bench: Bench, entry: dict[str, Any], workdir: Path, change: Callable[[bytes], bytes]) -> tuple[str, bool]:
    """Change the largest file of the newest checkpoint; the run names it and resumes from the one before."""
    del entry
    run = bench.run(TRAIN, workdir)
    run.wait_for("step 700/")
    run.end(signal.SIGTERM)
    *_, before, newest = checkpoint_steps(workdir)
    folder = workdir / "checkpoints" / str(newest)
    path = max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    path.write_bytes(change(path.read_bytes()))
    run = bench.run(TRAIN, workdir).finish()
    quarantined = [path.name for path in folder.parent.iterdir() if path.name.startswith(f"{newest}.")]
    same, clause = bench.compare(workdir)
    right = run.has_line("cannot be read") and len(quarantined) == 1 and run.last(RESUMED) == before
    return (
        f"a warning names step {newest}, which is renamed to {' '.join(quarantined)}; the run resumes from step "
        f"{run.last(RESUMED):,}; {clause}",
        right and same,
    )


def _flipped(data: bytes) -> bytes:
    """Return the bytes with one bit in the middle flipped."""
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def _cut(data: bytes) -> bytes:
    """Return the first half of the bytes."""
    return data[: len(data) // 2]


def fill_disk(bench: Bench, entry: dict[str, Any], workdir: Path) -> tuple[str, bool]:
    """Train on a file system that fills up; after room is made, the run resumes."""
    del entry
    workdir.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(workdir)], capture_output=True)
    if mounted.returncode:
        return "not run: mounting a small file system needs root", True
    try:
        run = bench.run(TRAIN, workdir)
        run.wait_for("step 350/")
        ballast = workdir / "ballast"
        with ballast.open("wb", buffering=0) as file:  # a buffer would be written again on closing
            try:
                while True:
                    file.write(b"\0" * 65536)
            except OSError:
                pass
        status, _ = run.end()
        errors = [line for line in run.lines if line.startswith("error: ")]
        newest = _newest(workdir)
        ballast.unlink()
        last = bench.run(TRAIN, workdir).finish()
        right = status == 1 and len(errors) == 1 and last.last(RESUMED) == newest and not run.has_line("Traceback")
        same, clause = bench.compare(workdir)
    finally:
        subprocess.run(["umount", "-l", str(workdir)], check=True)
    return (
        f"exit status {status} and a message of one line; after room is made, the run resumes from step {newest:,}; "
        f"{clause}",
        right and same,
    )


def start_second_run(bench: Bench, entry: dict[str, Any], workdir: Path) -> tuple[str, bool]:
    """Start a second run in the workdir while the first one trains."""
    del entry
    first = bench.run(TRAIN, workdir)
    first.wait_for(COMPILED)
    second = bench.run(TRAIN, workdir)
    status, _ = second.end()
    errors = [line for line in second.lines if line.startswith("error: ")]
    first.finish()
    same, clause = bench.compare(workdir)
    right = status == 2 and len(errors) == 1 and "another run writes there" in errors[0]
    if not right:
        _log("\n".join(second.lines))
    return (
        f"the second process exits with status {status} and a message of one line, the first continues; {clause}",
        right and same,
    )


def _start_two(bench: Bench, workdir: Path) -> list[Run]:
    """Start two processes of one run, with two devices each."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    flags = [*TRAIN, f"--coordinator_address=localhost:{port}", "--num_processes=2"]
    return [bench.run([*flags, f"--process_id={index}"], workdir, devices=2) for index in range(2)]


def _rounding(bench: Bench, workdir: Path) -> tuple[bool, str]:
    """Compare losses with those on one device, where the sums over a batch have another order."""
    rows, reference = metrics_without_times(workdir), metrics_without_times(bench.references / "train")
    steps = [row["step"] for row in rows] == [row["step"] for row in reference]
    apart = [abs(a["loss"] / b["loss"] - 1) for a, b in zip(rows, reference, strict=False)]
    early = max(apart[:10])
    clause = f"losses differ by at most {early:.0e} of their value in the first 70 steps and {max(apart):.0e} in all"
    return steps and early < 1e-4, clause


def stop_one_of_two(bench: Bench, entry: dict[str, Any], workdir: Path) -> tuple[str, bool]:
    """Send SIGTERM to the process that does not write; both save the same step, and one process resumes."""
    del entry
    runs = _start_two(bench, workdir)
    runs[0].wait_for("step 70/")
    runs[1].process.send_signal(signal.SIGTERM)
    ends = [run.end() for run in runs]
    step, last = _newest(workdir), bench.run(TRAIN, workdir).finish()
    close, clause = _rounding(bench, workdir)
    right = all(status == 143 for status, _ in ends) and last.last(RESUMED) == step > 0 and close
    return (
        f"both exit with status 143 within {max(taken for _, taken in ends):.1f} s, after step {step:,}; one process "
        f"on one device resumes from there; {clause}",
        right,
    )


def kill_one_of_two(bench: Bench, entry: dict[str, Any], workdir: Path) -> tuple[str, bool]:
    """Kill one of two processes; the other one ends too, and one process resumes."""
    del entry
    runs = _start_two(bench, workdir)
    runs[0].wait_for("step 70/")
    runs[1].end(signal.SIGKILL)
    status, taken = runs[0].end()
    step, last = _newest(workdir), bench.run(TRAIN, workdir).finish()
    close, clause = _rounding(bench, workdir)
    right = status not in (0, 2) and last.last(RESUMED) == step > 0 and close
    shown = f"{status} ({128 - status} in a shell)" if status < 0 else f"{status}"
    return (
        f"the other process ends with status {shown} after {taken:.1f} s; one process on one device resumes from step "
        f"{step:,}; {clause}",
        right,
    )


# ------------------------------------------------------------------------- the page


def trials(arguments: argparse.Namespace) -> dict[str, tuple[str, Callable[..., tuple[str, bool]]]]:
    """Return the title and the function of every trial, by its name.

    Args:
        arguments: flags of the benchmark.
    """
    kills, fewer = arguments.kills, arguments.other_kills
    return {
        "kills-train": (f"`train`: {kills} times kill -9", partial(kill_training, times=kills)),
        "kills-sample": (f"`sample`: {fewer} times kill -9", partial(kill_sampling, times=fewer)),
        "kills-inpainting": (
            f"`sample` with inpainting: {fewer} times kill -9",
            partial(kill_sampling, times=fewer, reference="inpainting"),
        ),
        "kills-eval": (f"`eval`: {fewer} times kill -9", partial(kill_evaluation, times=fewer)),
        "sigterm": (
            f"`train`: {arguments.signals} times SIGTERM",
            partial(send_signals, number=signal.SIGTERM, times=arguments.signals),
        ),
        "sigint": (
            f"`train`: {arguments.signals} times SIGINT",
            partial(send_signals, number=signal.SIGINT, times=arguments.signals),
        ),
        "flipped": ("one bit of the newest checkpoint is flipped", partial(damage, change=_flipped)),
        "cut": ("a file of the newest checkpoint is cut in half", partial(damage, change=_cut)),
        "disk": ("the disk is full", fill_disk),
        "second-run": ("a second run starts in the same workdir", start_second_run),
        "two-stopped": ("two processes, SIGTERM to one of them", stop_one_of_two),
        "two-killed": ("two processes, kill -9 of one of them", kill_one_of_two),
    }


PROMISES = (
    (
        "a killed run, set of samples or evaluation continues to the same bits on a CPU",
        "the table above; `tests/runs/test_faults.py`",
    ),
    (
        "SIGTERM, SIGINT, SIGHUP and a closed pipe on standard output save the completed work",
        "the table above; `tests/runs/test_damage.py`, `tests/cli/test_streams.py`",
    ),
    (
        "no command deletes or replaces a corrupted file; it is renamed to `*.damaged`",
        "`tests/runs/test_damage.py`",
    ),
    (
        "a corrupted line of `metrics.jsonl` loses that line alone, wherever a kill cuts the file",
        "`tests/runs/test_damage.py`, every byte",
    ),
    (
        "a set of samples and an evaluation never mix two networks",
        "`tests/runs/test_damage.py`",
    ),
    (
        "a set of samples and an evaluation have one writer; a second one is refused before it computes",
        "`tests/runs/test_damage.py`",
    ),
    (
        "a wrong command is refused in one line, before anything is written",
        "`tests/cli/test_careless.py`, `tests/settings/test_ranges.py`",
    ),
    (
        "any text for any key is accepted, or refused in a line that names the key",
        "`tests/settings/test_arbitrary_values.py` (hypothesis)",
    ),
    (
        "corrupted images and archives are left out of the data, counted and named",
        "`tests/data/test_finding.py`, `tests/data/test_arbitrary_files.py` (hypothesis)",
    ),
    (
        "a full disk gives status 1 and one line with the file; the same command continues",
        "the table above; `tests/runs/test_damage.py`",
    ),
    (
        "a training step that needs more memory than a device has is refused before anything is written",
        "`tests/cli/test_streams.py`",
    ),
)
"""Promises, and how each is tested."""


def page(bench: Bench, arguments: argparse.Namespace) -> str:
    """Return the page that describes the results so far in Markdown.

    Args:
        bench: the benchmark.
        arguments: flags of the benchmark.
    """
    entries = [(title, bench.load(name)) for name, (title, _) in trials(arguments).items()]
    complete = [(title, entry) for title, entry in entries if "text" in entry]
    rows = [f"| {title} | {entry['text']} | {'yes' if entry['right'] else 'NO'} |" for title, entry in complete]
    tenths = [
        f"| {title} | {' | '.join(map(str, entry['tenths']))} |" for title, entry in complete if "tenths" in entry
    ]
    machines: dict[str, list[str]] = {}
    for machine, _, commit in sorted(
        {version.rpartition(", ") for _, entry in complete for version in entry["versions"]}
    ):
        machines.setdefault(machine, []).append(commit.removeprefix("commit "))
    versions = [f"{machine}, commit {', '.join(commits)}" for machine, commits in machines.items()]
    return f"""# Reliability

```
python benchmarks/reliability.py
```

printed this page. It ran on {"; and on ".join(versions)}.
Other programs used the same cores. The trials may have run in several calls (`--only`), whose results accumulate.

Each row of the table is one run of `main.py` with `configs/digits.py:debug`: {STEPS:,} training steps with a
checkpoint every {EVERY} steps, {NUM_SAMPLES:,} samples, {NUM_COMPLETIONS:,} completed images, or an evaluation of the
359 held-out digits. The run is interrupted as the row says. The same command is given again until it ends with status
0.

All outputs of the run are then compared bit by bit with those of an uninterrupted run: every array of the
last checkpoint (parameters, their averages, the state of the optimizer), every row of `metrics.jsonl` without its
times, every sample and the arrays stored with it, every row and summary of an evaluation, and every picture. Two
processes are compared with one by their losses, since they sum a batch in another order.

`sample` saves every {SAVE_SECONDS} s here and every 30 s in `main.py`, so that a short run has several shards.

| interruption | observed | as specified |
|---|---|---|
{chr(10).join(rows)}

One kill in {STARTS} falls while the process starts. The others are spread evenly over the run. All of them fell into
these tenths of it:

| run | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 |
|---|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(tenths)}

## What is promised

| promise | how it is tested |
|---|---|
{chr(10).join(f"| {promise} | {test} |" for promise, test in PROMISES)}
"""


def main() -> None:
    """Run the trials that are not complete and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of the training run")
    parser.add_argument("--other_kills", type=int, default=20, help="of each other run")
    parser.add_argument("--signals", type=int, default=4, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the interruptions")
    parser.add_argument("--only", default="", help="run the trials whose name contains this")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "reliability", help="where results accumulate")
    parser.add_argument("--page", action="store_true", help="run nothing, print the page of the results so far")
    arguments = parser.parse_args()
    bench = Bench(arguments.folder.absolute(), arguments.seed)
    random.seed(arguments.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if not arguments.page:
            bench.finish_references()
            for name, (title, trial) in trials(arguments).items():
                if arguments.only in name:
                    run_trial(bench, name, title, trial)
    finally:
        kill_all()
    print(page(bench, arguments), end="")
    sys.exit(0 if all(bench.load(name).get("right", True) for name in trials(arguments)) else 1)


def run_trial(bench: Bench, name: str, title: str, trial: Callable[..., tuple[str, bool]]) -> None:
    """Run a trial unless it is complete.

    Args:
        bench: the benchmark.
        name: name of the trial.
        title: its title.
        trial: function of the benchmark, the entry of the trial in the results, and a workdir.
    """
    entry, workdir = bench.load(name), bench.folder / name
    if "text" in entry:
        return
    if not entry.get("kills"):  # only a trial of kills continues; another one starts again
        shutil.rmtree(workdir, ignore_errors=True)
    _log(title)
    entry["text"], entry["right"] = trial(bench, entry, workdir)
    bench.save(entry)
    _log(f"  {entry['text']}: {'yes' if entry['right'] else 'NO'}")
    if entry["right"]:
        shutil.rmtree(workdir, ignore_errors=True)


def _version() -> str:
    """Return hardware, software and commit of this process."""
    described = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return (
        f"{os.cpu_count()} cores of {_processor()}, Python {platform.python_version()}, JAX {jax.__version__}, commit "
        f"{described.stdout.strip() or 'unknown'}"
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
