"""What patterns match, and what they build."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

from graphopt.errors import GraphError
from graphopt.ir.node import Node, constant
from graphopt.ops.make import make
from graphopt.rewrite.pattern import Pattern, Value, build, matches, operation, splat, variables
from graphopt.trace.jaxpr import trace_function

x, y, z = variables("x y z")
(c,) = variables("c", constant=True)
exp, maximum = operation(lax.exp_p), operation(lax.max_p)
X = np.ones((2, 3), np.float32)


def traced(function: Any, *args: Any) -> tuple[Node, tuple[Node, ...]]:
    graph, _ = trace_function(function, *(args or (X, X, X)))
    return graph.outputs[0], graph.params


def found(pattern: Pattern, node: Node) -> list[dict[str, Node]]:
    return [dict(env) for env in matches(pattern, node, {})]


def test_variables_stand_for_operands() -> None:
    node, (a, b, _) = traced(lambda a, b, c: a - b)
    assert found(x - y, node) == [{"x": a, "y": b}]
    assert found(x + y, node) == []


def test_one_variable_is_one_node() -> None:
    assert found(x - x, traced(lambda a, b, c: a - b)[0]) == []
    node, (a, _, _) = traced(lambda a, b, c: jnp.exp(a) - jnp.exp(a))
    assert found(exp(x) - exp(x), node) == [{"x": a}]


def test_operands_of_a_commutative_operation_change_places() -> None:
    node, (a, b, d) = traced(lambda a, b, c: b * a + a * c)
    assert {"x": a, "y": b, "z": d} in found(x * y + x * z, node)
    assert found(exp(x) - y, traced(lambda a, b, c: a - jnp.exp(b))[0]) == []


def test_numbers_are_equal_to_the_bit() -> None:
    plus, minus = traced(lambda a, b, c: a + 0.0)[0], traced(lambda a, b, c: a + -0.0)[0]
    assert found(x + 0.0, plus) and not found(x + 0.0, minus)
    assert found(x + -0.0, minus) and not found(x + -0.0, plus)
    nan = traced(lambda a, b, c: a + jnp.nan)[0]
    assert found(x + float("nan"), nan) and not found(x + 1.0, nan)


def test_a_truth_value_is_no_one() -> None:
    node, _ = traced(lambda a: a | True, np.ones(3, bool))
    assert found(x | True, node)
    node, _ = traced(lambda a: a | 1, np.ones(3, np.int32))
    assert found(x | 1, node) and not found(x | True, node)


@pytest.mark.parametrize("value", [np.zeros((2, 3)), np.full((2, 3), 2.5), np.float32(2.5)])
def test_a_constant_whose_elements_are_equal_is_a_number(value: Any) -> None:
    node, _ = traced(lambda a: a * jnp.asarray(value, np.float32), X)
    assert len(found(x * c, node)) == 1
    assert found(x * float(np.ravel(value)[0]), node)


def test_other_constants_are_none() -> None:
    assert splat(constant(np.arange(3))) is None
    assert splat(constant(np.zeros(0))) is None
    assert splat(constant(np.array([0.0, -0.0]))) is None
    node, _ = traced(lambda a: a * jnp.arange(3.0), X)
    assert found(x * c, node) == []


def test_other_parameters_do_not_match() -> None:
    square, cube = operation(lax.integer_pow_p, y=2), operation(lax.integer_pow_p, y=3)
    node, _ = traced(lambda a: lax.integer_pow(a, 3), X)
    assert found(cube(x), node) and not found(square(x), node)


def test_what_carries_a_context_does_not_match() -> None:
    def marked(a: Any) -> Any:
        with set_xla_metadata(mark="yes"):
            return a - a

    assert found(x - x, traced(marked, X)[0]) == []


def test_building() -> None:
    node, (a, b, _) = traced(lambda a, b, c: a * b)
    built = build(exp(x + y) * 2.0, {"x": a, "y": b}, node)
    expected, _ = traced(lambda a, b, c: jnp.exp(a + b) * 2.0)
    assert built is expected


def test_a_number_gets_the_dtype_beside_it() -> None:
    node, (a,) = traced(lambda a: a - a, np.ones(3, np.int8))
    built = build(x + 3, {"x": a}, node)
    assert built.inputs[1].aval.dtype == np.int8
    with pytest.raises(GraphError, match=r"0\.5 is not a value of int8"):
        build(x + 0.5, {"x": a}, node)
    with pytest.raises(GraphError, match="300 is not a value of int8"):
        build(x + 300, {"x": a}, node)


def test_a_number_alone_fills_the_place() -> None:
    node, _ = traced(lambda a, b, c: a - a)
    assert build(Value(0), {}, node).aval is node.aval
    assert build(x - 0.0, {"x": node}, node).inputs[1].aval.shape == ()


def test_ill_typed_operands() -> None:
    _node, (a, b) = traced(lambda a, b: a, X, np.ones(3, np.int32))
    with pytest.raises(GraphError, match="add of"):
        make(operation(lax.add_p)(x, y).op, a, b)


def test_patterns_print_as_they_are_written() -> None:
    assert str(x * y + exp(x) / 2) == "((x * y) + (exp(x) / 2))"
    assert str(maximum(-x, ~(y & z))) == "max(neg(x), not((y & z)))"
