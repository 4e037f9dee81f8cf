"""Inlining keeps the order of effects, the contents of Refs, distinct occurrences, and says where nodes come from."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

import graphopt
from graphopt.backends.reference import evaluate
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.sources import Sources
from graphopt.passes.inline import Inline
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

X = np.arange(3, dtype=np.float32)
LOG: list[Any] = []


def stays(context: Context) -> list[str]:
    """What the report says of what is not inlined."""
    return [note for note in context.notes if not note.endswith("inlined")]


def log(value: Any) -> None:
    LOG.append(np.asarray(value).tolist())


def inlined(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Graph, Graph, Context]:
    """The graph before and after, the second checked and with the same results and effects."""
    differentiable = options.pop("differentiable", False)
    graph, sources = trace_function(function, *args)
    context = Context(options.pop("optimize", Options()), sources, differentiable=differentiable)
    after = Inline(**options).run(graph, context)
    check(after)
    assert ran(lambda *xs: jax.jit(jax.extend.core.jaxpr_as_fun(jaxpr_of(after, sources)))(*xs), args) == ran(
        jax.jit(function), args
    )
    assert ran(lambda *xs: evaluate(after, *xs), args)[1] == ran(jax.jit(function), args)[1]
    return graph, after, context


def ran(function: Callable[..., Any], args: Any) -> tuple[list[Any], list[Any]]:
    LOG.clear()
    results = [np.asarray(x).tolist() for x in jax.tree.leaves(function(*args))]
    jax.effects_barrier()
    return results, list(LOG)


def names(graph: Graph) -> list[str]:
    """The operations of a graph and of those in it."""
    return [n.op.name for g in nested_graphs(graph) for n in g.nodes if n.op.primitive is not None]


# ---- effects and Refs --------------------------------------------------------------------------------------------------


def test_effects_keep_their_order_through_calls() -> None:
    @jax.jit
    def inner(x: Any) -> Any:
        io_callback(log, None, x * 2, ordered=True)
        return x + 1

    @jax.jit
    def outer(x: Any) -> Any:
        io_callback(log, None, x, ordered=True)
        y = inner(x)
        io_callback(log, None, y, ordered=True)
        return inner(y)

    def function(x: Any) -> Any:
        y = outer(x)
        io_callback(log, None, x, ordered=True)
        return outer(x), y

    _, after, _ = inlined(function, np.float32(3))
    assert names(after).count("io_callback") == 9
    assert "jit" not in names(after)


def test_equal_calls_with_effects_happen_twice() -> None:
    @jax.jit
    def inner(x: Any) -> Any:
        io_callback(log, None, x, ordered=True)
        return x

    def function(x: Any) -> Any:
        return inner(x) + inner(x)

    inlined(function, np.float32(3))
    assert LOG == [3.0, 3.0]


def test_an_effect_whose_result_nobody_reads_stays() -> None:
    def function(x: Any) -> Any:
        jax.jit(lambda v: jax.debug.callback(log, v))(x)
        jax.jit(lambda v: jax.debug.callback(log, v))(x)
        return x

    _, after, _ = inlined(function, np.float32(3))
    assert LOG == [3.0, 3.0]
    assert "jit" not in names(after)


def test_a_ref_of_the_caller() -> None:
    def function(x: Any) -> Any:
        one, two = jax.new_ref(x), jax.new_ref(x * 2)

        @jax.jit
        def turn(by: Any) -> Any:
            before = two[...]
            one[...] += by
            two[...] = one[...] * by
            return before

        first = turn(2.0)
        seen = one[...]
        return first, seen, turn(3.0), one[...], two[...]

    _, after, _ = inlined(function, X)
    assert "jit" not in names(after)


def test_a_ref_passed_through_two_calls() -> None:
    def function(x: Any) -> Any:
        ref = jax.new_ref(x)

        @jax.jit
        def inner() -> None:
            ref[0] += 1.0

        @jax.jit
        def outer() -> Any:
            inner()
            value = ref[...]
            inner()
            return value

        lax.fori_loop(0, 2, lambda i, c: (outer(), c)[1], 0)
        return outer(), ref[...]

    _, after, _ = inlined(function, X)
    assert "jit" not in names(after)


def test_a_ref_made_in_a_function_that_is_called_twice() -> None:
    @jax.jit
    def made(x: Any) -> Any:
        ref = jax.new_ref(jnp.zeros(()))
        ref[...] += x
        ref[...] *= 2
        return ref[...]

    def function(x: Any) -> Any:
        return made(x), made(x), made(x + 1)

    _, after, _ = inlined(function, np.float32(3))
    assert names(after).count("new_ref") == 3


def test_refs_that_change_places_in_a_call() -> None:
    def function(x: Any) -> Any:
        one, two = jax.new_ref(x), jax.new_ref(-x)

        @jax.jit
        def read(a: Any, b: Any) -> Any:
            a[0] = b[1]
            return a[...] - b[...]

        return read(one, two), read(two, one), one[...], two[...]

    _, after, _ = inlined(function, X)
    assert "jit" not in names(after)


def test_effects_in_loops_and_branches_of_calls() -> None:
    @jax.jit
    def inner(x: Any) -> Any:
        def step(c: Any, v: Any) -> Any:
            lax.cond(v > 0, lambda: io_callback(log, None, v, ordered=True), lambda: None)
            return c + jax.jit(lambda w: (io_callback(log, None, w * 10, ordered=True), w)[1])(v), None

        return lax.scan(step, 0.0, x)[0]

    def function(x: Any) -> Any:
        return inner(x), inner(-x)

    _, after, _ = inlined(function, X)
    assert "jit" not in names(after)


# ---- distinct operations -----------------------------------------------------------------------------------------------


def test_barriers_stay_apart() -> None:
    kept = jax.jit(lambda v: lax.optimization_barrier(v) + lax.optimization_barrier(v))

    def function(x: Any) -> Any:
        return lax.optimization_barrier(x) + kept(x) * kept(x)

    _, after, _ = inlined(function, X)
    assert names(after).count("optimization_barrier") == 5


def test_a_barrier_that_was_there_keeps_its_number() -> None:
    def function(x: Any) -> Any:
        return jax.jit(lax.optimization_barrier)(lax.optimization_barrier(x))

    _, after, _ = inlined(function, X)
    numbers = [n.attrs["occurrence"] for n in after.nodes if n.op.name == "optimization_barrier"]
    assert len(set(numbers)) == 2 and 0 in numbers


# ---- choices of which only one branch can be taken


def test_the_branch_of_a_constant_index() -> None:
    def function(x: Any) -> Any:
        return lax.cond(True, lax.sin, lax.cos, x) + lax.cond(x[0] > 1, jax.jit(lax.sin), lax.cos, x)

    _, after, context = inlined(function, X)
    assert names(after).count("cond") == 1 and names(after).count("sin") == 2
    assert "1 choice inlined, of whose branches only one can be taken" in context.notes


@pytest.mark.parametrize(("platform", "chosen"), [("cpu", "sin"), ("tpu", "cos"), ("cuda", "tan"), ("", "cond")])
def test_the_branch_of_the_platform(platform: str, chosen: str) -> None:
    def function(x: Any) -> Any:
        return lax.platform_dependent(x, cpu=lax.sin, tpu=jax.jit(lax.cos), default=lax.tan)

    graph, sources = trace_function(function, X)
    context = Context(Options(), sources, platforms=(platform,) if platform else ())
    after = Inline().run(graph, context)
    check(after)
    assert (chosen in {node.op.name for node in after.nodes}) and ("cond" in names(after)) == (chosen == "cond")


def test_a_diagonal_is_no_choice_of_platforms() -> None:
    """`jnp.diag` chooses between platforms; of what is computed for each element only the diagonal is."""
    x = np.arange(400, dtype=np.float32).reshape(20, 20)
    jitted = graphopt.jit(lambda x: jnp.diag(jnp.sqrt(x) + 1))
    report = jitted.explain(x)
    assert report.cost.flops < 200, report.cost
    np.testing.assert_allclose(jitted(x), np.sqrt(np.diag(x)) + 1, rtol=1e-6)


# ---- what stays, and why -----------------------------------------------------------------------------------------------


def test_large_functions_stay_shared() -> None:
    def body(x: Any) -> Any:
        for _ in range(70):
            x = lax.sin(x)
        return x

    large = jax.jit(body)
    _, after, context = inlined(lambda x: large(large(x)), X)
    assert names(after).count("jit") == 2
    assert stays(context) == ["jit 'body' is called 2 times and stays shared"]
    _, after, context = inlined(lambda x: large(large(x)), X, shared_nodes=1000)
    assert names(after).count("jit") == 0 and not stays(context)


def test_functions_that_call_each_other_twice_do_not_explode() -> None:
    function: Any = jax.jit(lax.sin)
    for _ in range(40):
        function = jax.jit(lambda x, f=function: f(f(x)))
    graph, sources = trace_function(function, np.float32(1))
    after = Inline().run(graph, Context(Options(), sources))
    check(after)
    assert after.count() < 1000


@pytest.mark.parametrize("differentiable", (False, True))
def test_custom_derivatives(differentiable: bool) -> None:
    @jax.custom_jvp
    def steep(x: Any) -> Any:
        return lax.sin(x)

    steep.defjvp(lambda p, t: (steep(p[0]), 3 * t[0]))

    @jax.custom_vjp
    def clipped(x: Any) -> Any:
        return lax.cos(x)

    clipped.defvjp(lambda x: (clipped(x), x), lambda r, g: (g * 2,))

    _, after, context = inlined(lambda x: steep(x) + clipped(x), X, differentiable=differentiable)
    kept = {"custom_jvp_call", "custom_vjp_call"} & set(names(after))
    assert len(kept) == (2 if differentiable else 0)
    assert len(stays(context)) == len(kept)
    for name in kept:
        assert f"{name} stays, since JAX may still differentiate" in context.notes


def test_checkpoints() -> None:
    def function(x: Any) -> Any:
        return jax.checkpoint(lambda v: lax.sin(lax.sin(v)))(x)

    _, after, context = inlined(function, X)
    assert names(after) == ["sin", "sin"] and not stays(context)
    _, after, context = inlined(function, X, differentiable=True)
    assert stays(context) == ["a checkpoint keeps its recomputed values apart"]


def test_the_checkpoint_of_a_derivative_stays() -> None:
    def kept(x: Any) -> Any:
        return jax.grad(lambda v: jax.checkpoint(lambda w: jnp.sum(lax.sin(lax.sin(w))))(v))(x)

    graph, sources = trace_function(kept, X)
    context = Context(Options(), sources)
    after = Inline().run(graph, context)
    check(after)
    assert any("remat" in n or "checkpoint" in n for n in names(after))
    assert stays(context) == ["a checkpoint keeps its recomputed values apart"]

    def free(x: Any) -> Any:
        return jax.grad(lambda v: jax.checkpoint(lambda w: jnp.sum(lax.sin(lax.sin(w))), prevent_cse=False)(v))(x)

    _, after, context = inlined(free, X)
    assert not any("remat" in n or "checkpoint" in n for n in names(after)) and not stays(context)


def test_shardings_of_its_own() -> None:
    placed = jax.sharding.NamedSharding(jax.make_mesh((1,), ("i",)), jax.sharding.PartitionSpec())
    inner = jax.jit(lax.sin, out_shardings=placed)
    graph, after, context = inlined(lambda x: inner(x), X)
    assert after is graph
    assert stays(context) == ["jit 'sin' has shardings, layouts or compiler options of its own"]


def test_a_function_with_an_array_stays_in_a_loop_over_a_ref() -> None:
    """JAX keeps the array with the function; in the loop's own body it could not compile it."""
    table = np.arange(3, dtype=np.float32)
    inner = jax.jit(lambda v: v + table)

    def function(x: Any) -> Any:
        ref = jax.new_ref(x)

        def body(c: Any) -> Any:
            ref[...] = inner(ref[...])
            return c + 1

        return lax.while_loop(lambda c: c < 3, body, 0), inner(ref[...])

    _, after, context = inlined(function, X)
    assert stays(context) == ["jit stays, for JAX compiles no loop with both Refs and arrays in its body"]
    assert names(after).count("jit") == 1
    assert "jit" not in [n.op.name for n in after.nodes]


