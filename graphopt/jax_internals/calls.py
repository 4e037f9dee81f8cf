"""What `jax.jit` made, with another function where no program is compiled yet, and with captured arrays as operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import jax
import numpy as np
from jax._src import core, pjit, traceback_util, util
from jax._src.sharding_impls import UNSPECIFIED
from jax.extend.core import ClosedJaxpr


def with_cache_miss(jitted: Any, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """`jitted`, a function made by `jax.jit`, again, with `around(miss)` in place of its `miss`.

    `miss` is the Python function that its C++ part calls when it has no compiled program for the arguments. Programs
    compiled for one of the two are found by both.
    """
    kind: Any = type(jitted)
    again = kind.__new__(kind)
    state = jitted.__getstate__()
    again.__setstate__({**state, "cache_miss": around(state["cache_miss"])})
    again.__dict__.update(jitted.__dict__)
    return again


def cache_miss_of(jitted: Any) -> Callable[..., Any]:
    """The Python function that the C++ part of what `jax.jit` made calls when it has no compiled program."""
    miss: Callable[..., Any] = jitted.__getstate__()["cache_miss"]
    return miss


Binder = Callable[[ClosedJaxpr], "tuple[ClosedJaxpr, list[Any]] | None"]
"""`bind(closed)`: the program with more operands, which come first, and their values; None where there are none."""


@util.weakref_lru_cache
def _bound(closed: ClosedJaxpr, bind: Binder) -> tuple[ClosedJaxpr, list[Any]] | None:
    return bind(closed)


def with_operands(jitted: Any, bind: Binder) -> Any:
    """`jitted`, a function made by `jax.jit`, again, with the operands that `bind` adds to each program of its.

    They are passed as JAX passes constants that it has hoisted itself
    (https://docs.jax.dev/en/latest/internals/constants.html): the C++ part of the call knows them, so that no call
    passes through Python for them. Inside of other traces the function is as `jax.jit` made it.
    """
    function, info = jitted._fun, jitted._jit_info

    def around(miss: Callable[..., Any]) -> Callable[..., Any]:
        @traceback_util.api_boundary
        def missed(*args: Any, **kwargs: Any) -> Any:
            looks_for_nan = jax.config.jax_debug_nans or jax.config.jax_debug_infs
            if looks_for_nan or jax.config.jax_no_tracing or not core.trace_state_clean():
                return miss(*args, **kwargs)
            params, given = pjit._infer_params(function, info, args, kwargs)
            found = _bound(params.params["jaxpr"], bind)
            if found is None:
                return miss(*args, **kwargs)
            with_more = _with_operands(params, *found)
            outs, flat, tree, _, closed, executable, profiler, hoisted = pjit._run_python_pjit(
                with_more, [*found[1], *given], function, args, kwargs
            )
            consts = [*hoisted, *_placed(executable, found[1], len(hoisted))]
            data = pjit._get_fastpath_data(
                executable, tree, given, flat, closed.effects, closed.consts, profiler, consts
            )
            return outs, data, pjit._need_to_rebuild_with_fdo(profiler)

        return missed

    return with_cache_miss(jitted, around)


def _with_operands(params: Any, closed: ClosedJaxpr, values: Sequence[Any]) -> Any:
    """JAX's parameters of a jitted program with more operands, which come first."""
    more = {
        "jaxpr": closed,
        "in_shardings": (UNSPECIFIED,) * len(values) + tuple(params.params["in_shardings"]),
        "in_layouts": (None,) * len(values) + tuple(params.params["in_layouts"]),
        "donated_invars": (False,) * len(values) + tuple(params.params["donated_invars"]),
    }
    return params._replace(
        params={**params.params, **more},
        in_avals=(*map(core.typeof, values), *params.in_avals),
        arg_names=None if params.arg_names is None else ("",) * len(values) + tuple(params.arg_names),
    )


def _placed(executable: Any, values: Sequence[Any], before: int) -> list[Any]:
    """The values on the devices of a compiled program; those that it does not read, as they are."""
    if executable is None:
        return list(values)
    read = [before + k in executable._kept_var_idx for k in range(len(values))]
    these = list(compress(values, read))
    placed = iter(executable.shard_const_args(these) if before == 0 else these)
    return [next(placed) if r else value for value, r in zip(values, read, strict=True)]


def alias(value: Any) -> Any:
    """An array of the same memory, where it lies on a CPU: deleting or donating the other leaves this one as it is.

    A NumPy array, which its owner may write to, is copied.
    """
    if not isinstance(value, jax.Array):
        return jax.numpy.array(value, copy=True)
    if value.dtype.itemsize and next(iter(value.devices())).platform == "cpu":
        same = jax.device_put(np.asarray(value))
        if core.typeof(same) == core.typeof(value):
            return same
    return value
