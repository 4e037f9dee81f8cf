"""JAX programs of every kind that the tests of the compiler share: a function, and arguments to trace and to run it on.

Each stands for a family of primitives or for a way in which an equation is more than a function of its operands: effects,
references, contexts, types that text can hardly say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import compute_on, io_callback
from jax.experimental.xla_metadata import set_xla_metadata
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

Function = Callable[..., Any]


@dataclass(frozen=True)
class Program:
    """A function and its arguments.

    arguments: makes them anew at each call, for a Ref among them is written to. x64: whether it needs the 64-bit types.
    random: whether its results differ from run to run, so that they cannot be compared.
    """

    function: Function
    arguments: Callable[[], tuple[Any, ...]]
    x64: bool = False
    random: bool = False


PROGRAMS: dict[str, Program] = {}


def program(
    *arguments: Any, make: Callable[[], tuple[Any, ...]] | None = None, **flags: bool
) -> Callable[[Function], Function]:
    """Enters a function and its arguments into `PROGRAMS`, under the function's name."""

    def enter(function: Function) -> Function:
        assert function.__name__ not in PROGRAMS
        PROGRAMS[function.__name__] = Program(function, make or (lambda: arguments), **flags)
        return function

    return enter


SPECIAL = np.array([0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 1e30, 0.3, -2.7], np.float32)
UNIT = np.linspace(-0.9, 0.9, 10, dtype=np.float32)
POSITIVE = np.linspace(0.25, 4.0, 10, dtype=np.float32)
MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4) / 7 - 0.6
SQUARE = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]], np.float32)
INTS = np.array([0, 1, -1, 7, 2**31 - 1, -(2**31)], np.int32)
BOOLS = np.array([True, False, True])
LARGE = np.arange(5000, dtype=np.float32) / 3  # too large to be compared by its bytes
TABLE = jnp.arange(6.0) * 2
COMPLEX = np.array([1 + 2j, 0.5 - 1j, -0.3 + 0.1j], np.complex64)


# ---- elementwise -------------------------------------------------------------------------------------------------------


@program(SPECIAL, POSITIVE)
def arithmetic(x: Any, y: Any) -> Any:
    return x + y, x - y, x * y, x / y, -x, lax.rem(x, y), lax.max(x, y), lax.min(x, y), lax.sign(x), abs(x)


@program(UNIT, POSITIVE)
def transcendental(x: Any, y: Any) -> Any:
    unary = (lax.exp, jnp.exp2, lax.expm1, lax.sin, lax.cos, lax.tan, lax.tanh, lax.asin, lax.acos, lax.atan, lax.sinh)
    positive = (lax.log, lax.log1p, lax.sqrt, lax.rsqrt, lax.cbrt, lax.logistic, lax.lgamma, lax.digamma)
    return [f(x) for f in unary], [f(y) for f in positive], x**3, y**0.7, lax.atan2(x, y), lax.erf_inv(x), lax.erf(x)


@program(POSITIVE)
def special_functions(x: Any) -> Any:
    return lax.igamma(x, x + 1), lax.bessel_i1e(x), lax.polygamma(1.0, x)


@program(SPECIAL)
def rounding(x: Any) -> Any:
    return (
        lax.floor(x),
        lax.ceil(x),
        lax.round(x),
        lax.is_finite(x),
        lax.nextafter(x, x + 1),
        lax.reduce_precision(x, 5, 4),
    )


@program(INTS)
def integers(x: Any) -> Any:
    shifted = lax.shift_left(x, 3), lax.shift_right_logical(x, 3), lax.shift_right_arithmetic(x, 3)
    return x + x, x * 3, x & 5, x | 5, x ^ 5, ~x, lax.clz(x), lax.population_count(x), shifted, x // 3, x % 3


@program(BOOLS)
def booleans(x: Any) -> Any:
    return x & ~x, x | True, x ^ x, x.any(), x.all(), jnp.where(x, 1, 0.5), x.astype(np.int8)


