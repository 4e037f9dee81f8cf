"""Loops over small arrays of several shapes wholly in one kernel: against JAX's, and in the interpreter."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.analysis.columns import TILES

from ...rules.drawing import values
from .test_halves import llvm_of_body
from .test_kernels import kernels, left, wide
from .test_loops import whole

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))


def draw(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def filtered(z: Any, a: Any, h: Any) -> Any:
    """A Kalman filter of four numbers, of which two are measured."""

    def step(state: Any, z: Any) -> Any:
        x, p = state
        x, p = a @ x, a @ p @ a.T + 0.1 * jnp.eye(4)
        s = h @ p @ h.T + jnp.eye(2)
        inverse = jnp.array([[s[1, 1], -s[0, 1]], [-s[1, 0], s[0, 0]]]) / (s[0, 0] * s[1, 1] - s[0, 1] * s[1, 0])
        k = p @ h.T @ inverse
        x, p = x + k @ (z - h @ x), (jnp.eye(4) - k @ h) @ p
        return (x, p), x

    return lax.scan(step, (jnp.zeros(4), jnp.eye(4)), z)


def runge_kutta(x: Any, w: Any) -> Any:
    f = lambda x: jnp.tanh(w @ x)

    def step(_: Any, x: Any) -> Any:
        k1 = f(x)
        k2 = f(x + 0.05 * k1)
        k3 = f(x + 0.05 * k2)
        return x + 0.1 / 6 * (k1 + 2 * k2 + 2 * k3 + f(x + 0.1 * k3))

    return lax.fori_loop(0, 9, step, x)


def lstm(x: Any, w: Any, u: Any) -> Any:
    def step(state: Any, x: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(x @ w + h @ u, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros(u.shape[0])
    return lax.scan(step, (zero, zero), x)


def forward(seen: Any, moves: Any, shows: Any) -> Any:
    """The forward algorithm of a hidden Markov model."""

    def step(a: Any, o: Any) -> Any:
        a = (a @ moves) * shows[:, o]
        return a / a.sum(), jnp.log(a.sum())

    return lax.scan(step, jnp.ones(5) / 5, seen)


def viterbi(seen: Any, moves: Any, shows: Any) -> Any:
    def step(a: Any, o: Any) -> Any:
        m = a[:, None] + moves
        return m.max(0) + shows[:, o], jnp.argmax(m, 0)

    a, back = lax.scan(step, jnp.zeros(5), seen)
    return a, lax.scan(lambda s, b: (b[s], s), jnp.argmax(a), back, reverse=True)


def conjugate_gradients(a: Any, b: Any) -> Any:
    def step(state: Any) -> Any:
        x, r, d, rr, i = state
        ad = a @ d
        alpha = rr / (d @ ad)
        x, r = x + alpha * d, r - alpha * ad
        return x, r, r + (r @ r) / rr * d, r @ r, i + 1

    return lax.while_loop(lambda s: (s[3] > 1e-6) & (s[4] < 2), step, (jnp.zeros_like(b), b, b, b @ b, 0))[0]


def newton(x: Any) -> Any:
    """Of a function with one zero, which is found from everywhere."""
    f = lambda x: jnp.stack([3 * x[0] + jnp.sin(x[1]) - 2, jnp.exp(-(x[0] ** 2)) + 3 * x[1] - 1])

    def step(state: Any) -> Any:
        x, i = state
        (a, b), (c, d) = jax.jacfwd(f)(x)
        v = f(x)
        return x - jnp.stack([d * v[0] - b * v[1], a * v[1] - c * v[0]]) / (a * d - b * c), i + 1

    return lax.while_loop(lambda s: (jnp.abs(f(s[0])).max() > 1e-4) & (s[1] < 30), step, (x, 0))


def edits(a: Any, b: Any) -> Any:
    """The edit distance: a loop over columns in one over rows, which are shifted."""

    def row(above: Any, letter: Any) -> Any:
        def column(before: Any, given: Any) -> Any:
            up, across, other = given
            best = jnp.minimum(jnp.minimum(up, before) + 1, across + (letter != other))
            return best, best

        _, rest = lax.scan(column, above[0] + 1, (above[1:], above[:-1], b))
        return jnp.concatenate([above[:1] + 1, rest]), None

    return lax.scan(row, jnp.arange(b.size + 1, dtype=jnp.int32), a)[0]


def shifted(scores: Any) -> Any:
    shift = lambda v: jnp.pad(v[:-1], (1, 0))

    def step(state: Any, row: Any) -> Any:
        one, two = state
        new = jnp.maximum(0, jnp.maximum(shift(two) + row, jnp.maximum(one, shift(one)) - 0.3))
        return (new, one), new.max()

    return lax.scan(step, (jnp.zeros(scores.shape[1]),) * 2, scores)


def branches(x: Any, which: Any) -> Any:
    def step(x: Any, k: Any) -> Any:
        x = lax.switch(k, [lambda x: x @ x.T * 0.3, jnp.sin, lambda x: x[::-1] + 0.1], x)
        return lax.cond(x[0, 0] > 0, lambda x: x - 1, lambda x: x * 0.5, x), (x.sum(), x[:2, 0])

    return lax.scan(step, x, which)


def written(x: Any) -> Any:
    """Into two large arrays that are carried: a row of one, and places of the other, twice."""

    def step(i: Any, state: Any) -> Any:
        rows, line, x = state
        x = jnp.sin(x) + 0.1 * jnp.roll(x, 1)
        line = line.at[i].set(line[i] * 0.5 + x[0]).at[jnp.array([3, 9]) * i].add(x[1:3], mode="drop")
        return lax.dynamic_update_slice(rows, x[None], (i, 0)), line, x

    return lax.fori_loop(0, 40, step, (jnp.zeros((40, 4)), jnp.ones(1500), x))


def read_and_written(x: Any) -> Any:
    """What is changed is read before, after, and in between."""

    def step(x: Any, i: Any) -> Any:
        y = x.at[i].set(x[(i + 1) % 5] * 0.5)
        z = y.at[2].min(y.sum())
        return lax.dynamic_update_slice(x, x[1:4] * 0.9, (i % 3,)), (y * 2, z, x[::-1])

    return lax.scan(step, x, np.arange(9) % 5)


def exchanged(x: Any, y: Any) -> Any:
    """Carried arrays take each other's places, and one that of a row."""

    def step(state: Any, row: Any) -> Any:
        a, b, c, s, t = state
        return (b, a, row, t, s + b.sum()), (c, a[:2], s)

    return lax.scan(step, (x, -x, x * 2, 1.0, 2.0), y)


