"""`graphopt.jit` is written, called and inspected as `jax.jit` is."""

import copy
import functools
import gc
import inspect
import operator
import pickle
import weakref
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphopt.api import jit, optimize
from graphopt.config import Options
from graphopt.errors import OptionError

from .comparing import close, each_way

X = jnp.linspace(0.1, 1.0, 3)


@jit
def decorated(x: Any, *, scale: float = 2.0) -> Any:
    """Scaled sine."""
    return jnp.sin(x) * scale


@jit(static_argnames=("mode",), numerics="exact")
def with_options(x: Any, mode: str = "sum") -> Any:
    return getattr(jnp, mode)(x)


@optimize(numerics="fast", backend="xla")
def region(x: Any) -> Any:
    return x + 1


# ---- ways to write it


def test_decorators() -> None:
    close(decorated(X, scale=3.0), jnp.sin(X) * 3)
    assert with_options(X, mode="prod") == X.prod()
    assert with_options(X) == X.sum()
    close(region(X), X + 1)


def test_static_arguments_stay_as_they_are() -> None:
    seen = []

    class Settings(NamedTuple):
        depth: int
        name: str

    def f(x: Any, n: Any, options: Any, *rest: Any, flag: Any = None) -> Any:
        seen.append((n, options, rest, flag))
        for _ in range(n):
            x = x * 2
        return x if flag else -x

    options = Settings(2, "a")
    for wrap in (jit, jax.jit):
        g = wrap(f, static_argnums=(1, 2, 3), static_argnames=("n", "options", "flag"))
        close(g(X, 3, options, "more", flag=True), X * 8)
        close(g(X, n=2, options=options), -X * 4)
    assert seen[:2] == seen[2:]
    assert seen[0][1] is options


def test_only_static_arguments() -> None:
    f = lambda n, mode: jnp.arange(n) if mode == "up" else -jnp.arange(n)
    close(jit(f, static_argnums=(0, 1))(3, "down"), -jnp.arange(3))


def test_a_static_argument_that_is_a_pytree_is_not_copied() -> None:
    @functools.partial(jax.tree_util.register_dataclass, data_fields=["weight"], meta_fields=["log"])
    @dataclass(eq=False)
    class Layer:
        weight: Any
        log: tuple[Any, ...]

        @jit(static_argnums=0)
        def call(self, x: Any) -> Any:
            self.log = (*self.log, x.shape)
            return self.weight * x

    layer = Layer(X, ())
    close(layer.call(X), X * X)
    assert layer.log == ((3,),)


def test_methods() -> None:
    class Model:
        scale = 3.0

        @jit(static_argnums=0)
        def scaled(self, x: Any) -> Any:
            return x * self.scale

        @staticmethod
        @jit
        def double(x: Any) -> Any:
            return x * 2

        @classmethod
        def make(cls, x: Any) -> Any:
            return jit(cls.double)(x)

        def bare(self, x: Any) -> Any:
            return x * self.scale

        def __call__(self, x: Any) -> Any:
            return x - self.scale

    model = Model()
    close(model.scaled(X), X * 3)
    close(Model.double(X), X * 2)
    close(Model.make(X), X * 2)
    close(jit(model.bare)(X), X * 3)
    close(jit(model)(X), X - 3)
    close(optimize(model)(X), X - 3)


def test_partials_and_builtins() -> None:
    f = functools.partial(lambda a, b, c: a * b + c, 2.0, c=X)
    close(jit(f)(X), 2 * X + X)
    close(functools.partial(jit(operator.sub), 1.0)(X), 1 - X)
    close(jit(jnp.sin)(X), jnp.sin(X))
    close(jit(jax.jit(jnp.cos))(X), jnp.cos(X))
    close(jit(jit(jnp.cos))(X), jnp.cos(X))
    close(jit(abs)(-X), X)
    close(jit(operator.add)(X, 1), X + 1)


@pytest.mark.parametrize(
    "options",
    [
        {"inline": True},
        {"keep_unused": True},
        {"donate_argnums": 0},
        {"donate_argnames": "x"},
        {"compiler_options": {"xla_embed_ir_in_executable": True}},
        {"in_shardings": None, "out_shardings": None},
        {"static_argnums": (), "static_argnames": ()},
    ],
    ids=lambda o: next(iter(o)),
)
def test_every_keyword_of_jax(options: dict[str, Any]) -> None:
    f = lambda x, y: (x * 2, y)
    close(jit(f, **options)(X + 0, X), jax.jit(f, **options)(X + 0, X))
    close(jit(**options)(f)(X + 0, X), jax.jit(f, **options)(X + 0, X))


