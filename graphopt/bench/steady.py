"""Programs that run again and again: first call, steady time in warm and in fresh caches, memory.

Warm: every call gets the same arrays as the one before. Fresh: each contender has copies of the arrays that no call has
used since the caches were swept. Results lie in memory that the process had before, unless they are so large that they
get new memory, with every contender: see `graphopt.bench.caches`.
"""

from __future__ import annotations

import functools
import gc
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

import graphopt
from graphopt.bench import least
from graphopt.bench.caches import MAPPED, Sweep, give_memory_back, keep_memory, last_cache
from graphopt.bench.measure import awaited, narrowed, one_each, paired_ratio, repeated, rounds
from graphopt.bench.programs import Program
from graphopt.bench.rows import Measure, Row, measure_of
from graphopt.errors import GraphoptError

JITS: dict[str, Callable[..., Any]] = {"jax": jax.jit, "graphopt": graphopt.jit}

WAIT: dict[str, Callable[[Any], Any]] = dict.fromkeys((*JITS, least.JAX), awaited) | dict.fromkeys(
    ("numpy", least.NUMPY), lambda result: result
)
"""How each contender's result is awaited. NumPy's is there when the call returns."""

TURN = 1e-3
"""Seconds that a contender runs in one round at least: shorter calls are repeated. The clock counts in nanoseconds."""

MOST_CALLS = 1000
COPIES = 4 << 20
"""Bytes of fresh arguments and results that a contender has in one round at least, in MOST_COPIES calls at most."""

MOST_COPIES = 32
FREE, MOST_ROUNDS = 0.05, 5
"""Seconds for each repeat asked for, in which short rounds are repeated, up to MOST_ROUNDS times as often as asked."""

LIMIT = 6.0
"""Seconds of rounds, beyond which there are fewer of them than asked for."""

WIDTH, PATIENCE = 0.04, 1.0
"""The 95% interval that further rounds are for, as a share of the median, and for how many seconds they go on."""

SPINNING = 0.03
"""Seconds after a product of matrices in which OpenBLAS's threads wait for the next one, busily."""

SLOW = 1.0
"""Seconds of a call from which on caches make no difference, and fresh ones are not tried."""

Functions = Mapping[str, Callable[..., Any]]


class Disagreement(ValueError):
    """The results of graphopt and of jax.jit are not the same."""


def measure(program: Program, repeats: int, jits: Mapping[str, Callable[..., Any]] = JITS) -> Row:
    """Measure a program; a row with an error where it cannot be compiled or the results differ.

    jits: what compiles it for each of the contenders of JITS.
    """
    try:
        return _measure(program, repeats, jits)
    except (GraphoptError, jax.errors.JaxRuntimeError, NotImplementedError, TypeError, ValueError) as error:
        return Row(program.name, error=f"{type(error).__name__}: {error}")


def _measure(program: Program, repeats: int, jits: Mapping[str, Callable[..., Any]]) -> Row:
    keep_memory()
    gc.collect()
    args = program.arguments()
    # JAX keeps the traces of functions inside (jax.nn.relu, say): without this, who comes first pays for both.
    equations = len(jax.make_jaxpr(program.make())(*args).eqns)
    first, functions, memory, same = compiled(program, args, jits)
    result = functions["jax"](*args)
    agree(functions["graphopt"](*args), result)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves((args, result)))
    large = any(leaf.nbytes >= MAPPED for leaf in jax.tree.leaves(result))
    del result
    arguments = dict.fromkeys(functions, args)
    beside: dict[str, Callable[..., Any]] = {}
    if program.numpy is not None:
        functions["numpy"] = program.numpy
        arguments["numpy"] = jax.tree.map(np.asarray, args)
        beside = least.least(program.make(), args)
    # What differs by chance alone need not be known more closely.
    patience = 0.0 if same else PATIENCE
    measures = {"warm": warm(functions | beside, arguments | dict.fromkeys(beside, args), repeats, patience, large)}
    if measures["warm"].seconds["jax"] < SLOW:
        measures["fresh"] = fresh(functions, arguments, repeats, size, patience, large)
    ratio = paired_ratio([first["graphopt"]], [first["jax"]])
    return Row(program.name, equations, measures | {"first call": Measure(first, ratio)}, memory, same)


