"""Function, numerical errors and speed of the project on one accelerator, and the speed of the PyTorch originals there.

    python benchmarks/accelerator.py OUT [--minutes=8] [--parts=device,run] [--repositories=DIR]

Run it from the root of the project. Every part is a process of its own with a time limit; the most telling come first.
A part appends one line of JSON to OUT/results.jsonl for each figure; a part that fails appends its last lines. The
benchmark ends after --minutes and prints all results. A second run with the same OUT finds the compiled programs.

DIR has clones of the originals: `ermongroup/ncsn` in ncsn, `ermongroup/ncsnv2` in ncsnv2, and
`yang-song/score_sde_pytorch` in score_sde_pytorch. `pytorch_speed.py` times them, in the environment of --torch_python.

Small configs find errors on a CPU before an accelerator is used:

    export JAX_PLATFORMS=cpu JAX_DISABLE_MOST_OPTIMIZATIONS=1
    python benchmarks/accelerator.py OUT --small --batch=4 --config=configs/digits_vp.py --other=configs/digits.py
"""

import argparse
import collections
import functools
import gc
import importlib.metadata
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from score_sde_jax.devices import environment  # imports no JAX, which would take the memory of the device

ROOT = Path(__file__).resolve().parent.parent
LEAST_SECONDS = 20
"""Least remaining time with which a part starts, in seconds."""
LARGEST_BATCH = 4096
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
CHAINS = {
    "annealed_langevin": ("configs/digits.py", ("sampler.corrector.num_steps=2",)),
    "predictor_corrector": ("configs/digits_ve.py", ("sampler.times.num_steps=10",)),
}
"""Config of each compared sampler, and overrides for few steps."""
LIKELIHOOD = "configs/digits_vp.py"
ORIGINALS = {"ncsnpp": "score_sde_pytorch", "ncsnv2": "ncsnv2", "ddpmpp": "score_sde_pytorch", "ncsn": "ncsn"}
"""Repository of each network of `pytorch_speed.py`."""
PRECISIONS = {"highest": ("float32", "highest"), "default": ("float32", "default"), "bfloat16": ("bfloat16", "default")}
"""Type of the network and precision of products. The default of float32 is TF32 on GPUs, and bfloat16 on TPUs."""


