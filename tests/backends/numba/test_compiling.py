"""How kernels become object files: what Numba is asked for, and how long that takes."""

import ctypes
import gc
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from llvmlite import ir

import graphopt
from graphopt import store
from graphopt.backends.numba import compiling, objects
from graphopt.backends.numba.code import load
from graphopt.backends.numba.compiling import (
    CALLBACK_SIGNATURE,
    KERNEL_SIGNATURE,
    SYMBOL,
    addresses_as_written,
    has_mask_moves,
    object_of,
    text_of,
)
from graphopt.backends.numba.engine import plan_by_key
from graphopt.backends.numba.memory import load as memory_load
from graphopt.backends.numba.memory import store as memory_store
from graphopt.backends.numba.names import function_of
from graphopt.backends.numba.translating import NotTranslatedError, called, inlined, translated
from graphopt.backends.numba.vecmath.intrinsics import Number, float32, int32, scalar, select

from .vectors import kernels_of

PROGRAMS: list[Callable[[Any], Any]] = [
    lambda x: jnp.tanh(x) * 3 + 7,
    lambda x: jnp.exp(x - x.max(1, keepdims=True)),
    lambda x: jnp.sin(x) + jnp.log(jnp.abs(x) + 0.7),
    lambda x: (x[:, 1:] - x[:, :-1]).sum(0),
    lambda x: jnp.sort(x * 1.7, axis=1),
]


def test_how_long_kernels_take(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """The times are for people to read: no bound on them holds on a busy machine."""
    x = np.random.default_rng(0).normal(size=(53, 67)).astype(np.float32)
    before = len(objects.compile_seconds)
    with store.kept_in(tmp_path):
        for function in PROGRAMS:
            np.testing.assert_allclose(graphopt.jit(function, backend="numba")(x), jax.jit(function)(x), rtol=1e-4)
    seconds = objects.compile_seconds[before:]
    assert len(seconds) <= len(PROGRAMS)
    if seconds:  # none where this process knows the kernels from another test
        record_property("kernel_seconds", seconds)
        print(f"{len(seconds)} kernels, median {1e3 * statistics.median(seconds):.0f} ms, {max(seconds):.2f} s at most")


def test_a_kernel_needs_nothing_of_numba() -> None:
    (node,) = kernels_of(lambda x: jnp.sin(x).sum(0), np.ones((30, 40), np.float32))
    text = text_of(function_of(plan_by_key(node.attrs["key"]).source))
    needed = [function.name for function in llvm.parse_assembly(text).functions if function.is_declaration]
    assert all(name.startswith("llvm.") for name in needed), needed


def test_inner_functions_are_compiled_with_who_calls_them() -> None:
    @inlined
    def twice(x: Any) -> Any:
        return x + x

    @inlined
    def least(x: Any, y: Any) -> Any:
        if x < y:
            return twice(x)
        return twice(y)

    def outer(x: Any) -> Any:
        total = numba.uintp(0)
        for i in range(10):
            total += least(x, numba.uintp(i))
        return total

    function = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_size_t)(load(*object_of(outer, CALLBACK_SIGNATURE)))
    assert [function(x) for x in (0, 4, 100)] == [0, 2 * (0 + 1 + 2 + 3 + 6 * 4), 90]


def test_a_called_function_is_there_once_for_arguments_of_the_same_types() -> None:
    @called
    def add(to: Any, x: Any) -> None:
        if x == 0:
            return
        memory_store(to, 0, memory_load(to, 0) + numba.uintp(x))

    def outer(to: Any) -> Any:
        add(to, 3)
        for i in range(5):
            add(to, i)
        add(to, memory_load(to, 0))
        return memory_load(to, 0)

    text = translated(outer, CALLBACK_SIGNATURE, SYMBOL)
    assert text.count("define ") == 3 and text.count("call void") == 3  # of signed numbers, and of an unsigned one
    function = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_size_t)(load(*object_of(outer, CALLBACK_SIGNATURE)))
    word = np.array([4], np.uint64)
    assert function(word.ctypes.data) == 2 * (4 + 3 + 10) == word[0]


def test_a_called_function_has_no_result() -> None:
    @called
    def twice(x: Any) -> Any:
        return x + x

    def outer(x: Any) -> Any:
        twice(x)
        return x

    with pytest.raises(NotTranslatedError, match="has a result"):
        translated(outer, CALLBACK_SIGNATURE, SYMBOL)