def test_device_and_platform() -> None:
    device = jax.devices()[0]
    with pytest.warns(DeprecationWarning, match="backend and device"):
        assert jit(lambda x: x, device=device)(np.arange(3)).devices() == {device}
    with pytest.warns(DeprecationWarning, match="backend and device"):
        assert jit(lambda x: x, backend="cpu")(np.arange(3)).devices() == {jax.devices("cpu")[0]}


@pytest.mark.parametrize("wrap", [jit, optimize])
def test_unknown_options(wrap: Any) -> None:
    for options in ({"backend": "gpx"}, {"numerics": "sloppy"}):
        with pytest.raises(OptionError, match=f"unknown {next(iter(options))}"):
            wrap(lambda x: x, **options)
        with pytest.raises(OptionError, match="known: "):
            wrap(**options)
    with pytest.raises(TypeError, match="static_argnam"):
        wrap(lambda x: x, static_argnam="x")


def test_options_are_a_parameter_of_the_call() -> None:
    jaxpr = jax.make_jaxpr(optimize(jnp.sin, numerics="fast", backend="xla"))(X)
    assert jaxpr.eqns[0].params["options"] == Options(backend="xla", numerics="fast")
    options = [
        jax.make_jaxpr(jax.grad(lambda x, n=n: optimize(jnp.sin, numerics=n)(x).sum()))(X) for n in ("exact", "fast")
    ]
    assert ["numerics='exact'" in str(o) for o in options] == [True, False]


# ---- what goes in and comes out


class Pair:
    def __init__(self, a: Any, b: Any, label: str) -> None:
        self.a, self.b, self.label = a, b, label


def pair_of(label: Any, leaves: Any) -> Pair:
    a, b = leaves
    return Pair(a, b, label)


jax.tree_util.register_pytree_with_keys(
    Pair,
    lambda p: (((jax.tree_util.GetAttrKey("a"), p.a), (jax.tree_util.GetAttrKey("b"), p.b)), p.label),
    pair_of,
)


@each_way
def test_pytrees(way: Any) -> None:
    class Point(NamedTuple):
        x: Any
        y: Any

    def f(tree: Any, *rest: Any, **named: Any) -> Any:
        assert tree["pair"].label == "left"
        pair = Pair(tree["pair"].a + 1, tree["none"], "right")
        return {"pair": pair, "rest": [*rest], "none": None, "point": Point(named["k"], ()), "number": 3}

    arguments: Any = {"pair": Pair(X, X * 2, "left"), "none": None}
    found, expected = (g(arguments, X, (X,), k=jnp.int8(3)) for g in (way(f), jax.jit(f)))
    close(jax.tree.map(jnp.asarray, found), jax.tree.map(jnp.asarray, expected))
    assert found["pair"].label == "right"


@each_way
def test_results_that_are_not_computed(way: Any) -> None:
    f = lambda x, y: (x, 1.5, np.arange(3, dtype=np.int16), True, None, y + 0 * x, X)
    close(jax.tree.map(jnp.asarray, way(f)(X, 2.0)), jax.tree.map(jnp.asarray, jax.jit(f)(X, 2.0)))


@each_way
@pytest.mark.parametrize(
    "value",
    [
        2.0,
        3,
        True,
        1j,
        np.float64(2),
        np.float32(2),
        np.int8(2),
        np.array([1, 2], np.uint8),
        jnp.float32(2),
        jnp.bfloat16(2),
    ],
    ids=lambda v: f"{type(v).__name__}{getattr(v, 'dtype', '')}",
)
def test_types_and_weak_types(way: Any, value: Any) -> None:
    f = lambda x: (x, x + x, x * 2, jnp.zeros_like(x))
    for found, expected in zip(way(f)(value), jax.jit(f)(value), strict=True):
        assert jax.typeof(found) == jax.typeof(expected)
        assert jnp.asarray(found).weak_type == jnp.asarray(expected).weak_type
        assert jnp.asarray(found) == pytest.approx(jnp.asarray(expected))


