"""The scalar functions for Numba loops: accuracy against mpmath, special values against JAX, and that they vectorize."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
from typing import Any

import jax
import llvmlite.binding
import mpmath
import numba
import numpy as np
import pytest
from jax import lax
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

import graphopt
from graphopt.backends.numba import vecmath
from graphopt.backends.numba.code import load
from graphopt.backends.numba.compiling import KERNEL_SIGNATURE, object_of, text_of
from graphopt.backends.numba.names import function_of
from graphopt.backends.numba.vecmath import HALF_POWERS, SCALAR_MATH, log2_f32, log2_f64
from graphopt.backends.numba.vecmath.intrinsics import scalar, to_bits
from graphopt.backends.numba.vecmath.real import power_of_two_f64
from graphopt.backends.numba.vecmath.usual import PREFIX

from . import minimax, references

SEED = int(os.environ["GRAPHOPT_TEST_SEED"])
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
ULPS = 2.0
"""What every function keeps to."""

FUNCTIONS = {(op.name, dtype): function for (op, dtype), function in SCALAR_MATH.items()} | {
    ("log2", dtype): function for dtype, function in zip(DTYPES, (log2_f32, log2_f64), strict=True)
}
NAMES = sorted({name for name, _ in FUNCTIONS})
HALVES = sorted({exponent for exponent, _ in HALF_POWERS})
FUNCTIONS |= {(f"pow {exponent}", dtype): function for (exponent, dtype), function in HALF_POWERS.items()}
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_function = pytest.mark.parametrize("name", NAMES)


@functools.cache
def kernel(name: str, dtype: np.dtype[Any]) -> Any:
    """A loop over elements, as the backend writes it."""
    count = 2 if name in references.BINARY else 1
    loads = [f"        x{i} = input_{dtype}(buffer(buffers, {i}), i)" for i in range(count)]
    lines = [
        "def kernel(buffers, phase, start, stop):",
        "    for i in range(start, stop):",
        *loads,
        f"        write_{dtype}(buffer(buffers, {count}), i, measured({', '.join(f'x{i}' for i in range(count))}))",
        "    return np.uint64(0)",
    ]
    made = function_of("\n".join(lines))
    made.__globals__["measured"] = scalar(FUNCTIONS[name, dtype])
    return made


@functools.cache
def loop(name: str, dtype: np.dtype[Any]) -> Any:
    """The loop, compiled."""
    address = load(*object_of(kernel(name, dtype), KERNEL_SIGNATURE))
    return ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_size_t, *[ctypes.c_ssize_t] * 3)(address)


def call(name: str, *operands: Any) -> Any:
    dtype = operands[0].dtype
    operands = tuple(np.ascontiguousarray(operand) for operand in operands)
    assert all(operand.dtype == dtype and operand.size == operands[0].size for operand in operands)
    result = np.empty_like(operands[0])
    table = np.array([a.ctypes.data for a in (*operands, result)], np.uintp)
    loop(name, dtype)(table.ctypes.data, 0, 0, result.size)
    return result


def operands_of(name: str, dtype: np.dtype[Any], count: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(SEED)
    if name in references.UNARY:
        return (references.arguments(dtype, rng, count),)
    if name == "pow":
        return references.powers(dtype, rng, count)
    some = references.arguments(dtype, rng, count)
    some = some[some != 0]  # mpmath knows no negative zero
    return some, rng.permutation(some)


def measure(name: str, operands: tuple[Any, ...]) -> float:
    dtype = operands[0].dtype
    reference = (references.UNARY | references.BINARY)[name]
    found, place = references.with_digits(reference, list(zip(*operands, strict=True)), call(name, *operands), dtype)
    print(f"{name} {dtype}: {found:.3f} ulp at {place}")
    assert found <= ULPS, (name, dtype, found, place)
    return found


@each_function
@each_dtype
def test_accuracy(name: str, dtype: np.dtype[Any]) -> None:
    measure(name, operands_of(name, dtype, 500))


@pytest.mark.parametrize("exponent", HALVES)
@each_dtype
def test_powers_of_halves(exponent: float, dtype: np.dtype[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact to two units, special values as of `pow`, and in vectors."""
    name = f"pow {exponent}"
    monkeypatch.setitem(references.UNARY, name, lambda x: mpmath.power(x, exponent))
    x = references.arguments(dtype, np.random.default_rng(SEED), 300)
    measure(name, (np.concatenate([x, np.abs(x)]),))
    points = np.array([*SPECIAL, np.finfo(dtype).max, np.finfo(dtype).tiny], dtype)
    points = np.concatenate([points, -points])
    with jax.enable_x64(True):
        expected = np.asarray(jax.jit(lax.pow)(points, dtype.type(exponent)))
    assert kinds(call(name, points)) == kinds(expected)
    kind = "float" if dtype == np.float32 else "double"
    assert re.search(rf"@llvm\.sqrt\.v\d+f{8 * dtype.itemsize}|fmul <\d+ x {kind}>", text_of(kernel(name, dtype)))


