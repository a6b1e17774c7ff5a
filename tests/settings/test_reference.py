"""The reference of the settings: every section, entry and key, each with a meaning."""

import pytest

from score_sde_jax.settings.reference import entries, meanings, summary
from score_sde_jax.settings.sections import Settings

ENTRIES = list(entries())
SECTIONS = [entry for entry in ENTRIES if entry.name is None]


class Base:
    """A base class.

    Attributes:
        kept: Meaning of the base class.
        changed: Meaning that a subclass replaces.
    """


class Documented(Base):
    """First sentence; it ends here. Second sentence.

    Text before the list, where `other: text` is no item.

    Attributes:
        changed: Meaning that goes on
            in a second line.
        first, second: One meaning for two names.

    Reference: arXiv 1907.05600.
    """


def test_meanings_of_a_class_are_its_own_and_those_of_its_base():
    assert meanings(Documented) == {
        "kept": "Meaning of the base class.",
        "changed": "Meaning that goes on in a second line.",
        "first": "One meaning for two names.",
        "second": "One meaning for two names.",
    }


def test_meanings_of_a_function_are_its_arguments():
    def function(size: int = 1) -> None:
        """Do nothing.

        Args:
            size: Length in pixels.

        Returns:
            nothing: Not an argument.
        """

    assert meanings(function) == {"size": "Length in pixels."}


def test_summary_is_the_first_sentence():
    assert summary(Documented) == "First sentence; it ends here."


def test_entries_describe_types_ranges_and_defaults():
    keys_of = {(entry.path, entry.name): {key.name: key for key in entry.keys} for entry in ENTRIES}
    assert keys_of["train", None]["steps"].kind == "an integer, >= 1 and < 2,147,483,648"
    assert keys_of["train", None]["steps"].default is None
    assert keys_of["train", None]["averages"].default == "{}"
    assert keys_of["sde", "ve"]["sigma_max"].kind == "a number or auto, >= 1e-18 and < 1e+18"
    assert keys_of["sde", "ve"]["sigma_max"].default == "50.0"
    assert "flip" in keys_of["data", None]
    assert "flip" not in keys_of["data", "digits"]


def test_entries_name_the_default_of_each_registry():
    defaults = {(entry.path, entry.name) for entry in ENTRIES if entry.is_default}
    assert defaults == {("loss", "denoising"), ("parallel", "jit"), ("task", "none")}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.path or 'top'}-{entry.name}")
def test_entry_has_a_summary_and_a_meaning_for_every_key(entry):
    assert entry.summary
    assert [key.name for key in entry.keys if not key.meaning] == []


def test_meanings_of_the_settings_name_their_keys_and_no_others():
    sections = {section.path for section in SECTIONS if section.path and "." not in section.path}
    assert meanings(Settings).keys() == sections | {"seed"}