def main() -> None:
    """Run the selected parts, or in a process of its own one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="directory of the results")
    parser.add_argument("--config", default="configs/ve/cifar10_ncsnpp_continuous.py", help="the config of most parts")
    parser.add_argument(
        "--other",
        default="configs/cifar10_ncsnv2.py,configs/vp/cifar10_ddpmpp_continuous.py,configs/cifar10_ncsn.py",
        help="more configs; XLA takes longest to compile NCSN, so it is the last",
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--parts", default="", help=f"of {', '.join(PARTS)} (all)")
    parser.add_argument("--repositories", type=Path, help="folder with clones of the PyTorch originals")
    parser.add_argument("--torch_python", default=sys.executable, help="Python of an environment with PyTorch")
    parser.add_argument("--small", action="store_true", help="few steps, small products, debug variants of the configs")
    parser.add_argument("--part", default="", choices=("", *PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--of", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.parts.split(",") if arguments.parts else list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.exit(2, f"error: --parts={arguments.parts}: no part {unknown[0]}; choose from {', '.join(PARTS)}\n")
    if not arguments.repositories:
        if arguments.parts and "pytorch" in names:
            parser.exit(2, f"error: --parts={arguments.parts}: part pytorch needs --repositories=DIR\n")
        names = [name for name in names if name != "pytorch"]
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        PARTS[arguments.part].function(arguments)
    else:
        run_parts(arguments, [name for name in PARTS if name in names])


def configs(arguments: argparse.Namespace) -> list[str]:
    """Return the configs, the main one first."""
    return [variant(arguments, config) for config in (arguments.config, *arguments.other.split(",")) if config]


def variant(arguments: argparse.Namespace, config: str) -> str:
    """Return a config, or with --small its debug variant."""
    return f"{config}:debug" if arguments.small and ":" not in config else config


# ------------------------------------------------------------------------- processes and results


def run_parts(arguments: argparse.Namespace, names: list[str]) -> None:
    """Run parts in processes of their own until the minutes are over, and print all results."""
    began, known = time.monotonic(), configs(arguments)
    jobs = list[tuple[str, str]]()
    for name in names:
        jobs += [(name, config) for config in ([""] if PARTS[name].of == NONE else known[PARTS[name].of])]
    for name, config in jobs:
        left = 60 * arguments.minutes - (time.monotonic() - began)
        if left < LEAST_SECONDS:
            report(arguments, "out of time", what=name, config=config)
            break
        started = time.monotonic()
        run_part(arguments, name, config, min(PARTS[name].limit, left))
        print(f"{name} {config}: {time.monotonic() - started:.0f} s", flush=True)
    print((arguments.out / "results.jsonl").read_text())


def run_part(arguments: argparse.Namespace, name: str, config: str, limit: float) -> None:
    """Run one part in a process; a line in the results says if it fails or exceeds its limit."""
    variables = dict(os.environ, PYTHONPATH=f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    variables.setdefault("JAX_COMPILATION_CACHE_DIR", str(arguments.out / "cache"))
    if (platforms := variables.get("JAX_PLATFORMS")) and "cpu" not in platforms.split(","):
        variables["JAX_PLATFORMS"] = f"{platforms},cpu"  # numerical errors are those against the CPU
    if PARTS[name].as_command_line:
        variables |= environment.variables(os.environ)
    process = subprocess.Popen(
        [sys.executable, __file__, *sys.argv[1:], f"--part={name}", f"--of={config}"],
        env=variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the processes of a part end with it and leave the device to the next part
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        report(arguments, "cut", what=name, config=config, after_s=limit, end=errors[-600:])
        return
    if process.returncode:
        end = (output + errors)[-1200:]
        report(arguments, "failed", what=name, config=config, status=process.returncode, end=end)


def report(arguments: argparse.Namespace, part: str, **figures: Any) -> None:
    """Append one line of figures to the results."""
    with (arguments.out / "results.jsonl").open("a") as file:
        file.write(json.dumps({"part": part, **figures}) + "\n")
    print(part, figures, flush=True)


def median_seconds(function: Callable[[], Any], repeats: int = 5, calls: int = 1) -> float:
    """Return the median time of a call over several repeats of `calls` calls, after one call to warm up."""
    return interleaved_seconds([function], repeats, calls)[0]


def interleaved_seconds(functions: list[Callable[[], Any]], repeats: int = 5, calls: int = 1) -> list[float]:
    """Return the median time of a call of each function; they take turns, so that they see the same machine."""
    import jax

    times: list[list[float]] = [[] for _ in functions]
    for function in functions:
        jax.block_until_ready(function())
    for _ in range(repeats):
        for own, function in zip(times, functions, strict=True):
            began = time.perf_counter()
            for _ in range(calls):
                result = function()
            jax.block_until_ready(result)
            own.append((time.perf_counter() - began) / calls)
    return [statistics.median(own) for own in times]


# ------------------------------------------------------------------------- functions that import the project


def experiment_of(config: str, dtype: str = "float32", overrides: tuple[str, ...] = ()) -> Any:
    """Return the experiment of a config whose network computes in `dtype`."""
    import speed

    return speed.experiment_of(config, [f"model.dtype={dtype}", *overrides])


class Training(NamedTuple):
    """A compiled training step on random images.

    Attributes:
        call: function without arguments that runs one call, which returns the metrics.
        compile_s: seconds of tracing and compilation.
        program_bytes: memory that the program needs, by XLA's own count.
    """

    call: Callable[[], Any]
    compile_s: float
    program_bytes: int


def training(experiment: Any, batch: int, flat: bool | None = None, steps: int = 1) -> Training:
    """Return the training step as `score_sde_jax.runs.train` compiles it.

    Args:
        experiment: experiment.
        batch: images of a batch.
        flat: whether the state is in flat vectors; by default as `main.py` chooses.
        steps: steps of a call.
    """
    import numpy as np
    from speed import random_batches

    from score_sde_jax import keys as prng
    from score_sde_jax.devices import costs
    from score_sde_jax.devices.machine import on_cpu
    from score_sde_jax.devices.parallel import Jit
    from score_sde_jax.runs.flat import flatten_state

    parallel, key = Jit(), prng.root(0, "train")
    state = parallel.init(experiment.init, prng.root(0, "init"))
    if not on_cpu() if flat is None else flat:
        state = parallel.apply(flatten_state, state, state.params)
    batches = {name: np.repeat(rows, steps, axis=0) for name, rows in random_batches(experiment, batch).items()}
    batches = parallel.shard(batches)
    began = time.perf_counter()
    step = parallel.compiled(experiment.steps, state, batches, key)
    compiled = time.perf_counter() - began
    holder = [state]

    def call() -> Any:
        holder[0], metrics, _ = step(holder[0], batches, key, parallel.flags(False))
        return metrics

    return Training(call, compiled, costs.program_bytes(step))


def training_figures(arguments: argparse.Namespace, config: str, dtype: str, batch: int) -> dict[str, Any]:
    """Return the figures of a training step."""
    import jax

    from score_sde_jax.devices import costs
    from score_sde_jax.networks.convolution import native_convolutions
    from score_sde_jax.runs.experiment import training_cost

    experiment = experiment_of(config, dtype)
    step = training(experiment, batch)
    report(arguments, "compiled", what="training", config=config, dtype=dtype, batch=batch, compile_s=step.compile_s)
    seconds = median_seconds(step.call, calls=2 if arguments.small else 10)
    with native_convolutions():
        params = jax.eval_shape(experiment.init_params, jax.random.key(0))
    flops = training_cost(experiment, params, 1).flops * batch / seconds
    return {
        "config": config,
        "dtype": dtype,
        "batch": batch,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compile_s": step.compile_s,
        "step_ms": 1e3 * seconds,
        "images_per_second": batch / seconds,
        "TFLOP_s": flops / 1e12,
        **costs.utilization(flops, dtype),
        **costs.memory_use(),
        "program_bytes": step.program_bytes,
        "loss": float(jax.device_get(step.call().loss).ravel()[-1]),
    }


def sampling_figures(arguments: argparse.Namespace, config: str, dtype: str, batch: int) -> dict[str, Any]:
    """Return the figures of the sampling loop, with fewer steps than the config has."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from score_sde_jax import keys as prng
    from score_sde_jax import settings
    from score_sde_jax.devices import costs
    from score_sde_jax.devices.parallel import Jit
    from score_sde_jax.networks.convolution import native_convolutions

    sampler = settings.from_config(settings.load(config), []).sampler
    fewer = "times" if "num_steps" in sampler.times.options() else "corrector"  # noise levels shape the network
    number = 20 if fewer == "times" else 1
    experiment = experiment_of(config, dtype, (f"sampler.{fewer}.num_steps={3 if arguments.small else number}",))
    parallel, key = Jit(), prng.root(0, "sample")
    params = parallel.init(experiment.init_params, prng.root(0, "init"))
    inputs = params, np.arange(batch), key, {}
    began = time.perf_counter()
    sample = parallel.per_example(experiment.sample).lower(*inputs).compile()
    compiled = time.perf_counter() - began
    report(arguments, "compiled", what="sampling", config=config, dtype=dtype, batch=batch, compile_s=compiled)
    nfe = int(jax.device_get(sample(*inputs).nfe)[0])
    seconds = median_seconds(lambda: sample(*inputs), repeats=3)

    def forward(params: Any, x: Any) -> Any:
        return experiment.noise_fn(params)(x, jnp.asarray(0.5 * experiment.sde.t_max, x.dtype))

    with native_convolutions():
        operations = costs.flops(forward, params, jnp.zeros((1, *experiment.image_shape)))
    flops = operations * batch * nfe / seconds
    return {
        "config": config,
        "dtype": dtype,
        "batch": batch,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compile_s": compiled,
        "nfe": nfe,
        "seconds": seconds,
        "evaluations_per_second": batch * nfe / seconds,
        "TFLOP_s": flops / 1e12,
        **costs.utilization(flops, dtype),
        **costs.memory_use(),
        "program_bytes": costs.program_bytes(sample),
    }


