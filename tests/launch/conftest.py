"""A shell with stand-ins for programs, a clone of the repository, and a stand-in for main.py."""

import os
import shutil
import subprocess
import sys

import pytest
from shells import LAUNCH, Shell

# Stands in for main.py: says what it got and then does what its flags ask for.
PROGRAM = """
import os, signal, sys, time
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
number = given["process_id"]
def stop(received, frame):
    print("saved on", signal.Signals(received).name, flush=True)
    sys.exit(128 + received)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in given else stop)
if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, stop)
print("flags", *sys.argv[1:], flush=True)
print("environment", *[os.environ.get(key) for key in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "XLA_FLAGS")])
open(os.path.join(given["dir"], number), "w").close()
if number == given.get("fails"):
    while len(os.listdir(given["dir"])) < int(given["num_processes"]):
        time.sleep(0.01)
    sys.exit(7)
time.sleep(float(given.get("sleep", 0)))
"""


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def clone(shell):
    """A repository with launch/, a modified tracked file and an untracked file."""
    root = shell.tmp / "clone"
    shutil.copytree(LAUNCH, root / "launch")
    (root / "pyproject.toml").write_text("committed\n")
    for words in ("init", "add .", "commit --message=one"):
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e", *words.split()],
            cwd=root,
            check=True,
            capture_output=True,
            env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"},
        )
    (root / "pyproject.toml").write_text("changed\n")
    (root / "secret").write_text("not tracked\n")
    return root


@pytest.fixture
def program(shell):
    """The words that start the stand-in for main.py."""
    (shell.tmp / "program.py").write_text(PROGRAM)
    (shell.tmp / "started").mkdir()
    return sys.executable, "-S", str(shell.tmp / "program.py"), f"--dir={shell.tmp / 'started'}"
