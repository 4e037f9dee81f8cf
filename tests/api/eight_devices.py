"""Run by test_sharding.py in a process with eight virtual devices: prints what became of each check as JSON."""

import functools
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from graphopt.api import jit, optimize
from graphopt.backends.xla.target import Target
from graphopt.config import Options
from graphopt.traceable import choose_call

# The checks' names are read in a process with one device: nothing here asks for eight of them before a check runs.
X = np.sin(np.arange(64, dtype=np.float32)).reshape(8, 8)


@functools.cache
def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))


def rows() -> NamedSharding:
    return NamedSharding(mesh(), P("a"))


WAYS: tuple[Callable[..., Any], ...] = (jit, optimize, lambda f: jax.jit(optimize(f)))


def f(x: Any, y: Any) -> Any:
    return {"product": jnp.tanh(x @ y), "sum": (x * 2).sum(axis=0), "same": y}


def same(found: Any, expected: Any) -> None:
    """Equal numbers, equally sharded."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6)
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim), (a.sharding, b.sharding)


def sharded_arguments() -> None:
    x, y = jax.device_put(X, rows()), jax.device_put(X, NamedSharding(mesh(), P(None, "b")))
    for way in WAYS:
        same(way(f)(x, y), jax.jit(f)(x, y))
        same(
            jax.grad(lambda x, way=way: way(f)(x, y)["product"].sum())(x),
            jax.grad(lambda x: jax.jit(f)(x, y)["product"].sum())(x),
        )


def shardings_of_arguments_and_results() -> None:
    options: dict[str, Any] = {"in_shardings": (rows(), None), "out_shardings": NamedSharding(mesh(), P())}
    same(jit(f, **options)(X, X), jax.jit(f, **options)(X, X))
    assert jit(f, **options).lower(X, X).as_text() == jax.jit(f, **options).lower(X, X).as_text()


def constraints_inside() -> None:
    def g(x: Any) -> Any:
        return jax.lax.with_sharding_constraint(jnp.sin(x), rows()) @ x.T

    for way in WAYS:
        same(jax.jit(way(g))(X), jax.jit(g)(X))
    assert "sharding_constraint" in jit(g).lower(X).as_text()


def captured_sharded_array() -> None:
    table = jax.device_put(X[:, 0], rows())  # small, and still an operand: it lies on eight devices
    for way in WAYS:
        same(way(lambda x: x + table)(X), jax.jit(lambda x: x + table)(X))


def donated_sharded_argument() -> None:
    x = jax.device_put(X + 1, rows())
    y = jit(lambda x: x * 2, donate_argnums=0, out_shardings=rows())(x)
    assert x.is_deleted() and y.sharding == rows()


def body(x: Any) -> Any:
    return jax.lax.psum(jnp.sin(x).sum(axis=0), "a") + jax.lax.axis_index("b")


def shard_map_inside_and_around() -> None:
    mapped = functools.partial(jax.shard_map, mesh=mesh(), in_specs=P("a", "b"), out_specs=P("b"))
    expected = jax.jit(mapped(body))(X)
    for way in WAYS:
        same(way(mapped(body))(X), expected)
        same(jax.jit(mapped(way(body)))(X), expected)
        np.testing.assert_allclose(mapped(way(body))(X), expected, rtol=1e-6)
        gradient = jax.grad(lambda x, way=way: jax.jit(mapped(way(body)))(x).sum())
        np.testing.assert_allclose(gradient(X), jax.grad(lambda x: mapped(body)(x).sum())(X), rtol=1e-5)


def partly_manual_shard_map() -> None:
    mapped = functools.partial(jax.shard_map, mesh=mesh(), in_specs=P("a"), out_specs=P("a"), axis_names={"a"})
    g = lambda x: x * 2 + jax.lax.axis_index("a")
    for way in WAYS:
        same(jax.jit(mapped(way(g)))(X), jax.jit(mapped(g))(X))


def explicit_axes() -> None:
    explicit = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Explicit, AxisType.Explicit))
    with jax.set_mesh(explicit):
        x = jax.device_put(X, NamedSharding(explicit, P("a", "b")))
        g = lambda x: jnp.sin(x) @ jax.sharding.reshard(x, P(None, None)) + x.sum(axis=0)
        for way in WAYS:
            same(way(g)(x), jax.jit(g)(x))
            same(jax.grad(lambda x, way=way: way(g)(x).sum())(x), jax.grad(lambda x: jax.jit(g)(x).sum())(x))
            assert jax.typeof(way(g)(x)) == jax.typeof(jax.jit(g)(x))


def vmap_with_a_mesh_axis() -> None:
    x = jax.device_put(X, rows())
    for way in WAYS:
        same(
            jax.jit(jax.vmap(way(lambda r: jnp.sin(r).sum()), spmd_axis_name="a"))(x),
            jax.jit(jax.vmap(lambda r: jnp.sin(r).sum()))(x),
        )


def ordered_effects_refuse_as_in_jax() -> None:
    def g(x: Any) -> Any:
        jax.debug.callback(lambda v: None, x.sum(), ordered=True)
        return x

    outcomes = []
    for wrap in (jit, jax.jit):
        try:
            outcomes.append(str(jax.typeof(wrap(g)(jax.device_put(X, rows())))))
        except ValueError as error:
            outcomes.append(str(error).split("\n")[0])
    assert outcomes[0] == outcomes[1], outcomes


def arguments_on_different_devices() -> None:
    messages = []
    for wrap in (jit, jax.jit):
        try:
            wrap(f)(jax.device_put(X, jax.devices()[0]), jax.device_put(X, jax.devices()[1]))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) == 2 and messages[0] == messages[1], messages


def what_the_passes_are_told() -> None:
    seen: list[Target] = []

    def rewrite(jaxpr: Any, options: Any, target: Target) -> Any:
        seen.append(target)
        return jaxpr

    call = choose_call(jax.__version__, rewrite)
    way: Any = lambda f: lambda *args: call(f, Options(), args, {})
    mapped = functools.partial(jax.shard_map, mesh=mesh(), in_specs=P("a", "b"), out_specs=P("b"))
    jax.jit(way(lambda x: x + 1))(jax.device_put(X, rows()))
    jax.jit(mapped(way(body)))(X)
    jax.jit(jax.shard_map(way(lambda x: x + 1), mesh=mesh(), in_specs=P("a"), out_specs=P("a"), axis_names={"a"}))(X)
    jax.jit(way(lambda x: x + 1))(X)
    assert [target.num_devices for target in seen] == [8, 1, 2, 1], seen


numba_jit = functools.partial(jit, backend="numba")
W = np.cos(np.arange(8 * 40 * 6, dtype=np.float32)).reshape(8 * 40, 6)


def kernels_in(lowered: Any) -> int:
    return int(lowered.as_text().count("graphopt.kernel"))


def normalized(x: Any) -> Any:
    e = jnp.exp(x - jax.lax.pmax(jax.lax.stop_gradient(x).max(), ("a", "b")))
    return e / jax.lax.psum(e.sum(), ("a", "b"))


def in_turns(x: Any) -> Any:
    def step(carried: Any, _: Any) -> Any:
        turned = jax.lax.ppermute(carried, "a", [(k, (k + 1) % 4) for k in range(4)])
        return jnp.tanh(turned) * 0.5 + carried.sum(1, keepdims=True), turned.max()

    last, seen = jax.lax.scan(step, x, None, length=3)
    return last, jax.lax.pmax(seen, ("a", "b"))


def looked_up(x: Any) -> Any:
    order = jnp.argsort(x[:, 0])
    return jnp.zeros_like(x).at[order].add(jnp.cumsum(x, 0)) + jax.lax.axis_index("b").astype(x.dtype)


def summed(x: Any) -> Any:
    return jax.grad(lambda v: jnp.square(jnp.sin(v) * v.mean(0)).sum())(x)


def kernels_in_manual_regions() -> None:
    """With the optimized function around shard_map and inside of it, with types that say what varies and without."""
    everywhere, one = P(("a", "b")), P()
    for inner, out in (
        (normalized, everywhere),
        (in_turns, (everywhere, one)),
        (looked_up, everywhere),
        (summed, everywhere),
    ):
        for check_vma in (True, False):
            mapped = functools.partial(
                jax.shard_map, mesh=mesh(), in_specs=everywhere, out_specs=out, check_vma=check_vma
            )
            around, inside = numba_jit(mapped(inner)), jax.jit(mapped(numba_jit(inner)))
            expected = jax.jit(mapped(inner))(W)
            for way in (around, inside):
                assert kernels_in(way.lower(W)) > 0, inner
                for found, e in zip(jax.tree.leaves(way(W)), jax.tree.leaves(expected), strict=True):
                    np.testing.assert_allclose(found, e, rtol=2e-5, atol=1e-6)
                    assert found.sharding.is_equivalent_to(e.sharding, e.ndim)
            assert len(around.explain(W).kernels) > 0


def gradients_through_manual_regions() -> None:
    mapped = jax.shard_map(normalized, mesh=mesh(), in_specs=P(("a", "b")), out_specs=P(("a", "b")))
    loss = lambda f: lambda x: jnp.square(f(x)).sum()
    expected = jax.grad(loss(mapped))(W)
    for gradient in (jax.grad(loss(numba_jit(mapped))), numba_jit(jax.grad(loss(mapped)))):
        np.testing.assert_allclose(gradient(W), expected, rtol=1e-4, atol=1e-9)
    assert kernels_in(numba_jit(jax.grad(loss(mapped))).lower(W)) > 0


def exact_numerics_in_manual_regions() -> None:
    mapped = jax.shard_map(looked_up, mesh=mesh(), in_specs=P(("a", "b")), out_specs=P(("a", "b")))
    exact = numba_jit(mapped, numerics="exact")
    np.testing.assert_array_equal(exact(np.round(W * 8)), jax.jit(mapped)(np.round(W * 8)))


def chosen_kernels_in_manual_regions() -> None:
    """Where the choice is free, what one device does counts."""
    x = np.tile(W.ravel(), 100).reshape(-1, 600)
    mapped = jax.shard_map(lambda x: jnp.sort(x, 1), mesh=mesh(), in_specs=P(("a", "b")), out_specs=P(("a", "b")))
    assert kernels_in(jit(mapped).lower(x)) == 1
    np.testing.assert_array_equal(jit(mapped)(x), np.sort(x, 1))


def no_kernels_where_the_partitioner_works() -> None:
    """In a program that is partitioned, and where shard_map leaves it an axis; the report says why."""
    spread = jax.device_put(W, NamedSharding(mesh(), P(("a", "b"))))
    partly = jax.shard_map(lambda x: jnp.tanh(x) * 2, mesh=mesh(), in_specs=P("a"), out_specs=P("a"), axis_names={"a"})
    for function in (lambda x: jnp.tanh(x) * 2, partly):
        jitted = numba_jit(function)
        assert kernels_in(jitted.lower(spread)) == 0
        np.testing.assert_allclose(jitted(spread), jax.jit(function)(spread), rtol=1e-5)
        report = jitted.explain(spread)
        assert not report.kernels
        assert any("partitioned over 8 devices" in note for note in report.notes), report.notes
    inside = jax.jit(
        jax.shard_map(numba_jit(jnp.sin), mesh=mesh(), in_specs=P("a"), out_specs=P("a"), axis_names={"a"})
    )
    assert kernels_in(inside.lower(W)) == 0

    def both(x: Any) -> Any:
        whole = jax.shard_map(lambda x: jnp.tanh(x) * 2, mesh=mesh(), in_specs=P("a", "b"), out_specs=P("a", "b"))
        return whole(jnp.sin(x) + 1)

    report = numba_jit(both).explain(spread)
    assert len(report.kernels) == 1 and {n.op.name for n in report.kernels[0].body.nodes} >= {"tanh", "mul"}
    np.testing.assert_allclose(numba_jit(both)(spread), jax.jit(both)(spread), rtol=1e-5)


CHECKS = [
    kernels_in_manual_regions,
    gradients_through_manual_regions,
    exact_numerics_in_manual_regions,
    chosen_kernels_in_manual_regions,
    no_kernels_where_the_partitioner_works,
    sharded_arguments,
    shardings_of_arguments_and_results,
    constraints_inside,
    captured_sharded_array,
    donated_sharded_argument,
    shard_map_inside_and_around,
    partly_manual_shard_map,
    explicit_axes,
    vmap_with_a_mesh_axis,
    ordered_effects_refuse_as_in_jax,
    arguments_on_different_devices,
    what_the_passes_are_told,
]


def main() -> None:
    outcomes = {}
    for check in CHECKS:
        try:
            check()
            outcomes[check.__name__] = ""
        except Exception:  # noqa: BLE001 - whatever it is, the test reports it
            outcomes[check.__name__] = traceback.format_exc()
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
