"""Environment variables that must be set before JAX is imported; this module imports no JAX."""

import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

LARGE_PAGES = "glibc.malloc.hugetlb=1"
"""Value of GLIBC_TUNABLES for memory pages of 2 MB."""
QUICK_COMPILATION = "--xla_gpu_experimental_enable_fusion_autotuner=false"
"""Flag that keeps XLA from compiling and timing two forms of every fusion, more than a minute for NCSN++."""
KNOWN = re.compile(r"0\.1[01]\.")
"""Versions of jaxlib that know the flag. A version that does not know a flag aborts the process."""


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that make programs faster on the devices of this machine, without those that are set.

    Args:
        environment: environment variables of the process.
    """
    if has_cuda(environment):
        wanted = {"XLA_FLAGS": QUICK_COMPILATION} if KNOWN.match(importlib.metadata.version("jaxlib")) else {}
    else:
        # XLA on a CPU allocates its workspace anew at every call, and the kernel clears it page by page. Pages of 2 MB
        # are faster (docs/benchmarks.md, "Huge pages").
        wanted = {"GLIBC_TUNABLES": LARGE_PAGES} if sys.platform == "linux" else {}
    return {name: value for name, value in wanted.items() if name not in environment}


def has_cuda(environment: Mapping[str, str], devices: Path = Path("/dev")) -> bool:
    """Return whether JAX will use NVIDIA GPUs: they are there, a plugin is installed, and no variable rules them out.

    Args:
        environment: environment variables of the process.
        devices: folder of the device files.
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return False
    present = [*devices.glob("nvidia[0-9]*"), *devices.glob("dxg")]  # on Linux, and in WSL
    return bool(present) and any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin")))


def set_variables() -> bool:
    """Set the variables of this process.

    Returns:
        Whether they take effect in a new process only.
    """
    wanted = variables(os.environ)
    os.environ.update(wanted)
    return "GLIBC_TUNABLES" in wanted
