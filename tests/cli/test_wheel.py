"""The wheel: built from this tree, installed alone, and run from an empty folder."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import zipfile

import pytest
from typed import QUICK, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree, by the build backend that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling import build; print(build.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture
def command(wheel, tmp_path):
    """The command of an installed wheel in an empty folder; dependencies come from the environment of the tests."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", f"--prefix={site}", wheel]
    subprocess.run(install, check=True, capture_output=True)
    scheme = dict(base=str(site), platbase=str(site))
    scripts, packages = (sysconfig.get_path(name, "posix_prefix", scheme) for name in ("scripts", "purelib"))
    environment = {**os.environ, "PYTHONPATH": packages, "JAX_PLATFORMS": "cpu", **QUICK}

    def run(*arguments):
        program = str(pathlib.Path(scripts, "score-sde-jax"))
        return subprocess.run([program, *arguments], cwd=empty, env=environment, capture_output=True, text=True)

    return run


def test_wheel_holds_every_config_and_the_type_marker(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {file.relative_to(ROOT).as_posix() for file in (ROOT / "configs").rglob("*.py")}
    assert {f"score_sde_jax/share/{name}" for name in configs} <= names
    assert "score_sde_jax/py.typed" in names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith(("tests/", "configs/"))]


def test_installed_command_trains_and_samples_in_an_empty_folder(command):
    trained = command("--config=digits:debug", "--mode=train", "--config.train.steps=2")
    assert trained.returncode == 0, trained.stderr
    drawn = command("--workdir=runs/digits-debug", "--mode=sample", "--num_images=2")
    assert drawn.returncode == 0, drawn.stderr
    assert "repeat: score-sde-jax --workdir=runs/digits-debug --mode=sample --num_images=2" in drawn.stdout
    wrong = command("--config=digit")
    assert wrong.returncode == 2 and "did you mean digits" in wrong.stderr and "\n" not in wrong.stderr.strip()
