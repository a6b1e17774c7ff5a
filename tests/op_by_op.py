"""Drivers whose programs are traced once and run operation by operation; only networks are compiled.

XLA compiles the training step of a published network for half a minute, however narrow the network is. Here all configs
with the same network share its forward and backward pass. numpy or JAX computes the operations around it one by one.
The values equal those of the compiled program up to rounding (tests/runs/test_op_by_op.py).
"""

import contextlib
import functools
import json
import pickle

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Literal

from score_sde_jax import settings
from score_sde_jax.devices.parallel import Jit
from score_sde_jax.runs import build

NETWORK = "network"
"""Name of the compiled part of a program."""
APPLY = nn.Module.apply


def broadcast(x, shape, broadcast_dimensions, **_):
    """`jax.lax.broadcast_in_dim`."""
    x, sizes = np.asarray(x), [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, x.shape, strict=True):
        sizes[axis] = size
    return np.broadcast_to(x.reshape(sizes), shape)


NUMPY = {
    "add": lambda x, y, **_: np.add(x, y),
    "add_any": lambda x, y, **_: np.add(x, y),
    "sub": lambda x, y, **_: np.subtract(x, y),
    "mul": lambda x, y, **_: np.multiply(x, y),
    "div": lambda x, y, **_: np.divide(x, y) if np.issubdtype(np.result_type(x), np.floating) else jax.lax.div(x, y),
    "integer_pow": lambda x, y, **_: np.asarray(x) ** y,
    "neg": lambda x, **_: np.negative(x),
    "square": lambda x, **_: np.square(x),
    "sqrt": lambda x, **_: np.sqrt(x),
    "max": lambda x, y, **_: np.maximum(x, y),
    "min": lambda x, y, **_: np.minimum(x, y),
    "eq": lambda x, y, **_: np.equal(x, y),
    "ne": lambda x, y, **_: np.not_equal(x, y),
    "lt": lambda x, y, **_: np.less(x, y),
    "le": lambda x, y, **_: np.less_equal(x, y),
    "gt": lambda x, y, **_: np.greater(x, y),
    "ge": lambda x, y, **_: np.greater_equal(x, y),
    "is_finite": lambda x, **_: np.isfinite(x),
    "copy": lambda x, **_: x,
    "copy_p": lambda x, **_: x,
    "stop_gradient": lambda x, **_: x,
    "reshape": lambda x, new_sizes, **_: np.reshape(x, new_sizes),
    "squeeze": lambda x, dimensions, **_: np.squeeze(x, tuple(dimensions)),
    "transpose": lambda x, permutation, **_: np.transpose(x, permutation),
    "reduce_sum": lambda x, axes, **_: np.sum(x, tuple(axes)),
    "broadcast_in_dim": broadcast,
}
"""Operations that are numpy's: nothing is compiled for each of the many shapes of parameters."""

INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Parameters of an operation that only calls another program."""


def evaluate(jaxpr, consts, *args):
    """The results of a program, one operation after the other."""
    values = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    last = {atom: i for i, equation in enumerate(jaxpr.eqns) for atom in equation.invars if type(atom) is not Literal}
    kept = set(atom for atom in jaxpr.outvars if type(atom) is not Literal)
    for i, equation in enumerate(jaxpr.eqns):
        results = operation(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
        for atom in equation.invars:  # frees values that are not needed any more
            if type(atom) is not Literal and last[atom] == i and atom not in kept:
                values.pop(atom, None)
    return [read(atom) for atom in jaxpr.outvars]


def closed(program):
    """The program and its constants."""
    return (program.jaxpr, program.consts) if isinstance(program, ClosedJaxpr) else (program, ())


def operation(equation, args):
    """The results of one operation."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return scan(params, args)
    if name == "while":
        return loop(params, args)
    if name == "cond":
        index, *operands = args
        return evaluate(*closed(params["branches"][int(index)]), *operands)
    if name == "platform_index":
        return [next(i for i, names in enumerate(params["platforms"]) if names is None or "cpu" in names)]
    if params.get("name") == NETWORK:
        return equation.primitive.bind(*args, **params)
    for key in INNER:
        if key in params:
            return evaluate(*closed(params[key]), *args)
    if name in NUMPY and all(isinstance(arg, np.ndarray | np.generic) or np.isscalar(arg) for arg in args):
        (out,) = equation.outvars
        with np.errstate(all="ignore"):
            return [np.asarray(NUMPY[name](*args, **params), out.aval.dtype).reshape(out.aval.shape)]
    with equation.ctx.manager:
        results = equation.primitive.bind(*args, **params)
    return [local(result) for result in (results if equation.primitive.multiple_results else [results])]


def local(leaf):
    """The array as numpy's, unless it holds keys."""
    return leaf if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)


