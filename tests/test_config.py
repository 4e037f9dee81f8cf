"""Settings from the environment and options: known ones are read, all others refused with the list of those that are."""

from pathlib import Path
from typing import Any

import pytest

import graphopt
from graphopt.config import Options, Settings, read_settings
from graphopt.errors import GraphoptError, OptionError


def test_an_empty_environment_asks_for_nothing() -> None:
    assert read_settings({"PATH": "/bin"}) == Settings(dump=None, check=0)


def test_known_settings_are_read() -> None:
    assert read_settings({"GRAPHOPT_DUMP": "there", "GRAPHOPT_CHECK": "1"}) == Settings(Path("there"), check=1)


@pytest.mark.parametrize("environment", [{"GRAPHOPT_DUPM": "x"}, {"GRAPHOPT_CHECK": "yes"}])
def test_an_unknown_setting_is_refused_with_those_that_are_known(environment: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=r"unknown .*; known: "):
        read_settings(environment)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "xlla"}, r"unknown backend 'xlla'; known: auto, xla"),
        ({"numerics": "sloppy"}, r"unknown numerics 'sloppy'; known: exact, standard, fast"),
        (
            {"passes": ("inlin",)},
            r"unknown pass 'inlin'; known: inline, reroll, fold, simplify, affine, bind, contract, solve, join, hoist",
        ),
        ({"passes": "inline"}, r"passes must be a sequence .* write \('inline',\)"),
        ({"passes": (3,)}, r"a pass is a name or an instance .* not 3"),
    ],
)
@pytest.mark.parametrize("wrapper", [graphopt.jit, graphopt.optimize])
def test_an_unknown_option_is_refused_with_the_users_line(wrapper: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        wrapper(abs, **options)
    assert isinstance(caught.value, ValueError | GraphoptError)
    assert f"at {__file__}:" in str(caught.value)


def test_equal_options_are_one_key() -> None:
    assert Options() == Options(backend="auto", numerics="standard", passes=None)
    assert hash(Options()) == hash(Options(backend="auto"))
