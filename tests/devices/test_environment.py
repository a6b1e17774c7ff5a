"""Variables that the command line sets: those of this machine's devices, and none that a user has set."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import pytest

from score_sde_jax.devices import environment
from score_sde_jax.devices.environment import KNOWN, LARGE_PAGES, QUICK_COMPILATION, has_cuda, variables


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that makes this a machine with device files, packages and a version of jaxlib."""

    def pretend(files=(), packages=(), version="0.10.2"):
        for name in files:
            (tmp_path / name).touch()
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in packages else None)
        monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
        monkeypatch.setattr(environment, "has_cuda", lambda given: has_cuda(given, tmp_path))

    return pretend


GPU = {"files": ["nvidia0", "nvidiactl"], "packages": ["jax_cuda12_plugin"]}


@pytest.mark.parametrize("version", ["0.10.0", "0.10.2", "0.11.2"])
@pytest.mark.parametrize("given", [{}, {"JAX_PLATFORMS": "cuda"}, {"JAX_PLATFORMS": "cuda,cpu"}])
def test_a_gpu_gets_quick_compilation_and_no_large_pages(machine, version, given):
    machine(**GPU, version=version)
    assert variables(given) == {"XLA_FLAGS": QUICK_COMPILATION}


@pytest.mark.parametrize("version", ["0.9.2", "0.12.0", "1.0.0"])
def test_a_version_that_may_not_know_the_flag_does_not_get_it(machine, version):
    machine(**GPU, version=version)
    assert variables({}) == {}


def test_flags_of_the_user_stay(machine):
    machine(**GPU)
    assert variables({"XLA_FLAGS": ""}) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
@pytest.mark.parametrize(
    "what", [{"files": ["nvidia0"]}, {"packages": ["jax_cuda12_plugin"]}, {"files": ["nvidiactl"], "packages": ["x"]}]
)
def test_without_a_gpu_or_its_plugin_the_pages_are_large(machine, what):
    machine(**what)
    assert variables({}) == {"GLIBC_TUNABLES": LARGE_PAGES}
    assert variables({"GLIBC_TUNABLES": ""}) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_gpu_that_is_ruled_out_counts_as_none(machine):
    machine(**GPU)
    assert variables({"JAX_PLATFORMS": "cpu"}) == {"GLIBC_TUNABLES": LARGE_PAGES}


def test_the_installed_version_knows_the_flag():
    """XLA aborts at a flag that it does not know, on any device; the second run shows that this test sees it."""
    program = "import jax; jax.jit(lambda x: x + 1)(1.0)"
    status = [
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"XLA_FLAGS": flags}, capture_output=True
        ).returncode
        for flags in (QUICK_COMPILATION, QUICK_COMPILATION + "_")
    ]
    assert KNOWN.match(importlib.metadata.version("jaxlib"))
    assert status[0] == 0 and status[1] != 0