def compiled(
    program: Program, args: tuple[Any, ...], jits: Mapping[str, Callable[..., Any]] = JITS
) -> tuple[dict[str, float], dict[str, Callable[..., Any]], dict[str, int] | None, bool]:
    """The program under each jit: seconds of tracing, lowering and compiling, the function, bytes of memory.

    Last, whether XLA made the same program of both.
    """
    first: dict[str, float] = {}
    functions: dict[str, Callable[..., Any]] = {}
    memory: dict[str, int] = {}
    texts: list[str] = []
    for name, jit in jits.items():
        functions[name] = jit(program.make())
        start = time.perf_counter()
        executable = functions[name].lower(*args).compile()  # type: ignore[attr-defined]
        first[name] = time.perf_counter() - start
        size = needed_bytes(executable)
        if size is not None:
            memory[name] = size
        texts.append(instructions(executable.as_text()))
    return first, functions, memory if len(memory) == len(jits) else None, len(set(texts)) == 1


def instructions(text: str) -> str:
    """The computations of a compiled program's text, without names and the places that they come from.

    Names are numbered in the order in which they come up.
    """
    _, _, body = text.partition("\n\n%") if "\n\n%" in text else text.partition("\n\nENTRY")
    body = re.sub(r",? metadata=\{[^}]*\}", "", body)
    body = re.sub(r" \(.*\) -> .* \{$", " {", body, flags=re.MULTILINE)
    numbers: dict[str, str] = {}
    return re.sub(r"%[\w.-]+", lambda name: numbers.setdefault(name[0], f"%{len(numbers)}"), body)


def needed_bytes(executable: Any) -> int | None:
    """Bytes of the arguments, results and intermediate values of a compiled program; None where XLA does not say."""
    stats = executable.memory_analysis()
    if stats is None:
        return None
    total = stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes
    return int(total - stats.alias_size_in_bytes)


def agree(ours: Any, theirs: Any, tolerance: float = 1e-4) -> None:
    """Raise Disagreement unless two results have the same structure, types and values.

    Integers and booleans must be equal. Other numbers may differ by `tolerance`, relative to themselves or, a tenth of
    it, to the largest of their array: sums in another order are allowed.
    """
    ours_tree: Any = jax.tree.structure(ours)
    theirs_tree: Any = jax.tree.structure(theirs)
    if ours_tree != theirs_tree:
        raise Disagreement(f"graphopt gives {ours_tree}, jax.jit gives {theirs_tree}")
    for ours_leaf, theirs_leaf in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(ours_leaf), np.asarray(theirs_leaf)
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            raise Disagreement(f"graphopt gives {a.dtype}{a.shape}, jax.jit gives {b.dtype}{b.shape}")
        if np.array_equal(a, b):
            continue
        if a.dtype.kind in "biu":
            close = a == b
        else:
            scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
            close = np.isclose(a, b, rtol=tolerance, atol=0.1 * tolerance * float(scale), equal_nan=True)
        if not close.all():
            count, where = int((~close).sum()), np.unravel_index(int(np.argmin(close)), close.shape)
            raise Disagreement(
                f"{count} of {a.size} elements differ; at {[int(i) for i in where]} graphopt gives {a[where]}, "
                f"jax.jit gives {b[where]}"
            )