def inside_each_other(x: Any, w: Any) -> Any:
    def outer(i: Any, state: Any) -> Any:
        x, total = state
        inner = lambda s: (w @ s[0] * 0.7, s[1] + 1)
        x, n = lax.while_loop(lambda s: ((s[0] ** 2).sum() > 0.5) & (s[1] < i), inner, (x + i, 0))
        y, rows = lax.scan(lambda c, v: (c + v * x, c[:2]), x, w[0], reverse=True)
        return y * 0.3, total + rows.sum() + n

    return lax.fori_loop(0, 6, outer, (x, 0.0))


def tables(x: Any) -> Any:
    """Arrays that are constant, integers, booleans, and what is joined, padded and turned."""
    table, order = jnp.array([[1.0, 2.0, 0.5], [0.0, 1.0, 3.0]]), jnp.array([2, 0, 1])

    def step(state: Any, _: Any) -> Any:
        x, on = state
        y = jnp.concatenate([x[order], (table @ x)[::-1] * 0.1, jnp.where(on, x, -x)])
        grid = jnp.pad(y.reshape(2, 4).T, ((1, 0), (0, 2), (0, 0))[:2])
        return (jnp.tanh(grid[1:4, 1] + grid.mean()), on ^ (x > 0)), (grid, on.any(), y.argmax())

    return lax.scan(step, (x, x > 0.2), None, length=7)


