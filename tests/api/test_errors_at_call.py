"""Errors of a call keep JAX's type and message and get one note: the function, its place, the reason, what to do."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from graphopt.api import jit, optimize

X = jnp.linspace(0.1, 1.0, 3)


def user_function(x: Any, n: Any = 2) -> Any:
    return x * n


LINE = inspect.getsourcelines(user_function)[1]


def raised(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


def notes(error: BaseException) -> list[str]:
    return [note for note in getattr(error, "__notes__", []) if note.startswith("graphopt: ")]


def deleted() -> Any:
    x = X + 1
    jit(lambda x: x * 2, donate_argnums=0)(x)
    return x


def leak(wrap: Any) -> None:
    kept: list[Any] = []
    wrap(lambda x: kept.append(x * 2))(X)
    wrap(lambda x: user_function(x, kept[0]))(X)


MISTAKES: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    # what is done, words of the reason, words of the advice
    "unhashable static argument": (
        lambda wrap: wrap(user_function, static_argnums=1)(X, [1]),
        "must be hashable",
        "Pass a tuple for a list",
    ),
    "unhashable static keyword": (
        lambda wrap: wrap(user_function, static_argnames="n")(X, n={}),
        "must be hashable",
        "a frozen dataclass for a dict",
    ),
    "too few arguments": (lambda wrap: wrap(user_function)(), r"its signature is \(x", "call it with these"),
    "too many arguments": (lambda wrap: wrap(user_function)(X, X, X), r"its signature is \(x", "call it with these"),
    "unknown keyword": (lambda wrap: wrap(user_function)(X, m=2), r"its signature is \(x", "call it with these"),
    "argument given twice": (lambda wrap: wrap(user_function)(X, x=2), r"its signature is \(x", "call it with these"),
    "string": (lambda wrap: wrap(user_function)("a"), "must be an array", "Name this one in static_argnames="),
    "object in a pytree": (lambda wrap: wrap(user_function)({"a": [object()]}), "must be an array", "static_argnames="),
    "donated array": (lambda wrap: wrap(user_function)(deleted()), "its memory had been given", r"x\.copy\(\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("method", ["call", "lower", "trace"])
def test_note(mistake: str, method: str) -> None:
    do, reason, advice = MISTAKES[mistake]
    if method != "call" and mistake == "donated array":
        pytest.skip("nothing runs, so nothing is read")

    def through(wrap: Any) -> Any:
        return (lambda f, **options: getattr(wrap(f, **options), method)) if method != "call" else wrap

    error = raised(lambda: do(through(jit)))
    expected = raised(lambda: do(through(jax.jit)))
    assert type(error) is type(expected)
    assert str(error).split("0x")[0] == str(expected).split("0x")[0]
    (note,) = notes(error)
    assert note.startswith(f"graphopt: in the call of user_function ({__file__}:{LINE}): ")
    assert re.search(reason, note)
    assert re.search(advice, note)


def test_leaked_tracer() -> None:
    error, expected = raised(lambda: leak(jit)), raised(lambda: leak(jax.jit))
    assert type(error) is type(expected) is jax.errors.UnexpectedTracerError
    (note,) = notes(error)
    assert "kept (in a global" in note and "Return it as a result" in note


def test_nested_functions_add_one_note() -> None:
    inner: Any = jit(user_function)
    for outer in (jit(lambda x: inner(x, m=1)), optimize(lambda x: jit(lambda y: inner(y, m=1))(x))):
        (note,) = notes(raised(functools.partial(outer, X)))
        assert "in the call of user_function" in note


def test_errors_of_the_function_itself_get_no_note() -> None:
    def calls_wrongly(x: Any) -> Any:
        return user_function(x, m=3)  # type: ignore[call-arg]

    def raises(x: Any) -> Any:
        raise ValueError("a static argument has been deleted of mine")

    def branches(x: Any) -> Any:
        return x if x > 0 else -x

    for f in (calls_wrongly, branches):
        error, expected = raised(functools.partial(jit(f), 1.0)), raised(functools.partial(jax.jit(f), 1.0))
        assert not notes(error)
        assert type(error) is type(expected) and str(error) == str(expected)
    with pytest.raises(ValueError, match="of mine"):
        jit(raises)(1.0)


def test_messages_of_jax_name_the_function_the_arguments_and_the_results() -> None:
    def branches(first: Any, second: Any) -> Any:
        return first if second["key"][0] > 0 else -first

    def returns_text(x: Any) -> Any:
        return {"good": x, "bad": "text"}

    arguments = (X, {"key": [X[0]]})
    for f, args in ((branches, arguments), (returns_text, (X,))):
        error, expected = raised(functools.partial(jit(f), *args)), raised(functools.partial(jax.jit(f), *args))
        assert type(error) is type(expected) and str(error) == str(expected)
        assert __file__ in str(error)
    assert "the value of the argument second['key'][0]" in str(raised(lambda: jit(branches)(*arguments)))
    partial = functools.partial(branches, second={"key": [1]})
    assert jit(partial)(X).shape == (3,)


def test_source_lines_are_the_users() -> None:
    text = jit(user_function).lower(X).as_text(debug_info=True)
    assert f"{__file__}" in text
    assert not any(
        ours in text for ours in ("graphopt/api.py", "jitted.py", "traceable.py", "backends/xla", "jax_internals")
    )


def test_the_traceback_shows_the_user_and_one_frame_of_graphopt() -> None:
    def fails(x: Any) -> Any:
        raise KeyError("mine")

    error = raised(lambda: jit(fails)(X))
    files = []
    trace = error.__traceback__
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    assert sum("graphopt/" in file and "tests" not in file for file in files) <= 1
    assert files[-1] == __file__
