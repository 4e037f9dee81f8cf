"""Abstract values: what is known of a node's result before it is computed."""

from __future__ import annotations

import math
import re
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, slots=True)
class State:
    """The type of an effect's state: a value that orders effects and carries no data.

    effect: JAX's effect object (an ordered print, an I/O callback), or None for the contents of a Ref.
    """

    effect: Any = None


class Aval:
    """The type of a value; interned, so equality is `is`.

    type: JAX's abstract value (it may also say sharding, memory space or varying mesh axes), or a State.
    shape, dtype, weak_type: as JAX has them; () and None for what is not an array (tokens, states).
    is_static: whether every dimension is a number (under `jax.export` a dimension may be a symbol).
    size, nbytes: number of elements, and bytes of memory that they take; 0 where it is not an array or not static.
    """

    __slots__ = ("__weakref__", "_is_plain", "dtype", "is_static", "nbytes", "shape", "size", "type", "weak_type")

    type: Any
    shape: tuple[Any, ...]
    dtype: Any
    weak_type: bool
    is_static: bool
    size: int
    nbytes: int
    _is_plain: bool | None

    @property
    def sharding(self) -> Any:
        """The sharding that the type itself states (in a mesh with explicit axes); None where it states none."""
        sharding = getattr(self.type, "sharding", None)
        return None if sharding is None or sharding.mesh.empty else sharding

    @property
    def is_state(self) -> bool:
        """Whether this is the state of an effect and not a value of the program."""
        return isinstance(self.type, State)

    @property
    def is_array(self) -> bool:
        """Whether this is an array (of any dtype), and not a Ref, a token or a state."""
        return isinstance(self.type, jax.core.ShapedArray)

    @property
    def is_plain(self) -> bool:
        """Whether shape, dtype and weak type say all there is to say of it."""
        if self._is_plain is None:
            array = self.is_array and self.is_static
            self._is_plain = array and self is array_aval(self.shape, self.dtype, self.weak_type)
        return self._is_plain

    def __repr__(self) -> str:
        return f"Aval({self.type})"

    def __copy__(self) -> Aval:
        return self

    def __deepcopy__(self, memo: Any) -> Aval:
        return self


_lock = threading.RLock()
_table: WeakValueDictionary[Any, Aval] = WeakValueDictionary()


def aval_of(type: Any) -> Aval:
    """The Aval of a JAX abstract value or a State."""
    with _lock:
        aval = _table.get(type)
        if aval is None:
            aval = object.__new__(Aval)
            aval.type = type
            aval.shape = tuple(getattr(type, "shape", ()))
            aval.dtype = getattr(type, "dtype", None)
            aval.weak_type = bool(getattr(type, "weak_type", False))
            aval.is_static = all(isinstance(d, int) for d in aval.shape)
            aval.size = math.prod(aval.shape) if aval.dtype is not None and aval.is_static else 0
            aval.nbytes = aval.size * int(getattr(aval.dtype, "itemsize", 0))
            aval._is_plain = None
            _table[type] = aval
    return aval


def array_aval(shape: tuple[int, ...], dtype: Any, weak_type: bool = False) -> Aval:
    """The Aval of an array with this shape and dtype and nothing else to say (no sharding, default memory)."""
    return aval_of(jax.core.ShapedArray(shape, dtype, weak_type=weak_type))


@cache
def is_floating(dtype: Any) -> bool:
    """Whether values of a dtype are real floating numbers, of NumPy's types or of others (bfloat16)."""
    return bool(jnp.issubdtype(dtype, np.floating))


@cache
def dtype_name(dtype: Any) -> str:
    """Short name of a dtype: `f32`, `bf16`, `i8`, `u32`, `bool`, `c64`, `f8_e4m3fn`, `float0`, `key<fry>`."""
    if dtype == jax.dtypes.float0:
        return "float0"
    name = str(np.dtype(dtype).name) if isinstance(dtype, np.dtype) else str(dtype)
    for long, short in _SHORT_PREFIXES:
        if name.startswith(long):
            return short + name[len(long) :]
    return name


_SHORT_PREFIXES = (("bfloat", "bf"), ("float8", "f8"), ("float", "f"), ("uint", "u"), ("int", "i"), ("complex", "c"))

_SCALAR_TYPE = re.compile(r"bool_|u?int\d+|b?float\d+(_\w+)?|complex\d+")
_NAMED = [np.dtype(getattr(jnp, name)) for name in dir(jnp) if _SCALAR_TYPE.fullmatch(name)]

DTYPES = {dtype_name(dtype): dtype for dtype in (*_NAMED, np.dtype(jax.dtypes.float0))}
"""The dtypes that text names, by their short names."""
