"""Random loops in Python: what a step reads, computes and leaves is drawn; as JAX functions that unroll when traced."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

SIZE = 3

Values = list[Any]


@dataclass(frozen=True)
class Statement:
    """`kind` applied to values of a step, by number: 0 is the latest one, and numbers wrap around."""

    kind: str
    operands: tuple[int, int]


@dataclass(frozen=True)
class Loop:
    """A loop of `count` steps.

    carried: how many values go from step to step, one after the other: a step reads as far back. body: its statements.
    kept: which values of each step are results, beside the last one. every: only of every so many steps; 0 for the last.
    odd: the step, if any, that also does something else. before, after: statements around the loop.
    backwards: whether results are collected from the last step to the first. joined: how: one by one, `stack` or
    `concatenate`.
    """

    count: int
    carried: int
    body: tuple[Statement, ...]
    kept: tuple[int, ...]
    every: int
    odd: int
    before: tuple[Statement, ...]
    after: tuple[Statement, ...]
    backwards: bool
    joined: str
    gradient: bool

    def arguments(self) -> list[Any]:
        """Beginnings, an array for each step, an array whose parts belong to the steps, and something that stays."""
        draw = np.random.default_rng(1)
        shapes = [(SIZE,)] * self.carried + [(self.count, SIZE), (2 * self.count + 3,), (SIZE,), (40, 40)]
        shapes += [(SIZE,)] * self.count + [(40, 40)] * self.count
        return [jnp.asarray(draw.uniform(-1, 1, shape).astype(np.float32)) for shape in shapes]

    def __call__(self, *args: Any) -> Any:
        if not self.gradient:
            return self.run(*args)
        return jax.grad(lambda *values: sum(x.sum() for x in self.run(*values)), tuple(range(len(args))))(*args)

    def run(self, *args: Any) -> Values:
        """The results of the loop."""
        carried, rest = list(args[: self.carried]), args[self.carried :]
        rows, line, fixed, matrix = rest[:4]
        small, large = rest[4 : 4 + self.count], rest[4 + self.count :]
        values = [fixed, matrix[0, :SIZE]]
        for statement in self.before:
            values.insert(0, apply(statement, values, 0, rows, line, fixed, matrix))
        carried[0] = carried[0] + values[0]
        found: list[list[Any]] = [[] for _ in self.kept]
        for step in range(self.count):
            values = [*carried, fixed]
            if step == self.odd:
                values[0] = jnp.cos(values[0])
            for statement in self.body:
                arrays = {"small": small[step], "large": large[step], "by turns": large[step % (2 + self.count % 2)]}
                array = arrays.get(statement.kind, matrix)
                values.insert(0, apply(statement, values, step, rows, line, fixed, array))
            carried = [*carried[1:], values[0]]
            for place, number in enumerate(self.kept):
                if (self.every and step % self.every == 0) or step == self.count - 1:
                    found[place].append(values[number % len(values)])
        values = [*carried, *(x for kept in found for x in self.collected(kept))]
        for statement in self.after:
            values = [apply(statement, [x, fixed], 1, rows, line, fixed, matrix) if x.ndim == 1 else x for x in values]
        return values

    def collected(self, values: Values) -> Values:
        values = values[::-1] if self.backwards else values
        if self.joined == "stack":
            return [jnp.stack(values, axis=len(values) % 2)]
        return list(jnp.concatenate(values).reshape(-1, SIZE)[-2:]) if self.joined == "concatenate" else values


def apply(statement: Statement, values: Values, step: int, rows: Any, line: Any, fixed: Any, matrix: Any) -> Any:
    """A value of SIZE elements, between -1 and 1 or so."""
    x, y = (values[number % len(values)] for number in statement.operands)
    results: dict[str, Callable[[], Any]] = {
        "add": lambda: (x + y) * 0.5,
        "mul": lambda: x * y,
        "sin": lambda: jnp.sin(x),
        "dot": lambda: jnp.tanh(matrix[:SIZE, :SIZE] @ x),
        "scale": lambda: x * (0.1 * step + 1),
        "shift": lambda: x - float((-1) ** step) / (step + 1),
        "row": lambda: x + rows[step],
        "element": lambda: x * line[step],
        "window": lambda: x - line[2 * step : 2 * step + SIZE],
        "from the end": lambda: x - lax.dynamic_slice(line, (line.size - SIZE - step,), (SIZE,)),
        "small": lambda: x * matrix,
        "large": lambda: x + (matrix @ jnp.pad(x, (0, 37)))[:SIZE],
        "by turns": lambda: jnp.tanh(matrix[:SIZE, :SIZE] @ x),
        "normalize": lambda: x / (1 + jnp.abs(y).sum()),
        "split": lambda: jnp.concatenate(jnp.split(jnp.pad(x, (0, 1)) + jnp.pad(y, (1, 0)), 2)[::-1])[:SIZE],
        "sort": lambda: jnp.sort(x),
        "select": lambda: jnp.where(x > y, x, fixed),
        "barrier": lambda: lax.optimization_barrier(x) * 0.5,
        "integer": lambda: (jnp.round(x * 8).astype(jnp.int32) % (step + 2)).astype(jnp.float32) + y * 0,
        "invariant": lambda: x * jnp.exp(fixed),
    }
    return results[statement.kind]()


# fmt: off
KINDS = (
    "add", "mul", "sin", "dot", "scale", "shift", "row", "element", "window", "from the end", "small", "large",
    "by turns", "normalize", "split", "sort", "select", "barrier", "integer", "invariant",
)
# fmt: on
AROUND = tuple(kind for kind in KINDS if kind not in ("small", "large", "by turns"))


def loops() -> st.SearchStrategy[Loop]:
    """Loops of a few steps."""
    operands = st.tuples(st.sampled_from((0, 0, 0, 1, 2)), st.integers(0, 5))
    statement = st.builds(Statement, st.sampled_from(KINDS), operands)
    around = st.lists(st.builds(Statement, st.sampled_from(AROUND), operands), max_size=2).map(tuple)
    return st.builds(
        Loop,
        count=st.integers(4, 13),
        carried=st.integers(1, 3),
        body=st.lists(statement, min_size=1, max_size=7).map(tuple),
        kept=st.lists(st.integers(0, 9), max_size=2).map(tuple),
        every=st.integers(0, 2),
        odd=st.integers(-12, 9),
        before=around,
        after=around,
        backwards=st.booleans(),
        joined=st.sampled_from(("", "stack", "concatenate")),
        gradient=st.booleans(),
    )