def warm(
    functions: Functions,
    arguments: Mapping[str, tuple[Any, ...]],
    repeats: int,
    patience: float = 0.0,
    large: bool = False,
) -> Measure:
    """Calls with the same arguments again and again. patience: seconds of further rounds where the ratio is unsure.

    large: whether results get new memory.
    """
    contenders = {}
    known: dict[str, list[float]] = {}
    duration = 0.0
    for name, function in functions.items():
        contender, calls, seconds = _for_a_turn(function, arguments[name], WAIT[name])
        contenders[name] = in_new_memory(contender) if large else contender
        known[name] = [seconds]
        duration += calls * seconds
    if duration > LIMIT:
        return measure_of(known)
    if len(contenders) == len(JITS):
        rounds_wanted = count(repeats, duration)
        return measure_of(narrowed(contenders, rounds_wanted, width=WIDTH, limit=patience))

    def before() -> None:
        # NumPy's call leaves caches and threads to whoever comes next as that one does not know them.
        time.sleep(SPINNING)
        for name in JITS:
            contenders[name]()

    rounds_wanted = count(repeats, 2 * duration + SPINNING)
    return measure_of(narrowed(contenders, rounds_wanted, before, width=WIDTH, limit=patience))


def _for_a_turn(
    function: Callable[..., Any], args: tuple[Any, ...], wait: Callable[[Any], Any]
) -> tuple[Callable[[], float], int, float]:
    """A contender that calls a function for a TURN, in how many calls, and seconds of each.

    The first calls after a pause take several times as long as later ones, so that one call does not say how many.
    """
    contender, calls = repeated(function, args, 1, wait), 1
    seconds = contender()
    if seconds >= SLOW:
        return contender, calls, seconds
    seconds = contender()
    while calls * seconds < TURN and calls < MOST_CALLS:
        calls = min(max(math.ceil(TURN / seconds), 2 * calls), MOST_CALLS)
        contender = repeated(function, args, calls, wait)
        seconds = contender()
    return contender, calls, seconds


def fresh(
    functions: Functions,
    arguments: Mapping[str, tuple[Any, ...]],
    repeats: int,
    size: int,
    patience: float = 0.0,
    large: bool = False,
) -> Measure:
    """Calls with arguments that lie in no cache. size: bytes of the arguments and results of one call.

    patience: seconds of further rounds where the ratio is unsure. large: whether results get new memory.
    """
    held: list[Any] = []
    sweep = swept()
    contenders = {}
    copies = min(max(COPIES // max(size, 1), 1), MOST_COPIES)
    # One call that is not counted fetches the code; beside large arrays that is nothing.
    uncounted = int(copies > 1)
    for name, function in functions.items():
        copied = [_copy(arguments[name]) for _ in range(uncounted + copies)]
        contender = one_each(function, copied, held, uncounted, WAIT[name])
        contenders[name] = in_new_memory(contender) if large else contender

    def before() -> None:
        held.clear()
        sweep()

    start = time.perf_counter()
    rounds(contenders, 1, before)
    duration = time.perf_counter() - start
    # Of an even number of rounds each contender begins one half.
    pairs = math.ceil(min(repeats, count(repeats, duration)) / 2)
    return measure_of(narrowed(contenders, 2 * pairs, before, width=WIDTH, limit=patience))


def in_new_memory(contender: Callable[[], float]) -> Callable[[], float]:
    """A contender whose large results lie in memory that the process did not have before."""

    def run() -> float:
        give_memory_back()
        return contender()

    return run


@functools.cache
def swept() -> Sweep:
    """The one buffer of this process."""
    return Sweep(last_cache())


def _copy(args: tuple[Any, ...]) -> tuple[Any, ...]:
    copied: tuple[Any, ...] = jax.block_until_ready(jax.tree.map(lambda leaf: leaf.copy(), args))
    return copied


def count(repeats: int, seconds: float) -> int:
    """How many rounds of so many seconds to run where `repeats` are asked for: more short ones, fewer long ones."""
    if repeats * seconds > LIMIT:
        return max(int(LIMIT / seconds), 1)
    return min(max(int(FREE * repeats / seconds), repeats), MOST_ROUNDS * repeats)