@program(SPECIAL, SPECIAL[::-1].copy())
def comparisons(x: Any, y: Any) -> Any:
    return x < y, x <= y, x > y, x >= y, x == y, x != y, lax.clamp(-1.0, x, 1.0), jnp.where(x > y, x, y)


@program(COMPLEX)
def complex_numbers(x: Any) -> Any:
    return x * x, jnp.real(x), jnp.imag(x), jnp.conj(x), jnp.abs(x), lax.complex(x.real, x.imag), jnp.exp(x), x + 1j


@program(SPECIAL)
def narrow_floats(x: Any) -> Any:
    y = jnp.nan_to_num(x, posinf=2, neginf=-2)
    wide = [y.astype(d).astype(np.float32) for d in (jnp.bfloat16, np.float16, jnp.float8_e4m3fn, jnp.float8_e5m2)]
    return wide, x.astype(jnp.bfloat16) * 2, jnp.array([1.5, -0.0, np.nan], jnp.bfloat16)


@program(np.arange(-8, 8, dtype=np.int8))
def narrow_integers(x: Any) -> Any:
    y = x.astype(jnp.int4)
    return y + y, x.astype(jnp.uint4), jnp.array([-8, 7], jnp.int4), x.astype(np.uint8) - 1


@program(np.float32(2), 3)
def weak_types(x: Any, n: Any) -> Any:
    return n, n + 1, n * x, jnp.sin(n), x + 1, jnp.asarray(2.0), 1.5 * n


@program(np.arange(3))
def no_operands(x: Any) -> Any:
    return jnp.zeros(3), jnp.ones((), jnp.int32), lax.iota(jnp.uint8, 4), x, 3.5, np.float32(-0.0)


@program(np.zeros((0, 3), np.float32), np.float32(3))
def empty_and_scalar(x: Any, y: Any) -> Any:
    return x.sum(), x.sum(0), x @ x.T, jnp.concatenate([x, jnp.ones((2, 3))]), y.reshape(1, 1), y.sum(), x * y


@program(np.arange(4), np.arange(4.0), x64=True)
def wide_types(x: Any, y: Any) -> Any:
    return x * 2**40, y / 3, x.astype(np.uint64) + np.uint64(2**63), (y * 1j).sum(), x.astype(np.int32)


@program(np.arange(3, dtype=np.int32))
def wide_types_inside(x: Any) -> Any:
    with jax.enable_x64(True):
        y = jnp.asarray(np.arange(3, dtype=np.int64)) + np.array([2**40, 1, 2], np.int64)
        return y * np.int64(2**35) + lax.convert_element_type(x, np.int64)


# ---- constants ---------------------------------------------------------------------------------------------------------


@program(np.float32(1))
def constants(x: Any) -> Any:
    small = [np.array([1, 2]), np.float32(-0.0), SPECIAL, np.zeros((0, 2)), BOOLS, COMPLEX * np.inf, TABLE]
    return x, small, LARGE + x, jnp.asarray(LARGE) * x, np.array(3, np.uint8), jax.random.key(7)


@program(np.float32(1))
def no_tangent(x: Any) -> Any:
    return x, np.zeros((2, 2), jax.dtypes.float0)


# ---- shape and movement ------------------------------------------------------------------------------------------------


@program(MATRIX)
def shapes(x: Any) -> Any:
    padded = lax.pad(x, 0.5, [(1, 2, 0), (-1, 0, 1)])
    pieces = x.reshape(4, 3), x.T, x[None], x[:, ::2], x[::-1], jnp.split(x, 2, 1), jnp.tile(x, 2), x.squeeze()
    return pieces, padded, jnp.concatenate([x, x], 1), lax.bitcast_convert_type(x, np.int32), jnp.copy(x)


@program(MATRIX, np.int32(1))
def dynamic(x: Any, i: Any) -> Any:
    return lax.dynamic_slice(x, (i, 0), (2, 2)), lax.dynamic_update_slice(x, x[:1], (i, i)), x[i], x.at[i].set(0)


