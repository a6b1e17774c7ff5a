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
import weakref
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core.scope import Scope
from jax.extend import core
from PIL import Image

from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.runs import batch_sampler, pictures, reporting, train

ADDRESS = re.compile(r"0x[0-9a-f]+")
DIGESTS = weakref.WeakKeyDictionary()
"""Digests of programs, many of which are in several others."""
type_name = functools.cache(str)


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
    if program not in DIGESTS:
        DIGESTS[program] = hashlib.sha256(ADDRESS.sub("", _text(program)).encode()).hexdigest()[:12]
    return DIGESTS[program]


def _text(program):
    """Return equations with variables numbered in the order of their appearance; str takes three times as long."""
    closed = isinstance(program, core.ClosedJaxpr)
    jaxpr, numbers = program.jaxpr if closed else program, {}

    def of(value):
        if isinstance(value, core.Var):
            return f"v{numbers.setdefault(value, len(numbers))}"
        if isinstance(value, core.Literal):
            return f"{np.asarray(value.val).tolist()}:{type_name(value.aval)}"
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
            return digest(value)
        if isinstance(value, tuple | list):
            return f"({' '.join(map(of, value))})"
        return str(sorted(map(str, value)) if isinstance(value, frozenset) else value)

    def typed(variables):
        return [f"{of(variable)}:{type_name(variable.aval)}" for variable in variables]

    lines = [fingerprint(program.consts) if closed else "", *typed(jaxpr.constvars), *typed(jaxpr.invars)]
    for equation in jaxpr.eqns:
        params = [f"{name}={of(value)}" for name, value in sorted(equation.params.items())]
        lines.append(f"{typed(equation.outvars)} {equation.primitive} {params} {of(equation.invars)}")
    return "\n".join((*lines, of(jaxpr.outvars)))


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

    def param(self, name, *args, drawn=Scope.param, **keywords):
        known = self.has_variable("params", name)
        return self.get_variable("params", name) if known else drawn(self, name, *args, **keywords)

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
        patch.setattr(pictures, "_figure", lambda *args, **keywords: (None, mock.MagicMock()))
        patch.setattr(pictures, "_to_image", lambda figure: Image.new("RGB", (1, 1)))  # a third of a run's time
        clock = types.SimpleNamespace(monotonic=lambda: seen.now)
        for module in (train, batch_sampler, reporting):
            patch.setattr(module, "time", clock)
        patch.setattr(train, "check_loggers", lambda *args, **keywords: None)  # their packages need not be installed
        for name in ("TensorBoard", "WeightsAndBiases"):
            patch.setattr(train, name, functools.partial(Listener, seen, name))
        patch.setattr(Scope, "param", param)  # for the shapes of known parameters, flax traces their initial values
        patch.setattr(Parallel, "init", init)
        patch.setattr(Parallel, "compiled", compiled)
        for kind in Parallel.__subclasses__():
            patch.setattr(kind, "per_example", per_example)
        yield seen
