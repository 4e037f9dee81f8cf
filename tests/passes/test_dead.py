"""What is dropped from loops and branches, at every depth, and what must not be."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

from graphopt.backends.xla.staging import jaxpr_of
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ops.control import COND, SCAN, WHILE
from graphopt.passes.dead import Dead
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

X = np.array([1.0, -2.0, np.nan], np.float32)
S = np.float32(1.5)
LOG: list[Any] = []


def log(value: Any) -> None:
    LOG.append(np.asarray(value).tolist())


def without_dead(function: Callable[..., Any], *args: Any) -> tuple[Graph, Context]:
    """The graph afterwards: checked, of the same types, and compiled it has the same results and effects."""
    graph, sources = trace_function(function, *args)
    context = Context(Options(), sources)
    after = Dead().run(graph, context)
    check(after)
    assert (after.in_avals, after.out_avals) == (graph.in_avals, graph.out_avals)
    again = Context(Options(), sources)
    assert Dead().run(after, again) is after
    assert ran(jax.jit(jax.extend.core.jaxpr_as_fun(jaxpr_of(after, sources))), args) == ran(jax.jit(function), args)
    return after, context


def ran(function: Callable[..., Any], args: Any) -> tuple[list[bytes], list[Any]]:
    LOG.clear()
    results = [np.asarray(x).tobytes() for x in jax.tree.leaves(function(*args))]
    jax.effects_barrier()
    return results, list(LOG)


def counts(graph: Graph) -> Counter[str]:
    return Counter(n.op.name for g in nested_graphs(graph) for n in g.nodes)


def only(graph: Graph, op: Any) -> Any:
    (node,) = [n for n in graph.nodes if n.op is op]
    return node


# ---- what is dropped ---------------------------------------------------------------------------------------------------


def test_what_a_dropped_operand_was_computed_from_goes_too() -> None:
    def function(x: Any) -> Any:
        y = lax.sin(x)
        return lax.scan(lambda c, v: (c + v[0], c * lax.cos(v[1])), S, (x, lax.exp(y)))[0]

    after, context = without_dead(function, X)
    assert not {"sin", "exp", "cos"} & set(counts(after))
    assert context.notes == ["scan: dropped 1 of 2 results, 1 operands"]


def test_a_loop_that_only_feeds_a_dead_value() -> None:
    def function(x: Any) -> Any:
        early = lax.scan(lambda c, v: (c * v, None), S, x)[0]
        return lax.scan(lambda c, v: ((c[0] + v, c[1] + early), None), (S, S), x)[0][0]

    after, _ = without_dead(function, X)
    assert counts(after)["scan"] == 1 and counts(after)["mul"] == 0


def test_a_carry_that_two_others_pass_on() -> None:
    """The first lives by the second, which lives by the third: three rounds until nothing changes."""

    def function(x: Any) -> Any:
        def step(c: Any, v: Any) -> Any:
            a, b, d, e = c
            return (a + b, b + d, d + v, e + a), None

        return lax.scan(step, (S, S, S, S), x)[0][0]

    after, _ = without_dead(function, X)
    assert len(only(after, SCAN).avals) == 3


def test_carries_that_read_each_other_and_nobody_else_does() -> None:
    def function(x: Any) -> Any:
        return lax.scan(lambda c, v: ((c[0] + v, c[2] * v, c[1] - v), None), (S, S, S), x)[0][0]

    after, _ = without_dead(function, X)
    assert len(only(after, SCAN).avals) == 1


def test_the_condition_keeps_what_it_reads() -> None:
    def function(x: Any) -> Any:
        limit, other = lax.sin(S), lax.cos(S)

        def test(c: Any) -> Any:
            return (c[0] < 3) & (c[1] < limit + 10)

        return lax.while_loop(test, lambda c: (c[0] + 1, c[1] * 2, c[2] + other, c[3] + 1), (0, S, S, x))[3]

    after, _ = without_dead(function, X)
    loop = only(after, WHILE)
    assert len(loop.avals) == 3 and "cos" not in counts(after) and counts(after)["sin"] == 1


def test_a_loop_of_which_only_the_count_is_used() -> None:
    def function(x: Any) -> Any:
        return lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 2, lax.sin(c[1])), (0, x))[0]

    after, _ = without_dead(function, X)
    assert len(only(after, WHILE).avals) == 1 and "sin" not in counts(after)


def test_branches_need_what_any_of_them_reads() -> None:
    def function(x: Any, i: Any) -> Any:
        a, b, c = lax.sin(x), lax.cos(x), lax.exp(x)
        return lax.switch(i, [lambda a, b, c: (a, c), lambda a, b, c: (b, b), lambda a, b, c: (x, c)], a, b, c)[0]

    for i in range(3):
        after, context = without_dead(function, X, np.int32(i))
        assert len(only(after, COND).inputs) == 4 and "exp" not in counts(after)
        assert context.notes == ["cond: dropped 1 of 2 results, 1 operands"]


def test_a_choice_that_no_longer_reads_anything() -> None:
    def function(x: Any, go: Any) -> Any:
        return lax.cond(go, lambda v: (np.float32(1), lax.sin(v)), lambda v: (np.float32(2), v), x)[0]

    after, _ = without_dead(function, X, np.bool_(False))
    assert len(only(after, COND).inputs) == 1


@pytest.mark.parametrize("reverse", (False, True))
def test_a_scan_without_xs_or_carry(reverse: bool) -> None:
    def counted(x: Any) -> Any:
        return lax.scan(lambda c, _: ((c[0] + 1, c[1] * 2), c[0]), (S, S), None, length=4, reverse=reverse)[1]

    after, _ = without_dead(counted, X)
    assert len(only(after, SCAN).avals) == 2

    def mapped(x: Any) -> Any:
        return lax.scan(lambda c, v: (c + 1, (lax.neg(v), lax.sin(v))), S, x, reverse=reverse)[1][0]

    after, _ = without_dead(mapped, X)
    assert len(only(after, SCAN).avals) == 1 and "sin" not in counts(after)


def test_a_scan_of_no_rows() -> None:
    def function(x: Any) -> Any:
        return lax.scan(lambda c, v: ((c[0] + v, c[1] * v), lax.sin(v)), (S, S), x)[0][1]

    after, _ = without_dead(function, X[:0])
    assert len(only(after, SCAN).avals) == 1


def test_at_every_depth() -> None:
    def function(x: Any, go: Any) -> Any:
        def step(c: Any, v: Any) -> Any:
            def counted(_: Any, d: Any) -> Any:
                return lax.cond(go, lambda a, b: (a + v, lax.sin(b)), lambda a, b: (a, b), *d)

            return lax.fori_loop(0, 3, counted, c), None

        return lax.scan(step, (S, S), x)[0][0]

    after, context = without_dead(function, X, np.bool_(True))
    assert "sin" not in counts(after)
    assert len(context.notes) == 3


def test_inside_calls_and_custom_derivatives() -> None:
    def wasteful(x: Any) -> Any:
        return lax.scan(lambda c, v: ((c[0] + v, lax.sin(c[1])), None), (S, S), x)[0][0]

    function = jax.custom_jvp(wasteful)
    function.defjvp(lambda p, t: (function(p[0]), function(t[0])))
    after, _ = without_dead(lambda x: jax.jit(wasteful)(x) + function(x) + jax.checkpoint(wasteful)(x), X)
    assert "sin" not in counts(after)


# ---- what stays --------------------------------------------------------------------------------------------------------


def test_effects_keep_loops_and_branches_whole() -> None:
    def function(x: Any, go: Any) -> Any:
        def step(c: Any, v: Any) -> Any:
            io_callback(log, None, v, ordered=True)
            return (c[0] + v, c[1] * v), None

        first = lax.scan(step, (S, S), x)[0][0]
        lax.while_loop(lambda n: n < 3, lambda n: (io_callback(log, None, n, ordered=True), n + 1)[1], 0)
        lax.cond(go, lambda: (io_callback(log, None, S, ordered=True), S)[1], lambda: S)
        return first

    after, context = without_dead(function, np.float32([1, 2]), np.bool_(True))
    assert LOG == [1.0, 2.0, 0, 1, 2, 1.5]
    assert len(only(after, SCAN).data_avals) == 2 and not context.notes


def test_dead_values_inside_a_loop_with_effects() -> None:
    def function(x: Any) -> Any:
        def step(c: Any, v: Any) -> Any:
            io_callback(log, None, v, ordered=True)
            return c + lax.scan(lambda a, w: ((a[0] + w, lax.sin(a[1])), None), (S, S), x)[0][0], None

        return lax.scan(step, S, x)[0]

    after, _ = without_dead(function, np.float32([1, 2]))
    assert "sin" not in counts(after)


def test_refs_keep_what_is_written() -> None:
    def function(x: Any) -> Any:
        ref = jax.new_ref(jnp.float32(0))

        def step(c: Any, v: Any) -> Any:
            ref[...] += v * c[1]
            return (c[0] + v, c[1] * v), c[0]

        lax.scan(step, (S, S), x)
        return ref[...]

    without_dead(function, np.float32([1, 2]))


def test_a_ref_made_inside_of_a_dead_part() -> None:
    def function(x: Any) -> Any:
        def step(c: Any, v: Any) -> Any:
            ref = jax.new_ref(c[1])
            ref[...] *= v
            return (c[0] + v, ref[...]), None

        return lax.scan(step, (S, S), x)[0][0]

    without_dead(function, np.float32([1, 2]))


def test_nothing_dead_is_the_same_graph() -> None:
    def function(x: Any, go: Any) -> Any:
        total, rows = lax.scan(lambda c, v: (c + v, c), S, x)
        return lax.cond(go, lambda a, b: a + b.sum(), lambda a, b: a, total, rows), lax.fori_loop(
            0, go, lambda i, c: -c, x
        )

    graph, sources = trace_function(function, X, np.int32(3))
    context = Context(Options(), sources)
    assert Dead().run(graph, context) is graph
    assert not context.notes


def test_lines_are_inherited() -> None:
    def function(x: Any) -> Any:
        with jax.named_scope("kept"):
            return lax.scan(lambda c, v: ((lax.sin(c[0]), c[1] * v), None), (S, S), x)[0][0]

    graph, sources = trace_function(function, X)
    after = Dead().run(graph, Context(Options(), sources))
    (info,) = sources.of(after, only(after, SCAN))
    assert str(info.name_stack) == "kept"
    (body,) = [g for g in nested_graphs(after) if g is not after]
    (sine,) = [n for n in body.nodes if n.op.name == "sin"]
    assert sources.of(body, sine)
    assert "sin" in jax.jit(jax.extend.core.jaxpr_as_fun(jaxpr_of(after, sources))).lower(X).as_text(debug_info=True)
