"""What `jax.jit` is given for a function: called while a program is traced, it makes the optimized call there."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import unsafe_am_i_under_a_jit_DO_NOT_USE as is_staging

from graphopt import advice
from graphopt.backends.xla.region import RegionCall
from graphopt.backends.xla.target import Rewrite
from graphopt.compile import rewrite_jaxpr
from graphopt.config import Options
from graphopt.errors import UntriedJaxWarning

TRIED_JAX = ("0.10", "0.11", "0.12")
"""The series of JAX whose internals `graphopt.jax_internals` was tried on."""


def choose_call(version: str, rewrite: Rewrite) -> RegionCall:
    """How a call is optimized under the JAX of this `version`, with `rewrite` as the passes.

    On a series that was tried: by a call primitive, from JAX's internals. On any other, or where those internals cannot
    be imported: by the public interface alone, with an UntriedJaxWarning.
    """
    reason = f"graphopt was tried on jax {', '.join(TRIED_JAX)}; this is jax {version}"
    if ".".join(version.split(".")[:2]) in TRIED_JAX:
        try:
            from graphopt.backends.xla.primitive import optimized_call

            return optimized_call(rewrite)
        except (ImportError, AttributeError) as error:
            reason = f"the internals of jax {version} are not as graphopt knows them ({error})"
    from graphopt.backends.xla.inline import inline_call

    warnings.warn(
        f"{reason}. Only JAX's public interface is used: functions run, but the passes work before differentiation and "
        f"batching. Install jax {TRIED_JAX[0]} to {TRIED_JAX[-1]}, or a newer graphopt.",
        UntriedJaxWarning,
        stacklevel=2,
    )
    return inline_call(rewrite)


_call_region = choose_call(jax.__version__, rewrite_jaxpr)


class Traceable:
    """A function with its options, for `jax.jit`.

    JAX's caches are keyed by the identity of what was given to `jax.jit`, so there is one of these for a function and
    its options as long as the function lives. It holds the function weakly, or the table of them would keep it alive.
    """

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        try:
            self._function: Callable[[], Any] = weakref.ref(function)
        except TypeError:  # such a function (a ufunc of NumPy, say) cannot be in the table either
            self._function = lambda: function
        self._options = options
        # From these JAX takes the name of the program, the names of the arguments and the line in its messages.
        inner = advice.innermost(function)
        self.__name__ = str(getattr(function, "__name__", None) or getattr(inner, "__name__", "<unnamed function>"))
        self.__signature__ = advice.signature(function)
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        if hasattr(inner, "__code__"):
            self.__code__ = inner.__code__

    def __reduce__(self) -> Any:
        return traceable_of, (self._function(), self._options)

    def __repr__(self) -> str:
        return repr(self._function())  # for JAX's messages

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The optimized call, where a program is traced; else the function itself."""
        function = self._function()
        assert function is not None, "whoever calls this holds the function"
        # Outside a trace, JAX asks for the function as it is written: under disable_jit, and to find where a NaN arose.
        if jax.config.jax_disable_jit or not is_staging():  # type: ignore[attr-defined]
            return function(*args, **kwargs)
        return _call_region(function, self._options, args, kwargs)


_traceables: weakref.WeakKeyDictionary[Callable[..., Any], dict[Options, Traceable]] = weakref.WeakKeyDictionary()


def traceable_of(function: Callable[..., Any], options: Options) -> Traceable:
    """The one of a function and its options; a new one where the function cannot be found again."""
    try:
        known = _traceables.setdefault(function, {})
    except (TypeError, ValueError):  # cannot be hashed, compared or weakly referenced: it will not be found again
        return Traceable(function, options)
    found = known.setdefault(options, Traceable(function, options))
    # Another function that compares equal may be in the table, and it may go away while this one is still in use.
    return found if found._function() is function else Traceable(function, options)