@program(MATRIX, np.array([2, 0, -1, 9]))
def gather_and_scatter(x: Any, i: Any) -> Any:
    modes = [x.at[i].get(mode=m) for m in ("clip", "fill", "promise_in_bounds")]
    written = x.at[i].add(1.0), x.at[i].mul(2.0), x.at[i, 0].min(0.0), x.at[i].max(0.0), x.at[i].apply(jnp.sin)
    return modes, written, jnp.take_along_axis(x, jnp.abs(i[:3, None]) % 4, 1), x[i[0], i[1]]


@program(SPECIAL, np.arange(10, dtype=np.int32) % 3)
def sorting(x: Any, i: Any) -> Any:
    return (
        jnp.sort(x),
        jnp.argsort(x),
        lax.top_k(x, 3),
        lax.sort((i, x), num_keys=2),
        jnp.unique(i, size=4),
        lax.rev(x, (0,)),
    )


# ---- reductions and contractions ---------------------------------------------------------------------------------------


@program(MATRIX)
def reductions(x: Any) -> Any:
    folded = x.sum(), x.prod(1), x.max(0), x.min(), x.argmax(1), x.argmin(0), x.mean(), x.var(), jnp.median(x)
    running = jnp.cumsum(x, 1), jnp.cumprod(x), lax.cummax(x), lax.cummin(x), lax.cumlogsumexp(x, reverse=True)
    return folded, running, jax.nn.softmax(x), jax.scipy.special.logsumexp(x, 0)


@program(np.arange(8, dtype=np.int32).reshape(2, 4))
def integer_reductions(x: Any) -> Any:
    general = lax.reduce((x, x), (np.int32(0), np.int32(1)), lambda a, b: (a[0] + b[0], a[1] * b[1]), (1,))
    return x.sum(), (x > 3).all(1), (x > 3).any(), lax.reduce(x, np.int32(0), lax.bitwise_xor, (0,)), general


@program(np.arange(36, dtype=np.float32).reshape(6, 6))
def windows(x: Any) -> Any:
    pooled = lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "SAME")
    summed = lax.reduce_window(x, 0.0, lax.add, (3, 3), (1, 1), "VALID")
    general = lax.reduce_window(x, 0.0, lambda a, b: a + b * 2, (2, 1), (1, 1), "VALID")
    return (
        pooled,
        summed,
        general,
        jax.grad(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "SAME").sum())(x),
    )


@program(MATRIX, MATRIX.T.copy())
def contractions(x: Any, y: Any) -> Any:
    batched = jnp.einsum("ij,kj->ik", x, x), jnp.einsum("bi,bj->bij", x, x), jnp.tensordot(x, y, 1)
    half = lax.dot_general(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16), (([1], [0]), ([], [])), None, np.float32)
    return x @ y, jnp.dot(x, y, precision="highest"), batched, half, jnp.outer(x[0], x[1]), jnp.vdot(x, x)


@program(np.ones((2, 8, 8, 3), np.float32), np.ones((3, 3, 3, 4), np.float32) / 9)
def convolutions(x: Any, k: Any) -> Any:
    same = lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    strided = lax.conv_general_dilated(
        x, k, (2, 1), [(1, 0), (0, 1)], (1, 2), (2, 1), ("NHWC", "HWIO", "NHWC"), 1, 1, lax.Precision.HIGHEST
    )
    return same, strided, jnp.convolve(x[0, 0, :, 0], k[0, :, 0, 0])


# ---- linear algebra, transforms and random numbers ---------------------------------------------------------------------


@program(SQUARE, np.array([1.0, 2.0, 3.0], np.float32))
def linear_algebra(a: Any, b: Any) -> Any:
    triangle = lax.linalg.triangular_solve(a, b[:, None], left_side=True, lower=True)
    return (
        jnp.linalg.cholesky(a),
        jnp.linalg.solve(a, b),
        jnp.linalg.qr(a)[1],
        lax.linalg.lu(a),
        triangle,
        jnp.linalg.det(a),
    )


