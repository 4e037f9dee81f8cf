"""Every described operation as a step of a random program: what it does with values is drawn, and fits their types."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from graphopt.ops.random import threefry_p

DTYPES = ("float32", "int32", "bool", "bfloat16", "complex64", "uint8", "float16", "int8", "uint32")
NUMBERS = (0.0, 1.0, -1.0, 2.0, 0.5, -0.0, 3.0, 1e4, np.inf, np.nan, 0.1)


@dataclass
class Values:
    """The values that a program has so far, and what decides what is done with them."""

    random: np.random.Generator
    known: list[Any]

    def any(self) -> Any:
        """One of the values, a late one rather than an early one, so that the program is deep."""
        late = min(int(self.random.geometric(0.3)), len(self.known))
        return self.known[-late] if self.random.random() < 0.7 else self.known[self.random.integers(len(self.known))]

    def of(self, accepts: Callable[[Any], bool]) -> Any:
        """One of the values that are accepted. Raises LookupError where there is none."""
        found = [x for x in self.known if accepts(x)]
        if not found:
            raise LookupError
        return found[-1 - min(int(self.random.geometric(0.4)) - 1, len(found) - 1)]

    def like(self, x: Any) -> Any:
        """A second operand for `x`: a value of its type, or a scalar, known or constant."""
        choice = self.random.random()
        if choice < 0.35:
            return self.of(lambda y: y.dtype == x.dtype and y.shape == x.shape)
        if choice < 0.45:  # an axis of size one is repeated
            return self.of(lambda y: y.dtype == x.dtype and y.ndim == x.ndim and fits(x.shape, y.shape))
        if choice < 0.55:
            return self.of(lambda y: y.dtype == x.dtype and y.shape == ())
        return self.number(x.dtype)

    def number(self, dtype: Any) -> Any:
        """A constant scalar."""
        value = np.array(self.random.choice(np.array(NUMBERS)))
        if not jnp.issubdtype(dtype, jnp.inexact):
            value = np.array(int(np.nan_to_num(value, nan=1, posinf=7)))
            return value.astype(np.int64).astype(dtype)
        return value.astype(dtype)

    def axis(self, x: Any) -> int:
        """A dimension. Raises LookupError where there is none."""
        if x.ndim == 0:
            raise LookupError
        return int(self.random.integers(x.ndim))

    def axes(self, x: Any) -> tuple[int, ...]:
        """Some dimensions, perhaps none or all."""
        return tuple(int(a) for a in range(x.ndim) if self.random.random() < 0.5)

    def below(self, limit: int) -> int:
        return int(self.random.integers(max(limit, 1)))


def fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes of one rank differ only where one of them has an axis of size one."""
    return all(m == n or 1 in (m, n) for m, n in zip(a, b, strict=True))