@pytest.mark.parametrize("name", ["cos", "sin", "tan"])
@each_dtype
def test_accuracy_next_to_multiples_of_half_pi(name: str, dtype: np.dtype[Any]) -> None:
    nearest = references.next_to_quadrants(dtype)
    assert np.abs(nearest).max() > np.finfo(dtype).max / 16
    measure(name, (np.random.default_rng(SEED).permutation(nearest)[:700],))


@pytest.mark.exhaustive
@each_function
@each_dtype
def test_accuracy_on_many(name: str, dtype: np.dtype[Any]) -> None:
    measure(name, operands_of(name, dtype, 30_000))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["cos", "sin", "tan"])
@each_dtype
def test_accuracy_next_to_all_multiples_of_half_pi(name: str, dtype: np.dtype[Any]) -> None:
    measure(name, (references.next_to_quadrants(dtype),))


bits_of: Any = scalar(to_bits, lambda of: np.dtype(np.int64))
power_of_two: Any = scalar(power_of_two_f64, lambda of: np.dtype(np.float64))


@numba.njit(error_model="numpy")
def worst_float32(found: Any, value: Any) -> Any:
    """The largest error of float32 results against float64 ones, and where; an overflow counts as 2**128."""
    largest, place = 0.0, 0
    for i in range(found.size):
        f, v = np.float64(found[i]), value[i]
        if f != f or v != v:
            error = 0.0 if f != f and v != v else np.inf
        else:
            f, v = min(max(f, -(2.0**128)), 2.0**128), min(max(v, -(2.0**128)), 2.0**128)
            exponent = ((bits_of(v) >> 52) & 0x7FF) - 1023
            error = abs(f - v) * power_of_two(np.int64(23 - min(max(exponent, -126), 127)))
        if error > largest:
            largest, place = error, i
    return largest, place


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sorted(references.UNARY))
def test_every_float32(name: str) -> None:
    """Against the float64 function, which is good to 2**-28 units of float32."""
    block, largest = 1 << 20, (0.0, 0.0)
    for start in range(0, 1 << 32, block):
        x = np.arange(start, start + block, dtype=np.uint32).view(np.float32)
        with np.errstate(all="ignore"):  # the cast of a signaling NaN
            error, place = worst_float32(call(name, x), call(name, x.astype(np.float64)))
        largest = max(largest, (error, float(x[place])))
    print(f"{name} float32, every argument: {largest[0]:.3f} ulp at {largest[1]}")
    assert largest[0] <= ULPS, (name, largest)


SPECIAL = (
    *(0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 7.0, 8.0, 27.0, 100.0, 1000.0, 1e10, 1e30, 1e-30, np.inf, np.nan),
    *(2.0**24, 2.0**24 + 2, 2.0**53, 2.0**53 + 2),
)


def kinds(array: Any) -> list[str]:
    """Zeros and infinities with their signs, NaN without; of other numbers the sign; denormals are as zeros."""
    dtype = array.dtype
    array = np.where(np.abs(array) < np.finfo(dtype).tiny, np.copysign(dtype.type(0), array), array)
    signs = np.where(np.signbit(array), "-", "+")
    return [
        "nan" if np.isnan(a) else sign + ("inf" if np.isinf(a) else "0" if a == 0 else "finite")
        for a, sign in zip(array, signs, strict=True)
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(lax, name)])
@each_dtype
def test_special_values_are_those_of_jax(name: str, dtype: np.dtype[Any]) -> None:
    points = np.array([*SPECIAL, np.finfo(dtype).max], dtype)
    points = np.concatenate([points, -points])
    operands = (points,)
    if name in references.BINARY:
        operands = tuple(a.ravel() for a in np.meshgrid(points, points))
    with jax.enable_x64(True):
        expected = np.asarray(jax.jit(getattr(lax, name))(*operands))
    found = call(name, *operands)
    assert found.dtype == expected.dtype == dtype
    places = [str(tuple(map(float, row))) for row in zip(*operands, strict=True)]  # NaN is not equal to itself
    assert list(zip(places, kinds(found), strict=True)) == list(zip(places, kinds(expected), strict=True))
    exact = np.isin(expected, [0.5, 1, 2, -1, -0.5]) & np.isin(found, expected)
    np.testing.assert_array_equal(found[exact], expected[exact])


ODD = ("asin", "asinh", "atan", "atanh", "cbrt", "erf", "expm1", "log1p", "sin", "sinh", "tan", "tanh")