PROGRAMS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "filter": (filtered, (draw(9, 2), draw(4, 4), draw(2, 4))),
    "Runge-Kutta": (runge_kutta, (draw(7), draw(7, 7))),
    "LSTM": (lstm, (draw(6, 3), draw(3, 20), draw(5, 20))),
    "hidden Markov": (forward, (np.arange(11) % 3, np.abs(draw(5, 5)), np.abs(draw(5, 3)))),
    "Viterbi": (viterbi, (np.arange(11) % 3, draw(5, 5), draw(5, 3))),
    "conjugate gradients": (conjugate_gradients, (np.eye(6, dtype=np.float32) + 0.1, draw(6))),
    "Newton": (newton, (np.float32([1, -1.7]),)),
    "edits": (edits, (np.arange(12) % 4, np.arange(9) * 7 % 5)),
    "shifted": (shifted, (draw(9, 23),)),
    "branches": (branches, (draw(3, 3), np.arange(10) % 3)),
    "written": (written, (draw(4),)),
    "read and written": (read_and_written, (draw(5),)),
    "exchanged": (exchanged, (draw(3), draw(8, 3))),
    "inside each other": (inside_each_other, (draw(4), draw(4, 4))),
    "tables": (tables, (draw(3),)),
    "one step": (lambda x, w: lax.scan(lambda c, v: (w @ c + v, c[:1]), x, w[:1]), (draw(4), draw(4, 4))),
    "no step": (
        lambda x, n: lax.while_loop(lambda s: s[1] < n, lambda s: (s[0] * s[0].sum(), s[1] + 1), (x, 0)),
        (draw(4), 0),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    function, args = PROGRAMS[name]
    whole(function, *args, drawn=(0.1, 0.5))


@pytest.mark.parametrize("name", ["filter", "Runge-Kutta", "LSTM", "hidden Markov", "branches", "written", "tables"])
def test_gradients_and_batches(name: str) -> None:
    function, (x, *others) = PROGRAMS[name]
    if x.dtype.kind == "i":
        seen, whole_function = x, function
        function, (x, *others) = lambda a, b: whole_function(seen, a, b), others
    total = lambda *args: sum((leaf * leaf).sum() for leaf in jax.tree.leaves(function(*args)) if leaf.dtype == x.dtype)
    batched = jax.vmap(function, (0, *[None] * len(others)))
    for each, args in ((jax.grad(total), (x, *others)), (batched, (np.stack([x, x * 0.5, -x]), *others))):
        jitted = graphopt.jit(each, backend="numba")
        assert kernels(jitted.explain(*args).graph)
        for a, b in zip(*(jax.tree.leaves(f(*args)) for f in (jitted, jax.jit(each))), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "bfloat16", "float64", "complex64"])
