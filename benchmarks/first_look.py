"""First measurements on one GPU: function, numerical errors, and speed of the project.

    python benchmarks/first_look.py OUT [--config=configs/...] [--batch=128] [--minutes=8] [--parts=device,run]

Run it from the root of the project. Every part is a process of its own with a time limit. A part appends one line of
JSON to OUT/results.jsonl for each figure; a part that fails appends its last lines. The benchmark ends after --minutes.
It prints all results. A small config finds errors on a CPU before a GPU is used:

    JAX_PLATFORMS=cpu python benchmarks/first_look.py OUT --config=configs/digits_vp.py --batch=16 --small
"""

import argparse
import collections
import importlib.metadata
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

LEAST_SECONDS = 20
"""Least remaining time with which a part starts, in seconds."""
GRAPHS = "--xla_gpu_enable_command_buffer=+CONVOLUTION"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def main() -> None:
    """Run the selected parts, or in a process of its own one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="directory of the results")
    parser.add_argument("--config", default="configs/ve/cifar10_ncsnpp_continuous.py")
    parser.add_argument("--other", default="configs/cifar10_ncsnv2.py", help="a second config, for some of the parts")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--parts", default="", help=f"of {', '.join(PARTS)} (all)")
    parser.add_argument("--small", action="store_true", help="few steps, small products, debug variant of --other")
    parser.add_argument("--part", default="", choices=("", *PARTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.parts.split(",") if arguments.parts else list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--parts={arguments.parts}: no part {unknown[0]}; choose from {', '.join(PARTS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        if arguments.small and ":" not in arguments.other:
            arguments.other += ":debug"
        PARTS[arguments.part].function(arguments)
    else:
        run_parts(arguments, [name for name in PARTS if name in names])


def run_parts(arguments: argparse.Namespace, names: list[str]) -> None:
    """Run parts in processes of their own until the minutes are over, and print all results."""
    began = time.monotonic()
    for name in names:
        left = 60 * arguments.minutes - (time.monotonic() - began)
        if left < LEAST_SECONDS:
            report(arguments, "out of time", what=name)
            break
        started = time.monotonic()
        run_part(arguments, name, min(PARTS[name].limit, left))
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    print((arguments.out / "results.jsonl").read_text())


def run_part(arguments: argparse.Namespace, name: str, limit: float) -> None:
    """Run one part in a process; a line in the results says if it fails or exceeds its limit."""
    environment = dict(os.environ, PYTHONPATH=os.getcwd() + os.pathsep + os.environ.get("PYTHONPATH", ""))
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(arguments.out / "cache"))
    if PARTS[name].flags and not arguments.small:
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {PARTS[name].flags}".strip()
    command, started = [sys.executable, __file__, *sys.argv[1:], f"--part={name}"], time.monotonic()
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the processes of part `run` end with it and leave the device to the next part
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        report(arguments, "cut", what=name, after_s=time.monotonic() - started, end=errors[-600:])
        return
    if process.returncode:
        report(arguments, "failed", what=name, status=process.returncode, end=(output + errors)[-1200:])


def report(arguments: argparse.Namespace, part: str, **figures: Any) -> None:
    """Append one line of figures to the results."""
    with (arguments.out / "results.jsonl").open("a") as file:
        file.write(json.dumps({"part": part, **figures}) + "\n")
    print(part, figures, flush=True)


def median_seconds(function: Callable[..., Any], *values: Any, repeats: int = 5, calls: int = 1) -> float:
    """Return the median time of a call over several repeats of `calls` calls, after one call to warm up."""
    import jax

    jax.block_until_ready(function(*values))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(calls):
            result = function(*values)
        jax.block_until_ready(result)
        times.append((time.perf_counter() - began) / calls)
    return statistics.median(times)


# ------------------------------------------------------------------------- functions that import the project


def experiment_of(config: str, dtype: str) -> Any:
    """Return the experiment of a config, for images of the shape that its dataset declares."""
    from score_sde_jax import settings
    from score_sde_jax.data import dataset_spec
    from score_sde_jax.runs import build

    options = settings.from_config(settings.load(config), [f"model.dtype={dtype}"] if dtype else [])
    section = options.data
    shape = dataset_spec(section.name).shape(section.get("image_size"), section.get("channels"))
    return build.experiment(options, shape)


def training(config: str, dtype: str, batch: int) -> tuple[Callable[[], Any], float]:
    """Return a function that runs the compiled training step on random images, and the compile time."""
    import jax
    from speed import random_batches

    from score_sde_jax.devices.parallel import Jit

    experiment, parallel, key = experiment_of(config, dtype), Jit(), jax.random.key(0)
    state = parallel.init(experiment.init, key)
    batches = parallel.shard(random_batches(experiment, batch))
    began = time.perf_counter()
    step = parallel.compiled(experiment.steps, state, batches, key)
    compiled = time.perf_counter() - began
    holder = [state]

    def call() -> Any:
        holder[0], metrics, _ = step(holder[0], batches, key, parallel.flags(False))
        return metrics

    return call, compiled


def noise_prediction(config: str, dtype: str, batch: int) -> tuple[Callable[..., Any], Any, Any]:
    """Return the noise prediction of (params, x), and random parameters and images, equal on every machine."""
    import jax
    import jax.numpy as jnp

    experiment = experiment_of(config, dtype)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        # The last layers start near zero, so without noise on every leaf, errors in the others would not be visible.
        leaves, tree = jax.tree.flatten(experiment.init_params(jax.random.key(0)))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        noisy = [leaf + 0.05 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
        x = jax.random.normal(jax.random.key(2), (batch, *experiment.image_shape))
    t = 0.5 * experiment.sde.t_max
    return lambda params, x: experiment.noise_fn(params)(x, jnp.asarray(t, x.dtype)), tree.unflatten(noisy), x


# ------------------------------------------------------------------------- parts


def device(arguments: argparse.Namespace) -> None:
    """Report the devices and the versions of the packages."""
    import jax

    versions = dict[str, str | None]()
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    query = "nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader"
    smi = subprocess.run(query, shell=True, capture_output=True, text=True)
    report(
        arguments,
        "device",
        python=sys.version.split()[0],
        devices=str(jax.devices()),
        backend=jax.default_backend(),
        smi=smi.stdout.strip(),
        **versions,
    )


def run(arguments: argparse.Namespace) -> None:
    """Train the digits with `main.py` and sample them in a second process, as a user does."""
    config, steps = ("configs/digits.py:debug", 8) if arguments.small else ("configs/digits.py", 2000)
    base = [sys.executable, "main.py", f"--workdir={arguments.out / 'digits'}", f"--config={config}"]
    base.append(f"--config.train.steps={steps}")
    began = time.perf_counter()
    train = subprocess.run([*base, "--mode=train"], capture_output=True, text=True)
    trained = time.perf_counter()
    sample = subprocess.run([*base, "--mode=sample", "--num_images=200"], capture_output=True, text=True)
    report(
        arguments,
        "run",
        train_status=train.returncode,
        train_s=trained - began,
        train_end=(train.stdout + train.stderr)[-400:],
        sample_status=sample.returncode,
        sample_s=time.perf_counter() - trained,
        sample_end=(sample.stdout + sample.stderr)[-400:],
    )


def ceiling(arguments: argparse.Namespace) -> None:
    """Measure the bandwidth of a copy and the rates of a matrix product."""
    import jax
    import jax.numpy as jnp

    n, copies = (512, 1) if arguments.small else (8192, 16)
    x = jax.random.normal(jax.random.key(0), (copies * n * n,))
    figures = {"copy_TB_s": 2 * x.nbytes / median_seconds(jax.jit(lambda x: x + 1), x) / 1e12}
    square = jax.random.normal(jax.random.key(1), (n, n))
    for name, dtype, precision in (
        ("bf16", jnp.bfloat16, None),
        ("tf32", jnp.float32, None),
        ("float32_highest", jnp.float32, "highest"),
    ):
        product = jax.jit(lambda a, b, precision=precision: jnp.matmul(a, b, precision=precision))
        a = square.astype(dtype)
        figures[f"product_{name}_TFLOP_s"] = 2 * n**3 / median_seconds(product, a, a, calls=5) / 1e12
    report(arguments, "ceiling", **figures)


def numerics(arguments: argparse.Namespace) -> None:
    """Compare the noise prediction on the device with that on the CPU: relative error for each precision."""
    import jax
    import numpy as np

    cpu, target, batch = jax.local_devices(backend="cpu")[0], jax.devices()[0], 4
    for config in (arguments.other, arguments.config):
        function, params, x = noise_prediction(config, "", batch)
        with jax.default_matmul_precision("highest"):
            expected = jax.device_get(jax.jit(function)(jax.device_put(params, cpu), jax.device_put(x, cpu)))
        placed = jax.device_put(params, target), jax.device_put(x, target)
        for name, dtype in (("highest", ""), ("default", ""), ("bfloat16", "bfloat16")):
            compared = noise_prediction(config, dtype, batch)[0] if dtype else function
            with jax.default_matmul_precision("highest" if name == "highest" else "default"):
                predicted = jax.device_get(jax.jit(compared)(*placed))
            error = float(np.linalg.norm(predicted.astype("float32") - expected) / np.linalg.norm(expected))
            report(arguments, "numerics", config=config, precision=name, relative_error=error)


def train(arguments: argparse.Namespace, name: str, config: str, dtype: str) -> None:
    """Measure the images per second of a training step."""
    import jax

    call, compiled = training(config, dtype, arguments.batch)
    seconds = median_seconds(call, calls=2 if arguments.small else 10)
    report(
        arguments,
        name,
        config=config,
        dtype=dtype or "float32",
        batch=arguments.batch,
        flags=os.environ.get("XLA_FLAGS", ""),
        compile_s=compiled,
        step_ms=1e3 * seconds,
        images_per_second=arguments.batch / seconds,
        peak_bytes=(jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        loss=float(jax.device_get(call().loss).ravel()[-1]),
    )


def profile(arguments: argparse.Namespace) -> None:
    """Report the 40 most expensive kernels of three training steps."""
    import jax

    call, _ = training(arguments.config, "bfloat16", arguments.batch)
    jax.block_until_ready(call())
    with jax.profiler.trace(str(arguments.out / "trace")):
        for _ in range(3):
            jax.block_until_ready(call())
    totals = collections.Counter[str]()
    for path in (arguments.out / "trace").rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            if "GPU" in plane.name or (arguments.small and "CPU" in plane.name):
                for line in plane.lines:
                    for event in line.events:
                        totals[event.name] += event.duration_ns
    slowest = {name[:90]: round(nanoseconds / 1e6, 3) for name, nanoseconds in totals.most_common(40)}
    report(arguments, "profile", milliseconds_of_three_steps=slowest)


class Part(NamedTuple):
    """A part: its function, its limit in seconds, and the XLA flags that it needs."""

    function: Callable[[argparse.Namespace], None]
    limit: float
    flags: str = ""


PARTS = {
    "device": Part(device, 40),
    "run": Part(run, 120),
    "train_bf16": Part(lambda flags: train(flags, "train_bf16", flags.config, "bfloat16"), 150),
    "train_bf16_graphs": Part(lambda flags: train(flags, "train_bf16_graphs", flags.config, "bfloat16"), 110, GRAPHS),
    "ceiling": Part(ceiling, 40),
    "numerics": Part(numerics, 150),
    "profile": Part(profile, 60),
    "train_tf32": Part(lambda flags: train(flags, "train_tf32", flags.config, ""), 110),
    "train_other_bf16": Part(lambda flags: train(flags, "train_other_bf16", flags.other, "bfloat16"), 100),
}

if __name__ == "__main__":
    main()
