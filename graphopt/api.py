"""`jit`, `optimize`, `trace`, `explain` and `verify`: what a user calls.

`jit(f, ...)` is `jax.jit(optimize(f), ...)`. `optimize(f)` behaves as `f`; while it is traced it becomes one call
equation, whose program the passes rewrite when it is lowered.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, ParamSpec, Protocol, TypeVar, overload

import jax

# Its name here stays JAX's own where a user puts `jax.jit = graphopt.jit`.
from jax import jit as jax_jit
from jax.extend.core import unsafe_am_i_under_a_jit_DO_NOT_USE as is_staging
from jax.sharding import Sharding

from graphopt import advice
from graphopt.backends.xla.region import RegionCall
from graphopt.backends.xla.target import Rewrite
from graphopt.bind import bind
from graphopt.compile import rewrite_jaxpr
from graphopt.config import Options, read_bytes
from graphopt.errors import UntriedJaxWarning
from graphopt.explain import Report, program_hash, region_of, report_of, target_of, traced_graph
from graphopt.ir.graph import Graph
from graphopt.lock import Decision, read_lock
from graphopt.passes.pipelines import resolve
from graphopt.tune import Tuned
from graphopt.tune import tune as tune_program
from graphopt.verify import Verification, verify_graph

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

TRIED_JAX = ("0.10", "0.11", "0.12")
"""The series of JAX whose internals `graphopt.jax_internals` was tried on."""

Dispatch = Callable[[Any, Callable[[Callable[..., Any]], Callable[..., Any]]], Any]
"""`dispatch(jitted, around)`: the jitted function, with `around` what it runs when it has no program for a call."""

PLATFORMS = ("cpu", "gpu", "cuda", "rocm", "tpu")
"""What `backend=` means to `jax.jit`: a platform."""


_DECORATOR: Any = object()
"""In place of a function where there is none yet: None would hide a mistake of the caller."""


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


def choose_dispatch(version: str) -> Dispatch | None:
    """How notes come into the errors of a call under the JAX of this `version` without a cost to calls that succeed.

    None on a series that was not tried, or where JAX's function is not as graphopt knows it: a Python function around
    it then does so, which adds a twentieth to the shortest call.
    """
    if ".".join(version.split(".")[:2]) not in TRIED_JAX:
        return None
    try:
        from graphopt.jax_internals import with_cache_miss

        with_cache_miss(jax_jit(lambda x: x), lambda miss: miss)
    except (ImportError, AttributeError, KeyError, TypeError):
        return None
    return with_cache_miss


_dispatch = choose_dispatch(jax.__version__)


class _Traceable:
    """What `jax.jit` is given for a function: called while a program is traced, it makes the optimized call there.

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
        return _traceable, (self._function(), self._options)

    def __repr__(self) -> str:
        return repr(self._function())  # for JAX's messages

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function = self._function()
        assert function is not None, "whoever calls this holds the function"
        # Outside a trace, JAX asks for the function as it is written: under disable_jit, and to find where a NaN arose.
        if jax.config.jax_disable_jit or not is_staging():  # type: ignore[attr-defined]
            return function(*args, **kwargs)
        return _call_region(function, self._options, args, kwargs)


_traceables: weakref.WeakKeyDictionary[Callable[..., Any], dict[Options, _Traceable]] = weakref.WeakKeyDictionary()


def _traceable(function: Callable[..., Any], options: Options) -> _Traceable:
    try:
        known = _traceables.setdefault(function, {})
    except (TypeError, ValueError):  # cannot be hashed, compared or weakly referenced: it will not be found again
        return _Traceable(function, options)
    found = known.setdefault(options, _Traceable(function, options))
    # Another function that compares equal may be in the table, and it may go away while this one is still in use.
    return found if found._function() is function else _Traceable(function, options)


def _options(
    backend: str | None,
    numerics: str,
    passes: Iterable[Any] | None,
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
        memory_limit=read_bytes(memory_limit),
    )


def _guard(function: Callable[..., Any], target: Callable[P, R_co]) -> Callable[P, R_co]:
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


def _with_notes(
    function: Callable[..., Any], jitted: Any, jax_options: dict[str, Any], choose: Choose | None = None
) -> Any:
    """What is called for `jitted`: itself where only a call without a compiled program can fail by a caller's mistake.

    JAX finds two mistakes while it looks for the program: a static argument without a hash, and an array whose memory
    an earlier call was given. So a function with static or donated arguments is called through a Python function. (An
    array whose memory another function was given is found here too; that error then has JAX's words only.)
    """
    early = ("static_argnums", "static_argnames", "donate_argnums", "donate_argnames")
    if choose is not None and _dispatch is not None:
        from graphopt.jax_internals import cache_miss_of

        def missed(*args: Any, **kwargs: Any) -> Any:
            return cache_miss_of(choose(args, kwargs))(*args, **kwargs)

        jitted = _dispatch(jitted, lambda miss: missed)
    if _dispatch is None or any(jax_options.get(option) is not None for option in early):
        return _guard(function, jitted)
    return _dispatch(jitted, lambda miss: _guard(function, miss))


