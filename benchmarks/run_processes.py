"""Processes of main.py that a benchmark waits for, stops and kills."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPILED = "Compiled the training step"
"""Part of the line that a training process prints before its first step."""
STEP = re.compile(r"step ([\d,]+)/")
SAMPLE = re.compile(r"sample ([\d,]+)/")
RESUMED = re.compile(r"resuming .*step ([\d,]+)", re.IGNORECASE)
FREQUENT_SAVES = """
import runpy, sys
from score_sde_jax.runs import batch_sampler
batch_sampler.SAVE_SECONDS = {seconds}
runpy.run_path("main.py", run_name="__main__")
"""


class Run:
    """A process of main.py.

    Attributes:
        process: the process.
        lines: lines of its output and errors so far.
    """

    def __init__(
        self, flags: Sequence[str], cache: Path, *, devices: int = 1, save_seconds: float | None = None
    ) -> None:
        """Start the process.

        Args:
            flags: flags of main.py.
            cache: directory of the persistent compilation cache.
            devices: number of virtual CPU devices.
            save_seconds: seconds between two saves of --mode=sample; None is that of main.py.
        """
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "GLIBC_TUNABLES": "",  # main.py would start itself again
        }
        program = ["main.py"] if save_seconds is None else ["-c", FREQUENT_SAVES.format(seconds=save_seconds)]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, *program, *flags],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        _running.add(self.process)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def has_line(self, part: str) -> bool:
        """Return whether a line so far contains a text.

        Args:
            part: the text.
        """
        return any(part in line for line in list(self.lines))

    def wait_for(self, part: str, seconds: float = 900.0) -> bool:
        """Return whether a line with a text comes before the process or the time ends.

        Args:
            part: the text.
            seconds: the longest time to wait.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None and not self.has_line(part):
            time.sleep(0.005)
        return self.has_line(part)

    def last(self, pattern: re.Pattern[str]) -> int:
        """Return the number in the last line that matches a pattern, or 0.

        Args:
            pattern: a pattern with one group, the number.
        """
        for line in reversed(list(self.lines)):
            if match := pattern.search(line):
                return int(match[1].replace(",", ""))
        return 0

    def end(self, number: int | None = None, seconds: float = 900.0) -> tuple[int, float]:
        """Wait for the end of the process, and return its exit status and how many seconds the wait took.

        Args:
            number: signal to send before; None sends none.
            seconds: the longest time to wait.
        """
        began = time.monotonic()
        if number is not None:
            self.process.send_signal(number)
        status = self.process.wait(seconds)
        taken = time.monotonic() - began
        _running.discard(self.process)
        self._reader.join(5.0)
        return status, taken

    def finish(self) -> "Run":
        """Wait for a successful end.

        Raises:
            SystemExit: the exit status of the process is not 0.
        """
        status, _ = self.end(seconds=3600.0)
        if status:
            raise SystemExit("\n".join([f"exit status {status}", *self.lines]))
        return self


_running: set[subprocess.Popen[str]] = set()


def kill_all() -> None:
    """Kill all running processes, so that none outlives the benchmark."""
    for process in _running:
        process.send_signal(signal.SIGKILL)
        process.wait()
    _running.clear()
