"""One call of a function that is being traced: which of its arguments and results are traced, and which are not.

Inside a trace the arguments that matter are tracers. Everything else (strings, Python numbers, concrete arrays) is left
alone, as a call of the plain function would leave it, and so is every result that is not computed from a tracer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax

RegionCall = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]
"""`call(function, options, args, kwargs)`: what `function(*args, **kwargs)` returns, by the optimized program."""

SMALL_CONSTANT = 1024
"""Captured arrays of up to this many elements stay constants of the program, where passes can read them."""

LARGE = 1 << 17
"""Bytes from which on a constant becomes an operand of a compiled program (`graphopt.bind`). One more operand adds up
to half a microsecond to a call, and what is written into the program some milliseconds a megabyte to the first."""


class Region:
    """The call `function(*args, **kwargs)`, as a function from its tracers to its traced results.

    `operands` are the tracers among the leaves of the arguments. `run` may be called once; `results` then puts the
    values computed for the traced results back into what `function` returned. `is_result` says which those are.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_result: Callable[[Any], bool],
    ) -> None:
        self._function = function
        self._is_result = is_result
        self._arguments = [_Argument.of(given) for given in (*args, *kwargs.values())]
        self._keywords = list(kwargs)
        self.operands = [leaf for argument in self._arguments for leaf in argument.tracers()]
        self._out_tree: Any = None
        self._out_leaves: list[Any] = []
        self._out_paths: list[str] = []
        self._computed: list[bool] = []

    def names(self, argument_names: Callable[..., Sequence[str]]) -> list[str]:
        """The names of the operands, of those that `argument_names(function, args, kwargs)` gives all leaves."""
        args, kwargs = self._split([a.given if a.traced else None for a in self._arguments])
        traced = [t for argument in self._arguments if argument.traced for t in argument.mask]
        return [name for name, t in zip(argument_names(self._function, args, kwargs), traced, strict=True) if t]

    def run(self, *operands: Any) -> list[Any]:
        """Call the function with `operands` for its tracers; returns those of its results that are traced."""
        values = iter(operands)
        args, kwargs = self._split([argument.with_tracers_from(values) for argument in self._arguments])
        with_paths, self._out_tree = jax.tree_util.tree_flatten_with_path(self._function(*args, **kwargs))
        self._computed = [self._is_result(leaf) for _, leaf in with_paths]
        computed = [item for item, c in zip(with_paths, self._computed, strict=True) if c]
        self._out_leaves = [None if c else leaf for (_, leaf), c in zip(with_paths, self._computed, strict=True)]
        self._out_paths = [f"result{jax.tree_util.keystr(path)}" for path, _ in computed]
        return [leaf for _, leaf in computed]

    def forget_arguments(self) -> None:
        """To be called after `run`: what JAX keeps of the trace (a custom derivative's rule) must not hold tracers."""
        self.operands = []
        self._arguments = []

    def result_paths(self) -> tuple[str, ...]:
        """Where each traced result stands in what the function returned."""
        return tuple(self._out_paths)

    def results(self, computed: Sequence[Any]) -> Any:
        """What the function returned, with `computed` in place of its traced results."""
        value = iter(computed)
        leaves = [next(value) if c else leaf for c, leaf in zip(self._computed, self._out_leaves, strict=True)]
        return jax.tree.unflatten(self._out_tree, leaves)

    def _split(self, arguments: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional = len(arguments) - len(self._keywords)
        return tuple(arguments[:positional]), dict(zip(self._keywords, arguments[positional:], strict=True))


@dataclass(frozen=True, slots=True)
class _Argument:
    given: Any
    leaves: list[Any]
    mask: list[bool]  # which leaves are tracers
    tree: Any

    @staticmethod
    def of(given: Any) -> _Argument:
        try:
            leaves, tree = jax.tree.flatten(given)
        except (TypeError, ValueError):  # for example a dictionary whose keys cannot be sorted
            leaves, tree = [given], None
        return _Argument(given, leaves, [isinstance(leaf, jax.core.Tracer) for leaf in leaves], tree)

    @property
    def traced(self) -> bool:
        return any(self.mask)

    def tracers(self) -> list[Any]:
        return [leaf for leaf, traced in zip(self.leaves, self.mask, strict=True) if traced]

    def with_tracers_from(self, values: Iterator[Any]) -> Any:
        if not self.traced:  # itself, not a copy: it may be compared by identity, or changed
            return self.given
        leaves = [next(values) if traced else leaf for leaf, traced in zip(self.leaves, self.mask, strict=True)]
        return jax.tree.unflatten(self.tree, leaves)
