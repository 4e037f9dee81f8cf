"""Whether a `jit` does what `jax.jit` does: the same bits, the same but for rounding, or the same kind of error."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .cases import Case

Jit = Callable[[Callable[..., Any]], Callable[..., Any]]
Program = Callable[[Jit], Any]

SAME = "same bits"
ROUNDED = "rounded otherwise"

ROUNDINGS = 64
"""Units in the last place, of a value or of the largest in its array, by which rounding may differ: the passes reorder
sums and products, and what XLA fuses then is fused otherwise."""


def compare(program: Program, jit: Jit, rounding: bool = False) -> str:
    """Run `program` with `jax.jit` and with `jit` and say in a word how it went; a difference is an AssertionError.

    rounding: whether results may differ by it.
    """
    try:
        expected = jax.block_until_ready(program(jax.jit))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the other must raise
        assert_raises(error, program, jit)
        return f"jax.jit raises {type(error).__name__}"
    found = program(jit)
    try:
        assert_same_bits(found, expected)
    except AssertionError:
        if not rounding or not differ_by_rounding(found, expected):
            raise
        return ROUNDED
    return SAME


def assert_raises(expected: Exception, program: Program, jit: Jit) -> None:
    try:
        found = jax.block_until_ready(program(jit))
    except type(expected):
        return
    raise AssertionError(f"where jax.jit raises, the result is\n{found}") from expected


def plain(case: Case) -> Program:
    """The case itself."""
    (args,) = case.arguments(1)
    return lambda jit: jit(fresh(case.function))(*args)


def plain_of_each(cases: Sequence[Case]) -> Program:
    """Cases of one function, which is compiled once."""
    draws = [args for case in cases for args in case.arguments(1)]

    def program(jit: Jit) -> Any:
        compiled = jit(fresh(cases[0].function))
        return [compiled(*args) for args in draws]

    return program


def batched(case: Case) -> Program | None:
    """The case under vmap, on two draws of its arguments; None for a case without any."""
    draws = case.arguments(2)
    if not jax.tree.leaves(draws):
        return None
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *draws)
    return lambda jit: jax.vmap(jit(fresh(case.function)))(*stacked)


def differentiated(case: Case) -> Program | None:
    """The gradient of a weighted sum of the case's results; None where no float comes in or none goes out, and where
    the case raises an error when it is traced.

    The weights differ, since a plain sum hides much: that of a softmax has no gradient at all.
    """
    (args,) = case.arguments(1)
    leaves: list[Any]
    tree: Any
    leaves, tree = jax.tree.flatten(args)
    variable = [is_inexact(jnp.result_type(leaf)) for leaf in leaves]
    try:
        results = jax.tree.leaves(jax.eval_shape(case.function, *args))
    except Exception:  # noqa: BLE001 - the case as it is shows that it is the same error
        return None
    if not any(variable) or not any(is_inexact(result.dtype) for result in results):
        return None

    def loss(variables: list[Any]) -> jax.Array:
        rest = iter(variables)
        arguments = tree.unflatten(
            next(rest) if varies else leaf for leaf, varies in zip(leaves, variable, strict=True)
        )
        outputs = jax.tree.leaves(case.function(*arguments))
        return sum((weighted_sum(output) for output in outputs if is_inexact(output.dtype)), jnp.zeros(()))

    variables = [leaf for leaf, varies in zip(leaves, variable, strict=True) if varies]
    return lambda jit: jax.grad(jit(fresh(loss)))(variables)


def weighted_sum(x: jax.Array) -> jax.Array:
    """A real scalar to which each element of `x`, real and imaginary part, counts with its own weight."""
    parts = [x.real, x.imag] if jnp.iscomplexobj(x) else [x]
    weights = np.linspace(0.5, 1.5, x.size).reshape(x.shape)  # constants, not computed in the program
    return sum(((part * weights.astype(part.dtype)).sum() for part in parts), jnp.zeros(()))


def is_inexact(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def fresh(function: Callable[..., Any]) -> Callable[..., Any]:
    """A new function object, so that no cache of JAX's takes what was compiled for another `jit`."""
    return lambda *args: function(*args)


def assert_same_bits(found: Any, expected: Any) -> None:
    """Same tree, types, shapes and bits: NaN payloads and signs of zero count."""
    structures: list[Any] = [jax.tree.structure(found), jax.tree.structure(expected)]
    assert structures[0] == structures[1]
    for index, (a, b) in enumerate(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)):
        assert description(a) == description(b), f"result {index}"
        a, b = data(a), data(b)
        differing = np.flatnonzero((bytes_of(a) != bytes_of(b)).any(axis=1))
        assert differing.size == 0, (
            f"result {index}, {b.dtype}{list(b.shape)}, {differing.size} of {b.size} elements differ; the first are\n"
            f"{a.ravel()[differing[:5]]} where jax.jit gives\n{b.ravel()[differing[:5]]}"
        )


def differ_by_rounding(found: Any, expected: Any) -> bool:
    """Whether two results of one structure and of the same types have values that rounding alone may tell apart."""
    if jax.tree.structure(found) != jax.tree.structure(expected):
        return False
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    return all(description(a) == description(b) and is_close(data(a), data(b)) for a, b in pairs)


def is_close(a: np.ndarray, b: np.ndarray) -> bool:
    if not jnp.issubdtype(b.dtype, jnp.inexact):
        return bool((bytes_of(a) == bytes_of(b)).all())
    wide = np.complex128 if jnp.iscomplexobj(b) else np.float64
    info = jnp.finfo(b.dtype)
    x, y = a.astype(wide), b.astype(wide)
    finite = np.isfinite(y)
    scale = np.abs(y[finite]).max(initial=0.0)
    bound = ROUNDINGS * float(info.eps) * scale + float(info.tiny)
    with np.errstate(invalid="ignore"):
        same = (x == y) | (np.isnan(x) & np.isnan(y)) | (finite & (np.abs(x - y) <= bound))
    return bool(same.all())


def description(x: jax.Array) -> tuple[str, tuple[int, ...], bool]:
    return str(x.dtype), x.shape, bool(x.aval.weak_type)


def data(x: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def bytes_of(x: np.ndarray) -> np.ndarray:
    """The bytes of each element, one row an element."""
    return np.frombuffer(x.tobytes(), np.uint8).reshape(x.size, x.itemsize)
