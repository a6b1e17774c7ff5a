"""The drivers without a compiler: records of the traced programs and their arguments, with made-up results.

A driver runs as a user starts it, reads its data and writes its files; only the functions that it compiles are traced
instead. So a run takes a second, and the effect of a setting on programs and their arguments is recorded.
"""

import contextlib
import dataclasses
import functools
import hashlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from PIL import Image

from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.runs import batch_sampler, pictures, reporting, train

ADDRESS = re.compile(r"0x[0-9a-f]+")


@dataclasses.dataclass
class Recorder:
    """Digests of the traced programs, and of the arguments of each call."""

    programs: list[str] = dataclasses.field(default_factory=list)
    calls: list[tuple] = dataclasses.field(default_factory=list)
    now: float = 0.0

    def trace(self, function, *args):
        """Shapes of function(*args), with its program kept."""
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        self.programs.append(digest(program))
        return shapes

    def call(self, *args):
        """Keep the arguments of a call."""
        self.calls.append(tuple(fingerprint(arg) for arg in args))


def digest(program):
    """Return the digest of a program and of all arrays in it."""
    digest_so_far = hashlib.sha256(ADDRESS.sub("", str(program)).encode())
    for constant in constants(program):
        digest_so_far.update(fingerprint(constant).encode())
    return digest_so_far.hexdigest()[:12]


def constants(program):
    """Yield the arrays that a program closes over."""
    yield from program.consts
    yield from _inner_constants(program.jaxpr)


def _inner_constants(jaxpr):
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                if isinstance(item, core.ClosedJaxpr):
                    yield from constants(item)
                elif isinstance(item, core.Jaxpr):
                    yield from _inner_constants(item)


def fingerprint(tree):
    """Return the digest of all values in a tree of arrays and keys."""
    digest_so_far = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        digest_so_far.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest_so_far.update(np.asarray(leaf).tobytes())
    return digest_so_far.hexdigest()[:12]


def zeros(shapes):
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def ramps(shapes, start=0.0):
    """Return values for shapes: floats in [start, start + 1), zeros for integers, and True."""

    def ramp(leaf):
        if leaf.dtype == bool:
            return jnp.ones(leaf.shape, bool)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        size = max(leaf.size, 1)
        return jnp.asarray(start + np.arange(leaf.size).reshape(leaf.shape) / size, leaf.dtype)

    return jax.tree.map(ramp, shapes)


class Listener:
    """A logger that passes its metrics to the recorder."""

    def __init__(self, seen, name, workdir, resumed_step):
        self.seen, self.name = seen, name
        self.seen.calls.append((name, workdir.exists(), resumed_step))

    def write(self, step, values):
        self.seen.calls.append((self.name, step, sorted(values)))

    def write_image(self, step, name, image):
        self.seen.calls.append((self.name, step, name))

    def close(self):
        self.seen.calls.append((self.name, "closed"))


@contextlib.contextmanager
def recorded(metrics=lambda step: {}, stop_at=None, seconds=(0.0, 0.0)):
    """Compile nothing; what the drivers trace and call is in the recorder.

    `metrics` gives the numbers of each training step, all others are zero; a signal arrives in step `stop_at`; a
    training step and a batch of samples or measurements take so many `seconds`, by the recorder's clock.
    """
    seen = Recorder()

    def init(self, function, *args):
        seen.programs.append(str(jax.tree.leaves(self.abstract(function, *args))))
        shapes = seen.trace(function, *args)
        seen.call(*args)
        return ramps(shapes, start=int(fingerprint(args), 16) / 16**12)  # another seed, other parameters

    def compiled(self, step, state, batches, key):
        shapes = seen.trace(self.train(step, state), state, batches, key, self.flags(False))
        length = len(jax.tree.leaves(batches)[0])

        def call(state, batches, key, flags):
            seen.call(batches, key)
            seen.now += length * seconds[0]
            steps = range(int(state.step) + 1, int(state.step) + length + 1)
            known = [shapes[1]._replace(**one_step(metrics(step))) for step in steps]
            together = jax.tree.map(lambda *values: jnp.stack([jnp.asarray(value) for value in values]), *known)
            return state.replace(step=state.step + length), together, jnp.asarray(stop_at in steps)

        def one_step(known):
            return {name: jnp.zeros(leaf.shape[1:], leaf.dtype) for name, leaf in shapes[1]._asdict().items()} | known

        call.memory_analysis = lambda: None  # as on backends that do not count it
        return call

    def per_example(self, function):
        def call(*args):
            seen.call(*args)
            seen.now += seconds[1]
            return ramps(seen.trace(function, *args))

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_to_image", lambda figure: Image.new("RGB", (1, 1)))  # a third of a run's time
        clock = types.SimpleNamespace(monotonic=lambda: seen.now)
        for module in (train, batch_sampler, reporting):
            patch.setattr(module, "time", clock)
        patch.setattr(train, "check_loggers", lambda *args, **keywords: None)  # their packages need not be installed
        for name in ("TensorBoard", "WeightsAndBiases"):
            patch.setattr(train, name, functools.partial(Listener, seen, name))
        patch.setattr(Parallel, "init", init)
        patch.setattr(Parallel, "compiled", compiled)
        for kind in Parallel.__subclasses__():
            patch.setattr(kind, "per_example", per_example)
        yield seen
