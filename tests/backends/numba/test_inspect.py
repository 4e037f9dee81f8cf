"""What the report says of a kernel: operations, bytes, times, and the vectors of its inner loops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import graphopt

X = np.linspace(-1, 1, 64 * 1024, dtype=np.float32).reshape(64, 1024)


def kernel_of(function: object, *args: object) -> object:
    (kernel,) = graphopt.jit(function, backend="numba").explain(*args).kernels
    return kernel


def test_inner_loops_and_their_vectors() -> None:
    loops = kernel_of(jax.nn.softmax, X).inner_loops()
    assert len(loops) >= 2 and all(loop.lanes > 1 for loop in loops), loops
    assert all("1024" in loop.over and f"vectors of {loop.lanes}" in str(loop) for loop in loops)
    lines = kernel_of(jax.nn.softmax, X).source.splitlines()
    assert all(f"for {loop.name} in range" in lines[loop.line - 1] for loop in loops)


def test_a_loop_in_which_each_step_needs_the_one_before_has_no_vectors() -> None:
    loops = kernel_of(lambda x: jax.lax.cumprod(x, 1), X).inner_loops()
    assert [loop.lanes for loop in loops] == [1] and str(loops[0]).endswith("no vectors")


def test_operations_bytes_and_times() -> None:
    kernel = kernel_of(lambda x: x * 2 + 1, X)
    assert (kernel.flops, kernel.bytes) == (2 * X.size, 2 * X.nbytes)
    assert 0 < kernel.predicted < 1
    assert 0 < kernel.measure(0.01) < 10
    assert str(kernel).startswith("131,072 operations, 524,288 bytes, ")


def test_measuring_draws_operands_of_every_dtype() -> None:
    def function(i: object, b: object, x: object) -> object:
        return jnp.where(b, x, i.astype(jnp.float32)).sum()

    args = (np.arange(50), np.arange(50) % 3 == 0, np.ones(50, np.float32))
    assert kernel_of(function, *args).measure(0.01) > 0


def test_each_statement_that_computes_has_the_line_of_the_user() -> None:
    def function(x: object) -> object:
        sums = x.sum(1, keepdims=True)
        return (x / sums).T, jnp.maximum(x, 0).max(0)

    for kernel in graphopt.jit(function, backend="numba").explain(X).kernels:
        lines = kernel.source.splitlines()
        marked = [line for line in lines if "test_inspect.py:" in line]
        assert any("add_any_order" in line or "write_" in line for line in marked)
        for line in lines:
            if "write_float32(out" in line or "add_any_order(" in line:
                assert "test_inspect.py:" in line, kernel.source


def test_what_loops_compute_has_the_line_of_the_user() -> None:
    """Of arrays that steps keep, products, small ones too, numbers, and loops in loops."""

    def scan(x: jax.Array) -> jax.Array:
        def step(h: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = jnp.tanh(h @ x[:16, :16]) + v
            return h, h.sum()

        _, sums = jax.lax.scan(step, jnp.zeros(16), x[:, :16])
        return sums

    def nested(x: jax.Array) -> Any:
        def inner(i: int, h: jax.Array) -> jax.Array:
            return jnp.sin(h) * i

        return jax.lax.fori_loop(0, 10, lambda i, h: jax.lax.fori_loop(0, 3, inner, h), x[0])

    def number(x: jax.Array) -> Any:
        return jax.lax.while_loop(lambda h: h < 100.0, lambda h: h * 2 + 1, x[-1, -1])

    for function, computing in (
        (scan, ("tanh_float32(", "product_float32(", "add_any_order(")),
        (nested, ("sin_float32(", " * ")),
        (number, (" * ", " + np.float32", " < np.float32")),
    ):
        lines = kernel_of(function, X).source.splitlines()
        of = [line for line in lines if any(text in line for text in computing) and ("= (" in line or "32(" in line)]
        of = [line for line in of if not any(text in line for text in ("read_", "input_", "write_", "for ", "opaque"))]
        assert of and all("test_inspect.py:" in line for line in of), "\n".join(lines)
