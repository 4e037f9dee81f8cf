"""Access maps: each element read through the map is the element that JAX computes; what is not read is not there."""

import itertools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.analysis.access import MOVES, Indices, Read, always, elementwise
from graphopt.ir.index import Index, number, variable
from graphopt.ir.node import Node

Case = tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]


def padding(*config: tuple[int, int, int]) -> Callable[..., Any]:
    return lambda x, value: lax.pad(x, value, config)


CASES: dict[str, Case] = {
    "broadcast, a scalar": (lambda x: lax.broadcast_in_dim(x, (3, 1, 2), ()), ((),)),
    "broadcast, new axes": (lambda x: lax.broadcast_in_dim(x, (2, 3, 5), (1, 2)), ((3, 5),)),
    "broadcast, axes of size one": (lambda x: lax.broadcast_in_dim(x, (7, 2, 3), (0, 2)), ((7, 1),)),
    "broadcast, to itself": (lambda x: lax.broadcast_in_dim(x, (1, 1, 1), (0, 2)), ((1, 1),)),
    "reshape, to a scalar": (lambda x: lax.reshape(x, ()), ((1, 1),)),
    "reshape, from a scalar": (lambda x: lax.reshape(x, (1, 1)), ((),)),
    "reshape, flat": (lambda x: lax.reshape(x, (105,)), ((3, 5, 7),)),
    "reshape, axes in one": (lambda x: lax.reshape(x, (3, 35)), ((3, 5, 7),)),
    "reshape, axes apart": (lambda x: lax.reshape(x, (3, 1, 4, 5)), ((12, 5),)),
    "reshape, across": (lambda x: lax.reshape(x, (10, 9)), ((6, 15),)),
    "reshape, across three": (lambda x: lax.reshape(x, (5, 2, 7)), ((7, 2, 5),)),
    "reshape, a prime": (lambda x: lax.reshape(x, (1, 13, 1)), ((13,),)),
    "squeeze, some": (lambda x: lax.squeeze(x, (0, 2)), ((1, 3, 1, 1),)),
    "squeeze, all": (lambda x: lax.squeeze(x, (0, 1)), ((1, 1),)),
    "transpose": (lambda x: lax.transpose(x, (2, 0, 1)), ((2, 3, 5),)),
    "transpose, sizes of one": (lambda x: lax.transpose(x, (3, 1, 0, 2)), ((1, 3, 1, 2),)),
    "slice": (lambda x: lax.slice(x, (2, 0), (5, 3)), ((7, 3),)),
    "slice, strides": (lambda x: lax.slice(x, (1, 0, 2), (11, 5, 3), (3, 4, 1)), ((11, 5, 3),)),
    "slice, one element": (lambda x: lax.slice(x, (6,), (7,), (5,)), ((7,),)),
    "rev, all": (lambda x: lax.rev(x, (0, 1)), ((3, 5),)),
    "rev, one": (lambda x: lax.rev(x, (1,)), ((3, 5, 2),)),
    "rev, of size one": (lambda x: lax.rev(x, (0, 1)), ((1, 7),)),
    "copy": (lambda x: lax.copy_p.bind(x), ((3, 2),)),
    "copy, a scalar": (lambda x: lax.copy_p.bind(x), ((),)),
    "concatenate": (lambda *xs: lax.concatenate(xs, 0), ((3,), (1,), (5,))),
    "concatenate, in the middle": (lambda *xs: lax.concatenate(xs, 1), ((2, 3, 5), (2, 1, 5), (2, 4, 5))),
    "concatenate, empty ones": (lambda *xs: lax.concatenate(xs, 1), ((3, 0), (3, 2), (3, 0), (3, 1), (3, 0))),
    "concatenate, one": (lambda x: lax.concatenate_p.bind(x, dimension=0), ((7,),)),
    "pad": (padding((1, 2, 0), (0, 3, 0)), ((3, 5), ())),
    "pad, nothing": (padding((0, 0, 0)), ((5,), ())),
    "pad, a scalar": (padding(), ((), ())),
    "pad, negative": (padding((-1, -2, 0), (-2, 3, 0), (4, -1, 0)), ((5, 3, 2), ())),
    "pad, only negative": (padding((-2, 0, 0), (0, -3, 0)), ((5, 7), ())),
    "pad, interior": (padding((0, 0, 2), (0, 0, 1)), ((3, 5), ())),
    "pad, interior and around": (padding((2, 1, 1), (1, 0, 3)), ((3, 2), ())),
    "pad, interior and negative": (padding((-1, -2, 2), (-3, 1, 1), (2, -4, 2)), ((3, 5, 3), ())),
    "pad, interior of one element": (padding((1, 1, 3)), ((1,), ())),
    "pad, nothing is left of it": (padding((-4, 6, 0)), ((3,), ())),
    "pad, an empty one": (padding((2, 1, 0)), ((0,), ())),
    "pad, an empty one with interior": (padding((2, 3, 1), (0, 0, 0)), ((0, 2), ())),
}


