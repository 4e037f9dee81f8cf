"""Operations on complex numbers as Numba source; what it calls is in `graphopt.backends.numba.complexes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.attrs import Attrs
from graphopt.ir.op import Op, op_of, ops_of

Expression = Callable[[Attrs, Sequence[np.dtype[Any]], np.dtype[Any], Sequence[str]], str | None]


def _form(form: str) -> Expression:
    return lambda attrs, of, to, args: form.format(*args)


def _parts(re: str, im: str) -> Expression:
    return _form(f"pair({re}, {im})")


def _function(name: str) -> Expression:
    def expression(attrs: Attrs, of: Sequence[np.dtype[Any]], to: np.dtype[Any], args: Sequence[str]) -> str | None:
        # Who asks XLA for an accuracy gets XLA's.
        return f"{name}_{of[0].name}({', '.join(args)})" if attrs.get("accuracy") is None else None

    return expression


def _convert(attrs: Attrs, of: Sequence[np.dtype[Any]], to: np.dtype[Any], args: Sequence[str]) -> str | None:
    """From one width to the other; from and to real numbers: `graphopt.backends.numba.scalar`."""
    (source,), x = of, args[0]
    part = "float32" if to.itemsize == 8 else "float64"
    return x if source == to else f"pair(np.{part}({x}.real), np.{part}({x}.imag))"


def _integer_pow(attrs: Attrs, of: Sequence[np.dtype[Any]], to: np.dtype[Any], args: Sequence[str]) -> str | None:
    exponent, x = attrs["y"], args[0]
    if not 0 < exponent <= 16:
        return None
    result, power = None, x
    while exponent:
        if exponent & 1:
            result = power if result is None else f"complex_multiply({result}, {power})"
        exponent >>= 1
        power = f"complex_multiply({power}, {power})"
    return result


_FUNCTIONS = ("div", "abs", "sign", "exp", "log", "sqrt", "sin", "cos")

COMPLEX: Mapping[Op, Expression] = {
    op_of(p.add_p): _parts("{0}.real + {1}.real", "{0}.imag + {1}.imag"),
    op_of(p.sub_p): _parts("{0}.real - {1}.real", "{0}.imag - {1}.imag"),
    op_of(p.mul_p): _form("complex_multiply({0}, {1})"),
    op_of(p.square_p): _form("complex_multiply({0}, {0})"),
    op_of(p.neg_p): _parts("-{0}.real", "-{0}.imag"),
    op_of(p.conj_p): lambda attrs, of, to, args: (
        f"pair({args[0]}.real, -{args[0]}.imag)" if of[0].kind == "c" else f"pair({args[0]}, -np.{of[0].name}(0))"
    ),
    op_of(p.real_p): _form("{0}.real"),
    op_of(p.imag_p): _form("{0}.imag"),
    op_of(p.complex_p): _form("pair({0}, {1})"),
    op_of(p.eq_p): _form("(({0}.real == {1}.real) & ({0}.imag == {1}.imag))"),
    op_of(p.ne_p): _form("(({0}.real != {1}.real) | ({0}.imag != {1}.imag))"),
    **{op: _function(name) for name, op in ops_of(_FUNCTIONS).items()},
    op_of(p.convert_element_type_p): _convert,
    op_of(p.integer_pow_p): _integer_pow,
}
"""The operations on complex numbers that kernels compute, and how."""
