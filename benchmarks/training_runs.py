"""Training runs in processes of their own, which can be waited for and killed, and what they leave."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from real_images import sample_set

from score_sde_jax import settings
from score_sde_jax.devices.parallel import Jit
from score_sde_jax.runs import build
from score_sde_jax.runs.checkpoint import Checkpoints
from score_sde_jax.runs.reporting import read_metrics

ROOT = Path(__file__).parent.parent
STEPS = 4000
TRAINING = [
    "--config=configs/digits.py:debug",
    "--mode=train",
    f"--config.train.steps={STEPS}",
    "--config.train.log_every=7",  # no divisor of the saves: a report spans a resume
    "--config.train.preview_every=0",
    "--config.checkpoint.every=20",
    "--config.data.flip=True",
    "--config.data.dequantize=True",
]
CLOCK = re.compile("seconds|images_per_second|memory|utili[sz]ation")


class Run:
    """A training process, whose lines can be waited for."""

    def __init__(self, workdir: Path, *more: str, devices: int = 1) -> None:
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "main.py", *TRAINING, f"--workdir={workdir}", *more],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def wait_for(self, part: str, seconds: float = 900.0) -> bool:
        """Whether a line with this part came before the process or the time ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if any(part in line for line in self.lines):
                return True
            time.sleep(0.005)
        return any(part in line for line in self.lines)

    def end(self, number: int | None = None, seconds: float = 900.0) -> tuple[int, float]:
        """Send a signal where given, wait, and return the exit status and how long it took."""
        began = time.monotonic()
        if number is not None:
            self.process.send_signal(number)
        status = self.process.wait(seconds)
        taken = time.monotonic() - began
        time.sleep(0.2)  # its last lines
        return status, taken

    def resumed(self) -> int:
        """Step that the run says it goes on from, 0 at the start."""
        for line in self.lines:
            if line.startswith("resuming"):
                return int(line.rsplit(" ", 1)[-1].replace(",", ""))
        return 0


def finish(workdir: Path) -> Run:
    """Run to the end."""
    run = Run(workdir)
    status, _ = run.end(seconds=3600)
    if status:
        raise SystemExit("\n".join(run.lines))
    return run


def newest(workdir: Path) -> int:
    """Step of the newest complete checkpoint, 0 where there is none."""
    directory = workdir / "checkpoints"
    return max((int(p.name) for p in directory.iterdir() if p.name.isdigit()), default=0) if directory.is_dir() else 0


# ------------------------------------------------------------------------- what they leave


def final_state(workdir: Path) -> Any:
    """The state of the last step."""
    chosen = settings.from_config(settings.load(str(ROOT / "configs" / "digits.py:debug")), [f"train.steps={STEPS}"])
    abstract = Jit().abstract(build.experiment(chosen, (8, 8, 1)).init, jax.random.key(0))
    return Checkpoints(workdir / "checkpoints").restore(STEPS, abstract)


def timeless(workdir: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not CLOCK.search(key)} for row in rows]


def images(workdir: Path) -> np.ndarray:
    """The final set."""
    return sample_set(workdir / "samples" / str(STEPS)).column("images")


def compare(workdir: Path, reference: Path) -> tuple[bool, str]:
    """Whether a run left exactly what another one left."""
    pairs = zip(*(jax.tree.leaves(final_state(directory)) for directory in (workdir, reference)), strict=True)
    state = all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
    metrics = timeless(workdir) == timeless(reference)
    drawn = np.array_equal(images(workdir), images(reference))
    names = {"state": state, "metrics": metrics, "images": drawn}
    different = [name for name, same in names.items() if not same]
    return not different, f"{', '.join(different)} differ" if different else "state, metrics and images are identical"


def rounding(workdir: Path, reference: Path) -> tuple[bool, str]:
    """How far the losses are from those of a run on one device; a step's rounding grows as training goes on."""
    ours, theirs = timeless(workdir), timeless(reference)
    steps = [row["step"] for row in ours] == [row["step"] for row in theirs]
    apart = [abs(a["loss"] / b["loss"] - 1) for a, b in zip(ours, theirs, strict=False)]
    early = max(apart[:10])
    found = f"losses differ by at most {early:.0e} of their value in the first 70 steps, {max(apart):.0e} in all"
    return steps and early < 1e-4, found
