"""Small programs, each for one thing that a pass does or leaves alone, made of operations that no version of JAX changes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import io_callback
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Case = tuple[Callable[..., Any], tuple[Any, ...]]
X = np.ones(3, np.float32)
S = np.float32(1)
N = np.int32(1)


@jax.custom_jvp
def steep(x: Any) -> Any:
    return lax.sin(x)


steep.defjvp(lambda primals, tangents: (steep(primals[0]), tangents[0]))


def seen(x: Any) -> None:
    io_callback(lambda v: None, None, x, ordered=True)


# ---- rematerialize -----------------------------------------------------------------------------------------------------


def read_again(x: Any, w: Any) -> Any:
    """What the first sort makes is read again at the end."""
    first = lax.sort(x)
    second = lax.sort(lax.dot(first, w))
    third = lax.sort(lax.dot(second, w))
    return lax.dot(lax.dot(third, second), first)


SQUARE = np.ones((8, 8), np.float32)

REMATERIALIZE: dict[str, Case] = {
    "read-again": (read_again, (SQUARE, SQUARE)),
    "nothing-to-gain": (lambda x: lax.sort(lax.sort(x)), (SQUARE,)),
}


# ---- inline ------------------------------------------------------------------------------------------------------------


def calls(x: Any) -> Any:
    inner = jax.jit(lax.sin)
    outer = jax.jit(lambda v: inner(v) * inner(lax.neg(v)))
    return outer(x), inner(x)


def call_with_several_results(x: Any) -> Any:
    a, b, _ = jax.jit(lambda v: (lax.neg(v), v, lax.sin(v)))(x)
    return a, b


def call_in_a_loop(x: Any) -> Any:
    return lax.while_loop(lambda c: jax.jit(lax.lt)(c[0], N), lambda c: (c[0] + N, jax.jit(lax.sin)(c[1])), (N, x))


def large_and_shared(x: Any) -> Any:
    def body(v: Any) -> Any:
        for _ in range(3):
            v = lax.sin(v)
        return v

    large = jax.jit(body)
    return large(large(x))


def large_and_called_once(x: Any) -> Any:
    return jax.jit(lambda v: lax.sin(lax.cos(lax.tanh(v))))(x)


def jit_with_shardings(x: Any) -> Any:
    placed = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("i",)), P())
    return jax.jit(lax.sin, in_shardings=placed)(x)


def custom_jvp(x: Any) -> Any:
    return lax.neg(steep(x))


def checkpoint(x: Any) -> Any:
    return lax.neg(jax.checkpoint(lax.sin)(x))


def barriers_in_calls(x: Any) -> Any:
    kept = jax.jit(lambda v: lax.optimization_barrier(v))
    return kept(x) + kept(x)


# ---- dead --------------------------------------------------------------------------------------------------------------


def scan_carry(x: Any) -> Any:
    return lax.scan(lambda c, v: ((c[0] + v, c[1] * v), None), (S, S), x)[0][0]


def scan_ys(x: Any) -> Any:
    return lax.scan(lambda c, v: (c + v, (c, lax.neg(v))), S, x)[1][0]


def scan_xs_and_consts(x: Any) -> Any:
    y, scale = lax.neg(x), lax.sin(x)
    return lax.scan(lambda c, v: (c + v[0], v[1] * scale), S, (x, y))[0]


def scan_carry_that_feeds_another(x: Any) -> Any:
    """The second is read by the first, the third by the second, the fourth by nobody."""
    return lax.scan(lambda c, _: ((c[0] + c[1], c[1] + c[2], lax.neg(c[2]), c[3] + c[0]), None), (S, S, S, S), x)[0][0]


def while_carry(x: Any) -> Any:
    """The first is read by the condition, the second is the result, the third is neither."""
    scale = lax.sin(x)
    loop = lax.while_loop(lambda c: c[0] < N, lambda c: (c[0] + N, lax.neg(c[1]), c[2] * scale), (N, x, x))
    return loop[1]


def cond_results_and_operands(x: Any, i: Any) -> Any:
    y, z = lax.sin(x), lax.cos(x)
    return lax.cond(i, lambda a, b: (a, b), lambda a, b: (lax.neg(a), z), x, y)[0]


def nested(x: Any) -> Any:
    def step(c: Any, v: Any) -> Any:
        inner = lax.scan(lambda a, w: ((a[0] + w, a[1] * c[1]), None), (c[0], S), x)[0]
        return (inner[0], c[1] * v), inner[1]

    return lax.scan(step, (S, S), x)[0][0]


def effects_stay(x: Any) -> Any:
    def step(c: Any, v: Any) -> Any:
        seen(v)
        return c + v, c

    return lax.scan(step, S, x)[0]


def references_stay(x: Any) -> Any:
    ref = jax.new_ref(jnp.float32(0))

    def step(c: Any, v: Any) -> Any:
        ref[...] = v
        return c + v, c

    lax.scan(step, S, x)
    return ref[...]


# ---- fold --------------------------------------------------------------------------------------------------------------

FOLD = {
    "integers": """
        graph @main() {
          %0: i32[2] = constant(2147483647, 1)
          %1: i32[2] = constant(1, 2)
          %2: i32[2] = add(%0, %1)
          %3: i32[2] = mul(%2, %2)
          %4: bool[2] = lt(%3, %1)
          %5: i32[2] = select_n(%4, %0, %1)
          return %2, %5
        }""",
    "booleans": """
        graph @main() {
          %0: bool[2] = constant(true, false)
          %1: bool[2] = not(%0)
          %2: bool[2] = xor(%0, %1)
          %3: u8[2] = convert_element_type[new_dtype=dtype(u8), sharding=None, weak_type=False](%2)
          return %3
        }""",
    "moving": """
        graph @main() {
          %0: f32[3] = constant(nan, -0.0, inf)
          %1: f32[3] = rev[dimensions=(0,)](%0)
          %2: f32[6] = concatenate[dimension=0](%0, %1)
          %3: f32[2,3] = reshape[dimensions=None, new_sizes=(2, 3), sharding=None](%2)
          %4: f32[3,2] = transpose[permutation=(1, 0)](%3)
          %5: f32[1,2] = slice[limit_indices=(2, 2), start_indices=(1, 0), strides=None](%4)
          %6: f32[2] = squeeze[dimensions=(0,)](%5)
          %7: f32[2,2] = broadcast_in_dim[broadcast_dimensions=(1,), shape=(2, 2), sharding=None](%6)
          return %7
        }""",
    "floats": """
        graph @main() {
          %0: f32[] = constant(0.1)
          %1: f32[] = add(%0, %0)
          %2: bool[] = lt(%0, %1)
          %3: f32[] = div(%0, %1)
          %4: f32[] = constant(1e-30)
          %5: f32[] = mul[out_dtype=None](%4, %4)
          return %1, %2, %3, %5
        }""",
    "too large stays": """
        graph @main() {
          %0: i32[] = constant(1)
          %1: i32[257] = broadcast_in_dim[broadcast_dimensions=(), shape=(257,), sharding=None](%0)
          %2: i32[256] = broadcast_in_dim[broadcast_dimensions=(), shape=(256,), sharding=None](%0)
          return %1, %2
        }""",
    "parameters stay": """
        graph @main(%0: i32[]) {
          %1: i32[] = constant(2)
          %2: i32[] = neg(%1)
          %3: i32[] = mul(%0, %2)
          return %3
        }""",
    "in branches": """
        graph @1(%0: i32[]) {
          %1: i32[] = constant(2)
          %2: i32[] = neg(%1)
          return %2
        }
        graph @2(%0: i32[]) {
          return %0
        }
        graph @main(%0: i32[]) {
          %1: i32[] = cond[branches=(@1, @2)](%0, %0)
          return %1
        }""",
}

INLINE: dict[str, Case] = {
    "calls": (calls, (X,)),
    "call with several results": (call_with_several_results, (X,)),
    "call in a loop": (call_in_a_loop, (X,)),
    "large and shared": (large_and_shared, (X,)),
    "large and called once": (large_and_called_once, (X,)),
    "jit with shardings": (jit_with_shardings, (X,)),
    "custom jvp": (custom_jvp, (X,)),
    "checkpoint": (checkpoint, (X,)),
    "barriers in calls": (barriers_in_calls, (X,)),
}

# ---- hoist -------------------------------------------------------------------------------------------------------------


def invariant_in_a_scan(x: Any, w: Any) -> Any:
    def body(c: Any, _: Any) -> Any:
        return lax.add(lax.mul(c, lax.exp(w)), lax.tanh(w)), lax.add(c, lax.mul(w, w))

    return lax.scan(body, x, None, length=4)


def invariant_in_nested_loops(x: Any, w: Any) -> Any:
    def body(c: Any, _: Any) -> Any:
        return lax.scan(lambda c, _: (lax.add(lax.mul(c, lax.exp(w)), lax.sin(c)), None), c, None, length=3)[0], None

    return lax.scan(body, x, None, length=4)


def invariant_in_a_condition(x: Any, w: Any) -> Any:
    return lax.while_loop(lambda c: lax.lt(c, lax.exp(w)), lambda c: lax.add(c, lax.exp(w)), x)


def carried_without_change(x: Any, w: Any) -> Any:
    return lax.scan(lambda c, _: ((lax.add(c[0], lax.log(c[1])), c[1]), None), (x, w), None, length=4)


def broadcasts_stay(x: Any, w: Any) -> Any:
    def body(c: Any, _: Any) -> Any:
        return lax.add(c, lax.mul(lax.broadcast_in_dim(w, (3, 4000), (0,)), np.float32(2))), None

    return lax.scan(body, lax.broadcast_in_dim(x, (3, 4000), (0,)), None, length=4)


def barriers_stay(x: Any, w: Any) -> Any:
    return lax.scan(lambda c, _: (lax.add(c, lax.optimization_barrier(lax.exp(w))), None), x, None, length=4)


def one_iteration(x: Any, w: Any) -> Any:
    return lax.scan(lambda c, _: (lax.add(c, lax.exp(w)), None), x, None, length=1)


HOIST: dict[str, Case] = {
    "scan": (invariant_in_a_scan, (X, X)),
    "nested": (invariant_in_nested_loops, (X, X)),
    "while": (invariant_in_a_condition, (S, S)),
    "carried without change": (carried_without_change, (X, X)),
    "broadcasts stay": (broadcasts_stay, (X, X)),
    "barriers stay": (barriers_stay, (X, X)),
    "one iteration": (one_iteration, (X, X)),
}

# ---- contract ----------------------------------------------------------------------------------------------------------

M, V = np.ones((9, 9), np.float32), np.ones(9, np.float32)


def dot(x: Any, y: Any) -> Any:
    return lax.dot_general(x, y, (((x.ndim - 1,), (0,)), ((), ())))


def column(x: Any) -> Any:
    return lax.broadcast_in_dim(x, (9, 9), (0,))


def row(x: Any) -> Any:
    return lax.broadcast_in_dim(x, (9, 9), (1,))


def matrices_and_vector(a: Any, b: Any, v: Any) -> Any:
    return dot(dot(a, b), v)


def good_order(a: Any, b: Any, v: Any) -> Any:
    return dot(v, dot(a, dot(b, v)))


def scalar_and_scaled_columns(a: Any, b: Any, v: Any) -> Any:
    return dot(dot(lax.mul(a, row(v)), lax.mul(b, np.float32(3))), v)


def outer_product(u: Any, v: Any, w: Any) -> Any:
    return dot(lax.mul(column(u), row(v)), w)


def trace(a: Any, b: Any) -> Any:
    index = lax.broadcasted_iota(np.int32, (9, 9), 0), lax.broadcasted_iota(np.int32, (9, 9), 1)
    return lax.reduce_sum(lax.select(lax.eq(*index), dot(a, b), lax.full((9, 9), np.float32(0))), (0, 1))


def sum_of_a_product(a: Any, b: Any) -> Any:
    return lax.reduce_sum(dot(a, lax.transpose(b, (1, 0))), (0,))


def matrices_for_each(a: Any, b: Any, v: Any) -> Any:
    """(A_i B_i) v_i for each i: batch axes."""
    each = (((2,), (1,)), ((0,), (0,)))
    return lax.dot_general(lax.dot_general(a, b, each), v, each)


def read_twice(a: Any, b: Any, v: Any) -> Any:
    product = dot(a, b)
    return dot(product, v), dot(v, product)


def order_in_a_scan(a: Any, b: Any, v: Any) -> Any:
    """Of two matrices that stay the same: their product is computed once, if there are many iterations."""
    few = lax.scan(lambda c, _: (dot(dot(a, b), c), None), v, None, length=2)[0]
    many = lax.scan(lambda c, _: (dot(dot(a, b), c), None), v, None, length=50)[0]
    return few, many


def different_precisions(a: Any, b: Any, v: Any) -> Any:
    exact = lax.dot_general(a, b, (((1,), (0,)), ((), ())), precision=lax.Precision.HIGHEST)
    return dot(exact, v)


CONTRACT: dict[str, Case] = {
    "matrices and vector": (matrices_and_vector, (M, M, V)),
    "good order stays": (good_order, (M, M, V)),
    "scalar and scaled columns": (scalar_and_scaled_columns, (M, M, V)),
    "outer product": (outer_product, (V, V, V)),
    "trace": (trace, (M, M)),
    "sum of a product": (sum_of_a_product, (M, M)),
    "matrices for each": (matrices_for_each, (np.ones((5, 9, 9), np.float32),) * 2 + (np.ones((5, 9), np.float32),)),
    "read twice stays": (read_twice, (M, M, V)),
    "in a scan": (order_in_a_scan, (M, M, V)),
    "different precisions stay": (different_precisions, (M, M, V)),
}


# ---- chunk -------------------------------------------------------------------------------------------------------------

Q = np.ones((2, 21, 4), np.float32)


def attention(q: Any, k: Any, v: Any) -> Any:
    scores = lax.dot_general(q, k, (((2,), (2,)), ((0,), (0,))))
    weights = lax.exp(scores - lax.broadcast_in_dim(lax.reduce_max(scores, (2,)), scores.shape, (0, 1)))
    total = lax.broadcast_in_dim(lax.reduce_sum(weights, (2,)), scores.shape, (0, 1))
    return lax.dot_general(lax.div(weights, total), v, (((2,), (1,)), ((0,), (0,))))


def sums_over_what_is_cut(q: Any, k: Any, v: Any) -> Any:
    scores = lax.tanh(lax.dot_general(q[0], k[0], (((1,), (1,)), ((), ()))))
    return lax.dot_general(scores, v[0], (((1,), (0,)), ((), ()))), lax.dot_general(
        scores, q[0], (((0,), (0,)), ((), ()))
    )


def large_result(q: Any, k: Any) -> Any:
    return lax.dot_general(q, k, (((2,), (2,)), ((0,), (0,))))


CHUNK: dict[str, Case] = {
    "attention": (attention, (Q, Q, Q)),
    "sums over what is cut": (sums_over_what_is_cut, (Q, Q, Q)),
    "large result stays": (large_result, (Q, Q)),
}


def weighed(v: Any, w: Any) -> Any:
    return jnp.einsum("kd,qk->dq", v, w)


V, W_OF_V = np.ones((128, 4), np.float32), np.ones((130, 128), np.float32)

ORIENT: dict[str, Case] = {
    "both across": (weighed, (V, W_OF_V)),
    "large result stays": (weighed, (np.ones((128, 130), np.float32), W_OF_V)),
}


DEAD: dict[str, Case] = {
    "scan carry": (scan_carry, (X,)),
    "scan ys": (scan_ys, (X,)),
    "scan xs and consts": (scan_xs_and_consts, (X,)),
    "scan carry that feeds another": (scan_carry_that_feeds_another, (X,)),
    "while carry": (while_carry, (X,)),
    "cond results and operands": (cond_results_and_operands, (X, np.bool_(True))),
    "nested": (nested, (X,)),
    "effects stay": (effects_stay, (X,)),
    "references stay": (references_stay, (X,)),
}

# ---- reroll ------------------------------------------------------------------------------------------------------------

STEPS = 5
XS = np.ones((STEPS + 2, 3), np.float32)
LARGE = np.ones((40, 40), np.float32)


def repeated(x: Any, w: Any) -> Any:
    for _ in range(STEPS):
        x = lax.mul(lax.sin(x), w)
    return x


def constants_that_differ(x: Any) -> Any:
    for step in range(STEPS):
        x = lax.mul(lax.sin(x), lax.full_like(x, step))
    return x


def small_arrays_that_differ(x: Any, ys: list[Any]) -> Any:
    for y in ys:
        x = lax.mul(lax.sin(x), y)
    return x


def large_arrays_that_differ(x: Any, ws: list[Any]) -> Any:
    for w in ws:
        x = lax.tanh(dot(x, w))
    return x


def arrays_in_turns(x: Any, w: Any, v: Any) -> Any:
    for step in range(2 * STEPS - 1):
        x = lax.tanh(dot(x, v if step % 2 else w))
    return x


def slices_that_move(x: Any, xs: Any) -> Any:
    for step in range(STEPS):
        row = lax.squeeze(lax.slice(xs, (step + 1, 0), (step + 2, 3)), (0,))
        x = lax.mul(lax.sin(x), row)
    return x


def two_steps_back(x: Any, y: Any) -> Any:
    for _ in range(2 * STEPS):
        x, y = y, lax.add(lax.sin(x), y)
    return y


def results_of_each_step(x: Any) -> Any:
    found = []
    for _ in range(STEPS):
        x = lax.sin(lax.exp(x))
        found.append(lax.reshape(x, (1, 3)))
    return lax.concatenate(found, 0), found[2]


def there_and_back(x: Any, w: Any) -> Any:
    seen = []
    for _ in range(STEPS):
        seen.append(x)
        x = lax.mul(lax.sin(x), w)
    back = x
    for x in reversed(seen):
        back = lax.mul(lax.mul(back, lax.cos(x)), w)
    return back


def first_step_differs(x: Any, w: Any) -> Any:
    x = lax.mul(lax.exp(x), w)
    for _ in range(STEPS):
        x = lax.mul(lax.sin(x), w)
    return lax.neg(x)


def steps_with_effects(x: Any) -> Any:
    for _ in range(STEPS):
        x = lax.sin(lax.exp(x))
        seen(x)
    return x


REROLL: dict[str, Case] = {
    "repeated": (repeated, (X, X)),
    "constants that differ": (constants_that_differ, (X,)),
    "small arrays that differ": (small_arrays_that_differ, (X, [X] * STEPS)),
    "large arrays that differ": (large_arrays_that_differ, (LARGE, [LARGE] * 4)),
    "arrays in turns": (arrays_in_turns, (LARGE, LARGE, LARGE)),
    "slices that move": (slices_that_move, (X, XS)),
    "two steps back": (two_steps_back, (X, X)),
    "results of each step": (results_of_each_step, (X,)),
    "there and back": (there_and_back, (X, X)),
    "first step differs": (first_step_differs, (X, X)),
    "effects stay": (steps_with_effects, (X,)),
}


BIND = {
    "prepared weights": """
        graph @main(%0: f32[2]) {
          %1: f32[2,2] = constant(1.0, 2.0, 3.0, 4.0)
          %2: f32[2,2] = add(%1, %1)
          %3: f32[2,2] = mul(%2, %1)
          %4: f32[2,2] = sub(%3, %1)
          %5: f32[2] = reduce_sum[axes=(0,), out_sharding=None](%4)
          %6: f32[2] = mul(%5, %0)
          %7: f32[2] = reduce_sum[axes=(1,), out_sharding=None](%3)
          return %6, %7
        }""",
    "larger than what it is made of": """
        graph @main(%0: f32[3,4]) {
          %1: f32[4] = constant(1.0, 2.0, 3.0, 4.0)
          %2: f32[4] = neg(%1)
          %3: f32[3,4] = broadcast_in_dim[broadcast_dimensions=(1,), shape=(3, 4), sharding=None](%2)
          %4: f32[3,4] = mul(%0, %3)
          return %4
        }""",
    "nothing constant": """
        graph @main(%0: f32[2]) {
          %1: f32[2] = constant(1.0, 2.0)
          %2: f32[2] = mul(%0, %1)
          %3: f32[2] = add(%2, %1)
          return %3
        }""",
}

AFFINE = {
    "batch norm": """
        graph @main(%0: f32[3,2]) {
          %1: f32[2,2] = constant(1.0, 2.0, 3.0, 4.0)
          %2: f32[2] = constant(5.0, 6.0)
          %3: f32[2] = constant(7.0, 8.0)
          %4: f32[3,2] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), out_sharding=None, precision=None, preferred_element_type=None](%0, %1)
          %5: f32[3,2] = broadcast_in_dim[broadcast_dimensions=(1,), shape=(3, 2), sharding=None](%2)
          %6: f32[3,2] = broadcast_in_dim[broadcast_dimensions=(1,), shape=(3, 2), sharding=None](%3)
          %7: f32[3,2] = sub(%4, %5)
          %8: f32[3,2] = mul[out_dtype=None](%7, %6)
          %9: f32[3,2] = add(%8, %5)
          return %9
        }""",
    "rows and read twice stay": """
        graph @main(%0: f32[2,2]) {
          %1: f32[2,2] = constant(1.0, 2.0, 3.0, 4.0)
          %2: f32[2] = constant(5.0, 6.0)
          %4: f32[2,2] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), out_sharding=None, precision=None, preferred_element_type=None](%0, %1)
          %5: f32[2,2] = broadcast_in_dim[broadcast_dimensions=(0,), shape=(2, 2), sharding=None](%2)
          %6: f32[2,2] = mul[out_dtype=None](%4, %5)
          %7: f32[2,2] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), out_sharding=None, precision=None, preferred_element_type=None](%6, %1)
          %8: f32[2,2] = broadcast_in_dim[broadcast_dimensions=(1,), shape=(2, 2), sharding=None](%2)
          %9: f32[2,2] = mul[out_dtype=None](%7, %8)
          return %9, %7
        }""",
}

TALL = np.ones((2048, 256), np.float32)
JOIN: dict[str, Case] = {
    "narrow products": (
        lambda x, a, b, v: (x @ a, jnp.tanh(x @ b), x @ v),
        (TALL, np.ones((256, 8), np.float32), np.ones((256, 5), np.float32), np.ones(256, np.float32)),
    ),
    "from the right": (
        lambda x, a: [row @ x.T for row in (a, a + 1, a * 2)],
        (TALL, np.ones((2, 4, 256), np.float32)),
    ),
    "in a scan": (
        lambda x, a: lax.scan(lambda y, w: (y + sum(jnp.sin(x @ (w * k)) for k in (1, 2, 3)), None), x[:, :2], a),
        (TALL, np.ones((9, 256, 2), np.float32)),
    ),
    "one that needs another stays": (
        lambda x, a, b: (lambda y: (y, x @ b, x @ (b + y[:256])))(x @ a),
        (TALL, np.ones((256, 8), np.float32), np.ones((256, 8), np.float32)),
    ),
    "ordinary widths stay": (
        lambda x, a: (x @ a, x @ (a + 1), x @ (a + 2)),
        (TALL, np.ones((256, 64), np.float32)),
    ),
}

SOLVE: dict[str, Case] = {
    "matrix and vector": (lambda a, v: jnp.linalg.inv(a) @ v, (np.ones((9, 9), np.float32), np.ones(9, np.float32))),
    "from the left": (lambda a, v: v @ jnp.linalg.inv(a), (np.ones((9, 9), np.float32), np.ones(9, np.float32))),
    "read by others stays": (
        lambda a, v: (jnp.linalg.inv(a) @ v, jnp.linalg.inv(a).sum()),
        (np.ones((9, 9), np.float32), np.ones(9, np.float32)),
    ),
}
"""They are simplified before the pass: the identity is a cast then, and products have no transposes."""

SIMPLIFY: dict[str, Case] = {
    "what undoes itself": (lambda x, y: lax.neg(lax.neg(x)).T.T + y, (np.ones((3, 4), np.float32),) * 2),
    "in a loop": (lambda x: lax.fori_loop(0, 5, lambda _, c: lax.sin(lax.neg(c)) * np.float32(1), x), (X,)),
    "only where it may move a result so far stays": (lambda x, y, z: x * y + x * z, (X, X, X)),
}