@program(SQUARE, np.array([1.0, 2.0, 3.0], np.float32))
def linear_solve(a: Any, b: Any) -> Any:
    def solve(matvec: Any, y: Any) -> Any:
        return y / jnp.diag(a) + matvec(y) * 0.1

    def loss(b: Any) -> Any:
        return (lax.custom_linear_solve(lambda x: a @ x, b, solve, solve, symmetric=True) ** 2).sum()

    root = lax.custom_root(lambda x: x**3 - b, b, lambda f, x: x - 0.1 * f(x), lambda g, y: y / g(jnp.ones_like(y)))
    return loss(b), jax.grad(loss)(b), root


@program(np.arange(8, dtype=np.float32), COMPLEX)
def fourier(x: Any, z: Any) -> Any:
    return jnp.fft.fft(z), jnp.fft.ifft(z), jnp.fft.rfft(x), jnp.fft.irfft(jnp.fft.rfft(x))


@program(make=lambda: (jax.random.key(3),))
def random_numbers(key: Any) -> Any:
    one, two = jax.random.split(key)
    drawn = jax.random.normal(one, (3,)), jax.random.randint(two, (2,), 0, 9), jax.random.bernoulli(one, 0.3, (2,))
    return (
        one,
        drawn,
        jax.random.key_data(two),
        jax.random.fold_in(key, 3),
        lax.rng_bit_generator(jax.random.key_data(jax.random.key(1, impl="rbg")), (2,)),
    )


@program(np.uint32(3))
def raw_keys(seed: Any) -> Any:
    key = jax.random.PRNGKey(seed)
    return jax.random.uniform(key, (2, 2)), jax.random.permutation(key, 5), jax.random.categorical(key, jnp.zeros(4))


@program(np.float32(0), random=True)
def random_draws(low: Any) -> Any:
    draw = jax.jit(lambda: lax.rng_uniform(low * 0, 1.0, (4,)))
    return lax.rng_uniform(low, 1.0, (4,)), lax.rng_uniform(low, 1.0, (4,)), draw(), draw()


# ---- control flow ------------------------------------------------------------------------------------------------------


@program(np.arange(6, dtype=np.float32).reshape(3, 2), np.float32(0.5))
def scans(xs: Any, w: Any) -> Any:
    def step(carry: Any, x: Any) -> Any:
        return {"a": jnp.sin(carry["a"] * w) + x.sum(), "n": carry["n"] + 1}, (x * carry["a"], TABLE.sum())

    start = {"a": jnp.float32(0), "n": 0}
    backwards = lax.scan(step, start, xs, reverse=True, unroll=2)
    return lax.scan(step, start, xs), backwards, lax.scan(lambda c, _: (c * w, None), w, None, length=4)


@program(np.float32(0.3), np.int32(5))
def whiles(x: Any, n: Any) -> Any:
    counted = lax.fori_loop(0, n, lambda i, c: c + jnp.sin(x) * i, x)
    return (
        lax.while_loop(lambda c: c[1] < n, lambda c: (c[0] * x + 1, c[1] + 1), (x, 0)),
        counted,
        lax.map(jnp.cos, jnp.ones(3) * x),
    )


@program(np.float32(0.3), np.int32(2))
def branches(x: Any, i: Any) -> Any:
    chosen = lax.cond(x > 0, lambda a, b: (a + b, x), lambda a, b: (a * b, -x), x, 2.0)
    return (
        chosen,
        lax.switch(i, [jnp.sin, jnp.cos, lambda y: y * x], x),
        lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos),
    )


@program(np.arange(4, dtype=np.float32))
def nested_control(x: Any) -> Any:
    def step(c: Any, y: Any) -> Any:
        c = lax.cond(y > 1, lambda c: lax.fori_loop(0, 3, lambda i, c: c * 0.5 + y, c), lambda c: c - y, c)
        return c, lax.scan(lambda a, b: (a + b, a * c), c, x)[1]

    return lax.scan(step, x[0], x), lax.associative_scan(jnp.multiply, x + 1)


# ---- calls and derivatives ---------------------------------------------------------------------------------------------


@jax.custom_jvp
def doubled_slope(x: Any) -> Any:
    return jnp.sin(x) * 2


