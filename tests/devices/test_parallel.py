"""Equal gradients and images of every parallelism on 1, 2 and 8 devices and in two processes."""

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

from score_sde_jax.devices import parallel as parallel_module
from score_sde_jax.devices.machine import on_cpu, tracing_for
from score_sde_jax.devices.parallel import MIN_SHARDED_SIZE, PARALLEL, Jit, bytes_per_device, sharded_axis
from score_sde_jax.errors import UserError

HERE = pathlib.Path(__file__).parent
MODES = ("jit", "fully_sharded", "pmap")
FLAT = ("jit_flat", "pmap_flat")
SAMPLED = ("images", "frames", "nfe", "given")
CLIP = 0.05


def started(output, modes, devices, *distributed):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)]),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",  # compilation dominates the time
    }
    command = [sys.executable, str(HERE / "on_devices.py"), str(output), ",".join(modes), *map(str, distributed)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def results(path, modes, devices, processes=1):
    if processes == 1:
        running = [started(path, modes, devices)]
    else:
        where = f"localhost:{free_port()}"
        running = [started(path, modes, devices, where, processes, number) for number in range(processes)]
    for process in running:
        _, err = process.communicate(timeout=time_limit(120))
        assert process.returncode == 0, err
    with np.load(path) as loaded:
        return dict(loaded)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Results of one device."""
    return results(tmp_path_factory.mktemp("alone") / "1.npz", (*MODES, *FLAT, "microbatches", "mlp"), 1)


def agree(actual, expected):
    """Compare up to rounding of float32: 4e-6 of the largest value; for gradients, of the parameters, about 1."""
    for key in expected:
        rounding = 5e-7 if key.startswith(("gradient", "average")) else 4e-6 * np.abs(expected[key]).max()
        np.testing.assert_allclose(actual[key], expected[key], rtol=0, atol=rounding, err_msg=key)


def of(results, mode, *left_out):
    """Return the results of one mode, without those of some names."""
    own = {key.removeprefix(f"{mode}/"): value for key, value in results.items() if key.startswith(f"{mode}/")}
    return {key: value for key, value in own.items() if not key.startswith(left_out)}


def test_the_gradient_is_clipped_and_not_zero(alone):
    assert (alone["jit/grad_norm"] > 2 * CLIP).all()
    np.testing.assert_allclose(alone["jit/update_norm"], CLIP, rtol=1e-5)


def test_modes_agree_on_one_device(alone):
    for mode in MODES:
        agree(of(alone, mode, "collectives"), of(alone, "jit", "collectives"))
    assert len({image.tobytes() for image in alone["jit/images"]}) == 16


def test_microbatches_are_the_same_as_the_whole_batch(alone):
    parts = of(alone, "microbatches")
    assert set(parts) >= {"gradient", "loss", "level_loss"}
    agree(parts, of(alone, "jit", *SAMPLED))


@pytest.mark.parametrize("mode", FLAT)
def test_flat_vectors_are_the_same_as_the_parameters(alone, mode):
    agree(of(alone, mode, "collectives"), of(alone, "jit", "collectives", *SAMPLED))


@pytest.mark.parametrize(
    ("devices", "processes", "modes"),
    [
        pytest.param(2, 1, (*MODES, *FLAT), id="2-devices"),
        pytest.param(8, 1, (*MODES, *FLAT), id="8-devices", marks=pytest.mark.slow),
        pytest.param(2, 2, ("mlp",), id="2-processes-of-2"),  # they compile everything: JAX has no cache for them
        pytest.param(2, 2, MODES, id="2-processes-of-2-other-modes", marks=pytest.mark.slow),
    ],
)
def test_several_devices_are_the_same_as_one(alone, tmp_path, devices, processes, modes):
    """Gradients, metrics and images agree; only full sharding has fewer bytes per device."""
    several = results(tmp_path / "several.npz", modes, devices, processes)
    for mode in modes:
        left_out = ("bytes", "collectives", *(SAMPLED if mode in FLAT else ()))
        expected = "mlp" if mode == "mlp" else "jit"
        agree(of(several, mode, *left_out), of(alone, expected, *left_out))
        if mode != "fully_sharded":  # one for the gradients and the sums of the metrics, one for the vote
            assert several[f"{mode}/collectives"] <= 2
        assert (several[f"{mode}/bytes"] < alone[f"{expected}/bytes"]) == (mode == "fully_sharded")


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
def test_a_batch_that_the_devices_do_not_divide_is_refused(name):
    parallel = PARALLEL[name]()
    for size in (0, -1):
        with pytest.raises(UserError, match=rf"batch_size={size}: must be a positive multiple of 1 device$"):
            parallel.check_batch("train.batch_size", size)
    parallel.check_batch("train.batch_size", 6, parts=3)
    with pytest.raises(UserError, match="b=7: must be a positive multiple of 1 device times 3 microbatches"):
        parallel.check_batch("b", 7, parts=3)


def test_abstract_has_the_shape_and_sharding_of_init():
    def make(key):
        return {"w": jax.random.normal(key, (64, 33))}

    for parallel in (Jit(), Jit(fully_sharded=True)):
        state, abstract = parallel.init(make, jax.random.key(0)), parallel.abstract(make, jax.random.key(0))
        assert state["w"].shape == abstract["w"].shape and state["w"].sharding == abstract["w"].sharding


@pytest.mark.parametrize("parallel", [Jit(), Jit(fully_sharded=True), PARALLEL["pmap"]()])
def test_parameters_of_other_devices_are_drawn_on_the_cpu(parallel):
    """A program that is traced for the CPU draws them, and they get the sharding of the devices."""
    backends = []

    def make(key):
        backends.append(on_cpu())
        w = jax.random.normal(key, (64, 33))
        return {"w": w, "b": jnp.zeros(3), "step": jnp.zeros((), jnp.int32), "half": w.astype(jnp.bfloat16)}

    with tracing_for("gpu"):
        drawn, expected = parallel.init(make, jax.random.key(0)), parallel.apply(make, jax.random.key(0))
    assert backends[0] and not backends[-1]  # traced for the CPU, then for the devices
    for name, leaf in drawn.items():
        assert leaf.sharding == expected[name].sharding
        values = [np.asarray(each, np.float32) for each in (leaf, expected[name])]
        np.testing.assert_allclose(*values, rtol=2**-7 if name == "half" else 1e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_parameters_are_drawn_with_the_options_of_a_program_that_runs_once(monkeypatch, backend):
    monkeypatch.setattr(parallel_module, "RUN_ONCE", {"no_such_option": 0})
    with tracing_for(backend):
        Jit().apply(jax.random.normal, jax.random.key(0))
        with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
            Jit().init(jax.random.normal, jax.random.key(0))


def test_without_a_cpu_the_devices_draw_the_parameters(monkeypatch):
    backends = []
    monkeypatch.setattr(parallel_module, "host_cpu", lambda: None)
    with tracing_for("gpu"):
        Jit().init(lambda key: backends.append(on_cpu()) or jax.random.normal(key, (3,)), jax.random.key(0))
    assert backends and not any(backends)
