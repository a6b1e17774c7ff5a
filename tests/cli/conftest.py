"""The command line in this process."""

import os
import sys

import pytest
from typed import ROOT


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Return a function that runs cli.run() in an empty directory: exit status, standard error and output."""
    from absl import flags

    from score_sde_jax import cli as entry

    (tmp_path / "empty").mkdir()
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "file").write_text("")
    (tmp_path / "bad.py").write_text("config = {}\n")
    (tmp_path / "failing.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(os, "_exit", sys.exit)  # a fault ends the process at once, and the test with it

    def run(*arguments):
        words = dict(EMPTY=str(tmp_path / "empty"), ROOT=str(ROOT), TMP=str(tmp_path))
        for word, path in words.items():
            arguments = [argument.replace(word, path) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
        flags.FLAGS.unparse_flags()
        for flag in flags.FLAGS.get_flags_for_module(entry):
            flag.unparse()
        with pytest.raises(SystemExit) as ended:
            entry.run()
        output = capfd.readouterr()
        return ended.value.code, output.err, output.out

    return run