def shared_params(experiment: Any) -> Any:
    """Return random parameters that are equal on every machine."""
    import jax

    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        # The last layers start near zero, so without noise on every leaf, errors in the others would not be visible.
        leaves, tree = jax.tree.flatten(experiment.init_params(jax.random.key(0)))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        return tree.unflatten(
            [leaf + 0.05 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
        )


def relative_errors(
    config: str,
    function_of: Callable[[Any], Callable[..., Any]],
    inputs: tuple[Any, ...],
    overrides: tuple[str, ...] = (),
    precisions: tuple[str, ...] = tuple(PRECISIONS),
) -> Iterator[dict[str, Any]]:
    """Yield for each precision the relative error of a function on the device against float32 on the CPU.

    Args:
        config: config of the experiment.
        function_of: function from the experiment to the compared function of (params, *inputs).
        inputs: inputs, equal on every machine.
        overrides: overrides of the config.
        precisions: keys of PRECISIONS.
    """
    import jax
    import numpy as np

    from score_sde_jax.devices.machine import tracing_for

    def results_on(experiment: Any, device: Any, precision: str) -> list[Any]:
        function = function_of(experiment)
        with jax.default_matmul_precision(precision):
            results = jax.jit(lambda *args: function(*args))(*jax.device_put((params, *inputs), device))
        return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(jax.device_get(results))]

    def norm(leaves: list[Any]) -> float:
        return float(np.sqrt(sum(np.sum(leaf**2) for leaf in leaves)))

    experiment = experiment_of(config, overrides=overrides)
    params, target = shared_params(experiment), jax.devices()[0]
    with tracing_for("cpu"):
        expected = results_on(experiment, jax.local_devices(backend="cpu")[0], "highest")
    for name in precisions:
        dtype, precision = PRECISIONS[name]
        results = results_on(experiment_of(config, dtype, overrides), target, precision)
        error = norm([a - b for a, b in zip(results, expected, strict=True)]) / norm(expected)
        yield {"config": config, "precision": name, "relative_error": error}


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
        device_kind=jax.devices()[0].device_kind,
        backend=jax.default_backend(),
        smi=smi.stdout.strip(),
        xla_flags=os.environ.get("XLA_FLAGS", ""),
        **versions,
    )