@pytest.mark.parametrize("name", ODD)
@each_dtype
def test_the_sign_of_zero_and_denormals(name: str, dtype: np.dtype[Any]) -> None:
    """The smallest denormals are their own sine, and so on; the factors of cbrt and erf are others."""
    smallest = np.finfo(dtype).smallest_subnormal
    points = np.array([0.0, -0.0, *(k * float(smallest) for k in (1, -1, 2, -3, 1000, -12345))], dtype)
    found = call(name, points)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(points))
    if name not in ("cbrt", "erf"):
        np.testing.assert_array_equal(found, points)


@each_dtype
def test_zero_to_nan_are_numpys(dtype: np.dtype[Any]) -> None:
    """What log2, which older versions of JAX have no operation for, makes of special values."""
    points = np.array(
        [0.0, -0.0, 1.0, 2.0, 0.125, -1.0, np.inf, -np.inf, np.nan, np.finfo(dtype).smallest_subnormal], dtype
    )
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(call("log2", points), np.log2(points))


@each_dtype
def test_powers_of_two_are_exact(dtype: np.dtype[Any]) -> None:
    info = np.finfo(dtype)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp).astype(dtype)
    powers = np.ldexp(dtype.type(1), exponents.astype(int))
    np.testing.assert_array_equal(call("exp2", exponents), powers)
    np.testing.assert_array_equal(call("log2", powers), exponents)
    np.testing.assert_array_equal(call("pow", np.full_like(powers, 2), exponents), powers)


@each_function
@each_dtype
def test_a_result_does_not_depend_on_what_lies_beside_it(name: str, dtype: np.dtype[Any]) -> None:
    """Also where that is what the function has another way for."""
    operands = operands_of(name, dtype, 200)
    order = np.random.default_rng(SEED).permutation(operands[0].size)
    np.testing.assert_array_equal(call(name, *(a[order] for a in operands)), call(name, *operands)[order])


@each_function
@each_dtype
@pytest.mark.parametrize("size", [0, 1, 7, 67])
def test_the_rest_of_a_loop_has_the_same_bits(name: str, dtype: np.dtype[Any], size: int) -> None:
    """What is computed after the last full vector, one at a time, agrees with what is computed in vectors."""
    operands = tuple(a[:128] for a in operands_of(name, dtype, 200))
    whole = call(name, *operands)
    part = call(name, *(a[:size] for a in operands))
    np.testing.assert_array_equal(part, whole[:size])


def _set_mxcsr(typing_context: Any, value: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.alloca(ir.IntType(32))
        builder.store(arguments[0], place)
        byte = ir.IntType(8).as_pointer()
        load = builder.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", (), ir.FunctionType(ir.VoidType(), [byte]))
        builder.call(load, [builder.bitcast(place, byte)])
        return context.get_dummy_value()

    return types.void(types.uint32), emit


set_mxcsr: Any = intrinsic(_set_mxcsr)
MXCSR, FLUSH_DENORMALS = 0x1F80, 0x8040  # the default; operands and results


def _set_control(value: int) -> None:
    set_mxcsr(numba.uint32(value))


set_control: Any = numba.njit(_set_control)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="sets a register that x86-64 has")
@each_function
@each_dtype
def test_normal_numbers_are_the_same_where_denormals_are_flushed(name: str, dtype: np.dtype[Any]) -> None:
    """XLA's threads are set to flush denormals to zero; no step on the way to a normal result may depend on them."""
    smallest = np.finfo(dtype).tiny
    operands = operands_of(name, dtype, 3000)
    normal = np.logical_and.reduce([np.abs(operand) >= smallest for operand in operands])
    operands = tuple(operand[normal] for operand in operands)
    expected = call(name, *operands)
    try:
        set_control(MXCSR | FLUSH_DENORMALS)
        found = call(name, *operands)
    finally:
        set_control(MXCSR)
    # A result next to the smallest normal number may be flushed before it is rounded up to it.
    away = ~(np.abs(expected) <= smallest)
    np.testing.assert_array_equal(found[away], expected[away])
    assert (np.abs(found[~away]) <= smallest).all()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="sets a register that x86-64 has")