@each_way
def test_empty_and_special_values(way: Any) -> None:
    values = [jnp.zeros((0, 3)), jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0, 1e-40]), jnp.float32(-0.0)]
    for x in values:
        f = lambda x: (x, -x, x + 0, jnp.sign(x))
        for found, expected in zip(way(f)(x), jax.jit(f)(x), strict=True):
            np.testing.assert_array_equal(np.asarray(found).view(np.uint32), np.asarray(expected).view(np.uint32))


def test_what_is_returned_as_it_came_does_not_go_through_the_call() -> None:
    f = lambda x, y: (y, x * 2, X, (y, 1.0))
    jaxpr = jax.make_jaxpr(optimize(f))(X, 2 * X)
    (call,) = jaxpr.eqns
    assert len(call.outvars) == 1
    assert jaxpr.jaxpr.outvars[0] is jaxpr.jaxpr.outvars[3] is jaxpr.jaxpr.invars[1]
    assert not jax.make_jaxpr(optimize(lambda x: x))(X).eqns
    assert jit(f).lower(X, X).as_text() == jax.jit(f).lower(X, X).as_text()


def test_inside_a_trace_what_is_not_traced_is_left_alone() -> None:
    @optimize
    def f(x: Any, mode: str, n: int, table: Any, extra: Any = None) -> Any:
        assert extra is table
        for _ in range(n):
            x = getattr(jnp, mode)(x) + table[0]
        return x, "a label"

    table = {0: 1.0, "a": np.arange(2)}

    def program(x: Any) -> Any:
        y, label = f(x, "sin", 2, table, extra=table)
        assert label == "a label"
        return y

    close(jax.jit(program)(X), jnp.sin(jnp.sin(X) + 1) + 1)


# ---- what comes back


def test_attributes() -> None:
    assert isinstance(decorated, type(jax.jit(decorated.__wrapped__)))
    assert decorated.__name__ == "decorated" and decorated.__qualname__ == "decorated"
    assert decorated.__doc__ == "Scaled sine."
    assert decorated.__module__ == __name__
    assert inspect.signature(decorated) == inspect.signature(decorated.__wrapped__)
    f = lambda x: x
    assert jit(f).__wrapped__ is f
    assert optimize(f).__wrapped__ is f
    assert isinstance(decorated, jax.stages.Wrapped)


def test_methods_of_a_compiled_function() -> None:
    f, g = jit(lambda x: jnp.sin(x) * 2), jax.jit(lambda x: jnp.sin(x) * 2)
    close(f.lower(X).compile()(X), g(X))
    assert f.lower(X).as_text() == g.lower(X).as_text()
    assert f.trace(X).jaxpr.out_avals == g.trace(X).jaxpr.out_avals
    close(f.trace(X).lower().compile()(X), g(X))
    assert f.eval_shape(X) == g.eval_shape(X)
    assert f._cache_size() == 0  # type: ignore[attr-defined]
    f(X)
    assert f._cache_size() == 1  # type: ignore[attr-defined]
    f.clear_cache()
    assert f._cache_size() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "function",
    [
        decorated.__wrapped__,
        lambda x: x,
        functools.partial(decorated.__wrapped__, scale=3.0),
        functools.partial(functools.partial(lambda a, b: b, 1)),
        functools.wraps(decorated.__wrapped__)(lambda *args, **kwargs: decorated.__wrapped__(*args, **kwargs)),
    ],
    ids=["function", "lambda", "partial", "partial of partial", "wrapper"],
)
def test_names_of_programs_and_results(function: Any) -> None:
    def text(wrap: Any) -> str:
        return str(wrap(function).lower({"a": X}["a"]).as_text())

    assert text(jit) == text(jax.jit)
    assert jit(function).trace(X).fun_name == jax.jit(function).trace(X).fun_name
    assert str(jit(function).trace(X).jaxpr.debug_info) == str(jax.jit(function).trace(X).jaxpr.debug_info)


def test_pickle_and_copy() -> None:
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    assert copy.copy(decorated) is decorated and copy.deepcopy(decorated) is decorated
    partial = functools.partial(jnp.sum, axis=0)
    assert jit(partial)(X) == pickle.loads(pickle.dumps(partial))(X)  # nothing is left in the user's function


