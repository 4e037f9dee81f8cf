"""Notes on the errors that JAX raises when an optimized function is called: where, why, and what to do next.

The error keeps JAX's type and message; what is added is a note (`BaseException.add_note`), so that programs that catch
these errors go on working.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax

_MARK = "graphopt: "


def add_note(error: BaseException, function: Callable[..., Any]) -> None:
    """Add a note that explains `error`, raised by calling the optimized `function`; known errors only, and once."""
    if any(note.startswith(_MARK) for note in getattr(error, "__notes__", ())):
        return
    advice = _advice(error, function)
    if advice is not None:
        error.add_note(f"{_MARK}in the call of {describe(function)}: {advice}")


def describe(function: Callable[..., Any]) -> str:
    """The name of `function` and the file and line where it is defined, as far as they can be found."""
    inner = innermost(function)
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    code = _code(inner)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else name


def innermost(function: Callable[..., Any]) -> Any:
    """The function that partials and decorators (which say so in `__wrapped__`) have around them."""
    inner: Any = function
    while isinstance(inner, functools.partial) or hasattr(inner, "__wrapped__"):
        inner = inner.func if isinstance(inner, functools.partial) else inner.__wrapped__
    return inner


def signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of `function`, or None where Python knows none (some builtins)."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _advice(error: BaseException, function: Callable[..., Any]) -> str | None:
    message = str(error)
    if isinstance(error, jax.errors.UnexpectedTracerError):
        return (
            "a value of an earlier trace was kept (in a global, an attribute or a list) and used after that trace had "
            "ended. Return it as a result instead of storing it, and pass it in as an argument where it is needed."
        )
    if isinstance(error, RuntimeError | ValueError) and re.search(r"has been deleted|deleted or donated", message):
        return (
            "an array was used after its memory had been given to an earlier call (donate_argnums=, donate_argnames=), "
            "or after its delete(). Use that call's result, or pass a copy (x.copy()), or do not donate the argument."
        )
    if not isinstance(error, TypeError | ValueError) or _was_entered(function, error):
        return None
    if "Non-hashable static argument" in message:
        return (
            "a static argument is part of the key under which the compiled program is kept, so it must be hashable. "
            "Pass a tuple for a list, a frozen dataclass for a dict; leave an array out of the static arguments."
        )
    if "as an abstract array" in message:
        return (
            "every argument that is not static must be an array, a number or a pytree of them. Name this one in "
            "static_argnames= (it must then be hashable), or bind it before: graphopt.jit(functools.partial(f, it))."
        )
    if re.search(
        r"required (positional|keyword-only) arg|positional arguments? but|keyword arg|multiple values", message
    ):
        return f"its signature is {signature(function) or 'not known'}; call it with these arguments."
    return None


def _was_entered(function: Callable[..., Any], error: BaseException) -> bool:
    """Whether `error` was raised while the body of `function` ran: then it is not about the arguments of this call."""
    code, trace = _code(innermost(function)), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is code:
            return True
        trace = trace.tb_next
    return False


def _code(function: Any) -> Any:
    if hasattr(function, "__code__"):
        return function.__code__
    return getattr(type(function).__call__, "__code__", None)  # of an object that can be called
