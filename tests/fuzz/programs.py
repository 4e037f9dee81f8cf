"""Random JAX programs: plain data that Hypothesis draws and shrinks, and their meaning as JAX functions.

Every program is well-typed: what an operation does with its operands is decided by their types when the program runs,
so any operand will do in any place. Nothing is drawn so that it is used: much of each program is dead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax
from jax.experimental import io_callback

Values = list[Any]


@dataclass(frozen=True)
class Step:
    """One statement. operands: numbers of values; choices: decide what `kind` leaves open; blocks: what it holds."""

    kind: str
    operands: tuple[int, ...]
    choices: tuple[int, ...]
    blocks: tuple["Block", ...] = ()


@dataclass(frozen=True)
class Block:
    """Statements that see the values captured from around them and the parameters; 0 is the latest value, and numbers wrap around."""

    captured: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """functions: blocks that are jitted once and called by number, each by later ones and by main. arguments: inputs."""

    functions: tuple[Block, ...]
    main: Block
    arguments: tuple[tuple[str, tuple[int, ...], int], ...]
    exact: bool

    def values(self) -> list[Any]:
        """The arguments: special values of their dtype, beginning at a drawn place."""
        return [jnp.asarray(special(dtype, shape, start, self.exact)) for dtype, shape, start in self.arguments]

    def __call__(self, *arguments: Any) -> Any:
        functions: list[Callable[..., Any]] = []
        for block in self.functions:
            functions.append(Run(self.exact, functions).function(block))
        return Run(self.exact, functions).block(self.main, list(arguments), ())


FLOATS = ("float32", "bfloat16", "float16")
DTYPES = (*FLOATS, "int8", "int32", "uint8", "uint32", "bool", "complex64")
SHAPES = ((), (3,), (2, 3), (0,), (1,))
_SPECIAL = (0.0, -0.0, 1.0, np.nan, -1.5, np.inf, -np.inf, 3.0, 0.3, -2.7, 1e4)
_DENORMAL = {"float32": 1e-40, "bfloat16": 1e-39, "float16": 1e-7}


def special(dtype: str, shape: tuple[int, ...], start: int, exact: bool) -> Any:
    """An array of the values that go wrong first. exact: without denormals, which a fused loop may flush."""
    kind = jnp.dtype(dtype)
    if jnp.issubdtype(kind, jnp.integer):
        info = jnp.iinfo(kind)
        pool = np.array([0, 1, info.max, info.min, 2, 7, info.max - 1], kind)
    elif kind == np.bool_:
        pool = np.array([True, False, False])
    elif kind == np.complex64:
        pool = np.array([complex(a, b) for a in _SPECIAL[:7] for b in (0.0, 1.0, np.nan)], kind)
    else:
        pool = np.array([*_SPECIAL, *([] if exact else [_DENORMAL[dtype], -_DENORMAL[dtype]])]).astype(kind)
    size = int(np.prod(shape))
    return np.resize(np.roll(pool, -start), max(size, 1))[:size].reshape(shape)


# ---- what the effects of a program wrote -------------------------------------------------------------------------------

LOG: list[Any] = []


def record(tag: Any, value: Any) -> None:
    LOG.append((int(tag), str(value.dtype), np.shape(value), np.asarray(value).tobytes()))


def recorded(tag: Any, value: Any) -> Any:
    record(tag, value)
    return np.asarray(value)


# ---- types -------------------------------------------------------------------------------------------------------------


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def is_integer(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def is_complex(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.complexfloating))


def converted(x: Any, dtype: Any, exact: bool) -> Any:
    """`x` in another dtype. exact: by a comparison where a float would be rounded."""
    if x.dtype == dtype and not x.weak_type:
        return x
    if is_complex(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        x = lax.real(x)
    if x.dtype != dtype and is_float(x) and exact:
        x = x > 0
    return lax.convert_element_type(x, dtype)


def shaped(x: Any, shape: tuple[int, ...]) -> Any:
    """`x` in another shape: its first element where the number of elements differs, zeros where there is none."""
    if x.shape == shape:
        return x
    if x.size == int(np.prod(shape)):
        return lax.reshape(x, shape)
    if x.ndim and x.size:
        x = lax.reshape(lax.slice(x, (0,) * x.ndim, (1,) * x.ndim), ())
    return jnp.zeros(shape, x.dtype) if x.size == 0 else lax.broadcast_in_dim(x, shape, ())


# ---- operations --------------------------------------------------------------------------------------------------------

UNARY: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "float": (lax.neg, lax.abs, lax.sin, lax.exp, lax.floor, lax.sign, lax.tanh, lax.is_finite, lax.sqrt, jnp.sort),
    "exact": (lax.neg, lax.abs, lax.is_finite),
    "integer": (lax.neg, lax.bitwise_not, lax.population_count, jnp.abs, lax.sign),
    "bool": (lax.bitwise_not,),
    "complex": (lax.neg, lax.conj, lax.real, lax.imag),
}
_COMPARISONS = (lax.eq, lax.ne, lax.lt, lax.le, lax.gt, lax.ge)
BINARY: dict[str, tuple[Callable[[Any, Any], Any], ...]] = {
    "float": (lax.add, lax.sub, lax.mul, lax.max, lax.min, lax.div, lax.pow, lax.rem, *_COMPARISONS),
    "exact": _COMPARISONS,
    "integer": (lax.add, lax.sub, lax.mul, lax.max, lax.min, lax.bitwise_and, lax.bitwise_xor, lax.rem, *_COMPARISONS),
    "bool": (lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor, lax.max, *_COMPARISONS),
    "complex": (lax.add, lax.sub, lax.mul, lax.eq, lax.ne),
}
REDUCTIONS: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "float": (jnp.sum, partial(jnp.max, initial=0), jnp.prod, jnp.cumsum),
    "exact": (partial(jnp.any, axis=0), partial(jnp.all, axis=-1)),
    "integer": (jnp.sum, jnp.cumsum, partial(jnp.min, initial=0), partial(jnp.prod, axis=-1), jnp.any),
    "bool": (jnp.any, jnp.all, partial(jnp.sum, axis=0)),
    "complex": (jnp.sum, jnp.any),
}
MOVEMENTS: tuple[Callable[[Any], Any], ...] = (
    jnp.transpose,
    jnp.ravel,
    jnp.flip,
    lambda x: lax.broadcast(x, (2,)) if x.size < 12 else x,
    lambda x: x[..., :1] if x.ndim else x,
    lambda x: x[::2] if x.ndim else x[None],
    lambda x: jnp.concatenate([jnp.ravel(x)[:2], jnp.ravel(x)[:1]]),
    lambda x: jnp.pad(x, 1) if x.size < 6 else x,
    lambda x: jnp.squeeze(x[:1], 0) if x.ndim and x.shape[0] else x,
    lambda x: jnp.take(x, jnp.array([0, -1]), axis=0, mode="clip") if x.ndim and x.shape[0] else x,
    lambda x: x.at[-1].set(x[0]) if x.ndim and x.shape[0] else x,
    lambda x: lax.dynamic_slice(jnp.ravel(x), (jnp.int32(1),), (min(2, x.size),)),
)


def pick(values: Values, numbers: tuple[int, ...]) -> Values:
    """Values by number; 0 is the latest one."""
    return [values[-1 - i % len(values)] for i in numbers]


class Run:
    """One run (in JAX, one trace) of main or of one of the functions; it may call the functions before that one."""

    def __init__(self, exact: bool, functions: list[Callable[..., Any]]) -> None:
        self.exact = exact
        self.functions = list(functions)

    def block(self, block: Block, outer: Values, params: tuple[Any, ...]) -> Values:
        """The outputs of a block."""
        values = [*pick(outer, block.captured), *params]
        for step in block.steps:
            values += getattr(self, step.kind)(step, pick(values, step.operands), values)
        return pick(values, block.outputs)

    def like(self, values: Values, types: Values) -> Values:
        """Values of the types of others, as many as there are of those."""
        pairs = zip(np.resize(np.arange(len(values)), len(types)), types, strict=True)
        return [shaped(converted(values[i], t.dtype, self.exact), t.shape) for i, t in pairs]

    def family(self, x: Any) -> str:
        if is_float(x):
            return "exact" if self.exact else "float"
        return "complex" if is_complex(x) else "integer" if is_integer(x) else "bool"

    # Operations

    def constant(self, step: Step, operands: Values, values: Values) -> Values:
        dtype, shape, start = (
            options[c % len(options)] for options, c in zip((DTYPES, SHAPES, range(11)), step.choices, strict=True)
        )
        array = special(dtype, shape, start, self.exact)
        return [array.item() if shape == () and dtype in ("float32", "int32") and start % 2 else array]

    def unary(self, step: Step, operands: Values, values: Values) -> Values:
        x = jnp.asarray(operands[0])
        options = UNARY[self.family(x)]
        function = options[step.choices[0] % len(options)]
        return [function(x) if x.ndim or function is not jnp.sort else x]

    def binary(self, step: Step, operands: Values, values: Values) -> Values:
        x = jnp.asarray(operands[0])
        options = BINARY[self.family(x)]
        x, y = self.like([x, jnp.asarray(operands[1])], [x, x])
        return [options[step.choices[0] % len(options)](x, y)]

    def reduce(self, step: Step, operands: Values, values: Values) -> Values:
        x = jnp.atleast_1d(jnp.asarray(operands[0]))
        options = REDUCTIONS[self.family(x)]
        return [options[step.choices[0] % len(options)](x)]

    def move(self, step: Step, operands: Values, values: Values) -> Values:
        return [MOVEMENTS[step.choices[0] % len(MOVEMENTS)](jnp.asarray(operands[0]))]

    def convert(self, step: Step, operands: Values, values: Values) -> Values:
        return [converted(jnp.asarray(operands[0]), jnp.dtype(DTYPES[step.choices[0] % len(DTYPES)]), self.exact)]

    def where(self, step: Step, operands: Values, values: Values) -> Values:
        which, x, y = map(jnp.asarray, operands)
        (y,) = self.like([y], [x])
        (which,) = self.like([which], [jax.ShapeDtypeStruct(x.shape, jnp.bool_)])
        return [jnp.where(which, x, y)]

    def dot(self, step: Step, operands: Values, values: Values) -> Values:
        x = jnp.asarray(operands[0])
        x = converted(x, jnp.dtype("int32"), True) if self.exact or x.dtype == jnp.bool_ else x
        (y,) = self.like([jnp.asarray(operands[1])], [x])
        return [jnp.inner(x, y)]

    # Calls

    def function(self, block: Block) -> Callable[..., Any]:
        def called(*params: Any) -> Any:
            return self.block(block, list(params), ())

        return jax.jit(called)

    def call(self, step: Step, operands: Values, values: Values) -> Values:
        if not self.functions:
            return operands[:1]
        return list(self.functions[step.choices[0] % len(self.functions)](*operands))

    def nested_jit(self, step: Step, operands: Values, values: Values) -> Values:
        return list(jax.jit(lambda *params: self.block(step.blocks[0], values, params))(*operands))

    def checkpoint(self, step: Step, operands: Values, values: Values) -> Values:
        prevent = bool(step.choices[0] % 2)
        return list(jax.checkpoint(lambda *p: self.block(step.blocks[0], values, p), prevent_cse=prevent)(*operands))

    def custom_jvp(self, step: Step, operands: Values, values: Values) -> Values:
        @jax.custom_jvp
        def function(*params: Any) -> Any:
            return self.block(step.blocks[0], list(params), ())

        function.defjvp(lambda primals, tangents: (function(*primals), function(*primals)))
        return list(function(*operands))

    # Loops and branches

    def scan(self, step: Step, operands: Values, values: Values) -> Values:
        init = list(map(jnp.asarray, operands))
        length, rows = (
            step.choices[0] % 4,
            [(v + jnp.zeros((), v.dtype)) for v in map(jnp.asarray, operands[:2]) if v.dtype != jnp.bool_],
        )
        xs = [lax.broadcast(x, (length,)) for x in rows]

        def body(carry: Values, x: Values) -> tuple[Values, Values]:
            results = self.block(step.blocks[0], values, (*carry, *x))
            return self.like(list(map(jnp.asarray, results)), init), results[:2]

        carry, ys = lax.scan(body, self.like(init, init), xs, length, reverse=bool(step.choices[1] % 2))
        return [*carry, *ys]

    def loop(self, step: Step, operands: Values, values: Values) -> Values:
        init = list(map(jnp.asarray, operands))
        (bound,) = self.like(init[:1], [jax.ShapeDtypeStruct((), jnp.int32)])
        times = lax.rem(bound, jnp.int32(4)) if step.choices[0] % 2 else step.choices[1] % 4

        def body(i: Any, carry: Values) -> Values:
            return self.like(list(map(jnp.asarray, self.block(step.blocks[0], values, (i, *carry)))), init)

        return list(lax.fori_loop(0, times, body, self.like(init, init)))

    def whiles(self, step: Step, operands: Values, values: Values) -> Values:
        init = list(map(jnp.asarray, operands))

        def test(state: Any) -> Any:
            decided = map(jnp.asarray, self.block(step.blocks[0], values, tuple(state[1])))
            (go,) = self.like(list(decided)[:1], [jax.ShapeDtypeStruct((), jnp.bool_)])
            return (state[0] < 3) & go

        def body(state: Any) -> Any:
            results = list(map(jnp.asarray, self.block(step.blocks[1], values, tuple(state[1]))))
            return state[0] + 1, self.like(results, init)

        count, carry = lax.while_loop(test, body, (jnp.int32(0), self.like(init, init)))
        return [count, *carry]

    def switch(self, step: Step, operands: Values, values: Values) -> Values:
        inputs = list(map(jnp.asarray, operands))
        (index,) = self.like(inputs[:1], [jax.ShapeDtypeStruct((), jnp.int32)])

        def branch(block: Block) -> Callable[..., Any]:
            return lambda *params: self.like(list(map(jnp.asarray, self.block(block, values, params))), inputs)

        return list(lax.switch(index, [branch(block) for block in step.blocks], *inputs))

    # Effects and Refs

    def effect(self, step: Step, operands: Values, values: Values) -> Values:
        io_callback(record, None, np.int32(step.choices[0]), jnp.asarray(operands[0]), ordered=True)
        return []

    def effect_value(self, step: Step, operands: Values, values: Values) -> Values:
        x = jnp.asarray(operands[0])
        return [
            io_callback(recorded, jax.ShapeDtypeStruct(x.shape, x.dtype), np.int32(step.choices[0]), x, ordered=True)
        ]

    def reference(self, step: Step, operands: Values, values: Values) -> Values:
        first = jnp.asarray(operands[0])
        ref = jax.new_ref(self.like([first], [first])[0])

        def update() -> None:
            results = list(map(jnp.asarray, self.block(step.blocks[0], values, (ref[...],))))
            ref[...] = self.like(results[:1], [first])[0]

        before = ref[...]
        for way in step.choices:
            if way % 4 == 0:
                update()
            elif way % 4 == 1:
                jax.jit(update)()
            elif way % 4 == 2:
                lax.fori_loop(0, way % 3, lambda i, c: (update(), c)[1], 0)
            else:
                lax.cond(first.size > way % 3, update, lambda: None)
        return [before, ref[...]]


# ---- drawing -----------------------------------------------------------------------------------------------------------

_PLAIN = {"constant": 3, "unary": 2, "binary": 4, "reduce": 1, "move": 3, "convert": 1, "where": 1, "dot": 1}
_HOLDING = {
    "nested_jit": 1,
    "checkpoint": 1,
    "custom_jvp": 1,
    "scan": 1,
    "loop": 1,
    "whiles": 2,
    "switch": 3,
    "reference": 1,
}
_EFFECTS = ("effect", "effect_value")
_PURE = ("checkpoint", "custom_jvp", "whiles")
"""In these JAX allows no effects (in a loop's condition only)."""

numbers = st.integers(0, 11)


@st.composite
def steps(draw: st.DrawFn, depth: int, effects: bool) -> Step:
    """A statement."""
    kinds = [*(k for k, weight in _PLAIN.items() for _ in range(weight)), "call"]
    if effects:
        kinds += _EFFECTS
    if depth:
        kinds += [k for k in _HOLDING if effects or k != "reference"] * 2
    kind = draw(st.sampled_from(kinds))
    if kind == "call" and not effects:
        kind = "binary"  # what is called may have effects
    count = draw(st.integers(1, 3)) if kind in _HOLDING or kind == "call" else 3 if kind == "where" else 2
    operands = tuple(draw(st.lists(numbers, min_size=count, max_size=count)))
    choices = draw(st.tuples(numbers, numbers, numbers))
    held = tuple(
        draw(blocks(depth - 1, effects and not (kind in _PURE and (kind != "whiles" or i == 0))))
        for i in range(_HOLDING.get(kind, 0))
    )
    return Step(kind, operands, choices, held)


@st.composite
def blocks(draw: st.DrawFn, depth: int, effects: bool) -> Block:
    """Statements; at least one value is captured and one returned."""
    captured = tuple(draw(st.lists(numbers, min_size=1, max_size=3)))
    body = tuple(draw(st.lists(steps(depth, effects), min_size=1, max_size=6)))
    outputs = tuple(draw(st.lists(numbers, min_size=1, max_size=3)))
    return Block(captured, body, outputs)


@st.composite
def programs(draw: st.DrawFn, exact: bool = False, effects: bool = True) -> Program:
    """A program. exact: without operations of floats that round, so that it has the same bits however it is fused.
    effects: whether it may have any, and Refs."""
    argument = st.tuples(st.sampled_from(DTYPES), st.sampled_from(SHAPES), st.integers(0, 10))
    arguments = tuple(draw(st.lists(argument, min_size=1, max_size=4)))
    functions = tuple(draw(st.lists(blocks(1, effects), max_size=2)))
    main = Block(
        captured=tuple(range(len(arguments))),
        steps=tuple(draw(st.lists(steps(2, effects), min_size=4, max_size=10))),
        outputs=tuple(draw(st.lists(numbers, min_size=2, max_size=5))),
    )
    return Program(functions, main, arguments, exact)