@pytest.mark.parametrize("name", [*ODD, "atan2", "pow"])
@each_dtype
def test_denormals_where_they_are_flushed(name: str, dtype: np.dtype[Any]) -> None:
    """Their results are what they are elsewhere, but for denormal ones of a few functions: zeros."""
    info = np.finfo(dtype)
    points = info.smallest_subnormal * np.array([1, -1, 2, -3, 1000, -12345], dtype)
    operands: tuple[Any, ...] = (points,)
    if name in references.BINARY:
        others = np.array([0, -0.0, 1, -1, 0.5, -0.25, 3, -2, 1e-30, 1e30, info.tiny, info.max, np.inf, np.nan], dtype)
        either = np.meshgrid(points, np.concatenate([points, others]))
        operands = tuple(np.concatenate([side.ravel() for side in sides]) for sides in (either, either[::-1]))
    expected = call(name, *operands)
    try:
        set_control(MXCSR | FLUSH_DENORMALS)
        found = call(name, *operands)
    finally:
        set_control(MXCSR)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    is_small = np.abs(expected) < info.tiny
    if name in ("asinh", "atanh", "erf", "sinh", "pow"):
        expected = np.where(is_small, np.copysign(0, expected), expected)
        found = np.where(is_small & (np.abs(found) < info.tiny), np.copysign(0, found), found)
    np.testing.assert_allclose(found[is_small], expected[is_small], rtol=0, atol=float(info.smallest_subnormal))
    np.testing.assert_allclose(found[~is_small], expected[~is_small], rtol=2 * float(info.eps))
    defined = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[defined]), np.signbit(expected[defined]))


def has_fma() -> bool:
    return platform.machine() != "x86_64" or bool(llvmlite.binding.get_host_cpu_features().get("fma"))


@pytest.mark.skipif(not has_fma(), reason="without an instruction for fma it is a call")
@each_function
@each_dtype
def test_the_loop_is_vectorized(name: str, dtype: np.dtype[Any]) -> None:
    text = text_of(kernel(name, dtype))
    kind = {4: "float", 8: "double"}[dtype.itemsize]
    packed = re.findall(rf"(?:@llvm\.fma\.v\d+f\d+|fdiv <\d+ x {kind}>)", text)
    assert packed, f"no packed arithmetic in the loop of {name}"
    called = set(re.findall(r"\bcall [^@\n]*@\"?([\w.]+)", text))
    # What is left is what is not usual, and the rest of the loop, one at a time.
    assert not {c for c in called if not c.startswith(("llvm.", PREFIX))}


@pytest.mark.skipif(not has_fma(), reason="without an instruction for fma it is a call")
@pytest.mark.parametrize("name", ["cos", "pow", "pow -1.5", "rsqrt", "sin", "tan"])
@each_dtype
def test_the_usual_way_is_part_of_the_loop(name: str, dtype: np.dtype[Any]) -> None:
    """Of the functions of vectors nothing is left but what they call for other arguments."""
    text = text_of(kernel(name, dtype))
    left = re.findall(rf"@({re.escape(PREFIX)}[\w.]+)\(", text)
    known = f"{PREFIX}{FUNCTIONS[name, dtype].__name__}.{dtype}"
    assert set(left) <= {known, f"{known}.rare"}
    assert re.search(r"call fastcc <\d+ x |call <\d+ x (?:float|double)> @graphopt", text)


@pytest.mark.parametrize("name", ["cos", "pow", "pow -1.5", "rsqrt", "sin", "tan"])
@each_dtype
@pytest.mark.parametrize("size", [1, 3, 16, 61])
def test_arguments_that_are_not_usual(name: str, dtype: np.dtype[Any], size: int) -> None:
    """One of them among others changes nothing but itself, by as much as two ways differ."""
    rng = np.random.default_rng(SEED)
    usual = tuple(rng.uniform(0.5, 3, size).astype(dtype) for _ in range(1 + (name in references.BINARY)))
    expected = call(name, *usual)
    for place in range(size):
        for other in (1e30, -1e30, -2.5, np.inf, np.nan, 0.0):
            mixed = tuple(operand.copy() for operand in usual)
            mixed[0][place] = other
            alone = call(name, *(np.full(64, operand[place]) for operand in mixed))[0]
            found = call(name, *mixed)
            np.testing.assert_array_equal(found[place], alone)
            others = np.arange(size) != place
            np.testing.assert_allclose(found[others], expected[others], rtol=4 * np.finfo(dtype).eps)


def test_the_table_has_each_function_under_its_operation() -> None:
    for (op, dtype), function in SCALAR_MATH.items():
        assert function is getattr(vecmath, f"{op.name}_f{8 * dtype.itemsize}")


def test_functions_have_documents() -> None:
    for function in FUNCTIONS.values():
        assert re.search(r"\d ulp", function.__doc__), function


def test_the_coefficients_are_those_that_the_script_finds(capsys: pytest.CaptureFixture[str]) -> None:
    minimax.main([])
    with open(vecmath.coefficients.__file__) as file:
        assert capsys.readouterr().out == file.read()


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(lax, name)])
def test_both_dtypes_in_one_kernel(name: str) -> None:
    operation, count = getattr(lax, name), 1 + (name in references.BINARY)
    with jax.enable_x64(True):
        x = np.linspace(0.1, 0.9, 99)
        both = lambda x: [operation(*[x.astype(dtype)] * count) for dtype in DTYPES]
        for found, expected in zip(graphopt.jit(both, backend="numba")(x), jax.jit(both)(x), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)