Step = Callable[[Values], Any]


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def is_integer(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def unary(function: Callable[..., Any]) -> Step:
    return lambda v: function(v.of(lambda x: x.dtype != np.bool_ or function is lax.bitwise_not))


def on_floats(function: Callable[..., Any]) -> Step:
    return lambda v: function(v.of(is_float))


def on_integers(function: Callable[..., Any]) -> Step:
    return lambda v: function(v.of(is_integer))


def binary(function: Callable[..., Any], accepts: Callable[[Any], bool] = lambda x: True) -> Step:
    def step(v: Values) -> Any:
        x = v.of(accepts)
        y = v.like(x)
        return function(y, x) if v.random.random() < 0.3 else function(x, y)

    return step


def reduction(function: Callable[..., Any]) -> Step:
    def step(v: Values) -> Any:
        x = v.any()
        return function(x, v.axes(x))

    return step


def cumulative(function: Callable[..., Any], accepts: Callable[[Any], bool] = lambda x: True) -> Step:
    def step(v: Values) -> Any:
        x = v.of(accepts)
        return function(x, axis=v.axis(x), reverse=bool(v.below(2)))

    return step


def window(function: Callable[..., Any], start: float) -> Step:
    def step(v: Values) -> Any:
        x = v.of(is_float)
        size = tuple(1 + v.below(d) for d in x.shape)
        init = np.array(start, x.dtype)
        return lax.reduce_window(x, init, function, size, (1,) * x.ndim, v.random.choice(["SAME", "VALID"]))

    return step


def convert(v: Values) -> Any:
    return lax.convert_element_type(
        v.any(), np.dtype(getattr(jnp, str(v.random.choice(DTYPES)).replace("bool", "bool_")))
    )


def select(v: Values) -> Any:
    x = v.any()
    which = v.of(lambda p: p.dtype == np.bool_ and p.shape in ((), x.shape)) if v.random.random() < 0.8 else x > x
    y = (
        v.of(lambda y: y.dtype == x.dtype and y.shape == x.shape)
        if v.random.random() < 0.5
        else jnp.full_like(x, v.number(x.dtype))
    )
    return lax.select_n(which, x, y)


def broadcast(v: Values) -> Any:
    x = v.any()
    at = v.below(x.ndim + 1)
    shape = (*x.shape[:at], 1 + v.below(3), *x.shape[at:])
    return lax.broadcast_in_dim(x, shape, tuple(i + (i >= at) for i in range(x.ndim)))


def reshape(v: Values) -> Any:
    x = v.any()
    if v.random.random() < 0.5:
        return lax.reshape(x, (x.size,))
    at = v.below(x.ndim + 1)
    if v.random.random() < 0.5:
        return lax.reshape(x, (*x.shape[:at], 1, *x.shape[at:]))
    divisors = [d for d in (1, 2, 3, 5) if x.size % d == 0]
    first = int(v.random.choice(divisors))
    return lax.reshape(x, (first, x.size // first))


def squeeze(v: Values) -> Any:
    x = v.of(lambda x: 1 in x.shape)
    return lax.squeeze(x, tuple(i for i, d in enumerate(x.shape) if d == 1 and v.random.random() < 0.8))


def transpose(v: Values) -> Any:
    x = v.of(lambda x: x.ndim > 1)
    return lax.transpose(x, tuple(int(i) for i in v.random.permutation(x.ndim)))


def slice_(v: Values) -> Any:
    x = v.any()
    starts = [v.below(d) for d in x.shape]
    limits = [s + v.below(d - s + 1) for s, d in zip(starts, x.shape, strict=True)]
    return lax.slice(x, starts, limits, [1 + v.below(3) for _ in x.shape] if v.random.random() < 0.4 else None)


def concatenate(v: Values) -> Any:
    x = v.any()
    axis = v.axis(x)
    rest = (x.shape[:axis], x.shape[axis + 1 :])
    fits = lambda y: y.dtype == x.dtype and y.ndim == x.ndim and (y.shape[:axis], y.shape[axis + 1 :]) == rest
    return lax.concatenate([v.of(fits) if v.below(2) else x for _ in range(1 + v.below(3))], axis)


def split(v: Values) -> Any:
    x = v.any()
    axis, first = v.axis(x), v.below(3)
    sizes = [size for size in (first, x.shape[axis] - first) if size >= 0]
    return lax.split(x, sizes, axis)[-v.below(2)]


def unstack(v: Values) -> Any:
    x = v.of(lambda x: x.size > 0 and x.ndim > 0)
    axis = v.axis(x)
    return jnp.unstack(x, axis=axis)[v.below(x.shape[axis])]


def stack(v: Values) -> Any:
    x = v.any()
    return jnp.stack([x, v.of(lambda y: (y.shape, y.dtype) == (x.shape, x.dtype))], v.below(x.ndim + 1))


def pad(v: Values) -> Any:
    x = v.any()
    config = [(v.below(4) - 1, v.below(4) - 1, v.below(2)) for _ in x.shape]
    return lax.pad(x, v.number(x.dtype), config)


def iota(v: Values) -> Any:
    shape = ((3,), (2, 3), (5,))[v.below(3)]
    return lax.broadcasted_iota(np.dtype(str(v.random.choice(["int32", "float32"]))), shape, v.below(len(shape)))


def starts(v: Values, x: Any) -> list[Any]:
    if v.random.random() < 0.5:
        return [np.int32(v.below(d + 2)) for d in x.shape]
    return [v.of(lambda i: i.dtype == np.int32 and i.shape == ()) for _ in x.shape]


def dynamic_slice(v: Values) -> Any:
    x = v.any()
    return lax.dynamic_slice(x, starts(v, x), [1 + v.below(d) if d else 0 for d in x.shape])


def dynamic_update_slice(v: Values) -> Any:
    x = v.any()
    fits = lambda y: (
        y.dtype == x.dtype and y.ndim == x.ndim and all(a <= b for a, b in zip(y.shape, x.shape, strict=True))
    )
    return lax.dynamic_update_slice(x, v.of(fits), starts(v, x))


def gather(v: Values) -> Any:
    x = v.of(lambda x: x.ndim > 0 and x.shape[0] > 0)
    index = v.of(lambda i: i.dtype == np.int32 and i.ndim <= 1)
    return jnp.take(x, index, axis=0, mode=str(v.random.choice(["clip", "fill", "wrap"])))


def scatter(method: str) -> Step:
    def step(v: Values) -> Any:
        x = v.of(lambda x: x.ndim > 0 and x.shape[0] > 0 and x.dtype in (np.float32, np.int32))
        index = v.of(lambda i: i.dtype == np.int32 and i.ndim <= 1)
        return getattr(x.at[index], method)(v.number(x.dtype))

    return step


def argument(function: Callable[..., Any]) -> Step:
    def step(v: Values) -> Any:
        x = v.of(lambda x: x.ndim > 0 and x.dtype.kind != "c")
        return function(x, v.axis(x), np.int32)

    return step


def product(v: Values) -> Any:
    x = v.of(lambda x: x.ndim in (1, 2) and is_float(x))
    y = v.of(lambda y: y.dtype == x.dtype and y.ndim in (1, 2) and y.shape[0] == x.shape[-1])
    return lax.dot_general(x, y, (((x.ndim - 1,), (0,)), ((), ())))


def convolution(v: Values) -> Any:
    x = v.of(lambda x: x.ndim == 1 and x.dtype == np.float32 and x.shape[0] > 1)
    return lax.conv_general_dilated(x[None, None], x[None, None, :2], (1,), "SAME")[0, 0]


def random_word(v: Values) -> Any:
    x = lax.convert_element_type(v.of(is_integer), np.uint32)
    return threefry_p.bind(x, x, x, x, word=v.below(2))


def clamp(v: Values) -> Any:
    x = v.of(lambda x: x.dtype.kind != "c" and x.dtype != np.bool_)
    return lax.clamp(v.number(x.dtype), x, v.number(x.dtype))


def bitcast(v: Values) -> Any:
    x = v.of(lambda x: x.dtype.itemsize == 4 and x.dtype.kind in "iuf")
    return lax.bitcast_convert_type(x, np.dtype(str(v.random.choice(["float32", "int32", "uint32"]))))


# fmt: off
_FLOAT_FUNCTIONS = [
    "exp", "exp2", "expm1", "log", "log1p", "log2", "sqrt", "rsqrt", "cbrt", "sin", "cos", "tan", "asin", "acos",
    "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "logistic", "erf", "erfc", "erf_inv", "lgamma", "digamma",
    "floor", "ceil", "round", "is_finite",
]
# fmt: on
STEPS: dict[str, Step] = {
    **{name: on_floats(getattr(lax, name)) for name in _FLOAT_FUNCTIONS if hasattr(lax, name)},
    **{name: unary(getattr(lax, name)) for name in ("abs", "neg", "sign", "square")},
    "integer_pow": lambda v: lax.integer_pow(v.of(lambda x: x.dtype != np.bool_ and x.dtype.kind != "c"), v.below(5)),
    "reduce_precision": on_floats(lambda x: lax.reduce_precision(x, 5, 7)),
    "nextafter": binary(lax.nextafter, lambda x: x.dtype in (np.float32, np.float16)),
    "igamma": binary(lax.igamma, lambda x: x.dtype == np.float32),
    "igammac": binary(lax.igammac, lambda x: x.dtype == np.float32),
    "atan2": binary(lax.atan2, is_float),
    "pow": binary(lax.pow, is_float),
    **{name: binary(getattr(lax, name), lambda x: x.dtype != np.bool_) for name in ("add", "sub", "mul", "div")},
    "rem": binary(lax.rem, lambda x: is_float(x) or is_integer(x)),
    **{name: binary(getattr(lax, name), lambda x: x.dtype.kind != "c") for name in ("max", "min")},
    **{name: binary(getattr(lax, name), lambda x: x.dtype.kind != "c") for name in ("lt", "le", "gt", "ge")},
    **{name: binary(getattr(lax, name)) for name in ("eq", "ne")},
    **{
        name: binary(getattr(lax, f"bitwise_{name}"), lambda x: is_integer(x) or x.dtype == np.bool_)
        for name in ("and", "or", "xor")
    },
    "not": lambda v: lax.bitwise_not(v.of(lambda x: is_integer(x) or x.dtype == np.bool_)),
    **{
        name: binary(getattr(lax, name), is_integer)
        for name in ("shift_left", "shift_right_logical", "shift_right_arithmetic")
    },
    **{name: on_integers(getattr(lax, name)) for name in ("population_count", "clz")},
    "real": lambda v: lax.real(v.of(lambda x: x.dtype.kind == "c")),
    "imag": lambda v: lax.imag(v.of(lambda x: x.dtype.kind == "c")),
    "conj": lambda v: lax.conj(v.of(lambda x: x.dtype.kind == "c")),
    "complex": binary(lax.complex, lambda x: x.dtype == np.float32),
    "clamp": clamp,
    "threefry": random_word,
    "select_n": select,
    "convert_element_type": convert,
    "broadcast_in_dim": broadcast,
    "reshape": reshape,
    "squeeze": squeeze,
    "transpose": transpose,
    "slice": slice_,
    "concatenate": concatenate,
    "split": split,
    "unstack": unstack,
    "stack": stack,
    "tile": lambda v: (lambda x: lax.tile(x, [v.below(3) for _ in x.shape]))(v.any()),
    "pad": pad,
    "rev": lambda v: (lambda x: lax.rev(x, v.axes(x)))(v.any()),
    "iota": iota,
    "copy": lambda v: lax.copy_p.bind(v.any()),
    "bitcast_convert_type": bitcast,
    "stop_gradient": lambda v: lax.stop_gradient(v.of(is_float)),
    "gather": gather,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    "dot_general": product,
    "conv_general_dilated": convolution,
    **{
        f"reduce_{name}": reduction(getattr(lax, f"reduce_{name}"))
        for name in ("sum", "prod", "max", "min", "and", "or", "xor")
    },
    **{name: argument(getattr(lax, name)) for name in ("argmax", "argmin")},
    **{name: cumulative(getattr(lax, name)) for name in ("cumsum", "cumprod", "cummax", "cummin")},
    "cumlogsumexp": cumulative(lax.cumlogsumexp, is_float),
    "scatter_add": scatter("add"),
    "scatter_mul": scatter("multiply"),
    "scatter_min": scatter("min"),
    "scatter_max": scatter("max"),
    "reduce_window_sum": window(lax.add, 0.0),
    "reduce_window_max": window(lax.max, -np.inf),
    "reduce_window_min": window(lax.min, np.inf),
}


def take_step(name: str, seed: int, known: list[Any], size: int = 200) -> Any:
    """The value of one step; None where no known value has a type for it, and where it has more than `size` elements."""
    values = Values(np.random.default_rng(seed), known)
    try:
        # Without NumPy's warnings of what a constant becomes in a narrow type.
        with np.errstate(all="ignore"):
            result = STEPS[name](values)
    except (LookupError, TypeError, ValueError, OverflowError, NotImplementedError):
        return None
    return result if result.size <= size and not jax.dtypes.issubdtype(result.dtype, jax.dtypes.extended) else None
