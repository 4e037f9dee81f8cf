"""What surrounds a function at lowering: platforms, metadata, names, and what the passes are told of it."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jax.experimental import compute_on
from jax.experimental.xla_metadata import set_xla_metadata

from graphopt.api import jit, optimize
from graphopt.backends.xla.target import Target
from graphopt.config import Options
from graphopt.traceable import choose_call

X = jnp.linspace(0.1, 1.0, 3)


def f(x: Any) -> Any:
    return jnp.tanh(x @ jnp.ones((3, 3))) + jax.random.normal(jax.random.key(0), (3,))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_lowering_for_another_platform(platform: str) -> None:
    g = lambda x: jnp.tanh(x) * 2
    text = jit(g).trace(X).lower(lowering_platforms=(platform,)).as_text()
    assert text == jax.jit(g).trace(X).lower(lowering_platforms=(platform,)).as_text()
    assert jit(f).trace(X).lower(lowering_platforms=(platform,)).as_text().startswith("module @jit_f")


def test_platform_dependent_code() -> None:
    def f(x: Any) -> Any:
        return jax.lax.platform_dependent(
            x, cpu=lambda x: jnp.sin(x), cuda=lambda x: jnp.cos(x), default=lambda x: jnp.exp(x)
        )

    for platform, operation in (("cpu", "sine"), ("cuda", "cosine"), ("tpu", "exponential")):
        text = jit(f).trace(X).lower(lowering_platforms=(platform,)).as_text()
        found = [name for name in ("sine", "cosine", "exponential") if f"stablehlo.{name} " in text]
        assert found == [operation]
    text = export.export(jit(f), platforms=("cpu", "cuda"))(X).mlir_module()
    assert "sine" in text and "cosine" in text


@pytest.mark.parametrize("where", ["inside", "around"])
def test_xla_metadata(where: str) -> None:
    def program(wrap: Any) -> Any:
        if where == "inside":

            def f(x: Any) -> Any:
                with set_xla_metadata(label="kept"):
                    y = jnp.sin(x) * x
                return y + 1

            return wrap(f)

        def g(x: Any) -> Any:
            with set_xla_metadata(label="kept"):
                return wrap(lambda x: jnp.sin(x) * x)(x)

        return g

    def count(wrap: Any) -> int:
        return jax.jit(program(wrap)).lower(X).as_text().count('label = "kept"')

    assert count(optimize) == count(lambda f: f) == 2
    assert count(jit) >= 2


def double_on_host_as_function(x: Any) -> Any:
    on_host: Any = getattr(compute_on, "compute_on2", compute_on.compute_on)  # jax 0.10 has both forms, under two names
    return on_host(lambda x: x * 2, compute_type="device_host", out_memory_spaces=jax.memory.Space.Device)(x)


def double_on_host_as_context(x: Any) -> Any:
    with compute_on.compute_on("device_host"):
        return jax.jit(lambda x: x * 2)(x)


FORMS = [double_on_host_as_function]
if hasattr(compute_on, "compute_on2"):
    FORMS.append(double_on_host_as_context)


@pytest.mark.parametrize("double_on_host", FORMS)
@pytest.mark.parametrize("where", ["inside", "around"])
def test_compute_on(where: str, double_on_host: Any) -> None:
    def program(wrap: Any) -> Any:
        if where == "inside":
            return wrap(lambda x: double_on_host(x) + 1)
        return lambda x: wrap(double_on_host)(x) + 1

    for wrap in (optimize, jit):
        text = jax.jit(program(wrap)).lower(X).as_text()
        (add,) = re.findall(r".*stablehlo.add.*", text)
        assert 'xla_compute_type = "host"' in text
        assert "xla_compute_type" not in add


@pytest.mark.skipif(len(FORMS) == 1, reason="compute_on is a context manager on jax 0.10 only")
def test_a_region_in_a_compute_on_context() -> None:
    def f(x: Any) -> Any:
        with compute_on.compute_on("device_host"):
            y = jax.jit(optimize(lambda x: jnp.sin(x)))(x)
        return y + 1

    text = jax.jit(f).lower(X).as_text()
    (sine,) = re.findall(r".*stablehlo.sine.*", text)
    assert 'xla_compute_type = "host"' in sine


def test_named_scopes_and_names_of_functions() -> None:
    @jax.named_scope("outer scope")
    def f(x: Any) -> Any:
        with jax.named_scope("inner scope"):
            y = jnp.sin(x)
        return jax.jit(jnp.cos)(y)

    text = jax.jit(lambda x: optimize(f)(x)).lower(X).as_text(debug_info=True)
    assert "outer scope/inner scope/sin" in text
    grad = jax.jit(jax.grad(lambda x: optimize(f)(x).sum())).lower(X).as_text(debug_info=True)
    assert "inner scope" in grad


def test_small_arguments_that_are_not_used_are_dropped() -> None:
    f = lambda x, unused: x + 1
    assert jit(f).lower(X, X).as_text() == jax.jit(f).lower(X, X).as_text()
    assert jit(f, keep_unused=True).lower(X, X).as_text() == jax.jit(f, keep_unused=True).lower(X, X).as_text()


def test_large_constants_are_where_jax_puts_them() -> None:
    table = jnp.arange(5000.0)
    for wrap in (jit, jax.jit):
        jaxpr = wrap(lambda x: x + table.sum()).trace(X).jaxpr
        assert [c.shape for c in jaxpr.consts] == [(5000,)]


# ---- what the passes are told


def targets_of(lower: Any) -> list[Target]:
    """The targets of all regions that are lowered by `lower(wrap)`."""
    seen: list[Target] = []

    def rewrite(jaxpr: Any, options: Any, target: Target) -> Any:
        seen.append(target)
        return jaxpr

    call = choose_call(jax.__version__, rewrite)
    lower(lambda f: lambda *args: call(f, Options(), args, {}))
    return seen


def test_target_of_a_compiled_function() -> None:
    (target,) = targets_of(lambda wrap: jax.jit(wrap(jnp.sin))(X))
    assert target == Target(platforms=("cpu",), num_devices=1, for_export=False, symbolic=False, alone=True)


def test_target_of_another_platform() -> None:
    (target,) = targets_of(lambda wrap: jax.jit(wrap(jnp.sin)).trace(X).lower(lowering_platforms=("tpu",)))
    assert target.platforms == ("tpu",)


def test_target_of_an_export() -> None:
    (target,) = targets_of(lambda wrap: export.export(jax.jit(wrap(jnp.sin)), platforms=("cpu", "cuda"))(X))
    assert target == Target(platforms=("cpu", "cuda"), num_devices=1, for_export=True, symbolic=False)
    (shape,) = (jax.ShapeDtypeStruct(export.symbolic_shape("n, 3"), jnp.float32),)
    (target,) = targets_of(lambda wrap: export.export(jax.jit(wrap(jnp.sin)))(shape))
    assert target.symbolic


def test_only_the_branches_for_the_platforms_at_hand_are_rewritten() -> None:
    def program(wrap: Any) -> Any:
        return jax.jit(lambda x: jax.lax.platform_dependent(x, cpu=wrap(jnp.sin), default=wrap(jnp.cos)))

    (target,) = targets_of(lambda wrap: program(wrap)(X))
    assert target.platforms == ("cpu",)
    assert len(targets_of(lambda wrap: export.export(program(wrap), platforms=("cpu", "cuda"))(X))) == 2


def test_a_region_is_rewritten_once_for_each_of_its_programs() -> None:
    def lower(wrap: Any) -> None:
        f = jax.jit(wrap(lambda x: jnp.sin(x).sum()))
        for _ in range(2):
            f(X)
            jax.grad(f)(X)

    assert len(targets_of(lower)) == 3  # the value; under grad, the value with its residuals, and the derivative


def test_a_rewrite_that_changes_the_results_is_refused() -> None:
    from graphopt.errors import PassError

    call = choose_call(jax.__version__, lambda jaxpr, options, target: jax.make_jaxpr(lambda x: x.astype(int))(X))
    with pytest.raises(PassError, match="changed the results"):
        jax.jit(lambda x: call(jnp.sin, Options(), (x,), {}))(X)


def test_a_rewrite_may_bring_in_references() -> None:
    def with_reference(x: Any) -> Any:
        r = jax.new_ref(x)
        r[...] = jnp.sin(r[...])
        return r[...]

    call = choose_call(jax.__version__, lambda jaxpr, options, target: jax.make_jaxpr(with_reference)(X))
    found = jax.jit(lambda x: call(lambda y: y * 1, Options(), (x,), {}))(X)
    assert jnp.allclose(found, jnp.sin(X))
