"""Re-rolling: what becomes a loop and what stays, and why; the results of whole programs against jax.jit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

import graphopt
from graphopt.backends.agreement import disagreement
from graphopt.backends.reference import evaluate
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.ir.op import PROJECT, op_of
from graphopt.ops.control import COND, SCAN, Scan
from graphopt.passes.inline import Inline
from graphopt.passes.reroll import Reroll
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

DYNAMIC_SLICE = op_of(lax.dynamic_slice_p)
ANY = Reroll(any_cost=True, least_saved=8)


def rolled(function: Callable[..., Any], *args: Any, step: Reroll = ANY, **context: Any) -> tuple[Graph, list[str]]:
    """The graph after the pass, checked against the one before it, bit by bit, and the notes."""
    traced, sources = trace_function(function, *args)
    inlined = Inline(shared_nodes=10_000).run(traced, Context(Options(), sources))
    told = Context(Options(), sources, **context)
    after = step.run(inlined, told)
    check(after)
    difference = disagreement(inlined, after, jax.tree.leaves(args), "exact")
    assert difference is None, difference
    return after, told.notes


def lengths(graph: Graph) -> list[int]:
    return sorted(Scan.of(node).length for node in graph.nodes if node.op is SCAN)


def draw(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(sum(shape)), shape)


def layers(x: Any, w: Any, c: Any, count: int = 12) -> Any:
    for i in range(count):
        x = jnp.tanh(x @ w + i * c)
        x = x / (1 + jnp.abs(x).sum())
    return x


def test_layers_with_a_number_for_each() -> None:
    graph, _ = rolled(layers, draw(4, 4), draw(4, 4), draw(4, 4))
    assert lengths(graph) == [12]
    assert len(graph.nodes) == 5


@pytest.mark.parametrize("wrt", [0, 1, 2, (0, 1, 2)])
def test_gradient_of_layers(wrt: Any) -> None:
    graph, _ = rolled(jax.grad(lambda *args: layers(*args).sum(), wrt), draw(4, 4), draw(4, 4), draw(4, 4))
    assert len(lengths(graph)) == 2
    assert min(lengths(graph)) >= 10


def lstm(weights: Any, xs: Any) -> Any:
    w, u, b = weights
    h = c = jnp.zeros((2, 3))
    found = []
    for x in xs:
        i, f, g, o = jnp.split(x @ w + h @ u + b, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        found.append(h)
    return jnp.stack(found)


LSTM = ((draw(5, 12), draw(3, 12), draw(12)), draw(10, 2, 5))


def test_time_steps_of_one_array() -> None:
    graph, _ = rolled(lstm, *LSTM)
    assert lengths(graph) == [10]
    assert len(graph.nodes) <= 10, "the results are the loop's array, not pieces of it put together again"


def test_gradient_of_time_steps() -> None:
    graph, _ = rolled(jax.grad(lambda *args: (lstm(*args) ** 2).sum(), (0, 1)), *LSTM)
    assert len(lengths(graph)) == 2, "sums over the steps are in the loop that goes back"
    assert min(lengths(graph)) >= 8


def blocks(weights: Any, x: Any) -> Any:
    for p in weights:
        y = x - x.mean(-1, keepdims=True)
        y = jax.nn.gelu(y @ p["up"] + p["bias"]) @ p["down"]
        x = x + y
    return x


BLOCKS = (
    [{"up": draw(6, 40 + i)[:, :40], "bias": draw(40 + i)[:40], "down": draw(40, 6)} for i in range(6)],
    draw(3, 6),
)


def test_gradient_of_blocks_with_weights_of_their_own() -> None:
    graph, _ = rolled(jax.value_and_grad(lambda *args: (blocks(*args) ** 2).sum(), (0, 1)), *BLOCKS)
    assert len(lengths(graph)) == 2


def gated(weights: Any, x: Any) -> Any:
    for p in weights:
        y = (x - x.mean(-1, keepdims=True)) / 3 * p["scale"] + p["bias"]
        y = y @ p["up"]
        x = x + (y * jnp.tanh(y)) @ p["down"]
    return x


def test_what_the_loop_back_computes_again_is_not_kept() -> None:
    """Of each step: the centered x, y and its tanh; not what is multiplied with `up` and `down`, in the loop that goes
    back the one of this step and the other of the one before it."""
    weights = [
        {"scale": draw(6 + i)[:6], "bias": draw(7 + i)[:6], "up": draw(6, 40 + i)[:, :40], "down": draw(40 + i, 6)[:40]}
        for i in range(6)
    ]
    graph, _ = rolled(jax.grad(lambda *args: (gated(*args) ** 2).sum()), weights, draw(3, 6))
    forward = min((node for node in graph.nodes if node.op is SCAN), key=graph.nodes.index)
    kept = [aval.shape for aval in forward.avals if len(aval.shape) == 3]
    assert sorted(kept) == [(6, 3, 6), (6, 3, 40), (6, 3, 40)]


@pytest.mark.parametrize("platforms", [("cpu",), ("cuda",)])
def test_where_many_parts_of_arrays_are_read_one_by_one_they_have_the_same_code(platforms: tuple[str, ...]) -> None:
    weights = [draw(24 + i, 24)[:24] for i in range(24)]

    def loss(ws: Any, x: Any) -> Any:
        return (plain_layers(x, ws) ** 2).sum()

    graph, _ = rolled(jax.grad(loss), weights, draw(3, 24), platforms=platforms)
    parts = [node for node in graph.nodes if node.op is DYNAMIC_SLICE]
    begin = {node.inputs[1] for node in parts}
    assert all(node.op is PROJECT and node.inputs[0].op is COND for node in begin)
    assert (len(parts) >= 20) == (len(begin) >= 20) == (platforms == ("cpu",))


def test_steps_that_compute_more_than_their_weights_are_large_become_a_loop() -> None:
    weights = [{"up": draw(64, 128), "bias": draw(128), "down": draw(128, 64)}] * 48
    traced, sources = trace_function(jax.grad(lambda p, x: (blocks(p, x) ** 2).sum()), weights, draw(8, 128, 64))
    context = Context(Options(), sources, platforms=("cpu",))
    graph = Reroll().run(Inline().run(traced, context), context)
    assert len(lengths(graph)) == 2, context.notes


def test_many_large_arrays_are_chosen_in_groups() -> None:
    weights = [draw(33, 33) / 6 + i / 100 for i in range(40)]

    def plain(x: Any, ws: Any) -> Any:
        for w in ws:
            x = jnp.tanh(x @ w)
        return x

    graph, _ = rolled(plain, draw(3, 33), weights)
    (loop,) = (node for node in graph.nodes if node.op is SCAN)
    (outer,) = (node for node in Scan.of(loop).body.nodes if node.op is COND)
    assert len(outer.attrs["branches"]) == 6


def newton(x: Any) -> Any:
    for _ in range(8):
        x = x - (x**3 - 2 * x - 5) / (3 * x**2 - 2)
    return x


def jacobi(a: Any, b: Any) -> Any:
    x, d = jnp.zeros_like(b), jnp.diag(a)
    for _ in range(9):
        x = (b - a @ x + d * x) / d
    return x


def power(a: Any) -> Any:
    v = jnp.ones(a.shape[0])
    for _ in range(8):
        v = a @ v
        v = v / jnp.linalg.norm(v)
    return v @ a @ v


def heat(u: Any) -> Any:
    for _ in range(8):
        u = u + 0.1 * (jnp.roll(u, 1) - 2 * u + jnp.roll(u, -1))
    return u


def sample(x: Any, key: Any) -> Any:
    for _ in range(6):
        key, drawn = jax.random.split(key)
        x = x - 0.1 * x + 0.3 * jax.random.normal(drawn, x.shape)
    return x


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (newton, (jnp.float32(2),)),
        (jacobi, (draw(4, 4) + 6 * jnp.eye(4), draw(4))),
        (power, (draw(5, 5),)),
        (heat, (draw(9),)),
        (sample, (draw(3), jax.random.key(0))),
    ],
)
def test_solvers(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    graph, _ = rolled(function, *args)
    assert lengths(graph)
    assert min(lengths(graph)) >= 5


def test_in_graphs_inside() -> None:
    graph, _ = rolled(lambda x: lax.fori_loop(0, 3, lambda _, y: newton(y), x), jnp.float32(2))
    (loop,) = (node for node in graph.nodes if node.op is SCAN)
    assert lengths(Scan.of(loop).body) == [8]


def test_barriers_stay_in_their_steps() -> None:
    def function(x: Any) -> Any:
        for _ in range(8):
            x = lax.optimization_barrier(jnp.sin(x)) + x
        return x

    graph, _ = rolled(function, draw(3))
    (loop,) = (node for node in graph.nodes if node.op is SCAN)
    assert [n.op.name for n in Scan.of(loop).body.nodes].count("optimization_barrier") == 1


def test_checkpointed_layers() -> None:
    def function(w: Any, x: Any) -> Any:
        for _ in range(6):
            x = jax.checkpoint(lambda y: jnp.tanh(jnp.sin(y) @ w))(x)
        return x.sum()

    graph, _ = rolled(jax.grad(function), draw(3, 3), draw(3))
    assert lengths(graph)


@pytest.mark.parametrize("back", [1, 2, 3])
def test_last_values_that_are_carried_are_not_stacked(back: int) -> None:
    def function(*values: Any) -> Any:
        for _ in range(12):
            values = (*values[1:], jnp.tanh(values[0] + values[-1]))
        return values

    graph, _ = rolled(function, *[draw(3 + i)[:3] for i in range(back + 1)])
    (loop,) = (node for node in graph.nodes if node.op is SCAN)
    assert [aval.shape for aval in loop.avals] == [(3,)] * (back + 1)


def test_effects_stay_outside_and_in_order() -> None:
    found: list[float] = []

    def function(x: Any) -> Any:
        for _ in range(6):
            x = jnp.sin(jnp.exp(x)) * 2
            io_callback(lambda y: found.append(float(y)), None, x, ordered=True)
        return x

    x = jnp.float32(0.3)
    traced, sources = trace_function(function, x)
    graph = ANY.run(traced, Context(Options(), sources))
    check(graph)
    assert lengths(graph) == [6]
    evaluate(traced, x)
    first, found = found, []
    evaluate(graph, x)
    assert found == first
    assert len(found) == 6


@pytest.mark.parametrize("kind", ["portable", "differentiable"])
def test_programs_that_may_still_be_transformed_or_partitioned_stay(kind: str) -> None:
    traced, sources = trace_function(layers, draw(4, 4), draw(4, 4), draw(4, 4))
    assert ANY.run(traced, Context(Options(), sources, **{kind: True})) is traced


def test_short_loops_stay() -> None:
    traced, sources = trace_function(newton, jnp.float32(2))
    assert Reroll().run(traced, Context(Options(), sources)) is traced


def plain_layers(x: Any, weights: Any) -> Any:
    for w in weights:
        x = jnp.tanh(x @ w)
    return x


def test_plain_layers_with_weights_of_their_own_stay_and_the_report_says_why() -> None:
    weights = [draw(64, 64)] * 600
    graph, notes = rolled(plain_layers, draw(2, 64), weights, step=Reroll(), platforms=("cpu",))
    assert not lengths(graph)
    assert any("stay" in note and "copies 16384 bytes" in note for note in notes), notes


def in_turns(x: Any, arrays: Any, count: int, *biases: Any) -> Any:
    for i in range(count):
        x = jnp.tanh(arrays[i % len(arrays)] @ x)
        if biases:
            x = x + biases[0][i]
    return x


@pytest.mark.parametrize(("arrays", "count"), [(2, 12), (2, 13), (3, 12), (3, 14), (4, 16)])
@pytest.mark.parametrize("biased", [False, True])
def test_steps_that_take_turns_with_large_arrays(arrays: int, count: int, biased: bool) -> None:
    """A turn is a step: no array is chosen, nor are they stacked; what is left of a turn stays."""
    biases = [list(draw(count, 80))] * biased
    args = draw(80), list(draw(arrays, 80, 80) / 8)
    graph, _ = rolled(lambda x, ws, *bs: in_turns(x, ws, count, *bs), *args, *biases)
    (loop,) = (node for node in graph.nodes if node.op is SCAN)
    assert Scan.of(loop).length == count // arrays
    assert Scan.of(loop).consts == arrays
    assert not any(node.op is COND for node in Scan.of(loop).body.nodes)


@pytest.mark.parametrize("arrays", [2, 3])
def test_gradient_of_steps_that_take_turns(arrays: int) -> None:
    args = draw(40), list(draw(arrays, 40, 40) / 8)
    graph, _ = rolled(jax.grad(lambda x, ws: (in_turns(x, ws, 8 * arrays) ** 2).sum(), (0, 1)), *args)
    loops = [node for node in graph.nodes if node.op is SCAN]
    assert len(loops) == 2
    assert min(lengths(graph)) >= 7
    assert not any(node.op is COND for loop in loops for node in Scan.of(loop).body.nodes)


def sinkhorn(k: Any, u: Any) -> Any:
    for _ in range(100):
        v = 1 / (k.T @ u)
        u = 1 / (k @ v)
    return u[:, None] * k * v


def test_steps_that_take_turns_with_an_array_and_its_transpose_are_worth_a_loop() -> None:
    k = jnp.exp(draw(80, 80) / 10)
    graph, notes = rolled(sinkhorn, k, jnp.ones(80), step=Reroll(), platforms=("cpu",))
    assert lengths(graph) == [100]
    assert notes == ["100 steps of 4 operations: a loop"]


def test_of_turns_that_are_not_worth_it_the_report_says_what_they_would_copy() -> None:
    def function(x: Any, ws: Any, bs: Any) -> Any:
        return in_turns(x, ws, 200, bs)

    args = draw(80), list(draw(2, 80, 80)), list(draw(200, 80))
    graph, notes = rolled(function, *args, step=Reroll(), platforms=("cpu",))
    assert not lengths(graph)
    assert len(notes) == 1
    assert "100 steps of 6 operations stay" in notes[0], notes
    assert "copies 640 bytes" in notes[0], notes


def alternating(x: Any) -> Any:
    for i in range(100):
        x = jnp.sin(x) if i % 10 else jnp.cos(x) * 2
    return x


@pytest.mark.parametrize(
    ("function", "args", "what"),
    [
        (plain_layers, (draw(2, 8), [draw(8, 8)] * 8), "8 steps of 2 operations"),
        (plain_layers, (draw(2, 8), list(draw(30, 8, 8))), "30 steps of 2 operations"),
        (plain_layers, (draw(2, 8), list(draw(60, 8, 8))), "60 steps of 2 operations"),
        (alternating, (draw(8),), "10 steps of 11 operations"),
    ],
)
def test_of_what_would_save_little_the_report_says_so_in_a_line(
    function: Callable[..., Any], args: tuple[Any, ...], what: str
) -> None:
    graph, notes = rolled(function, *args, step=Reroll(), platforms=("cpu",), timed=True)
    assert not lengths(graph)
    assert len(notes) == 1
    assert notes[0].startswith(f"{what} stay: a loop would save XLA about 0.0"), notes


@pytest.mark.parametrize("count", [3, 7])
def test_of_short_repetitions_there_is_nothing_to_say(count: int) -> None:
    _, notes = rolled(plain_layers, draw(2, 8), [draw(8, 8)] * count, step=Reroll(), timed=True)
    assert not notes


def test_elementwise_steps_on_large_arrays_stay() -> None:
    def function(x: Any) -> Any:
        for i in range(200):
            x = x * (1 + 1 / (i + 1)) - 0.5
        return x

    traced, sources = trace_function(function, jax.ShapeDtypeStruct((1 << 20,), np.float32))
    context = Context(Options(), sources, platforms=("cpu",))
    assert Reroll().run(traced, context) is traced
    assert any("stay" in note for note in context.notes)


def test_elementwise_steps_that_compute_more_than_they_read_become_a_loop() -> None:
    def function(x: Any) -> Any:
        for i in range(200):
            x = x * (1 + 1 / (i + 1)) - 0.5 * x * x
        return x

    traced, sources = trace_function(function, jax.ShapeDtypeStruct((1 << 20,), np.float32))
    assert lengths(Reroll().run(traced, Context(Options(), sources, platforms=("cpu",)))) == [200]


@pytest.mark.parametrize(
    ("shifted", "backend", "loops"), [(True, "auto", []), (False, "xla", []), (False, "auto", [90])]
)
def test_steps_that_do_much_beside_what_they_hand_on(shifted: bool, backend: str, loops: list[int]) -> None:
    """XLA does several of them at a time, as long as they are not in a loop; a kernel of one loop holds their sum."""

    def function(x: Any) -> Any:
        total = jnp.zeros((500, 900), np.float32)
        for i in range(90):
            part = x[i : i + 500, i : i + 900] if shifted else x[:500, :900]
            total = total + jnp.cos(part * (1 + i)) * jnp.sin(part + i) * (0.5 * i)
        return total

    traced, sources = trace_function(function, jax.ShapeDtypeStruct((600, 1000), np.float32))
    context = Context(Options(backend=backend), sources, platforms=("cpu",))
    assert lengths(Reroll().run(traced, context)) == loops
    assert any("stay" in note for note in context.notes) == (not loops)


def test_accelerators_stack_what_a_cpu_chooses_from() -> None:
    weights = [draw(40, 40)] * 6
    graph, _ = rolled(plain_layers, draw(3, 40), weights, platforms=("cuda",))
    (loop,) = (node for node in graph.nodes if node.op is SCAN)
    assert not any(node.op is COND for node in Scan.of(loop).body.nodes)
    assert Scan.of(loop).xs == 1


def test_source_lines_of_the_body() -> None:
    traced, sources = trace_function(newton, jnp.float32(2))
    graph = ANY.run(traced, Context(Options(), sources))
    (loop,) = (node for node in graph.nodes if node.op is SCAN)
    body = Scan.of(loop).body
    assert sources.of(graph, loop)
    assert all(sources.of(body, node) for node in body.nodes if node.op.primitive is not None)


@pytest.mark.parametrize("function", [layers, jax.grad(lambda *args: layers(*args).sum(), (0, 1, 2))])
def test_compiled_it_agrees_with_jax(function: Callable[..., Any]) -> None:
    args = draw(8, 8), draw(8, 8), draw(8, 8)
    found = graphopt.jit(function, passes=("inline", ANY, "fold", "simplify", "contract", "hoist", "dead"))(*args)
    expected = jax.jit(function)(*args)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [1_000, pytest.param(12_500, marks=pytest.mark.exhaustive)])
def test_many_nodes(steps: int) -> None:
    def function(x: Any) -> Any:
        for i in range(steps):
            x = jnp.tanh(x * 0.5 + i) - jnp.sin(x) * (1 + x)
        return x

    traced, sources = trace_function(function, jnp.float32(2))
    assert len(traced.nodes) > 8 * steps
    graph = Reroll().run(traced, Context(Options(), sources, platforms=("cpu",)))
    assert lengths(graph) == [steps]
    assert len(graph.nodes) == 3
