"""The cases of single operations: all described ones have one, and it does what it says."""

import math

import jax
import numpy as np
import pytest
from jax.extend.core import Jaxpr, jaxprs_in_params

import graphopt
from graphopt.bench import regions
from graphopt.bench.operation import Operand, Operation
from graphopt.bench.operations import OPERATIONS, SIZES, UNTIMED, programs
from graphopt.ops import described_ops

each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.primitive)
TINY = 300


def test_every_described_operation_has_a_case_or_a_reason() -> None:
    timed = {operation.primitive for operation in OPERATIONS}
    described = {op.name for op in described_ops()}
    assert described - timed - set(UNTIMED) == set(), "give it a case in graphopt/bench, or a reason in UNTIMED"
    assert timed & set(UNTIMED) == set()
    assert set(UNTIMED) <= described
    assert all(UNTIMED.values())


def test_described_operations_are_told_from_the_others() -> None:
    names = {op.name for op in described_ops()}
    assert {"exp", "dot_general", "gather", "reduce_sum"} <= names
    assert names & {"scan", "jit", "optimization_barrier", "param", "constant"} == set()


def primitives(jaxpr: Jaxpr) -> set[str]:
    """The names of the primitives in a jaxpr and in those that it calls."""
    names = {eqn.primitive.name for eqn in jaxpr.eqns}
    return names.union(*(primitives(inner) for eqn in jaxpr.eqns for inner in jaxprs_in_params(eqn.params)))


@each_operation
def test_a_case_has_its_operation_and_is_the_same_under_graphopt_and_numpy(operation: Operation) -> None:
    program = operation.program(TINY, "tiny")
    args = program.arguments()
    assert operation.primitive in primitives(jax.make_jaxpr(program.make())(*args).jaxpr)
    expected = jax.jit(program.make())(*args)
    found = graphopt.jit(program.make())(*args)
    assert jax.typeof(found) == jax.typeof(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    if program.numpy is not None:
        operands = [np.asarray(arg) for arg in args]
        result = program.numpy(*operands)
        assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
        assert not any(np.shares_memory(result, operand) for operand in operands), "a view takes no time"


@each_operation
@pytest.mark.parametrize("label", SIZES)
def test_first_operand_or_result_has_about_as_many_elements_as_the_case_says(operation: Operation, label: str) -> None:
    """The shapes alone: nothing is computed."""
    program = operation.program(SIZES[label], label)
    operands = [jax.ShapeDtypeStruct(operand.shape, operand.dtype) for operand in operation.operands(SIZES[label])]
    arrays = [*operands[:1], *jax.tree.leaves(jax.eval_shape(program.make(), *operands))]
    assert 0.75 * SIZES[label] <= max(array.size for array in arrays) <= 1.1 * SIZES[label]


def test_names_tell_cases_apart_and_say_what_the_operands_are() -> None:
    names = [program.name for program in programs()[len(regions.programs()) :]]
    assert len(set(names)) == len(names) == len(OPERATIONS) * 3
    assert "exp, 1k: f32[1000]" in names
    assert "select_n, 100k: bool[100000] 2×f32[100000]" in names
    assert "dot_general, 10M: 2×f32[3162,3162]" in names
    assert "gather, 1k: f32[62,16] i32[62]" in names
    assert "iota, 1k" in names


@pytest.mark.parametrize(
    ("operand", "text"),
    [
        (Operand((3, 50), "float32", 2, 5), "f32[3,50]"),
        (Operand((400,), "int32", -3, 4), "i32[400]"),
        (Operand((), "int32", 5, 6), "i32[]"),
        (Operand((400,), "bool"), "bool[400]"),
        (Operand((400,), "complex64", 1, 2), "c64[400]"),
        (Operand((0, 5)), "f32[0,5]"),
    ],
    ids=str,
)
def test_operands_are_drawn_from_their_interval(operand: Operand, text: str) -> None:
    drawn = operand.draw(np.random.default_rng(0))
    assert (str(operand), drawn.shape, str(drawn.dtype)) == (text, operand.shape, operand.dtype)
    assert isinstance(drawn, jax.Array)
    assert (drawn == operand.draw(np.random.default_rng(0))).all()
    if operand.dtype == "bool":
        assert 0.3 < drawn.mean() < 0.7
    elif drawn.size:
        for values in (drawn.real, drawn.imag) if operand.dtype == "complex64" else (drawn,):
            assert operand.low <= values.min() <= values.max() < operand.high
            assert drawn.size == 1 or math.isclose(values.mean(), (operand.low + operand.high) / 2, abs_tol=0.6)
