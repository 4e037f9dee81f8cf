"""Equal nodes, graphs and types are one object; what differs in any way is not."""

import copy
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import primitives

from graphopt.errors import GraphError
from graphopt.ir import node as node_module
from graphopt.ir.attrs import EMPTY, Attrs, SubGraph
from graphopt.ir.aval import array_aval, aval_of, dtype_name
from graphopt.ir.graph import Graph, live_graphs, make_graph
from graphopt.ir.node import COMPARED_ELEMENTS, Constant, Node, constant, make_node, param, project, results
from graphopt.ir.op import CONSTANT, Op, op_named, op_of, register

F32 = array_aval((3,), np.dtype(np.float32))
ADD, SIN = op_of(primitives.add_p), op_of(primitives.sin_p)
QUIET_NAN, OTHER_NAN, NEGATIVE_NAN = (np.uint32(b).view(np.float32) for b in (0x7FC00000, 0x7FC00001, 0xFFC00000))


def sine(x: Node) -> Node:
    return make_node(SIN, (x,), Attrs({"accuracy": None}), x.avals)


def test_equal_nodes_are_one_object() -> None:
    x, y = param(0, F32), param(1, F32)
    assert param(0, F32) is x
    assert x is not y
    one, two = make_node(ADD, (x, y), EMPTY, (F32,)), make_node(ADD, (x, y), EMPTY, (F32,))
    assert one is two
    assert make_graph((x, y), (one,)) is make_graph((x, y), (two,))


@pytest.mark.parametrize(
    "other",
    [
        lambda x, y: make_node(op_of(primitives.mul_p), (x, y), EMPTY, (F32,)),
        lambda x, y: make_node(ADD, (y, x), EMPTY, (F32,)),
        lambda x, y: make_node(ADD, (x, y), Attrs({"k": 1}), (F32,)),
        lambda x, y: make_node(ADD, (x, y), EMPTY, (array_aval((3,), np.dtype(np.float32), weak_type=True),)),
        lambda x, y: make_node(ADD, (x, y), EMPTY, (F32, F32)),
        lambda x, y: make_node(ADD, (x, y), EMPTY, (F32,), context="a context"),
        lambda x, y: make_node(ADD, (x, y), EMPTY, (F32,), effects=frozenset({"an effect"})),
    ],
    ids=["operation", "order of operands", "attributes", "weak type", "results", "context", "effects"],
)
def test_each_part_tells_nodes_apart(other: Callable[[Node, Node], Node]) -> None:
    x, y = param(0, F32), param(1, F32)
    assert other(x, y) is not make_node(ADD, (x, y), EMPTY, (F32,))
    assert other(x, y) is other(x, y)


def test_the_operation_is_the_object_and_not_its_name() -> None:
    mine, also_mine = Op("mine"), Op("mine")
    x = param(0, F32)
    assert make_node(mine, (x,), EMPTY, (F32,)) is not make_node(also_mine, (x,), EMPTY, (F32,))


CONSTANTS: dict[str, Any] = {
    "0.0": np.float32(0.0),
    "-0.0": np.float32(-0.0),
    "1.0": np.float32(1.0),
    "1": np.int32(1),
    "1 of 64 bits": np.int64(1),
    "True": np.bool_(True),
    "unsigned 1": np.uint32(1),
    "half 1.0": np.float16(1),
    "bfloat16 1.0": jnp.bfloat16(1),
    "the bits of bfloat16 1.0": np.int16(0x3F80),
    "complex 1.0": np.complex64(1),
    "NaN": QUIET_NAN,
    "another NaN": OTHER_NAN,
    "-NaN": NEGATIVE_NAN,
    "one element": np.ones(1, np.float32),
    "one element in two dimensions": np.ones((1, 1), np.float32),
    "empty": np.ones(0, np.float32),
    "empty in two dimensions": np.ones((0, 3), np.float32),
    "empty integers": np.ones(0, np.int32),
    "0.0 of JAX": jnp.float32(0.0),
}


def test_constants_that_differ_stay_apart() -> None:
    with jax.enable_x64(True):
        nodes = {name: constant(value) for name, value in CONSTANTS.items()}
    assert len(set(nodes.values())) == len(nodes)
    assert len(set(map(Constant, CONSTANTS.values()))) == len(CONSTANTS)  # whatever type they are given


