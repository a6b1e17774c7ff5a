"""One step and one sampler, on 1, 2 and 8 devices and in two processes, every way: the same gradients and images."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from patience import time_limit

from score_sde_jax.devices.parallel import MIN_SHARDED_SIZE, PARALLEL, Jit, bytes_per_device, sharded_axis
from score_sde_jax.errors import UserError

HERE = pathlib.Path(__file__).parent
WAYS = ("jit", "fully_sharded", "pmap")
CLIP = 0.05


def started(output, devices, *distributed):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(HERE.parents[1]),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",  # compilation takes the time
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
    }
    command = [sys.executable, str(HERE / "on_devices.py"), str(output), *map(str, distributed)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def results(path, devices, processes=1):
    if processes == 1:
        running = [started(path, devices)]
    else:
        where = f"localhost:{free_port()}"
        running = [started(path, devices, where, processes, number) for number in range(processes)]
    for process in running:
        _, err = process.communicate(timeout=time_limit(120))
        assert process.returncode == 0, err
    with np.load(path) as loaded:
        return dict(loaded)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Results of one device."""
    return results(tmp_path_factory.mktemp("alone") / "1.npz", 1)


SEVERAL = [
    pytest.param((2, 1), id="2-devices"),
    pytest.param((8, 1), id="8-devices", marks=pytest.mark.slow),
    pytest.param((2, 2), id="2-processes-of-2"),
]


@pytest.fixture(scope="module", params=SEVERAL)
def several(request, tmp_path_factory):
    """Results of several devices."""
    devices, processes = request.param
    return results(tmp_path_factory.mktemp("several") / "n.npz", devices, processes)


def agree(found, expected):
    """Within rounding of float32: 4e-6 of the largest value, and for gradients that of the parameters, which are
    around 1.
    """
    for key in expected:
        rounding = 5e-7 if key.startswith(("gradient", "average")) else 4e-6 * np.abs(expected[key]).max()
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=rounding, err_msg=key)


def of(results, way, *left_out):
    chosen = {key.removeprefix(f"{way}/"): value for key, value in results.items() if key.startswith(f"{way}/")}
    return {key: value for key, value in chosen.items() if not key.startswith(left_out)}


def test_the_gradient_is_clipped_and_not_zero(alone):
    assert (alone["jit/grad_norm"] > 2 * CLIP).all()
    np.testing.assert_allclose(alone["jit/update_norm"], CLIP, rtol=1e-5)


def test_every_way_is_the_same_on_one_device(alone):
    for way in WAYS:
        agree(of(alone, way), of(alone, "jit"))
    assert len({image.tobytes() for image in alone["jit/images"]}) == 16


def test_microbatches_are_the_same_as_the_whole_batch(alone):
    parts = of(alone, "microbatches")
    assert set(parts) >= {"gradient", "loss", "level_loss"}
    agree(parts, of(alone, "jit", "images", "frames", "nfe", "given"))


@pytest.mark.parametrize("way", WAYS)
def test_several_devices_are_the_same_as_one(several, alone, way):
    """Gradients, metrics and every image; only the bytes on a device differ, and only fully sharded."""
    agree(of(several, way, "bytes"), of(alone, "jit", "bytes"))
    fewer = several[f"{way}/bytes"] < alone["jit/bytes"]
    assert fewer == (way == "fully_sharded")


@pytest.mark.parametrize(
    ("shape", "devices", "axis"),
    [
        ((), 2, None),
        ((MIN_SHARDED_SIZE - 1,), 1, None),
        ((MIN_SHARDED_SIZE,), 2, 0),
        ((3, 3, 64, 128), 8, 3),
        ((3, 3, 128, 60), 8, 2),
        ((3, 3, 63, 61), 8, None),
        ((3, 3, 61, 64), 3, 0),
    ],
)
def test_the_axis_that_is_split(shape, devices, axis):
    assert sharded_axis(shape, devices) == axis


def test_bytes_per_device_by_hand():
    tree = {"w": jnp.zeros((64, 64)), "b": jnp.zeros(64), "n": jnp.zeros((), jnp.int32)}
    assert bytes_per_device(tree, 8, False) == 4 * (64 * 64 + 64 + 1)
    assert bytes_per_device(tree, 8, True) == 4 * (64 * 64 // 8 + 64 + 1)


@pytest.mark.parametrize("name", PARALLEL)
def test_a_batch_is_shared_equally(name):
    parallel = PARALLEL[name]()
    for size in (0, -1):
        with pytest.raises(UserError, match=rf"batch_size={size}: must be a positive multiple of the 1 devices$"):
            parallel.check_batch("train.batch_size", size)
    parallel.check_batch("train.batch_size", 6, parts=3)
    with pytest.raises(UserError, match="b=7: must be a positive multiple of the 1 devices times 3 microbatches"):
        parallel.check_batch("b", 7, parts=3)


def test_init_is_what_abstract_says():
    def make(key):
        return {"w": jax.random.normal(key, (64, 33))}

    for parallel in (Jit(), Jit(fully_sharded=True)):
        made, said = parallel.init(make, jax.random.key(0)), parallel.abstract(make, jax.random.key(0))
        assert made["w"].shape == said["w"].shape and made["w"].sharding == said["w"].sharding