def holds(read: Read, point: dict[str, int]) -> bool:
    return all(low <= at.value(point) < high for at, low, high in read.within)


def symbolic(shape: tuple[int, ...]) -> Indices:
    return tuple(variable(f"i{axis}", 0, max(size - 1, 0)) for axis, size in enumerate(shape))


@pytest.mark.parametrize("name", CASES)
def test_each_element_is_where_the_map_says(name: str) -> None:
    function, shapes = CASES[name]
    start, args = 0, []
    for shape in shapes:  # no two elements of all operands are equal
        args.append(np.arange(start, start + int(np.prod(shape)), dtype=np.float32).reshape(shape))
        start += args[-1].size
    (node,) = graphopt.trace(function)(*args).outputs
    assert node.op in MOVES
    operands = [args[n.attrs["index"]] for n in node.inputs]
    expected = np.asarray(function(*map(jnp.asarray, args)))
    reads = list(MOVES[node.op](node, symbolic(node.aval.shape)))
    taken = dict.fromkeys(range(len(reads)), 0)
    for place in np.ndindex(node.aval.shape):
        point = {f"i{axis}": i for axis, i in enumerate(place)}
        which, read = next((k, r) for k, r in enumerate(reads) if holds(r, point))
        taken[which] += 1
        at = tuple(index.value(point) for index in read.at)
        operand = operands[read.operand]
        assert len(at) == operand.ndim and all(0 <= i < d for i, d in zip(at, operand.shape, strict=True)), (place, at)
        assert operand[at] == expected[place], (place, at)
    for which, count in taken.items():  # `always` knows it before any element is read
        known = always(reads[which].within)
        assert known is not False or count == 0
        assert known is not True or which == len(reads) - 1 or not any(taken[k] for k in range(which + 1, len(reads)))


def test_every_operation_that_moves_data_has_a_case() -> None:
    covered = set()
    for function, shapes in CASES.values():
        (node,) = graphopt.trace(function)(*(np.zeros(shape, np.float32) for shape in shapes)).outputs
        covered.add(node.op)
    assert covered == set(MOVES)


def test_elementwise_operations_spread_what_has_no_dimensions_or_an_axis_of_size_one() -> None:
    def reads(function: Any, *args: Any) -> list[Read]:
        (node,) = graphopt.trace(function)(*args).outputs
        return list(elementwise(node, symbolic(node.aval.shape)))

    i, j = symbolic((3, 5))
    x = np.zeros((3, 5), np.float32)
    clamped = reads(lambda low, x: lax.clamp(low, x, np.float32(7)), np.float32(1), x)
    assert [read.at for read in clamped] == [(), (i, j), ()]
    assert [read.at for read in reads(lax.select, np.bool_(True), x, x)] == [(), (i, j), (i, j)]
    assert [read.at for read in reads(lax.add, x, x[:1])] == [(i, j), (Index(), j)]
    assert [read.within for read in reads(lax.add, x, x[:1])] == [(), ()]


def test_conditions_that_bounds_decide() -> None:
    i = variable("i", 2, 5)
    assert always(()) is True
    assert always(((i, 2, 6),)) is True and always(((i, 0, 9), (number(3), 3, 4))) is True
    assert always(((i, 2, 5),)) is None and always(((i, 3, 6),)) is None
    assert always(((i, 6, 9),)) is False and always(((i, 0, 2),)) is False
    assert always(((i, 2, 5), (i, 6, 9))) is False


def test_one_of_several_reads_is_what_all_reads_before_it_are_not() -> None:
    """A concatenation has one operand for each place; two never hold at once."""
    node = concatenated((2,), (3,), (1,))
    reads = list(MOVES[node.op](node, symbolic((6,))))
    for i, pair in itertools.product(range(6), itertools.combinations(reads, 2)):
        assert not all(holds(read, {"i0": i}) for read in pair)


def concatenated(*shapes: tuple[int, ...]) -> Node:
    graph = graphopt.trace(lambda *xs: lax.concatenate(xs, 0))(*(np.zeros(s, np.float32) for s in shapes))
    (node,) = graph.outputs
    return node
