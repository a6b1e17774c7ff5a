"""Settings of all tests: JAX on the CPU, no implicit rank promotion, annotations checked at run time.

Options: --slow-part=K/N selects part K of N of the slow tests; --slow-seconds=S skips those that would start later.
"""

import functools
import gc
import os
import pathlib
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Half of the time of the tests is compilation, which a second run saves, here and in the processes that tests start.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "score_sde_jax" / "compiled-tests"
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import made_up
import pytest
from jaxtyping import install_import_hook
from PIL import Image

jax.config.update("jax_numpy_rank_promotion", "raise")  # (B,) against (B, H, W, C) is an error

# Tracing allocates so many objects that the default thresholds of Python cost up to a tenth of the time.
gc.set_threshold(200_000, 20, 100)

# Every annotation of the numerical core is checked at run time, in the tests only.
CHECKED = ["keys", "diffusion", "samplers", "tasks"]
install_import_hook([f"score_sde_jax.{module}" for module in CHECKED], "annotations.checked")


DEAREST = ("runs/test_train.py", "runs/test_build.py", "samplers/test_pairs.py", "wiring/test_settings.py")
"""Files that start first: with --dist=loadscope one worker runs a whole file."""


def pytest_addoption(parser):
    parser.addoption("--slow-part", metavar="K/N", help="with -m slow: only part K (0 to N - 1) of N")
    parser.addoption("--slow-seconds", metavar="S", type=float, help="with -m slow: start no test after S seconds")


STARTED = time.monotonic()


def pytest_runtest_setup(item):
    """Skip a slow test if no time is left for it."""
    limit = item.config.getoption("--slow-seconds")
    if limit is not None and time.monotonic() - STARTED > limit:
        pytest.skip(f"{limit:.0f} seconds are over")


def pytest_collection_modifyitems(config, items):
    """Put the slowest files first, and keep one part of the slow tests with --slow-part."""
    tests = pathlib.Path(__file__).parent
    ranks = {tests / name: rank for rank, name in enumerate(DEAREST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
    if part := config.getoption("--slow-part"):
        number, parts = map(int, part.split("/"))
        groups = list(dict.fromkeys(group(item) for item in items if "slow" in item.keywords))[number::parts]
        # Each time that a part runs, it starts a third further on, so tests that --slow-seconds skipped come first.
        first = int(time.time() // 86_400 // (parts + 1)) % 3 * len(groups) // 3
        order = {each: place for place, each in enumerate(groups[first:] + groups[:first])}
        config.hook.pytest_deselected(items=[item for item in items if group(item) not in order])
        items[:] = sorted((item for item in items if group(item) in order), key=lambda item: order[group(item)])


def group(item):
    """Return file and parameters; tests with the same ones share fixtures and run in one part."""
    return item.path, item.name.partition("[")[2] or item.name


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_file():
    """Free traced and compiled programs after each file; otherwise a worker grows to five gigabytes.

    Garbage collection skips objects older than the file: each damaged checkpoint starts one, which took seconds.
    """
    gc.freeze()
    yield
    gc.unfreeze()
    jax.clear_caches()


@pytest.fixture
def x64():
    """Arithmetic in float64, for equalities and convergence orders."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def quick_compilation():
    """Compile with less optimization, for short runs whose compilation takes most of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def blank_figures():
    """Draw no curves, for short runs whose figures take a third of the time."""
    from score_sde_jax.runs import pictures  # after the import hook

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_to_image", lambda figure: Image.new("RGB", (1, 1)))
        yield


WRITERS = {
    "mnist": made_up.write_mnist,
    "fashion_mnist": functools.partial(made_up.write_mnist, seed=1),
    "cifar10": made_up.write_cifar10,
    "celeb_a": made_up.write_celeb_a,
}


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    """Directory of the archives and their content, by the name of the dataset."""
    root = tmp_path_factory.mktemp("archives")
    made = {}
    for name, write in WRITERS.items():
        (root / name).mkdir()
        made[name] = (root / name, write(root / name))
    return made


@pytest.fixture(scope="session")
def earth_dir(tmp_path_factory):
    """Directory of a made-up map of the Earth."""
    root = tmp_path_factory.mktemp("earth")
    made_up.write_earth(root)
    return root


@pytest.fixture(scope="session")
def data_dir(archives, tmp_path_factory):
    """Directory of TFDS data made by the prepare command from `archives`."""
    from score_sde_jax.data import prepare  # after the import hook

    root = tmp_path_factory.mktemp("tfds")
    for name, (directory, _) in archives.items():
        flags = [f"--dataset={name}", f"--archives={directory}", f"--data_dir={root}"]
        assert prepare.main([*flags, "--num_shards=2", "--allow_unverified"]) == 0
    return root