def run(arguments: argparse.Namespace) -> None:
    """Train the digits with `main.py`, stop it by a signal, resume it, and sample, as a user does."""
    steps, stop, images = (12, 4, 16) if arguments.small else (2200, 2000, 200)
    config = variant(arguments, "configs/digits.py")
    workdir = Path(tempfile.mkdtemp(prefix="digits-", dir=arguments.out)) / "run"
    base = [sys.executable, "-u", "main.py", f"--workdir={workdir}", f"--config={config}"]
    base.append(f"--config.train.steps={steps}")
    ends = {"config": config}
    for what, mode, line in (("stop", "train", f"step {stop:,}/"), ("resume", "train", ""), ("sample", "sample", "")):
        command = [*base, f"--mode={mode}", *([f"--num_images={images}"] if mode == "sample" else [])]
        began = time.perf_counter()
        status, lines = stopped_at(command, line)
        first = next((text for text in lines if text.startswith("Resuming")), "")
        figures = {"status": status, "seconds": time.perf_counter() - began, "resuming": first, "end": lines[-3:]}
        report(arguments, "run", what=what, **ends, **figures)
        if status != (128 + signal.SIGTERM if line else 0) or (what == "resume" and not first):
            sys.exit(f"{what}: status {status}\n" + "".join(lines[-10:]))


