"""What `graphopt.jit` returns: JAX's own jitted function, with notes in its errors and methods of graphopt's."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar

import jax

# Its name here stays JAX's own where a user puts `jax.jit = graphopt.jit`.
from jax import jit as jax_jit
from jax.extend.core import unsafe_am_i_under_a_jit_DO_NOT_USE as is_staging
from jax.sharding import Sharding

from graphopt import advice
from graphopt.bind import bind
from graphopt.config import Options
from graphopt.explain import Report, program_hash, region_of, report_of, target_of, traced_graph
from graphopt.ir.graph import Graph
from graphopt.lock import Decision
from graphopt.traceable import TRIED_JAX, traceable_of
from graphopt.tune import Tuned
from graphopt.tune import tune as tune_program
from graphopt.verify import Verification, verify_graph

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

Dispatch = Callable[[Any, Callable[[Callable[..., Any]], Callable[..., Any]]], Any]
"""`dispatch(jitted, around)`: the jitted function, with `around` what it runs when it has no program for a call."""


class Jitted(Protocol[P, R_co]):
    """What `jit` returns: a function with the methods of `jax.jit`'s, for example `f.lower(*args).as_text()`."""

    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the compiled program, compiling it first where that has not been done for these types."""

    def __get__(self, instance: Any, owner: Any = None) -> Callable[..., R_co]:
        """Bind as a method."""

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Lower for these arguments, without running; see `jax.jit`."""

    def trace(self, *args: Any, **kwargs: Any) -> jax.stages.Traced:
        """Trace for these arguments, without lowering; see `jax.jit`."""

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The shapes and types of the results, without compiling; see `jax.eval_shape`."""

    def explain(self, *args: Any, **kwargs: Any) -> Report:
        """What the passes do to the function, and what runs in the end, for arguments of these types."""

    def verify(self, *args: Any, **kwargs: Any) -> Verification:
        """Evaluate the program after every pass and compare; see `graphopt.verify`."""

    def tune(
        self,
        *args: Any,
        tuning_seconds: float = 10.0,
        lock: str | os.PathLike[str] | None = None,
        progress: bool = True,
        **kwargs: Any,
    ) -> Tuned:
        """Measure how the function runs fastest on these arguments, for about so many seconds.

        Engines, the loops of kernels with their tiles, how much a thread takes at once, sizes of blocks, and XLA's
        compiler options are tried, where there is time.

        lock: a file that the result is added to, for `graphopt.jit(f, lock=path)`. progress: whether a bar is shown on
        a terminal. Calls the function many times, so effects happen as often. Returns what was measured, with the
        function as it was fastest; interrupted, it leaves everything as it was.
        """

    def clear_cache(self) -> None:
        """Forget the compiled programs."""


def choose_dispatch(version: str) -> Dispatch | None:
    """How notes come into the errors of a call under the JAX of this `version` without a cost to calls that succeed.

    None on a series that was not tried, or where JAX's function is not as graphopt knows it: a Python function around
    it then does so, which adds a twentieth to the shortest call.
    """
    if ".".join(version.split(".")[:2]) not in TRIED_JAX:
        return None
    try:
        from graphopt.jax_internals.calls import with_cache_miss

        with_cache_miss(jax_jit(lambda x: x), lambda miss: miss)
    except (ImportError, AttributeError, KeyError, TypeError):
        return None
    return with_cache_miss


_dispatch = choose_dispatch(jax.__version__)


def with_notes(function: Callable[..., Any], target: Callable[P, R_co]) -> Callable[P, R_co]:
    """`target`, with a note added to the errors that the caller of `function` can mend."""

    def call(*args: P.args, **kwargs: P.kwargs) -> R_co:
        try:
            # An empty dictionary of keywords costs a fiftieth of the whole call to pass on.
            return target(*args, **kwargs) if kwargs else target(*args)  # type: ignore[call-arg]
        except Exception as error:
            advice.add_note(error, function)
            raise

    return call


def _with_options_of(decision: Decision, jax_options: dict[str, Any]) -> dict[str, Any]:
    """The options of `jax.jit` with the compiler options that were measured; those that were given stay."""
    if not decision.compiler_options:
        return jax_options
    given = jax_options.get("compiler_options") or {}
    return {**jax_options, "compiler_options": {**dict(decision.compiler_options), **given}}


Choose = Callable[[tuple[Any, ...], dict[str, Any]], Any]
"""`choose(args, kwargs)`: the jitted function, with the compiler options that were measured for its program."""


def _with_compiler_options(
    function: Callable[..., Any], options: Options, jax_options: dict[str, Any], jitted: Any
) -> Choose | None:
    """How a function is jitted whose lock file names compiler options; None where there are none.

    `jax.jit` takes them when a function is made, and which ones are to be taken is known when its program is.
    """
    if not any(decision.compiler_options for decision in options.tuning):
        return None
    made: dict[tuple[tuple[str, str | bool], ...], Any] = {(): jitted}

    def choose(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Inside of another jitted function the compiler options are that one's.
        if is_staging() or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return jitted
        region, sources = region_of(jitted.trace(*args, **kwargs).jaxpr)
        target = target_of(region, _devices((args, kwargs, jax_options)))
        program = program_hash(region, sources, options, target)
        for decision in options.tuning:
            if decision.program == program:
                found = _jax_jit(function, options, _with_options_of(decision, jax_options))
                return made.setdefault(decision.compiler_options, found)
        return jitted

    return choose


def _called(
    function: Callable[..., Any], jitted: Any, jax_options: dict[str, Any], choose: Choose | None = None
) -> Any:
    """What is called for `jitted`: itself where only a call without a compiled program can fail by a caller's mistake.

    JAX finds two mistakes while it looks for the program: a static argument without a hash, and an array whose memory
    an earlier call was given. So a function with static or donated arguments is called through a Python function. (An
    array whose memory another function was given is found here too; that error then has JAX's words only.)
    """
    early = ("static_argnums", "static_argnames", "donate_argnums", "donate_argnames")
    if choose is not None and _dispatch is not None:
        from graphopt.jax_internals.calls import cache_miss_of

        def missed(*args: Any, **kwargs: Any) -> Any:
            return cache_miss_of(choose(args, kwargs))(*args, **kwargs)

        jitted = _dispatch(jitted, lambda miss: missed)
    if _dispatch is None or any(jax_options.get(option) is not None for option in early):
        return with_notes(function, jitted)
    return _dispatch(jitted, lambda miss: with_notes(function, miss))


def _reduced(function: Callable[..., Any], options: Options, jax_options: dict[str, Any]) -> Callable[[int], Any]:
    """How a jitted function is pickled: by its name where that leads to it, else by what it was made of."""

    def reduced(protocol: int) -> Any:
        name: str = getattr(function, "__qualname__", "")
        found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
        for part in name.split("."):
            found = getattr(found, part, None)
        return (
            name if getattr(found, "__wrapped__", None) is function else (make_jitted, (function, options, jax_options))
        )

    return reduced


class _Attributes(dict[str, Any]):
    """The attributes of a jitted function, of which `functools.wraps` copies only those that it had from the user.

    `jax.jit(graphopt.jit(f))` would otherwise have the methods of the inner one. JAX has its methods in the class of
    its functions; these are in the attributes of one of them.
    """

    OF_JAX = ("lower", "trace", "eval_shape", "clear_cache", "_cache_size")
    OWN = (*OF_JAX, "explain", "tune", "verify", "_graph", "_fun", "_jit_info", "__reduce_ex__")

    def __iter__(self) -> Iterator[str]:
        return (name for name in super().__iter__() if name not in self.OWN)

    def keys(self) -> Any:
        """The names that may be copied."""
        return tuple(self)


def _method(function: Callable[..., Any], jitted: Any, name: str, choose: Choose | None = None) -> Callable[..., Any]:
    """A method of `jitted` by its name: the bound method itself could not be sent to another process."""

    def method(*args: Any, **kwargs: Any) -> Any:
        chosen = jitted if choose is None or name not in ("lower", "trace") else choose(args, kwargs)
        return getattr(chosen, name)(*args, **kwargs)

    call = with_notes(function, method)
    call.__name__, call.__doc__ = name, getattr(jitted, name).__doc__
    return call


def in_the_guise_of(function: Callable[..., Any], call: Any, name: str) -> Any:
    """`call` with the name, the text and the signature of a user's function."""
    call.__name__ = call.__qualname__ = name
    return functools.update_wrapper(call, function)


def _tuner(
    function: Callable[..., Any], options: Options, jax_options: dict[str, Any], jitted: Any
) -> Callable[..., Tuned]:
    def tune(
        *args: Any,
        tuning_seconds: float = 10.0,
        lock: str | os.PathLike[str] | None = None,
        progress: bool = True,
        **kwargs: Any,
    ) -> Tuned:
        """Measures how the function runs fastest on these arguments: see `Jitted.tune`."""
        # Donated arguments would be gone after the first call.
        kept = {name: value for name, value in jax_options.items() if not name.startswith("donate")}

        def called(options: Options) -> Callable[[], Any]:
            (decision,) = options.tuning
            candidate = _jax_jit(function, options, _with_options_of(decision, kept))
            return lambda: candidate(*args, **kwargs)

        traced = jitted.trace(*args, **kwargs).jaxpr
        tuned = tune_program(
            traced,
            options,
            called,
            lambda options: make_jitted(function, options, jax_options),
            tuning_seconds,
            progress,
            _devices((args, kwargs, jax_options)),
        )
        if lock is not None:
            tuned.write(lock)
        return tuned

    return tune


def make_jitted(function: Callable[..., Any], options: Options, jax_options: dict[str, Any]) -> Any:
    """What `graphopt.jit` returns for a function, its options and those of `jax.jit`."""
    jax_jit(function)  # refuses what is no function, or a generator, in JAX's own words
    traceable = traceable_of(function, options)
    jitted = _jax_jit(function, options, jax_options)
    choose = _with_compiler_options(function, options, jax_options, jitted)
    call = in_the_guise_of(function, _called(function, jitted, jax_options, choose), traceable.__name__)
    call.__dict__ = _Attributes(call.__dict__)
    call.__reduce_ex__ = _reduced(function, options, jax_options)
    for name in _Attributes.OF_JAX:
        setattr(call, name, _method(function, jitted, name, choose))

    def explain(*args: Any, **kwargs: Any) -> Report:
        """What graphopt makes of the function on arguments of these types: see `graphopt.explain.Report`."""
        # Not `call`: a cycle would keep the function, and what it has captured, alive until the collector runs.
        devices = _devices((args, kwargs, jax_options))
        donates = any(jax_options.get(f"donate_{of}") not in (None, (), []) for of in ("argnums", "argnames"))
        return report_of(traceable.__name__, jitted.trace(*args, **kwargs).jaxpr, options, devices, donates)

    def graph(*args: Any, **kwargs: Any) -> Graph:
        return traced_graph(jitted.trace(*args, **kwargs).jaxpr, options)[0]

    def verify(*args: Any, **kwargs: Any) -> Verification:
        """Evaluates the program after every pass: see `graphopt.verify`."""
        traced, sources = traced_graph(jitted.trace(*args, **kwargs).jaxpr, options)
        values = jax.tree.leaves(_without_static(function, jax_options, args, kwargs))
        return verify_graph(traceable.__name__, traced, sources, options, values)

    call.explain = with_notes(function, explain)
    call.tune = with_notes(function, _tuner(function, options, jax_options, jitted))
    call.verify = with_notes(function, verify)
    call._graph = with_notes(function, graph)
    return call


def _devices(given: Any) -> int:
    """Over how many devices the arrays and shardings in a pytree are spread; 1 where there are none."""
    leaves = jax.tree.leaves(given)
    shardings = [leaf if isinstance(leaf, Sharding) else getattr(leaf, "sharding", None) for leaf in leaves]
    return max([1, *(len(each.device_set) for each in shardings if isinstance(each, Sharding))])


def _jax_jit(function: Callable[..., Any], options: Options, jax_options: dict[str, Any]) -> Any:
    """What `jax.jit` makes of a function and its options; pickled as what it was made of, which JAX's own is not."""
    jitted: Any = jax_jit(traceable_of(function, options), **jax_options)
    if _dispatch is not None:
        from graphopt.jax_internals.calls import with_operands

        jitted = with_operands(jitted, bind)
    jitted.__reduce_ex__ = lambda protocol: (_jax_jit, (function, options, jax_options))
    return jitted


def _without_static(
    function: Callable[..., Any], jax_options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments that are traced: those that `jax_options` do not make static."""
    numbers, names = jax_options.get("static_argnums"), jax_options.get("static_argnames")
    numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers or ())
    names = (names,) if isinstance(names, str) else tuple(names or ())
    parameters = list(getattr(advice.signature(function), "parameters", ()))
    numbers = tuple(number % max(len(parameters), len(args)) for number in numbers)
    # As JAX does: what is said in one way holds in the other, unless both are said.
    if not names:
        names = tuple(parameters[number] for number in numbers if number < len(parameters))
    elif not numbers:
        numbers = tuple(parameters.index(name) for name in names if name in parameters)
    return (
        [value for position, value in enumerate(args) if position not in numbers],
        {name: value for name, value in kwargs.items() if name not in names},
    )
