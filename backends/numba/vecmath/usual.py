"""Functions with a short way for the usual arguments, and a long one for others, taken where a vector has any of these.

LLVM makes no vectors of a loop with a branch. So the loop calls a function that LLVM is told to replace, when it makes
vectors, by others that take vectors (the "vector-function-abi-variant" of its language reference). These have the
branch: it is taken where one of the lanes needs it, and gives the results of those that do. The two ways round
differently: a result does not depend on what lies beside it. What they do the usual way becomes part of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from llvmlite import ir

from graphopt.backends.numba.vecmath.intrinsics import Dtype, Number, intrinsic_name, operands_of, type_of

PREFIX = "graphopt."
"""What names of functions begin with that LLVM may not drop before it has made vectors."""

LANES = {4: (4, 8, 16), 8: (2, 4, 8)}
"""By bytes of a number: how many a vector has."""

TRUTH = ir.IntType(1)


def usually(usual: Callable[..., tuple[Number, Number]]) -> Callable[[Callable[..., Number]], Callable[..., Number]]:
    """Makes of a function one that first tries `usual`, which gives the result, and where it is not the right one."""

    def of(always: Callable[..., Number]) -> Callable[..., Number]:
        @wraps(always)
        def function(*operands: Any) -> Number:
            numbers = operands_of(*operands)
            first = numbers[0]
            called = _Variants(first.builder.module, first.dtype, len(numbers), usual, always).of(first.lanes)
            found = first.builder.call(called, [number.value for number in numbers])
            return Number(first.builder, found, first.dtype)

        return function

    return of


class _Variants:
    """A function of one number, those of vectors, and what all of them do with other arguments, in one module."""

    def __init__(self, module: Any, dtype: Dtype, arity: int, usual: Any, always: Any) -> None:
        self.module, self.dtype, self.arity, self.usual, self.always = module, dtype, arity, usual, always
        self.name = f"{PREFIX}{always.__name__}.{dtype.name}"
        self.widths = LANES[dtype.itemsize]
        if self.name in module.globals:
            return
        scalar = self._declare(self.name, 1, "noinline")
        variants = ((lanes, f"{self.name}.{lanes}") for lanes in self.widths)
        parameters = "v" * arity
        mapped = ",".join(f"_ZGV_LLVM_N{lanes}{parameters}_{self.name}({name})" for lanes, name in variants)
        _add(scalar, f'"vector-function-abi-variant"="{mapped}"')
        rare = self._declare(f"{self.name}.rare", self.widths[-1], "noinline", "cold")
        builder, operands = self._begin(rare)
        builder.ret(self.always(*operands).value)
        self._try(scalar, rare)
        for lanes in self.widths:
            self._try(self._declare(f"{self.name}.{lanes}", lanes, "alwaysinline"), rare)

    def of(self, lanes: int) -> Any:
        """The function of so many numbers at once."""
        return self.module.globals[self.name if lanes == 1 else f"{self.name}.{lanes}"]

    def _declare(self, name: str, lanes: int, *attributes: str) -> Any:
        kind = type_of(self.dtype, lanes)
        function = ir.Function(self.module, ir.FunctionType(kind, [kind] * self.arity), name)
        function.linkage = "linkonce_odr"
        for attribute in ("nounwind", "readnone", "willreturn", *attributes):
            _add(function, attribute)
        return function

    def _begin(self, function: Any) -> tuple[Any, list[Number]]:
        builder = ir.IRBuilder(function.append_basic_block())
        return builder, [Number(builder, operand, self.dtype) for operand in function.args]

    def _try(self, function: Any, rare: Any) -> None:
        """The usual way, and the other for those of the numbers that it is not right for."""
        builder, operands = self._begin(function)
        lanes = operands[0].lanes
        found, is_rare = self.usual(*operands)
        any_rare = is_rare.value
        if lanes > 1:
            truths = any_rare.type
            name = intrinsic_name("llvm.vector.reduce.or", truths)
            any_rare = builder.call(
                self.module.declare_intrinsic(name, (), ir.FunctionType(TRUTH, [truths])), [any_rare]
            )
        begun = builder.block
        with builder.if_then(any_rare, likely=False):
            most = self.widths[-1]
            wide = [_resized(builder, operand.value, lanes, most) for operand in operands]
            other = _resized(builder, builder.call(rare, wide), most, lanes)
            other = builder.select(is_rare.value, other, found.value)
            taken = builder.block
        result = builder.phi(found.value.type)
        result.add_incoming(found.value, begun)
        result.add_incoming(other, taken)
        builder.ret(result)


def _resized(builder: Any, value: Any, of: int, to: int) -> Any:
    """The first lanes of a vector or number as one of more lanes, which repeats them, or of fewer."""
    if of == to:
        return value
    if to == 1:
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))
    if of == 1:
        kind = ir.VectorType(value.type, 1)
        value = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), to), list(_repeated(of, to)))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), lanes)


def _repeated(of: int, to: int) -> Iterator[Any]:
    return (ir.Constant(ir.IntType(32), lane % of) for lane in range(to))


def _add(function: Any, attribute: str) -> None:
    """Adds an attribute; llvmlite does not know all that LLVM does."""
    set.add(function.attributes, attribute)