def test_dtypes(dtype: str) -> None:
    with wide(dtype):
        x = values(np.random.default_rng(0), dtype, (5,), False)

        def step(state: Any, row: Any) -> Any:
            a, grid = state
            top = grid.any(0) if a.dtype == bool else grid.max(0) if a.dtype.kind != "c" else grid.sum(0)
            a = jnp.where(row, a[::-1], top[1:6]).astype(a.dtype)
            return (a, jnp.concatenate([grid[1:], jnp.pad(a, (1, 2))[None]])), a[:2]

        function = lambda x: lax.scan(step, (x, jnp.stack([jnp.pad(x, (3, 0))] * 3)), np.arange(7) % 3 == 0)
        jitted = graphopt.jit(function, backend="numba")
        assert not left(jitted.explain(x).graph)
        for a, b in zip(*(jax.tree.leaves(f(x)) for f in (jitted, jax.jit(function))), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def repeated(step: Any) -> Any:
    return lambda x, y: lax.scan(lambda s, _: (step(s, y), None), x, None, length=3)[0]


@pytest.mark.parametrize("kind", range(16))
def test_triangular_systems(kind: int) -> None:
    on_left, lower, turned, unit = ([False, True][kind >> k & 1] for k in range(4))
    matrix, right = draw(5, 5) + 3 * np.eye(5, dtype=np.float32), draw(*((5, 3) if on_left else (3, 5)))
    options: Any = {"left_side": on_left, "lower": lower, "transpose_a": turned, "unit_diagonal": unit}
    # What is drawn is added to a diagonal: the solutions of others grow until rounding is all there is.
    solve = lambda b, a: lax.linalg.triangular_solve(a + jnp.eye(5), b, **options) * 0.5
    whole(repeated(solve), right, matrix, drawn=(0.1, 0.2))
    batched = jax.vmap(repeated(solve), (0, None))
    stacked = np.stack([right, -right])
    found, expected = (f(stacked, matrix) for f in (graphopt.jit(batched, backend="numba"), batched))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def factors(x: Any) -> Any:
    return lax.scan(lambda x, _: (x * 1.1, lax.linalg.lu(x)), x, None, length=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_small_matrices_are_factored(size: int, dtype: Any) -> None:
    with wide(np.dtype(dtype).name):
        draws = np.random.default_rng(size)
        x = draws.normal(size=(3, size, size)).astype(dtype)
        x[1] += 3 * np.eye(size, dtype=dtype)
        x[2][size // 2] = x[2][0]  # singular, unless there is one row
        x[2][:, -1] *= 0
        jitted = graphopt.jit(factors, backend="numba")
        for matrix in x:
            assert not left(jitted.explain(matrix).graph)
            found, expected = (jax.tree.leaves(f(matrix)) for f in (jitted, jax.jit(factors)))
            if np.linalg.cond(matrix) < 1e4:
                for a, b in zip(found, expected, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-3 if dtype is np.float32 else 1e-10, atol=1e-5)
            else:  # which of two pivots that differ by rounding is greater decides about all that comes after
                lower, upper = np.tril(found[1][0], -1) + np.eye(size), np.triu(found[1][0])
                np.testing.assert_allclose(lower @ upper, matrix[np.asarray(found[3][0])], rtol=1e-4, atol=1e-5)


def test_equations_and_inverses() -> None:
    a, b = draw(4, 4) + 2 * np.eye(4, dtype=np.float32), draw(4)
    whole(lambda a: lax.scan(lambda s, _: (jnp.linalg.inv(s) * 0.5 + a, s[0]), a, None, length=3), a, drawn=(0, 1))
    solve = lambda b, a: lax.scan(lambda s, _: (jnp.linalg.solve(a + s[0] * jnp.eye(4), s), s), b, None, length=3)
    batched = jax.vmap(solve, (0, None))
    gradient = jax.grad(lambda b, a: solve(b, a)[1].sum(), (0, 1))
    for function, args in ((solve, (b, a)), (batched, (np.stack([b, -b]), a)), (gradient, (b, a))):
        jitted = graphopt.jit(function, backend="numba")
        assert kernels(jitted.explain(*args).graph)
        for x, y in zip(*(jax.tree.leaves(f(*args)) for f in (jitted, jax.jit(function))), strict=True):
            np.testing.assert_allclose(x, y, rtol=3e-4, atol=1e-5)


def test_singular_equations_are_not_finite() -> None:
    solve = lambda a: lax.fori_loop(0, 1, lambda i, s: jnp.linalg.solve(a, s), a[0])
    for a in (np.zeros((3, 3), np.float32), np.full((3, 3), np.nan, np.float32)):
        found, expected = (f(a) for f in (graphopt.jit(solve, backend="numba"), jax.jit(solve)))
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))


def test_special_values() -> None:
    x = np.float32([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, 3.0])

    def step(state: Any, i: Any) -> Any:
        x, least = state
        x = jnp.where(i % 2 == 0, jnp.roll(x, 1), x[::-1])
        return (x, jnp.minimum(least, x[:3])), (x[2:5].max(), x.at[i].set(-0.0))

    function = lambda x: lax.scan(step, (x, -x[:3]), np.arange(8))
    found, expected = (jax.tree.leaves(f(x)) for f in (graphopt.jit(function, backend="numba"), jax.jit(function)))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a)[~np.isnan(b)], np.signbit(b)[~np.isnan(b)])


