"""A recorder of all random numbers: the key of each draw, and the function of the package that draws.

A custom JAX generator, threefry that records every key, works inside any transformation and compiled program. The
functions of `jax.random` are patched to record their callers. For numpy, the counts of each Philox stream are recorded.
"""

import collections
import contextlib
import functools
import pathlib
import sys

import jax
import numpy as np
import pytest
from jax.extend import random as extended

PACKAGE = pathlib.Path(__file__).parents[2] / "score_sde_jax"
KEYS = PACKAGE / "keys.py"
"""Draws for others: its callers count."""
NAMED = ("bits", "normal", "rademacher", "uniform")
THREEFRY = extended.threefry_prng_impl

_bits: collections.Counter[bytes] = collections.Counter()
_parents: set[bytes] = set()
_places: dict[bytes, collections.Counter[str]] = collections.defaultdict(collections.Counter)


def _random_bits(key, bit_width, shape):
    jax.debug.callback(lambda data: _bits.update([np.asarray(data).tobytes()]), key)
    return THREEFRY.random_bits(key, bit_width, shape)


def _derived(derive):
    def function(key, argument):
        jax.debug.callback(lambda data: _parents.add(np.asarray(data).tobytes()), key)
        return derive(key, argument)

    return function


RECORDING = extended.define_prng_impl(
    key_shape=THREEFRY.key_shape,
    seed=THREEFRY.seed,
    split=_derived(THREEFRY.split),
    random_bits=_random_bits,
    fold_in=_derived(THREEFRY.fold_in),
    name="recording",
    tag="rec",
)


def _named(draw):
    @functools.wraps(draw)
    def function(key, *args, **options):
        place = _place()
        jax.debug.callback(lambda data: _places[np.asarray(data).tobytes()].update([place]), jax.random.key_data(key))
        return draw(key, *args, **options)

    return function


def _place():
    """Return the file and function of the package that draws."""
    frame = sys._getframe(1)
    while frame is not None:
        path = pathlib.Path(frame.f_code.co_filename)
        if PACKAGE in path.parents and path != KEYS:
            module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            return f"{module}:{frame.f_code.co_qualname.replace('.<locals>', '')}"
        frame = frame.f_back
    return "elsewhere"


class _Philox(np.random.Philox):
    """A numpy generator and its first counter."""

    first = 0

    def used(self):
        """Return the key and the interval of its used counts: the first, and the one after the last."""
        state = self.state["state"]
        last = sum(int(word) << (64 * i) for i, word in enumerate(state["counter"]))
        return tuple(state["key"].tolist()), self.first + 1, last + 1


class Draws:
    """Number of draws per key and place, the keys that others are derived from, and numpy's generators."""

    def __init__(self):
        self.places, self.parents, self.generators = {}, set(), []

    def shared(self, *on_purpose):
        """Places that drew from one key more than once, but for those that do so `on_purpose` and alone, and those that
        drew from a key that other keys are derived from as well.
        """
        wrong = [
            places
            for key, places in self.places.items()
            if key in self.parents or (places.total() > 1 and not (len(places) == 1 and set(places) <= set(on_purpose)))
        ]
        return {tuple(sorted(places)) for places in wrong}

    def overlaps(self):
        """Pairs of numpy's generators that used the same counts of the same stream."""
        used = [generator.used() for generator in self.generators]
        return [(a, b) for i, a in enumerate(used) for b in used[:i] if a[0] == b[0] and a[1] < b[2] and b[1] < a[2]]


@contextlib.contextmanager
def recorded():
    """Yield a recorder, which is filled at the end of the block."""
    draws, make_key = Draws(), jax.random.key

    def philox(*, key, counter):
        generator = _Philox(key=key, counter=counter)
        generator.first = counter
        draws.generators.append(generator)
        return generator

    for kept in (_bits, _parents, _places):
        kept.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "key", lambda seed, impl=None: make_key(seed, impl=RECORDING))
        for name in NAMED:
            patch.setattr(jax.random, name, _named(getattr(jax.random, name)))
        patch.setattr(np.random, "Philox", philox)
        yield draws
        jax.effects_barrier()
    draws.parents = set(_parents)
    for key, times in _bits.items():
        unnamed = times - _places[key].total()
        draws.places[key] = _places[key] + collections.Counter(elsewhere=unnamed)