@pytest.mark.parametrize("value", CONSTANTS.values(), ids=CONSTANTS.keys())
def test_constants_with_the_same_bits_are_shared(value: Any) -> None:
    aval = aval_of(jax.typeof(np.asarray(value)))
    again = jnp.array(value) if isinstance(value, jax.Array) else np.array(value)
    assert again is not value
    assert constant(again, aval) is constant(value, aval)
    assert np.asarray(constant(again, aval).value).tobytes() == np.asarray(value).tobytes()


def test_a_weak_constant_is_another_one() -> None:
    strong, weak = (array_aval((), np.dtype(np.float32), weak_type=w) for w in (False, True))
    assert constant(np.float32(2), strong) is not constant(np.float32(2), weak)


def test_the_layout_in_memory_does_not_matter() -> None:
    square = np.arange(9.0, dtype=np.float32).reshape(3, 3)
    assert constant(square.T) is constant(np.ascontiguousarray(square.T))
    assert constant(square.T) is not constant(square)


def test_a_jax_array_is_not_a_numpy_array() -> None:
    """The one may be on another device, or about to be deleted."""
    aval = array_aval((2,), np.dtype(np.float32))
    assert constant(jnp.ones(2), aval) is constant(jnp.ones(2), aval)
    assert constant(jnp.ones(2), aval) is not constant(np.ones(2, np.float32), aval)


def test_the_arrays_that_jax_wraps_while_it_traces_are_numpy_arrays() -> None:
    array = np.array([1, 2], np.int32)
    closed = jax.make_jaxpr(lambda x: x + array)(array)
    (wrapped,) = closed.consts
    assert constant(wrapped) is constant(array)
    assert type(constant(wrapped).value) is np.ndarray


def test_large_constants_are_equal_to_themselves_alone() -> None:
    few, many = np.zeros(COMPARED_ELEMENTS, np.int8), np.zeros(COMPARED_ELEMENTS + 1, np.int8)
    assert constant(few) is constant(few.copy())
    assert constant(many) is constant(many)
    assert constant(many) is not constant(many.copy())
    assert constant(many).value is many


def test_a_small_constant_does_not_change_with_the_array_it_was_made_of() -> None:
    array = np.array([1, 2, 3], np.int32)
    before = constant(array)
    array[:] = 9
    assert before.value.tolist() == [1, 2, 3]
    assert constant(array) is not before
    assert constant(np.array([1, 2, 3], np.int32)) is before
    with pytest.raises(ValueError, match="read-only"):
        before.value[0] = 5


def test_arrays_of_keys_are_equal_to_themselves_alone() -> None:
    key = jax.random.key(0)
    assert constant(key) is constant(key)
    assert constant(key) is not constant(jax.random.key(0))


def not_a_number(bits: int) -> float:
    return float(np.uint64(bits).view(np.float64))


DISTINCT_VALUES: list[Any] = [
    1,
    True,
    1.0,
    1 + 0j,
    complex(1, -0.0),
    np.int32(1),
    np.float64(1),
    np.array(1.0),
    np.array([1.0]),
    "1",
    None,
    0,
    False,
    0.0,
    -0.0,
    not_a_number(0x7FF8000000000000),
    not_a_number(0x7FF8000000000001),
    (1,),
    [1],
    (True,),
    ((1,),),
    {"a": 1},
    {"a": True},
    {"a": 1, "b": 2},
    {"b": 2, "a": 1},
    frozenset({1}),
    frozenset({True}),
    frozenset({0.0}),
    frozenset({-0.0}),
    lax.Precision.HIGH,
    np.dtype(np.float32),
    np.float32,
    jax.ShapeDtypeStruct((1,), np.float32),
    SubGraph(make_graph((param(0, F32),), (param(0, F32),))),
    SubGraph(make_graph((param(0, F32),), (param(0, F32),)), closed=False),
]


def test_attributes_are_equal_only_if_they_mean_the_same() -> None:
    every = [Attrs({"value": value}) for value in DISTINCT_VALUES]
    for i, one in enumerate(every):
        for j, other in enumerate(every):
            assert (one == other) == (i == j), (DISTINCT_VALUES[i], DISTINCT_VALUES[j])
        again = Attrs({"value": copy.deepcopy(DISTINCT_VALUES[i])})
        assert again == one
        assert hash(again) == hash(one)
    assert Attrs({"a": 1, "b": 2}) == Attrs({"b": 2, "a": 1})
    assert Attrs({"a": 1}) != Attrs({"b": 1})


def test_an_attribute_without_a_hash_is_equal_to_itself_alone() -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

    one, two = Unhashable(), Unhashable()
    assert Attrs({"value": one}) == Attrs({"value": one})
    assert Attrs({"value": one}) != Attrs({"value": two})
    assert Attrs({"value": one})["value"] is one