def test_products_with_many_columns_are_in_vectors() -> None:
    function, args = PROGRAMS["LSTM"]
    (body,) = kernels(graphopt.jit(function, backend="numba").explain(*args).graph)
    assert "fmuladd.v" in llvm_of_body(body)


def test_many_arrays_are_not_all_on_the_stack() -> None:
    def step(_: Any, x: Any) -> Any:
        for k in range(30):
            x = jnp.sin(x[::-1] + k) * x.max()
        return x

    x = draw(900)
    function = lambda x: lax.fori_loop(0, 2, step, x)
    jitted = graphopt.jit(function, backend="numba")
    (kernel,) = jitted.explain(x).kernels
    sizes = {role: sum(b.nbytes for b in kernel.program.buffers if b.role == role) for role in ("tile", "scratch")}
    assert sizes["tile"] <= TILES < sizes["tile"] + sizes["scratch"]
    np.testing.assert_allclose(jitted(x), jax.jit(function)(x), rtol=2e-4, atol=1e-5)


def test_what_is_not_taken_says_why() -> None:
    x = draw(6)

    def notes(function: Any) -> str:
        jitted = graphopt.jit(function, backend="numba")
        for a, b in zip(*(jax.tree.leaves(f(x)) for f in (jitted, jax.jit(function))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
        return "\n".join(jitted.explain(x).notes)

    assert "scan with sort" in notes(lambda x: lax.fori_loop(0, 3, lambda i, s: jnp.sort(s) * s[:1], x))
    grid = lambda s: jnp.sin(jnp.outer(jnp.tile(s, 30), jnp.tile(s, 30))).sum(0)
    many = lambda x: lax.fori_loop(0, 2, lambda i, s: s * grid(s)[:6] / 180, x)
    assert "many elements" in notes(many)
    table = jnp.arange(300.0)
    large = lambda x: lax.fori_loop(
        0, 2, lambda i, s: s * table[i : i + 6].sum() if False else s + table.sum() * s[0], x
    )
    assert kernels(graphopt.jit(large, backend="numba").explain(x).graph) or notes(large)


# ---- random bodies

SHAPES = [(), (3,), (3, 3), (2, 3), (17,)]
steps = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)), min_size=2, max_size=10)


def applied(kind: int, x: Any, y: Any) -> Any:
    """A value of two others, between -1 and 1 or so.

    What decides is rounded, and limits are not where values meet them exactly: two orders of a sum must not part.
    """
    grid = jnp.resize(y, (3, 3))
    results = [
        lambda: jnp.tanh(x + jnp.resize(y, x.shape)),
        lambda: jnp.tanh(grid @ jnp.resize(x, (3, 2))).T,
        lambda: x.reshape(-1)[::-1],
        lambda: jnp.concatenate([x.reshape(-1)[:3], y.reshape(-1)])[:17],
        lambda: jnp.max(grid, 0) * x.sum() * 0.1,
        lambda: grid.T - jnp.argmin(jnp.round(7.3 * x.reshape(-1) + 0.13)),
        lambda: lax.dynamic_slice(jnp.pad(x.reshape(-1), (1, 4)), (jnp.int32(3 * y.sum() + 0.13),), (3,)),
        lambda: jnp.resize(x, 7).at[jnp.abs(jnp.int32(9 * y.reshape(-1)[:2] + 0.13))].add(0.5),
        lambda: lax.cond(y.sum() > 0.013, lambda x: -x, jnp.sin, x),
        lambda: lax.fori_loop(0, 2, lambda i, s: jnp.roll(s, 1) * 0.9 + s[0], grid),
        lambda: x * 0.5 + jnp.mean(y),
    ]
    return results[kind % len(results)]()


