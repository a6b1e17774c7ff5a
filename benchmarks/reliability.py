"""Kill, stop, damage and resume training runs, and compare what they leave with a run that was left alone.

    python benchmarks/reliability.py --kills=30 > docs/reliability.md

Every run is `main.py --mode=train` in processes of its own, a small network on the digits; the tables say what was done
how often and what was found. Exits with status 1 if anything differs. Takes up to three quarters of an hour on 2 cores.
"""

import argparse
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
from training_runs import STEPS, Run, compare, finish, newest, rounding


def main() -> None:
    """Run everything and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--signals", type=int, default=4, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the trials whose name has this part")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        reference = root / "alone"
        _tell("a run that is left alone")
        finish(reference)
        rows: list[tuple[str, str, bool]] = []
        for name, trial in {
            f"{arguments.kills} times kill -9 at random moments": lambda w: kills(w, arguments.kills),
            f"{arguments.signals} times SIGTERM": lambda w: signals(w, signal.SIGTERM, arguments.signals),
            f"{arguments.signals} times SIGINT": lambda w: signals(w, signal.SIGINT, arguments.signals),
            "a flipped bit in the newest checkpoint": flipped,
            "the newest checkpoint cut short": cut,
            "a full disk": full_disk,
            "a second run in the workdir": second_run,
        }.items():
            if arguments.only not in name:
                continue
            _tell(name)
            workdir = root / "trial"
            found, right = trial(workdir)
            if right and "left alone" not in found:
                same, compared = compare(workdir, reference)
                found, right = f"{found}; {compared}", same
            rows.append((name, found, right))
            _tell(f"  {found}: {'yes' if right else 'NO'}")
            shutil.rmtree(workdir, ignore_errors=True)
        for name, trial in {
            "two processes, SIGTERM to one of them": two_processes_stopped,
            "two processes, kill -9 of one of them": two_processes_killed,
        }.items():
            if arguments.only not in name:
                continue
            _tell(name)
            found, right = trial(root / "two", reference)
            rows.append((name, found, right))
            _tell(f"  {found}: {'yes' if right else 'NO'}")
            shutil.rmtree(root / "two", ignore_errors=True)
    print(report(rows, arguments))
    sys.exit(0 if all(right for *_, right in rows) else 1)


def report(rows: list[tuple[str, str, bool]], arguments: argparse.Namespace) -> str:
    """The page."""
    lines = [
        "# Reliability, as measured",
        "",
        f"`python benchmarks/reliability.py --kills={arguments.kills} --signals={arguments.signals}` "
        f"printed this page on {os.cpu_count()} cores of {_processor()}, JAX {jax.__version__}.",
        "",
        f"Each row is a training run of {STEPS:,} steps that saved every 20 steps, was interrupted as the row says and "
        "started again with the same command until it was finished. It is compared with a run that was left alone: "
        "parameters, their average and the optimizer's state bit by bit, every line of `metrics.jsonl` without its "
        "times, and every image.",
        "",
        "| what was done | what was found | as it should be |",
        "|---|---|---|",
    ]
    return "\n".join(lines + [f"| {name} | {found} | {'yes' if right else 'NO'} |" for name, found, right in rows])


# ------------------------------------------------------------------------- what happens to them


def kills(workdir: Path, times: int) -> tuple[str, bool]:
    """Kill at random moments, while starting and saving too; every resume is from the newest checkpoint."""
    right, done, while_saving, began = True, 0, 0, []
    while done < times:
        before, run = newest(workdir), Run(workdir)
        if random.random() < 0.9:
            run.wait_for("compiled")
            time.sleep(random.uniform(0.0, 1.6))
        else:
            time.sleep(random.uniform(0.0, 4.0))
        if run.process.poll() is not None:
            break  # finished
        run.end(signal.SIGKILL)
        done += 1
        checkpoints = workdir / "checkpoints"
        while_saving += checkpoints.is_dir() and any("tmp" in path.name for path in checkpoints.iterdir())
        if any("compiled" in line for line in run.lines):
            right &= run.resumed() == before
            began.append(before)
    last = finish(workdir)
    right &= done == times
    return (
        f"{done} kills, {while_saving} of them while a checkpoint was being written; {len(began)} runs came to training"
        f" and each went on from the newest complete checkpoint, at last from step {last.resumed():,}"
    ), right


def signals(workdir: Path, number: signal.Signals, times: int) -> tuple[str, bool]:
    """Ask runs to end; each saves its step, exits with 128 + number and goes on from there."""
    right, slowest, saved = True, 0.0, []
    for _ in range(times):
        run = Run(workdir)
        run.wait_for("compiled")
        time.sleep(random.uniform(0.1, 1.5))
        status, taken = run.end(number)
        slowest = max(slowest, taken)
        right &= status == 128 + number and any("is saved" in line for line in run.lines)
        right &= run.resumed() == (saved[-1] if saved else 0)
        saved.append(newest(workdir))
    finish(workdir)
    steps = ", ".join(f"{step:,}" for step in saved)
    return f"exit status {128 + number} each time, within {slowest:.1f} s; saved at steps {steps}", right


def _damaged(workdir: Path, damage: Callable[[Path], None]) -> tuple[str, bool]:
    run = Run(workdir)
    run.wait_for("step 700/")
    run.end(signal.SIGTERM)
    step = newest(workdir)
    files = (path for path in (workdir / "checkpoints" / str(step) / "state").rglob("*") if path.is_file())
    damage(max(files, key=lambda path: path.stat().st_size))
    before = max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit() and p.name != str(step))
    last = finish(workdir)
    said = any("cannot be read" in line for line in last.lines)
    kept = (workdir / "checkpoints" / f"{step}.damaged").is_dir()
    right = said and kept and last.resumed() == before
    return f"step {step} is named and set aside, the run goes on from step {last.resumed():,}", right


def flipped(workdir: Path) -> tuple[str, bool]:
    """Flip one bit in the middle of the largest file."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))

    return _damaged(workdir, damage)


