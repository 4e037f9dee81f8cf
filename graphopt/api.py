"""`jit`, `optimize`, `trace`, `explain` and `verify`: what a user calls.

`jit(f, ...)` is `jax.jit(optimize(f), ...)`. `optimize(f)` behaves as `f`; while it is traced it becomes one call
equation, whose program the passes rewrite when it is lowered.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, overload

# Its name here stays JAX's own where a user puts `jax.jit = graphopt.jit`.
from jax import jit as jax_jit
from jax.extend.core import unsafe_am_i_under_a_jit_DO_NOT_USE as is_staging

from graphopt.config import Options, read_bytes
from graphopt.explain import Report
from graphopt.ir.graph import Graph
from graphopt.jitted import Jitted, in_the_guise_of, make_jitted, with_notes
from graphopt.lock import read_lock
from graphopt.passes.pipelines import left_out, resolve
from graphopt.traceable import traceable_of
from graphopt.verify import Verification

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

PLATFORMS = ("cpu", "gpu", "cuda", "rocm", "tpu")
"""What `backend=` means to `jax.jit`: a platform."""


_DECORATOR: Any = object()
"""In place of a function where there is none yet: None would hide a mistake of the caller."""


def _options(
    backend: str | None,
    numerics: str,
    passes: Iterable[Any] | None,
    without: Iterable[str],
    memory_limit: int | str | None,
    jax_options: dict[str, Any],
) -> Options:
    if backend in PLATFORMS:
        jax_options["backend"] = backend
        backend = "auto"
    # None is what `jax.jit` has for its default, and what libraries that pass all keywords through give.
    return Options(
        backend="auto" if backend is None else backend,
        numerics=numerics,
        passes=resolve(passes),
        without=left_out(without),
        memory_limit=read_bytes(memory_limit),
    )


@overload
def jit(
    function: Callable[P, R_co],
    /,
    *,
    backend: str | None = ...,
    numerics: str = ...,
    passes: Iterable[Any] | None = ...,
    without: Iterable[str] = ...,
    lock: str | os.PathLike[str] | None = ...,
    memory_limit: int | str | None = ...,
    **jax_options: Any,
) -> Jitted[P, R_co]: ...


@overload
def jit(
    *,
    backend: str | None = ...,
    numerics: str = ...,
    passes: Iterable[Any] | None = ...,
    without: Iterable[str] = ...,
    lock: str | os.PathLike[str] | None = ...,
    memory_limit: int | str | None = ...,
    **jax_options: Any,
) -> Callable[[Callable[P, R_co]], Jitted[P, R_co]]: ...


def jit(
    function: Any = _DECORATOR,
    /,
    *,
    backend: str | None = "auto",
    numerics: str = "standard",
    passes: Iterable[Any] | None = None,
    without: Iterable[str] = (),
    lock: str | os.PathLike[str] | None = None,
    memory_limit: int | str | None = None,
    **jax_options: Any,
) -> Any:
    """Compile `function` as `jax.jit` does, with its graph rewritten first.

    backend: "xla" lowers everything to XLA; "numba" sends to Numba, on a CPU, all that it can take (the report names
        the rest); "auto" may choose another engine than XLA where it is known to win. A platform's name ("cpu", "gpu",
        "tpu" ...) has the deprecated meaning that `jax.jit` gives it.
    numerics: "exact", "standard" or "fast": which rewrites may change rounding.
    passes: passes to run instead of the standard pipeline.
    without: names of passes to leave out, those that make kernels too: `without=["chunk", "partition"]`.
    lock: a lock file, which `f.tune(*args, lock=path)` writes: the engines are those that were measured to be fastest.
        Raises LockError where it cannot be read; warns where it says nothing of the program.
    memory_limit: bytes, or text such as "500MB", that arguments, results and intermediate values may take together:
        values are computed again rather than kept, for as little time as is found. The program is compiled several
        times for that, on one device. Raises MemoryLimitError, with the least that was found, where it is not met.
        Donated arguments are counted as if they were not; a derivative taken outside is two programs, each limited.
    jax_options: every other keyword of the installed `jax.jit`, with its meaning there (static_argnames,
        donate_argnums, in_shardings ...).

    Returns a function with the methods of what `jax.jit` returns. Without `function`, returns a decorator. Raises
    OptionError where an option is not known; errors of JAX keep their type and get a note that says what to do.
    """
    options = _options(backend, numerics, passes, without, memory_limit, jax_options)
    if lock is not None:
        options = replace(options, tuning=read_lock(lock))
    if function is _DECORATOR:
        return lambda function: make_jitted(function, options, jax_options)
    return make_jitted(function, options, jax_options)


def trace(function: Callable[..., Any], /) -> Callable[..., Graph]:
    """The graph of `function` before any pass: `graphopt.trace(f)(*args)`.

    function: a function of arrays, or what `graphopt.jit` made of one (whose static arguments are then respected). The
    graph's parameters are the leaves of the arguments in order. Arguments may be arrays or `jax.ShapeDtypeStruct`s.
    """
    jitted: Any = function if hasattr(function, "_graph") else jit(function)
    return jitted._graph  # type: ignore[no-any-return]


def explain(function: Callable[..., Any], /) -> Callable[..., Report]:
    """What graphopt makes of `function`: `graphopt.explain(f)(*args)` is `graphopt.jit(f).explain(*args)`."""
    jitted: Any = function if hasattr(function, "explain") else jit(function)
    return jitted.explain  # type: ignore[no-any-return]


def verify(function: Callable[..., Any], /) -> Callable[..., Verification]:
    """Checks every pass on `function`: `graphopt.verify(f)(*args)`.

    The program is evaluated on the arguments before the passes and after each of them, one operation at a time through
    JAX. Returns what was done, by pass. Raises VerificationError where a pass changes the results by more than the
    safety of its rules allows, fails, or does not come to an end: it names the rule, its file and line, and shows the
    smallest graph on which it happens. Prints and callbacks of the program happen at each evaluation.
    """
    jitted: Any = function if hasattr(function, "verify") else jit(function)
    return jitted.verify  # type: ignore[no-any-return]


@overload
def optimize(
    function: F,
    /,
    *,
    backend: str = ...,
    numerics: str = ...,
    passes: Iterable[Any] | None = ...,
    without: Iterable[str] = ...,
) -> F: ...


@overload
def optimize(
    *, backend: str = ..., numerics: str = ..., passes: Iterable[Any] | None = ..., without: Iterable[str] = ...
) -> Callable[[F], F]: ...


def optimize(
    function: Any = _DECORATOR,
    /,
    *,
    backend: str = "auto",
    numerics: str = "standard",
    passes: Iterable[Any] | None = None,
    without: Iterable[str] = (),
) -> Any:
    """`function` as an optimized region: inside `jax.jit`, `jax.grad` and the others it is rewritten as one graph.

    Inside a trace, arguments that are not traced (strings, Python numbers, concrete arrays) are left as they are.
    Outside of one, calling the result compiles and runs it: every argument must then be an array or a pytree of arrays.
    The options are those of `jit`. Without `function`, returns a decorator. Raises OptionError on an unknown option.
    """
    options = Options(backend=backend, numerics=numerics, passes=resolve(passes), without=left_out(without))
    if function is _DECORATOR:
        return lambda function: _optimize(function, options)
    return _optimize(function, options)


def _optimize(function: Callable[..., Any], options: Options) -> Any:
    jax_jit(function)
    traceable = traceable_of(function, options)
    compiled = jax_jit(traceable)

    def optimized(*args: Any, **kwargs: Any) -> Any:
        return traceable(*args, **kwargs) if is_staging() else compiled(*args, **kwargs)

    return in_the_guise_of(function, with_notes(function, optimized), traceable.__name__)