@seed(SEED)
@settings(max_examples=15)
@given(steps, st.sampled_from(SHAPES), st.sampled_from(SHAPES), st.integers(1, 4), st.booleans())
def test_random_bodies(body: Any, one: Any, two: Any, length: int, reverse: bool) -> None:
    x, y, rows = draw(*one, 1)[..., 0], draw(*two, 2)[..., 0], draw(length, 3)

    def step(state: Any, row: Any) -> Any:
        known = [*state, row]
        for kind, a, b in body:
            known.append(applied(kind, known[a % len(known)], known[b % len(known)]))
        new = [jnp.clip(jnp.resize(known[-k], s.shape), -2, 2) for k, s in zip((1, 2), state, strict=True)]
        return tuple(new), (known[-1], known[len(known) // 2])

    whole(lambda x, y: lax.scan(step, (x, y), rows, reverse=reverse), x, y, drawn=(0.1, 0.5))


def changed(kind: int, state: Any, value: Any, t: Any) -> Any:
    """An array of five rows, parts of which are changed."""
    row, two = jnp.resize(value, 3), jnp.resize(value, (2, 3))
    results = [
        lambda: state.at[t].set(row),
        lambda: state.at[t].add(row).at[0].set(state[-1]),
        lambda: lax.dynamic_update_slice(state, two, (t, 0)),
        lambda: state.at[jnp.array([0, 2])].multiply(two).at[t].min(row),
        lambda: state.at[:, t % 3].set(jnp.resize(value, 5)),
    ]
    return results[kind % len(results)]()


@seed(SEED)
@settings(max_examples=15)
@given(steps, st.sampled_from(SHAPES), st.integers(0, 4), st.integers(0, 4), st.integers(1, 5), st.booleans())
def test_random_bodies_that_change_parts(body: Any, shape: Any, one: int, two: int, length: int, reverse: bool) -> None:
    """Parts of arrays are computed of what else is carried, as it is before any of it changes."""
    x, first, second = draw(*shape, 1)[..., 0], draw(5, 3), draw(5, 3) + 0.1

    def step(state: Any, t: Any) -> Any:
        known = [*state, state[1][t]]
        for kind, a, b in body:
            known.append(applied(kind, known[a % len(known)], known[b % len(known)]))
        x, first, second = state
        kind, a, b = body[0]
        first = changed(one, first, known[a % len(known)], t)
        second = changed(two, second, known[b % len(known)], t)
        x = jnp.clip(jnp.resize(known[kind % len(known)], x.shape), -2, 2)
        return (x, jnp.clip(first, -2, 2) if kind % 4 == 0 else first, second), known[-1]

    run = lambda x, first, second: lax.scan(step, (x, first, second), jnp.arange(length), reverse=reverse)
    whole(run, x, first, second, drawn=(0.1, 0.5))


def test_what_a_step_has_been_is_stored() -> None:
    x, rows = draw(4), draw(5, 4)

    def stored(x: Any, rows: Any) -> Any:
        step = lambda state, t: ((jnp.tanh(state[0]) + 1, state[1].at[t].set(state[0])), None)
        return lax.scan(step, (x, rows), jnp.arange(5))[0]

    def in_turn(x: Any, rows: Any) -> Any:
        def step(t: Any, state: Any) -> Any:
            x, first, second = state
            return first[t] * 0.5 + x, first.at[t].set(second[t]), second.at[t].set(first[t] + x)

        return lax.fori_loop(0, 5, step, (x, rows, rows + 1))

    for function in (stored, in_turn):
        whole(function, x, rows, drawn=(0.1, 0.5))


def test_a_sum_that_needs_another_of_the_same_array() -> None:
    """They are in one loop where neither needs the other, as the greatest and the sum here do not."""

    def function(x: Any, y: Any) -> Any:
        def step(state: Any, _: Any) -> Any:
            x, y = state
            most, mean = x.max(), x.mean()
            spread = jnp.int32(3 * jnp.sin((x * 0.25 + mean).sum()))
            return (x * 0.5 + spread, jnp.tanh(y + most)), (mean, spread)

        return lax.scan(step, (x, y), None, length=3)

    whole(function, draw(17), draw(4), drawn=(0.1, 0.5))
