"""Scripts of launch/ as processes, with stand-ins for the programs that they call."""

import subprocess
import sys
import time
from pathlib import Path

from patience import time_limit

ROOT = Path(__file__).parent.parent.parent
LAUNCH = ROOT / "launch"
TPU = dict(TPU_NAME="pod", ZONE="zone", ACCELERATOR_TYPE="kind", RUNTIME_VERSION="image")
PODS = dict(IMAGE="image:1", NAME="run", NUM_PROCESSES="4", GPUS_PER_POD="8", CONFIG="c.py", WORKDIR="gs://b/r")
MAIN = ("python", "main.py", "--config=c.py")


class Shell:
    """Runs scripts with nothing but the system's programs, the stand-ins of `bin` and the given variables."""

    def __init__(self, tmp_path):
        self.tmp, self.bin, self.home = tmp_path, tmp_path / "bin", tmp_path / "home"
        self.bin.mkdir()
        self.home.mkdir()

    def fake(self, name, body):
        """A program of this name that writes down its arguments, one line each, then does `body`."""
        path = self.bin / name
        record = f'printf "%s\\n" "$@" >>"{self.tmp}/{name}.calls"; echo >>"{self.tmp}/{name}.calls"'
        path.write_text(f"#!/bin/bash\n{record}\n{body}\n")
        path.chmod(0o755)

    def calls(self, name):
        """The arguments of every call of a stand-in."""
        path = self.tmp / f"{name}.calls"
        return [call.splitlines() for call in path.read_text().split("\n\n")[:-1]] if path.exists() else []

    def start(self, script, *arguments, cwd=ROOT, **variables):
        """The script as a running process."""
        path = f"{self.bin}:{Path(sys.executable).parent}:/usr/bin:/bin"
        return subprocess.Popen(
            [str(script if Path(script).is_absolute() else LAUNCH / script), *arguments],
            cwd=cwd,
            env=dict(PATH=path, HOME=str(self.home), GIT_CONFIG_GLOBAL="/dev/null", LC_ALL="C", **variables),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments, **keywords):
        """Exit status, output and errors of the script."""
        return finish(self.start(*arguments, **keywords))


def finish(process):
    try:
        out, err = process.communicate(timeout=time_limit(10))
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def started(shell):
    """Return the number of stand-ins for main.py that have started."""
    return len(list((shell.tmp / "started").iterdir()))


def eventually(condition):
    """Wait until the condition holds; fail if it takes too long."""
    end = time.monotonic() + time_limit(5)
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