def stopped_at(command: list[str], line: str) -> tuple[int, list[str]]:
    """Run a command, send SIGTERM after a line with this beginning, and return its status and its lines."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = list[str]()
    for text in process.stdout:
        lines.append(text)
        if line and text.startswith(line):
            process.terminate()
    return process.wait(), lines


def train(arguments: argparse.Namespace, name: str, dtype: str) -> None:
    """Measure the training step of one config."""
    report(arguments, name, **training_figures(arguments, arguments.of, dtype, arguments.batch))


def sample(arguments: argparse.Namespace, name: str) -> None:
    """Measure the sampling loop of one config."""
    report(arguments, name, **sampling_figures(arguments, arguments.of, "bfloat16", arguments.batch))


def largest(arguments: argparse.Namespace, name: str, figures: Callable[..., dict[str, Any]]) -> None:
    """Double the batch until the memory of the device is too small, and report each batch."""
    import jax

    batch, last = arguments.batch, 4 * arguments.batch if arguments.small else LARGEST_BATCH
    while batch <= last:
        try:
            report(arguments, name, **figures(arguments, arguments.of, "bfloat16", batch))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0][:300]
            report(arguments, name, config=arguments.of, batch=batch, does_not_fit=reason)
            break
        batch *= 2
        gc.collect()
        jax.clear_caches()


def states(arguments: argparse.Namespace) -> None:
    """Measure, in turns, a state in flat vectors, one that is not, and several flat steps in one call."""
    experiment, several = experiment_of(arguments.of, "bfloat16"), 2 if arguments.small else 10
    forms = {"flat": (True, 1), "tree": (False, 1), f"flat, {several} steps in a call": (True, several)}
    steps = [training(experiment, arguments.batch, flat, number) for flat, number in forms.values()]
    seconds = interleaved_seconds([step.call for step in steps], calls=2)
    for (name, (_, number)), step, own in zip(forms.items(), steps, seconds, strict=True):
        figures = {"step_ms": 1e3 * own / number, "compile_s": step.compile_s, "program_bytes": step.program_bytes}
        report(arguments, "states", config=arguments.of, batch=arguments.batch, state=name, **figures)


def numerics(arguments: argparse.Namespace, name: str) -> None:
    """Compare the noise prediction of one config on the device with that on the CPU."""
    import jax
    import jax.numpy as jnp

    def noise_prediction(experiment: Any) -> Callable[..., Any]:
        return lambda params, x: experiment.noise_fn(params)(x, jnp.asarray(0.5 * experiment.sde.t_max, x.dtype))

    shape = experiment_of(arguments.of).image_shape
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        x = jax.random.normal(jax.random.key(2), (4, *shape))
    for figures in relative_errors(arguments.of, noise_prediction, (x,)):
        report(arguments, name, **figures)


def gradients(arguments: argparse.Namespace) -> None:
    """Compare the gradient of one training step of one config on the device with that on the CPU."""
    import jax
    import jax.numpy as jnp
    from speed import random_batches

    from score_sde_jax import keys as prng

    def gradient(experiment: Any) -> Callable[..., Any]:
        def loss(params: Any, indices: Any, batch: Any) -> Any:
            return jnp.mean(experiment.loss_fn(params, prng.per_image(prng.root(0, "train"), indices), batch))

        return jax.grad(loss)

    batches, indices = random_batches(experiment_of(arguments.of), 2), jnp.arange(2)
    batch = {name: rows[0] for name, rows in batches.items()}
    for figures in relative_errors(arguments.of, gradient, (indices, batch)):
        report(arguments, "gradients", **figures)


def chains(arguments: argparse.Namespace) -> None:
    """Compare the images of two samplers on the device with those on the CPU, from the same keys."""
    import jax.numpy as jnp

    from score_sde_jax import keys as prng

    def images(experiment: Any) -> Callable[..., Any]:
        return lambda params, indices: experiment.sample(params, indices, prng.root(0, "sample"), {}).images

    for name, (config, overrides) in CHAINS.items():
        for figures in relative_errors(variant(arguments, config), images, (jnp.arange(4),), overrides):
            report(arguments, "chains", chain=name, **figures)


def bits(arguments: argparse.Namespace) -> None:
    """Compare bits/dim on the device with those on the CPU, from the same probes."""
    import jax
    import jax.numpy as jnp

    from score_sde_jax import keys as prng
    from score_sde_jax.diffusion.likelihood import bits_per_dim, log_likelihood

    def values(experiment: Any) -> Callable[..., Any]:
        pixels = experiment.pixels

        def function(params: Any, x0: Any) -> Any:
            keys = prng.per_image(prng.root(0, "evaluate"), jnp.arange(len(x0)))
            nats = log_likelihood(experiment.sde, experiment.noise_fn(params), keys, x0, rtol=1e-3, atol=1e-3)
            return bits_per_dim(nats.log_likelihood, x0[0].size, pixels.levels, pixels.ends)

        return function

    config = variant(arguments, LIKELIHOOD)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        x0 = jax.random.uniform(jax.random.key(2), (4, *experiment_of(config).image_shape), minval=-1.0)
    for figures in relative_errors(config, values, (x0,), precisions=("highest",)):
        report(arguments, "bits", **figures)


def ceiling(arguments: argparse.Namespace) -> None:
    """Measure the bandwidth of a copy and the rates of a matrix product."""
    import jax
    import jax.numpy as jnp

    n, copies = (512, 1) if arguments.small else (8192, 16)
    x, copy = jax.random.normal(jax.random.key(0), (copies * n * n,)), jax.jit(lambda x: x + 1)
    figures = {"copy_TB_s": 2 * x.nbytes / median_seconds(lambda: copy(x)) / 1e12}
    square = jax.random.normal(jax.random.key(1), (n, n))
    for name, dtype, precision in (
        ("bf16", jnp.bfloat16, None),
        ("tf32", jnp.float32, None),
        ("float32_highest", jnp.float32, "highest"),
    ):
        product = functools.partial(jax.jit(jnp.matmul, static_argnames="precision"), precision=precision)
        a = square.astype(dtype)
        seconds = median_seconds(functools.partial(product, a, a), calls=5)
        figures[f"product_{name}_TFLOP_s"] = 2 * n**3 / seconds / 1e12
    report(arguments, "ceiling", **figures)


def profile(arguments: argparse.Namespace) -> None:
    """Report the 40 slowest operations of three training steps."""
    import jax

    call, trace = (
        training(experiment_of(arguments.of, "bfloat16"), arguments.batch).call,
        arguments.out / "trace" / str(os.getpid()),
    )
    jax.block_until_ready(call())
    with jax.profiler.trace(str(trace)):
        for _ in range(3):
            jax.block_until_ready(call())
    totals = collections.Counter[str]()
    host = jax.default_backend() == "cpu"
    for path in trace.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            if "GPU" in plane.name or "TPU" in plane.name or (host and "CPU" in plane.name):
                for line in plane.lines:
                    for event in line.events:
                        totals[event.name] += event.duration_ns
    slowest = {name[:90]: round(nanoseconds / 1e6, 3) for name, nanoseconds in totals.most_common(40)}
    report(arguments, "profile", config=arguments.of, batch=arguments.batch, milliseconds_of_three_steps=slowest)


def pytorch(arguments: argparse.Namespace) -> None:
    """Time the PyTorch originals, each in a process of its own."""
    on_card = environment.has_cuda(os.environ)
    base = [arguments.torch_python, str(Path(__file__).parent / "pytorch_speed.py"), "--json", "--channels_last"]
    base += [f"--batch_size={arguments.batch}", f"--device={'cuda' if on_card else 'cpu'}"]
    base += ["--repeats=1"] if arguments.small else []
    for network, folder in ORIGINALS.items():
        repository = arguments.repositories.resolve() / folder
        if not repository.is_dir():
            report(arguments, "pytorch", network=network, missing=str(repository))
            continue
        for precision in ("bfloat16", "tf32"):
            for compiled in ([],) if arguments.small else (["--compile"], []):
                flags = [f"--network={network}", f"--precision={precision}", *compiled]
                command = [*base, f"--repository={repository}", *flags]
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
                    end = done.stdout.splitlines()
                    figures = json.loads(end[-1]) if not done.returncode else {"failed": done.stderr[-600:]}
                except subprocess.TimeoutExpired:
                    figures = {"failed": "200 seconds are over"}
                report(arguments, "pytorch", flags=flags, **figures)


FIRST, OTHERS, ALL, NONE = slice(0, 1), slice(1, None), slice(None), slice(0, 0)


class Part(NamedTuple):
    """A part.

    Attributes:
        function: function that measures it.
        limit: limit of each of its processes in seconds.
        of: configs that have a process each; NONE for one process without a config.
        as_command_line: whether it sets the environment variables that `main.py` sets, such as XLA's flags.
    """

    function: Callable[[argparse.Namespace], None]
    limit: float
    of: slice = NONE
    as_command_line: bool = True


PARTS = {
    "device": Part(device, 40),
    "run": Part(run, 120, as_command_line=False),
    "train": Part(lambda flags: train(flags, "train", "bfloat16"), 150, FIRST),
    "numerics": Part(lambda flags: numerics(flags, "numerics"), 100, slice(0, 2)),
    "chains": Part(chains, 150),
    "bits": Part(bits, 90),
    "sample": Part(lambda flags: sample(flags, "sample"), 100, FIRST),
    "pytorch": Part(pytorch, 600),
    "train_default_flags": Part(lambda flags: train(flags, "train_default_flags", "bfloat16"), 110, FIRST, False),
    "states": Part(states, 240, FIRST),
    "profile": Part(profile, 100, FIRST),
    "ceiling": Part(ceiling, 40),
    "train_tf32": Part(lambda flags: train(flags, "train_tf32", "float32"), 110, FIRST),
    "gradients": Part(gradients, 200, ALL),
    "numerics_others": Part(lambda flags: numerics(flags, "numerics_others"), 120, slice(2, None)),
    "train_others": Part(lambda flags: train(flags, "train_others", "bfloat16"), 200, OTHERS),
    "sample_others": Part(lambda flags: sample(flags, "sample_others"), 120, OTHERS),
    "train_others_tf32": Part(lambda flags: train(flags, "train_others_tf32", "float32"), 200, OTHERS),
    "largest_train": Part(lambda flags: largest(flags, "largest_train", training_figures), 400, ALL),
    "largest_sample": Part(lambda flags: largest(flags, "largest_sample", sampling_figures), 300, ALL),
}

if __name__ == "__main__":
    main()