def test_only_one_kind() -> None:
    def function(x: Any) -> Any:
        return jax.checkpoint(lax.sin)(jax.jit(lax.cos)(x))

    _, after, _ = inlined(function, X, only="jit")
    assert "jit" not in names(after) and "cos" in names(after) and len(names(after)) == 3


def test_nothing_to_inline_is_the_same_graph() -> None:
    graph, after, context = inlined(lambda x: lax.scan(lambda c, v: (c + v, c), 0.0, x), X)
    assert after is graph and not stays(context)


# ---- sources -----------------------------------------------------------------------------------------------------------


def test_lines_and_scopes_are_inherited() -> None:
    @jax.jit
    def inner(x: Any) -> Any:
        with jax.named_scope("deep"):
            return lax.sin(x)

    def function(x: Any) -> Any:
        with jax.named_scope("shallow"):
            return inner(x)

    graph, sources = trace_function(function, X)
    (call,) = [n for n in graph.nodes if n.op.name == "jit"]
    (at_call,) = sources.of(graph, call)
    after = Inline().run(graph, Context(Options(), sources))
    (sine,) = [n for n in after.nodes if n.op.name == "sin"]
    own, caller, *_ = sources.of(after, sine)
    assert caller == at_call
    assert str(own.name_stack) == "shallow/jit(inner)/deep"
    lowered = jax.jit(jax.extend.core.jaxpr_as_fun(jaxpr_of(after, sources))).lower(X).as_text(debug_info=True)
    assert "shallow/jit(inner)/deep/sin" in lowered
    assert f"{__file__}" in lowered


def test_argument_names_are_inherited() -> None:
    def function(first: Any, second: Any) -> Any:
        return jax.jit(lax.add)(first, second)

    graph, sources = trace_function(function, X, X)
    after = Inline().run(graph, Context(Options(), sources))
    assert jaxpr_of(after, sources).jaxpr.debug_info.arg_names == ("first", "second")


def test_sources_is_kept_for_unchanged_graphs() -> None:
    graph, sources = trace_function(lambda x: lax.sin(x), X)
    before = sources.of(graph, graph.outputs[0])
    assert before and Inline().run(graph, Context(Options(), sources)) is graph
    assert sources.of(graph, graph.outputs[0]) == before
    assert Inline().run(graph, Context(Options(), Sources())) is graph