def _reduced(function: Callable[..., Any], options: Options, jax_options: dict[str, Any]) -> Callable[[int], Any]:
    """How a jitted function is pickled: by its name where that leads to it, else by what it was made of."""

    def reduced(protocol: int) -> Any:
        name: str = getattr(function, "__qualname__", "")
        found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if getattr(found, "__wrapped__", None) is function else (_jit, (function, options, jax_options))

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

    call = _guard(function, method)
    call.__name__, call.__doc__ = name, getattr(jitted, name).__doc__
    return call


def _in_the_guise_of(function: Callable[..., Any], call: Any, name: str) -> Any:
    call.__name__ = call.__qualname__ = name
    return functools.update_wrapper(call, function)


@overload
def jit(
    function: Callable[P, R_co],
    /,
    *,
    backend: str | None = ...,
    numerics: str = ...,
    passes: Iterable[Any] | None = ...,
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
    options = _options(backend, numerics, passes, memory_limit, jax_options)
    if lock is not None:
        options = replace(options, tuning=read_lock(lock))
    if function is _DECORATOR:
        return lambda function: _jit(function, options, jax_options)
    return _jit(function, options, jax_options)


def _jit(function: Callable[..., Any], options: Options, jax_options: dict[str, Any]) -> Any:
    jax_jit(function)  # refuses what is no function, or a generator, in JAX's own words
    traceable = _traceable(function, options)
    jitted = _jax_jit(function, options, jax_options)
    choose = _with_compiler_options(function, options, jax_options, jitted)
    call = _in_the_guise_of(function, _with_notes(function, jitted, jax_options, choose), traceable.__name__)
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
            lambda options: _jit(function, options, jax_options),
            tuning_seconds,
            progress,
            _devices((args, kwargs, jax_options)),
        )
        if lock is not None:
            tuned.write(lock)
        return tuned

    call.explain = _guard(function, explain)
    call.tune = _guard(function, tune)
    call.verify = _guard(function, verify)
    call._graph = _guard(function, graph)
    return call


def _devices(given: Any) -> int:
    """Over how many devices the arrays and shardings in a pytree are spread; 1 where there are none."""
    leaves = jax.tree.leaves(given)
    shardings = [leaf if isinstance(leaf, Sharding) else getattr(leaf, "sharding", None) for leaf in leaves]
    return max([1, *(len(each.device_set) for each in shardings if isinstance(each, Sharding))])


def _jax_jit(function: Callable[..., Any], options: Options, jax_options: dict[str, Any]) -> Any:
    """What `jax.jit` makes of a function and its options; pickled as what it was made of, which JAX's own is not."""
    jitted: Any = jax_jit(_traceable(function, options), **jax_options)
    if _dispatch is not None:
        from graphopt.jax_internals import with_operands

        jitted = with_operands(jitted, bind)
    jitted.__reduce_ex__ = lambda protocol: (_jax_jit, (function, options, jax_options))
    return jitted


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


@overload
def optimize(function: F, /, *, backend: str = ..., numerics: str = ..., passes: Iterable[Any] | None = ...) -> F: ...


@overload
def optimize(*, backend: str = ..., numerics: str = ..., passes: Iterable[Any] | None = ...) -> Callable[[F], F]: ...


def optimize(
    function: Any = _DECORATOR,
    /,
    *,
    backend: str = "auto",
    numerics: str = "standard",
    passes: Iterable[Any] | None = None,
) -> Any:
    """`function` as an optimized region: inside `jax.jit`, `jax.grad` and the others it is rewritten as one graph.

    Inside a trace, arguments that are not traced (strings, Python numbers, concrete arrays) are left as they are.
    Outside of one, calling the result compiles and runs it: every argument must then be an array or a pytree of arrays.
    The options are those of `jit`. Without `function`, returns a decorator. Raises OptionError on an unknown option.
    """
    options = Options(backend=backend, numerics=numerics, passes=resolve(passes))
    if function is _DECORATOR:
        return lambda function: _optimize(function, options)
    return _optimize(function, options)


def _optimize(function: Callable[..., Any], options: Options) -> Any:
    jax_jit(function)
    traceable = _traceable(function, options)
    compiled = jax_jit(traceable)

    def optimized(*args: Any, **kwargs: Any) -> Any:
        return traceable(*args, **kwargs) if is_staging() else compiled(*args, **kwargs)

    return _in_the_guise_of(function, _guard(function, optimized), traceable.__name__)