def test_attributes_are_a_mapping_in_the_order_of_their_names() -> None:
    attrs = Attrs({"b": 2, "a": (1, 2)})
    assert list(attrs) == ["a", "b"]
    assert dict(attrs) == {"a": (1, 2), "b": 2}
    assert len(attrs) == 2
    assert "a" in attrs
    assert "c" not in attrs
    assert attrs.replace(a=3) == Attrs({"a": 3, "b": 2})
    with pytest.raises(KeyError):
        attrs["c"]


def test_types_are_interned() -> None:
    one = aval_of(jax.typeof(jnp.ones((2, 3))))
    assert one is array_aval((2, 3), np.dtype(np.float32))
    assert one is not array_aval((2, 3), np.dtype(np.float32), weak_type=True)
    assert one is not array_aval((3, 2), np.dtype(np.float32))
    assert one is not array_aval((2, 3), jnp.bfloat16)
    assert (one.size, one.nbytes, one.is_plain, one.is_array, one.is_state) == (6, 24, True, True, False)
    key = aval_of(jax.typeof(jax.random.key(0)))
    assert (key.size, key.is_plain, dtype_name(key.dtype)) == (1, True, "key<fry>")


def test_copies_are_the_object_itself() -> None:
    x = param(0, F32)
    graph = make_graph((x,), (sine(x),))
    for thing in (x, F32, graph, SIN):
        assert copy.copy(thing) is thing
        assert copy.deepcopy(thing) is thing


def test_projections() -> None:
    x = param(0, F32)
    several = make_node(op_of(primitives.top_k_p), (x,), Attrs({"k": 1}), (F32, F32))
    assert results(several) == (project(several, 0), project(several, 1))
    assert project(sine(x), 0) is sine(x)
    with pytest.raises(GraphError, match="has 2 results; take one of them"):
        several.aval  # noqa: B018
    with pytest.raises(GraphError, match="there is no result 2"):
        project(several, 2)
    with pytest.raises(GraphError, match="there is no result 1"):
        project(sine(x), 1)


def test_a_graph_numbers_its_parameters() -> None:
    with pytest.raises(GraphError, match=r"parameter 0 of a graph is .*, not param\[index=0\]"):
        make_graph((param(1, F32),), ())
    with pytest.raises(GraphError, match="parameter 1 of a graph"):
        make_graph((param(0, F32), sine(param(0, F32))), ())


def test_a_primitive_has_one_operation() -> None:
    assert op_of(primitives.sin_p) is SIN
    assert op_named("sin") is SIN
    assert op_named("no such operation") is None
    assert op_named("constant") is CONSTANT
    with pytest.raises(ValueError, match="has an operation already"):
        register(Op("sine", primitives.sin_p))


def test_nodes_graphs_and_types_go_with_the_last_who_holds_them() -> None:
    def build() -> Graph:
        aval = array_aval((977,), np.dtype(np.float32))
        x = param(0, aval)
        body = make_graph((x,), (sine(x),))
        held = make_node(op_of(primitives.jit_p), (x,), Attrs({"jaxpr": SubGraph(body)}), (aval,))
        return make_graph((x,), (make_node(ADD, (held, constant(np.full(977, 3.25, np.float32))), EMPTY, (aval,)),))

    def alive() -> tuple[int, int]:
        gc.collect()
        return len(node_module._table), len(live_graphs())

    before = alive()
    graph = build()
    assert alive() == (before[0] + 5, before[1] + 2)
    assert build() is graph
    del graph
    assert alive() == before


def test_threads_get_the_same_objects() -> None:
    """Eight threads build the same graphs, while others of them die."""
    threads, rounds, depth = 8, 30, 40
    barrier = threading.Barrier(threads)
    built: list[list[Graph]] = [[] for _ in range(threads)]
    errors: list[BaseException] = []

    def build(seed: int) -> Graph:
        x = y = param(0, array_aval((seed % 7 + 1,), np.dtype(np.float32)))
        for i in range(depth):
            y = make_node(
                ADD, (sine(y), constant(np.full(x.aval.shape, seed * i, np.float32))), Attrs({"i": i}), y.avals
            )
        return make_graph((x,), (y,))

    def work(number: int) -> None:
        try:
            for seed in range(rounds):
                barrier.wait()
                built[number].append(build(seed))
                build(seed + 1000)  # dies at once, unless another thread holds it
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            errors.append(error)
            barrier.abort()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    for graphs in zip(*built, strict=True):
        assert len(set(map(id, graphs))) == 1
