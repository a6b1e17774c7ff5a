"""Every key of every section has an effect: two values give two different runs.

The drivers run as a user starts them, without a compiler (dry.py). The traced programs, their arguments or the files
must differ, in every mode that uses the key.
"""

import functools

import pytest
from two_values import (
    ACTS,
    CONTEXTS,
    EVAL,
    NETWORK,
    OTHERS,
    REASONS,
    REFUSED,
    SAME_CODE,
    SAMPLE,
    SAVE,
    TRAIN,
    by_end,
    by_start,
    config_of,
    context,
    keys,
    of_choice,
    other_values,
    path_of,
    registries,
)

from score_sde_jax.errors import UserError
from score_sde_jax.networks import MODELS
from score_sde_jax.settings.choices import arguments

KEYS = keys()
REGISTRIES = registries()
CHOICES = [f"{path}={name}" for path, registry in REGISTRIES.items() for name in registry]
BY_NAME = [path for path, registry in REGISTRIES.items() if len(registry) > 1]
DRAWING = ("sampler", "task")


def acting_in(mode):
    elsewhere = tuple(f"model={name}." for name in SAME_CODE)
    keys = [key for key in KEYS if key not in REASONS and key not in REFUSED and not key.startswith(elsewhere)]
    return [key for key in keys if mode in by_start(ACTS, key)]


def assert_values_differ(journeys, key, mode):
    name, assignments = config_of(key), context(key)
    config = journeys.config(name, assignments)
    path = path_of(key)
    value = functools.reduce(getattr, path.split("."), config)
    runs = {f"{path}={value}": journeys.observe(mode, name, assignments)}
    for other in other_values(key, KEYS[key], value):
        runs[" ".join(other)] = journeys.observe(mode, name, (*assignments, *other))
    assert len(runs) > 1
    same = [(a, b) for i, a in enumerate(runs) for b in list(runs)[:i] if runs[a] == runs[b]]
    assert not same, f"nothing that --mode={mode} does differs between {same}"


def assert_choices_differ(journeys, path, mode):
    names = [name for name in REGISTRIES[path] if name not in SAME_CODE]
    runs = {name: journeys.observe(mode, config_of(f"{path}={name}"), of_choice(path, name)) for name in names}
    same = [(a, b) for i, a in enumerate(runs) for b in list(runs)[:i] if runs[a] == runs[b]]
    assert not same, f"nothing that --mode={mode} does differs between {path}.name={same}"


def test_every_key_is_followed_or_has_a_reason():
    """The tables name existing keys only."""
    for key in [*REASONS, *REFUSED]:
        assert key in KEYS, key
    for end in OTHERS:
        assert any(by_end({end: True}, key) for key in KEYS), end
    for start in [*CONTEXTS, *ACTS]:
        assert any(key.startswith(start) for key in [*KEYS, *CHOICES]), start
    assert not set(REASONS) & REFUSED


@pytest.mark.parametrize(("name", "other"), SAME_CODE.items())
def test_a_network_with_the_keys_of_another_is_that_one_with_other_defaults(name, other):
    network, other_network = MODELS[name], MODELS[other]
    assert network.__call__.__code__ is other_network.__call__.__code__
    assert list(arguments(network)) == list(arguments(other_network))


class TestTraining:
    @pytest.mark.parametrize("path", [path for path in BY_NAME if not path.startswith((*DRAWING, "model"))])
    def test_every_choice_trains_in_a_way_of_its_own(self, path, journeys):
        assert_choices_differ(journeys, path, TRAIN)

    @pytest.mark.parametrize("key", sorted(REFUSED))
    def test_a_declaration_that_does_not_fit_is_refused_before_training(self, key, journeys):
        other = "/nowhere" if key.endswith(".dir") else "2"
        assignments = (*context(key), f"{path_of(key)}={other}")
        message = f"no data in {other};" if key.endswith(".dir") else f"{path_of(key)}={other}:"
        with pytest.raises(UserError, match=message) as raised:
            journeys.observe(TRAIN, config_of(key), assignments)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("key", acting_in(TRAIN))
    def test_a_key_reaches_training(self, key, journeys):
        assert_values_differ(journeys, key, TRAIN)

    @pytest.mark.parametrize("key", acting_in(SAVE))
    def test_a_key_reaches_checkpoints(self, key, journeys):
        assert_values_differ(journeys, key, SAVE)


class TestSampling:
    @pytest.mark.parametrize("path", [path for path in BY_NAME if path.startswith(DRAWING)])
    def test_every_choice_samples_in_a_way_of_its_own(self, path, journeys):
        assert_choices_differ(journeys, path, SAMPLE)

    @pytest.mark.parametrize("key", acting_in(SAMPLE))
    def test_a_key_reaches_sampling(self, key, journeys):
        assert_values_differ(journeys, key, SAMPLE)


class TestEvaluation:
    @pytest.mark.parametrize("key", acting_in(EVAL))
    def test_a_key_reaches_evaluation(self, key, journeys):
        assert_values_differ(journeys, key, EVAL)


class TestNetworks:
    def test_every_choice_is_another_network(self, journeys):
        assert_choices_differ(journeys, "model", NETWORK)

    @pytest.mark.parametrize("key", acting_in(NETWORK))
    def test_a_key_reaches_its_network(self, key, journeys):
        assert_values_differ(journeys, key, NETWORK)