doubled_slope.defjvp(lambda primals, tangents: (doubled_slope(primals[0]), 4 * tangents[0]))


@jax.custom_vjp
def clipped_gradient(x: Any, y: Any) -> Any:
    return x * jnp.exp(y)


clipped_gradient.defvjp(
    lambda x, y: (clipped_gradient(x, y), (x, y)), lambda r, g: (jnp.clip(g * r[1], -1, 1), g * r[0])
)


@program(UNIT)
def custom_derivatives(x: Any) -> Any:
    def loss(x: Any) -> Any:
        return (
            doubled_slope(x) + clipped_gradient(x, x * 0.5) + jax.nn.relu(x) + jax.nn.gelu(x) + jax.nn.silu(x)
        ).sum()

    return loss(x), jax.grad(loss)(x), jax.jvp(jax.nn.relu, (x,), (x,)), jax.linearize(doubled_slope, x)[0]


@program(UNIT)
def calls(x: Any) -> Any:
    inner = jax.jit(lambda y: jnp.exp(-y) * TABLE.sum())
    outer = jax.jit(lambda y, z: (inner(y) + inner(z), y), inline=False)
    return outer(x, x * 2), inner(x), jax.jit(jnp.cos, inline=True)(x), jax.named_call(jnp.sin, name="named")(x)


@program(UNIT)
def checkpoints(x: Any) -> Any:
    block = jax.checkpoint(lambda y: jnp.sin(jnp.sin(y) * TABLE.sum()))
    saved = jax.checkpoint(lambda y: jnp.cos(y * 2), policy=jax.checkpoint_policies.nothing_saveable, prevent_cse=False)
    return block(x), jax.grad(lambda x: block(saved(x)).sum())(x)


@program(MATRIX, np.ones(4, np.float32))
def derivatives(w: Any, x: Any) -> Any:
    def loss(w: Any, x: Any) -> Any:
        return lax.scan(lambda c, row: (jnp.tanh(c * row), c.sum()), x, w)[0].sum() + jnp.sort(w @ x)[0]

    return (
        jax.value_and_grad(loss, (0, 1))(w, x),
        jax.hessian(lambda x: loss(w, x))(x),
        jax.vmap(jax.grad(lambda x: x**2))(x),
    )


@program(np.ones((3, 2), np.float32))
def batching(x: Any) -> Any:
    @jax.custom_batching.custom_vmap
    def own(x: Any) -> Any:
        return jnp.sin(x)

    own.def_vmap(lambda size, batched, x: (jnp.cos(x), batched[0]))
    return (
        jax.vmap(own)(x),
        own(x),
        jax.vmap(lambda r: r - lax.pmean(r, "i"), axis_name="i")(x),
        jax.linear_transpose(lambda x: x * 2, x)(x),
    )


@program(UNIT)
def barriers(x: Any) -> Any:
    return (
        lax.optimization_barrier(x) + lax.optimization_barrier(x),
        lax.optimization_barrier((x, x * 2)),
        lax.stop_gradient(x),
    )


@program(UNIT)
def composites(x: Any) -> Any:
    def double(x: Any) -> Any:
        return x * 2

    return lax.composite(double, "test.double", version=1)(x)


# ---- effects -----------------------------------------------------------------------------------------------------------

LOG: list[Any] = []
"""What the effects of the programs wrote, in the order in which it happened."""


def record(*values: Any) -> None:
    LOG.append([np.asarray(v).tolist() for v in values])


def recorded(value: Any) -> Any:
    record(value)
    return np.asarray(value) * 2


@program(np.float32(2))
def ordered_effects(x: Any) -> Any:
    y = io_callback(recorded, x, x, ordered=True)
    io_callback(record, None, y, ordered=True)
    io_callback(record, None, y, ordered=True)  # equal to the one before
    return io_callback(recorded, x, y + 1, ordered=True) * 0 + y


@program(np.float32(2))
def unordered_effects(x: Any) -> Any:
    jax.debug.callback(record, x)
    jax.debug.callback(record, x)
    unused = io_callback(recorded, x, x + 5)
    del unused
    return x + jax.pure_callback(lambda v: np.asarray(v) + 1, x, x)