def scan(params, args):
    """`jax.lax.scan` as a loop."""
    fixed, carried = params["num_consts"], params["num_consts"] + params["num_carry"]
    constants, carry, rows = args[:fixed], args[fixed:carried], args[carried:]
    program = closed(params["jaxpr"])
    order = range(params["length"])
    outputs = [None] * params["length"]
    for i in reversed(order) if params["reverse"] else order:
        results = evaluate(*program, *constants, *carry, *[row[i] for row in rows])
        carry, outputs[i] = results[: params["num_carry"]], results[params["num_carry"] :]
    return [*carry, *[np.stack(values) for values in zip(*outputs, strict=True)]]


def loop(params, args):
    """`jax.lax.while_loop` as a loop."""
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    asked, fixed, carry = args[:first], args[first:second], args[second:]
    while evaluate(*closed(params["cond_jaxpr"]), *asked, *carry)[0]:
        carry = evaluate(*closed(params["body_jaxpr"]), *fixed, *carry)
    return carry


class Program:
    """A function of trees of arrays, traced at its first call and evaluated operation by operation."""

    def __init__(self, function):
        self.function, self.traced = function, {}

    def __call__(self, *args):
        args = jax.tree.map(on_one_device, args)
        leaves, structure = jax.tree.flatten(args)
        key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self.traced:
            program, shapes = jax.make_jaxpr(self.function, return_shape=True)(*args)
            self.traced[key] = program, jax.tree.structure(shapes)
        program, results = self.traced[key]
        return jax.tree.unflatten(results, evaluate(program.jaxpr, program.consts, *leaves))


def on_one_device(leaf):
    """The array with no sharding of its own: an operation compiles once for each sharding of its operands."""
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(on_one_device(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return np.asarray(leaf)


@functools.cache
def compiled_network(network):
    """`network.apply`, traced and compiled once for all equal networks."""

    def apply(variables, x, condition, train, more):
        return APPLY(network, variables, x, condition, train=train, **more)

    apply.__name__ = NETWORK
    return jax.jit(apply, static_argnames="train")


UNREAD = ("sampler.num_images", "sampler.batch_size", "train.preview_every")
"""Settings that no program of an experiment depends on."""


@contextlib.contextmanager
def op_by_op():
    """Compile networks only; settings with the same programs share one experiment and its programs."""
    programs, experiments, make = {}, {}, build.experiment

    def program(function):
        owner = getattr(function, "__self__", function)
        key = id(owner), getattr(function, "__name__", "")
        if key not in programs:
            programs[key] = owner, Program(function)  # the owner stays alive, so that its id is not given again
        return programs[key][1]

    def experiment(config, image_shape):
        unread = UNREAD + (("train.steps",) if config.optimizer.decay == "constant" else ())
        flat = settings.flatten(settings.plain(config))
        key = json.dumps([image_shape, *((key, value) for key, value in flat.items() if key not in unread)])
        if key not in experiments:
            experiments[key] = make(config, image_shape)
        return experiments[key]

    def init(self, function, *args):
        values = program(function)(*args)
        return jax.device_put(values, self.placement(values))

    def compiled(self, step, state, batches, key):
        def call(state, batches, key, flags):
            state, metrics = program(step)(state, batches, key)
            return jax.tree.map(jax.numpy.asarray, (state, metrics, flags.any()))

        call.memory_analysis = lambda: None  # as on backends that do not count it
        return call

    def apply(self, variables, x, condition, train=False, **more):
        return compiled_network(self)(variables, x, condition, train, more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "apply", apply)
        patch.setattr(build, "experiment", experiment)
        patch.setattr(Jit, "init", init)
        patch.setattr(Jit, "compiled", compiled)
        patch.setattr(Jit, "per_example", lambda self, function: program(function))
        yield


class Pickled:
    """Checkpoints as files of pickled arrays, in a tenth of the time that Orbax takes for a thousand small arrays."""

    def __init__(self, directory, retention=None, about=None):
        self.directory, self.about = directory, about or {}

    def steps(self):
        return sorted(int(path.name) for path in self.directory.glob("*"))

    def save(self, step, state, **more):
        (self.directory / str(step)).mkdir(parents=True, exist_ok=True)
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        (self.directory / str(step) / "state").write_bytes(pickle.dumps((arrays, self.about | more)))

    def _read(self, step):
        return pickle.loads((self.directory / str(step) / "state").read_bytes())

    def about_step(self, step):
        return self._read(step)[1]

    def restore_latest(self, abstract, optimizer=None):
        if not self.steps():
            return None
        leaves, structure = jax.tree.flatten(abstract)
        arrays = self._read(self.steps()[-1])[0]
        assert [(array.shape, array.dtype) for array in arrays] == [(leaf.shape, leaf.dtype) for leaf in leaves]
        return self.steps()[-1], jax.tree.unflatten(structure, map(jax.numpy.asarray, arrays))

    def close(self):
        pass