def cut(workdir: Path) -> tuple[str, bool]:
    """Cut the largest file in half."""
    return _damaged(workdir, lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]))


def full_disk(workdir: Path) -> tuple[str, bool]:
    """Train on a file system that fills up; after room is made, the run goes on."""
    workdir.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(workdir)], capture_output=True)
    if mounted.returncode:
        return "not done: this machine lets nobody mount a small file system (left alone)", True
    try:
        run = Run(workdir)
        run.wait_for("step 350/")
        ballast = workdir / "ballast"
        with ballast.open("wb", buffering=0) as file:  # fill what is left; a buffer would be written again on closing
            try:
                while True:
                    file.write(b"\0" * 65536)
            except OSError:
                pass
        status, _ = run.end()
        told = [line for line in run.lines if line.startswith("error: ")]
        at = newest(workdir)
        ballast.unlink()
        last = finish(workdir)
        right = status == 1 and len(told) == 1 and last.resumed() == at and "Traceback" not in "\n".join(run.lines)
        copy = workdir.with_name("copy")
        shutil.copytree(workdir, copy)
    finally:
        subprocess.run(["umount", "-l", str(workdir)], check=True)
    workdir.rmdir()
    copy.rename(workdir)
    return f"exit status {status} and one line; after room was made, the run goes on from step {at:,}", right


def second_run(workdir: Path) -> tuple[str, bool]:
    """Start a second run while the first one trains."""
    first = Run(workdir)
    first.wait_for("compiled")
    second = Run(workdir)
    status, _ = second.end()
    told = [line for line in second.lines if "another run writes there" in line]
    first.end(seconds=3600)
    return f"the second exits with status {status} and one line, the first goes on", status == 2 and len(told) == 1


def _two(workdir: Path) -> list[Run]:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    flags = [f"--coordinator_address=localhost:{port}", "--num_processes=2"]
    return [Run(workdir, *flags, f"--process_id={number}", devices=2) for number in range(2)]


def two_processes_stopped(workdir: Path, reference: Path) -> tuple[str, bool]:
    """SIGTERM to the process that does not write; both save the same step; one process goes on."""
    runs = _two(workdir)
    runs[0].wait_for("step 70/")
    runs[1].process.send_signal(signal.SIGTERM)
    ends = [run.end() for run in runs]
    step, last = newest(workdir), finish(workdir)
    close, difference = rounding(workdir, reference)
    right = all(status == 143 for status, _ in ends) and last.resumed() == step > 0 and close
    seconds = max(taken for _, taken in ends)
    return (
        f"both exit with status 143 within {seconds:.1f} s, after step {step:,}; one process on one device goes on "
        f"from there; {difference}"
    ), right


def two_processes_killed(workdir: Path, reference: Path) -> tuple[str, bool]:
    """Kill -9 of one process: the other ends too, and one process goes on."""
    runs = _two(workdir)
    runs[0].wait_for("step 70/")
    runs[1].end(signal.SIGKILL)
    status, taken = runs[0].end()
    step, last = newest(workdir), finish(workdir)
    close, difference = rounding(workdir, reference)
    right = status not in (0, 2) and last.resumed() == step > 0 and close
    return (
        f"the other exits with status {status} after {taken:.1f} s; one process on one device goes on from step "
        f"{step:,}; {difference}"
    ), right


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