@program(np.arange(3, dtype=np.float32))
def effects_in_loops(xs: Any) -> Any:
    def step(c: Any, x: Any) -> Any:
        io_callback(record, None, x, ordered=True)
        lax.cond(x > 0.5, lambda: io_callback(record, None, -x, ordered=True), lambda: None)
        return c + x, None

    @jax.jit
    def logged(x: Any) -> Any:
        io_callback(record, None, x * 10, ordered=True)
        return x

    total, _ = lax.scan(step, 0.0, xs)
    count = lax.fori_loop(0, 2, lambda i, n: n + logged(total) * 0 + 1, 0.0)
    return logged(total), logged(total), count


# ---- references --------------------------------------------------------------------------------------------------------


@program(np.arange(3, dtype=np.float32))
def inner_reference(x: Any) -> Any:
    one, two = jax.new_ref(x), jax.new_ref(x)
    one[...] += 1
    two[0] = one[1]
    lax.fori_loop(0, 3, lambda i, _: one.__setitem__(i, two[i] + one[0]), None)
    return one[...], two[...], jax.freeze(two)


@program(make=lambda: (jax.new_ref(jnp.arange(3.0)), np.float32(2)))
def reference_argument(ref: Any, x: Any) -> Any:
    before = ref[...]
    ref[1] = x
    ref[...] *= 2
    return before, ref[1], jax.ref.swap(ref, 0, x)


@program(make=lambda: (jax.new_ref(jnp.zeros(4)), jax.new_ref(jnp.int32(0)), np.arange(4, dtype=np.float32)))
def references_in_loops(out: Any, count: Any, xs: Any) -> Any:
    @jax.jit
    def tick(by: Any) -> None:
        count[...] += by

    def step(c: Any, x: Any) -> Any:
        out[count[...]] = c + x
        lax.cond(x > 1, lambda: tick(1), lambda: tick(1))
        return c * 2, out[0]

    return lax.scan(step, 1.0, xs), count[...]


# ---- contexts and meshes -----------------------------------------------------------------------------------------------


def on_host(function: Function) -> Function:
    """`function` computed on the host; jax 0.10 has a context for it besides, which is tried too."""
    by_call: Any = getattr(compute_on, "compute_on2", compute_on.compute_on)
    called: Function = by_call(function, compute_type="device_host", out_memory_spaces=jax.memory.Space.Device)
    if not hasattr(compute_on, "compute_on2"):
        return called

    def both(*args: Any) -> Any:
        context: Any = compute_on.compute_on
        with context("device_host"):
            return called(*args), function(*args), jax.jit(function)(*args)

    return both


@program(UNIT)
def contexts(x: Any) -> Any:
    with set_xla_metadata(kind="one"):
        y = jnp.sin(x)
    with set_xla_metadata(kind="two", other=3):
        z = jnp.sin(x)
    w = on_host(lambda x: jnp.cos(x) + 1)(x)
    with jax.threefry_partitionable(False):
        u = jax.random.uniform(jax.random.key(0), (3,))
    with jax.named_scope("scope"):
        return y, z, w, u, jnp.sin(x)


def one_device() -> Mesh:
    return Mesh(np.array(jax.devices()[:1]), ("i",))


@program(MATRIX)
def sharded(x: Any) -> Any:
    mesh = one_device()

    def local(x: Any) -> Any:
        return (
            lax.psum(x, "i") + lax.axis_index("i"),
            lax.all_gather(x, "i", tiled=True),
            lax.scan(lambda c, r: (c + r.sum(), c), x[0, 0], x)[0][None],
        )

    placed = jax.lax.with_sharding_constraint(x, jax.sharding.NamedSharding(mesh, P("i")))
    return placed, jax.shard_map(local, mesh=mesh, in_specs=P("i"), out_specs=(P(), P("i"), P("i")), check_vma=False)(x)


@program(UNIT)
def transfers(x: Any) -> Any:
    return jax.device_put(x, jax.devices()[0]), jax.device_put(x, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