def test_collections_go_on_after_compiling() -> None:
    assert gc.isenabled()

    def refused(buffers: Any, phase: int, start: int, stop: int) -> Any:
        return undefined_name  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(numba.core.errors.NumbaError):
        text_of(refused)
    assert gc.isenabled()


def test_numbers_of_other_kinds_are_refused() -> None:
    module = ir.Module()
    kinds = ir.FunctionType(ir.VoidType(), [ir.FloatType(), ir.IntType(32)])
    builder = ir.IRBuilder(ir.Function(module, kinds, "f").append_basic_block())
    x, n = (
        Number(builder, value, kind.dtype) for value, kind in zip(builder.function.args, (float32, int32), strict=True)
    )
    for wrong in (lambda: x + n, lambda: x * 2.0, lambda: n + 1.5, lambda: x < 1, lambda: select(x < x, x, n)):
        with pytest.raises(TypeError, match="is needed"):
            wrong()
    with pytest.raises(TypeError, match="select"):
        bool(x < x)
    assert (np.float32(2) - x).dtype == np.float32
    assert (n >> 1).dtype == np.int32
    assert float32(n).dtype == np.float32


def test_a_function_of_numbers_is_one_intrinsic() -> None:
    of = scalar(lambda x, y: select(x < y, y - x, x - y))
    distance = numba.njit(lambda x, y: of(x, y))
    assert distance(np.float32(2), np.float32(5)) == 3
    assert distance(np.int64(7), np.int64(5)) == 2


COLUMN = """
define void @column(ptr %memory, i64 %count, i64 %step) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %at = mul i64 %i, %step
  %place = getelementptr i32, ptr %memory, i64 %at
  store i32 1, ptr %place
  %next = add i64 %i, 1
  %goes = icmp slt i64 %next, %count
  br i1 %goes, label %loop, label %end
end:
  ret void
}
"""


@pytest.mark.skipif(llvm.llvm_version_info >= (23,), reason="of later versions of LLVM nothing is asked")
def test_what_is_asked_of_llvm_for_kernels_holds_for_nothing_else() -> None:
    """An option of LLVM's holds for a process: of other code LLVM makes what it did before."""
    machine = llvm.Target.from_default_triple().create_target_machine(opt=3)

    def instructions() -> str:
        return str(machine.emit_assembly(llvm.parse_assembly(COLUMN)))

    before = instructions()
    with addresses_as_written():
        assert instructions() != before
    assert instructions() == before


SIGNS = """
define i8 @signs(<8 x i32> %x) {
  %negative = icmp slt <8 x i32> %x, zeroinitializer
  %bits = bitcast <8 x i1> %negative to i8
  ret i8 %bits
}
"""


@pytest.mark.skipif(
    llvm.llvm_version_info < (22,) or not llvm.get_host_cpu_features().get("avx512dq"),
    reason="older versions of LLVM and other processors have no such fault",
)
def test_moves_of_signs_are_found() -> None:
    assert has_mask_moves(compiling._machine().emit_object(llvm.parse_assembly(SIGNS)))
    others = SIGNS.replace("slt", "eq")
    assert not has_mask_moves(compiling._machine().emit_object(llvm.parse_assembly(others)))


def made(node: Any) -> str:
    """The instructions of a kernel."""
    function = function_of(plan_by_key(node.attrs["key"]).source)
    signs = not has_mask_moves(compiling._code(function, KERNEL_SIGNATURE, mask_moves=True))
    return str(compiling._machine(signs).emit_assembly(compiling._module(function, KERNEL_SIGNATURE, mask_moves=signs)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("greatest", [jnp.max, jnp.min])
@pytest.mark.parametrize("rows", [3, 16])
def test_short_rows_whose_greatest_is_taken_off(dtype: type, greatest: Callable[..., Any], rows: int) -> None:
    """Rows of ten made LLVM 22 read the signs of some vectors from another register."""

    def function(x: Any, bias: Any) -> Any:
        shifted = x + bias[None]
        off = shifted - greatest(shifted, axis=1)[:, None]
        return jnp.exp(-abs(off)), off

    random = np.random.default_rng(0)
    with jax.enable_x64(dtype == np.float64):
        for columns in (7, 10, 12, 18):
            args: Any = random.normal(size=(rows, columns)).astype(dtype) + 3, random.normal(size=columns).astype(dtype)
            results = graphopt.jit(function, backend="numba")(*args), jax.jit(function)(*args)
            for ours, theirs in zip(*results, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
            for node in kernels_of(function, *args):
                assert not re.search(r"movmsk\w+\s+%[xy]mm(1[6-9]|2\d|3[01])", made(node))