def test_signature_is_used_for_names_of_arguments() -> None:
    f = lambda x, n, *, mode="a": x * n if mode == "a" else x
    g = jit(f, static_argnames=("n", "mode"))
    close(g(X, 2), X * 2)
    close(g(X, n=3, mode="b"), X)
    partial = functools.partial(lambda first, x, n: x * n * first, 2)
    close(jit(partial, static_argnames="n")(X, 2), jax.jit(partial, static_argnames="n")(X, 2))


# ---- tracing once


def counted() -> tuple[Any, list[int]]:
    traces: list[int] = []

    def f(x: Any, y: Any = 1.0) -> Any:
        traces.append(1)
        return jnp.sin(x) * y

    return f, traces


def test_no_second_trace() -> None:
    f, traces = counted()
    g = jit(f)
    for _ in range(3):
        g(X)
    assert len(traces) == 1
    g(X, 2.0)
    assert len(traces) == 2
    g(X.astype(jnp.bfloat16))
    assert len(traces) == 3
    g(X + 1, 3.0)
    assert len(traces) == 3


def test_the_same_function_again_is_not_traced_again() -> None:
    f, traces = counted()
    for _ in range(3):
        jit(f)(X)
        jit(f, numerics="standard")(X)
        optimize(f)(X)
    assert len(traces) == 1
    jit(f, numerics="exact")(X)
    jit(f, numerics="exact")(X)
    assert len(traces) == 2

    class Callable:
        def __call__(self, x: Any) -> Any:
            return f(x)

    f_of_object, partial = Callable(), functools.partial(f)
    for g in (f_of_object, partial):
        traces.clear()
        for _ in range(3):
            jit(g)(X)
        assert len(traces) == 1


def test_transformed_calls_are_not_traced_again() -> None:
    f, traces = counted()
    g = optimize(f)
    for _ in range(3):
        jax.grad(lambda x: g(x).sum())(X)
        jax.vmap(g)(X)
    assert len(traces) == 2  # one for each shape


def test_a_wrapper_does_not_inherit_what_is_known_of_the_wrapped() -> None:
    f, _ = counted()
    jit(f)(X)
    g = functools.wraps(f)(lambda x: f(x) + 1)
    close(jit(g)(X), f(X) + 1)


def test_functions_are_let_go() -> None:
    f, _ = counted()
    g, h = jit(f), optimize(f)
    g(X), h(X), jax.grad(h)(X[0])
    alive = weakref.ref(f)
    del f
    gc.collect()
    assert alive() is not None
    del g, h
    gc.collect()
    assert alive() is None


def test_equal_functions_do_not_disturb_each_other() -> None:
    @dataclass(frozen=True)
    class Scale:
        by: float

        def __call__(self, x: Any) -> Any:
            return x * self.by

    first, second = Scale(2.0), Scale(2.0)
    g, h = jit(first), jit(second)
    close(g(X), X * 2)
    del g, first
    gc.collect()
    close(h(X), X * 2)
    close(jit(second)(jnp.arange(4.0)), jnp.arange(4.0) * 2)


# ---- donation


def test_it_can_be_put_in_the_place_of_jax_jit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does to try it on a program, or on a library, that is not one's own."""
    monkeypatch.setattr(jax, "jit", jit)

    @jax.jit
    def function(x: Any) -> Any:
        return jax.jit(jnp.tanh)(x) + jnp.linalg.norm(x)

    expected = np.tanh(X) + np.linalg.norm(X)
    close(function(X), expected)
    close(optimize(function)(X), expected)
    close(jax.jit(jax.vmap(function))(X[None]), expected[None])
    assert "tanh" in str(function.explain(X))


def test_donation() -> None:
    for wrap in (jit, jax.jit):
        x = X + 1
        pointer = x.unsafe_buffer_pointer()
        y = wrap(lambda x: x * 2, donate_argnums=0)(x)
        assert x.is_deleted()
        assert y.unsafe_buffer_pointer() == pointer


def test_donation_that_cannot_be_used_warns_as_jax_does() -> None:
    messages = []
    for wrap in (jit, jax.jit):
        with pytest.warns(UserWarning, match="donated") as caught:
            wrap(lambda x: x[0], donate_argnums=0)(X + 1)
        messages.append([str(w.message) for w in caught])
    assert messages[0] == messages[1]
