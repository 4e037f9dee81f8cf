"""One call of a function that is being traced: which of its arguments and results are traced, and which stay as they are.

Inside a trace the arguments that matter are tracers. Everything else (strings, Python numbers, concrete arrays) is left
alone, as a call of the plain function would leave it, and so is every result that is not computed from a tracer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

RegionCall = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]
"""`call(function, options, args, kwargs)`: what `function(*args, **kwargs)` returns, computed by the optimized program."""


class Region:
    """The call `function(*args, **kwargs)`, as a function from its tracers to its traced results.

    `operands` are the tracers among the arguments' leaves and `traced` marks their places among all leaves. `run` may be
    called once; `results` then puts the values computed for the traced results back into what `function` returned.
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
        # An argument without tracers is passed on itself, not a copy of it: it may be compared by identity.
        self._arguments = [jax.tree.flatten(argument) for argument in (*args, *kwargs.values())]
        self._given = [*args, *kwargs.values()]
        self._keywords = list(kwargs)
        leaves = [leaf for leaves, _ in self._arguments for leaf in leaves]
        self.traced = [isinstance(leaf, jax.core.Tracer) for leaf in leaves]
        self.operands = [leaf for leaf, traced in zip(leaves, self.traced, strict=True) if traced]
        self._out_leaves: list[Any] = []
        self._out_paths: list[str] = []
        self._out_tree: Any = None
        self._computed: list[bool] = []

    def run(self, *operands: Any) -> list[Any]:
        """Call the function with `operands` for its tracers; returns those of its results that are traced."""
        replacement = iter(operands)
        arguments = []
        for given, (leaves, tree) in zip(self._given, self._arguments, strict=True):
            traced = [isinstance(leaf, jax.core.Tracer) for leaf in leaves]
            new = [next(replacement) if t else leaf for t, leaf in zip(traced, leaves, strict=True)]
            arguments.append(jax.tree.unflatten(tree, new) if any(traced) else given)
        positional = len(arguments) - len(self._keywords)
        out = self._function(*arguments[:positional], **dict(zip(self._keywords, arguments[positional:], strict=True)))
        with_paths, self._out_tree = jax.tree_util.tree_flatten_with_path(out)
        self._computed = [self._is_result(leaf) for _, leaf in with_paths]
        computed = [item for item, c in zip(with_paths, self._computed, strict=True) if c]
        self._out_leaves = [None if c else leaf for (_, leaf), c in zip(with_paths, self._computed, strict=True)]
        self._out_paths = [f"result{jax.tree_util.keystr(path)}" for path, _ in computed]
        return [leaf for _, leaf in computed]

    def result_paths(self) -> tuple[str, ...]:
        """Where each traced result stands in what the function returned."""
        return tuple(self._out_paths)

    def results(self, computed: Sequence[Any]) -> Any:
        """What the function returned, with `computed` in place of its traced results."""
        value = iter(computed)
        leaves = [next(value) if c else leaf for c, leaf in zip(self._computed, self._out_leaves, strict=True)]
        return jax.tree.unflatten(self._out_tree, leaves)
