"""What programs around `jax.jit` rely on beside its results: lifetimes, pickling, wrapping, what it refuses, size."""

import functools
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt


def test_the_default_keywords_of_jax_may_be_passed_through() -> None:
    assert graphopt.jit(lambda x: x + 1, backend=None, device=None, static_argnums=None)(1.0) == 2.0


def generator(x: Any) -> Iterator[Any]:
    yield x


@pytest.mark.parametrize("wrong", [3, None, "a", generator, staticmethod(abs)], ids=lambda wrong: type(wrong).__name__)
@pytest.mark.parametrize("wrapper", [graphopt.jit, graphopt.optimize], ids=["jit", "optimize"])
def test_what_is_no_function_is_refused_in_the_words_of_jax(wrong: Any, wrapper: Any) -> None:
    with pytest.raises(TypeError) as of_jax:
        jax.jit(wrong)
    with pytest.raises(TypeError) as ours:
        wrapper(wrong)
    assert str(ours.value) == str(of_jax.value)


def test_function_and_captured_arrays_go_with_the_jitted_function() -> None:
    captured = np.ones(10_000, np.float32)
    alive = weakref.ref(captured)

    def make(captured: Any) -> Callable[[Any], Any]:
        return graphopt.jit(lambda y: captured + y)

    jitted = make(captured)
    jitted(1.0)
    gc.disable()
    try:
        del captured, jitted
        assert alive() is None
    finally:
        gc.enable()


def test_no_tracer_leaks_through_the_rule_of_a_custom_derivative() -> None:
    with jax.checking_leaks():
        assert graphopt.jit(lambda x: jax.nn.relu(x) * 2)(3.0) == 6.0
        assert jax.grad(graphopt.jit(lambda x: jax.nn.relu(x) * 2))(3.0) == 2.0


@pytest.mark.parametrize("options", [{"static_argnums": 1}, {}, {"numerics": "exact"}], ids=str)
def test_a_jitted_function_can_be_sent_to_another_process(options: Any) -> None:
    cloudpickle = pytest.importorskip("cloudpickle", reason="cloudpickle comes with scikit-learn's joblib, or alone")
    captured = jnp.arange(3.0)
    again = cloudpickle.loads(cloudpickle.dumps(graphopt.jit(lambda x, n: x * n + captured, **options)))
    np.testing.assert_array_equal(again(1.0, 2), captured + 2)
    assert again.lower(1.0, 2) and again.explain(1.0, 2)


def test_the_call_is_jaxs_own_and_a_mistake_is_still_explained() -> None:
    jitted = graphopt.jit(lambda x: x + 1)
    assert isinstance(jitted, type(jax.jit(lambda x: x))), "a Python function around it costs a twentieth of a call"
    assert jitted(1.0) == 2.0
    for repeat in range(2):
        with pytest.raises(TypeError) as caught:
            jitted("text")
        assert sum(note.startswith("graphopt: ") for note in caught.value.__notes__) == 1, repeat
    assert jitted(2.0) == 3.0 and jitted._cache_size() == 1  # type: ignore[attr-defined]


def test_a_jit_around_a_jitted_function_has_its_own_options() -> None:
    inner = graphopt.jit(lambda x: (x, x * 2))
    for outer in (jax.jit(inner, donate_argnums=0), graphopt.jit(inner, donate_argnums=0)):
        assert "donated_invars=(True,)" in str(jax.make_jaxpr(outer)(1.0)) or outer.lower(1.0).args_info[0][0].donated
        assert outer.lower(jnp.ones(3)).args_info[0][0].donated
    assert "jit[" in str(jax.make_jaxpr(inner)(1.0))


def test_functools_wraps_copies_the_users_attributes_and_not_our_methods() -> None:
    def written(x: Any) -> Any:
        return x

    written.level = 3  # type: ignore[attr-defined]
    jitted = graphopt.jit(written)

    @functools.wraps(jitted)
    def wrapped(x: Any) -> Any:
        return jitted(x)

    assert wrapped.level == 3  # type: ignore[attr-defined]
    assert not hasattr(wrapped, "lower") and not hasattr(wrapped, "explain")
    assert jitted.lower(1.0) and jitted.explain(1.0)


def test_a_function_that_calls_another_twice_does_not_double_the_program_at_each_level() -> None:
    def nested(jit: Callable[..., Any], levels: int) -> Any:
        function: Any = lambda x: x
        for _ in range(levels):
            function = jit(functools.partial(lambda f, x: jnp.sin(f(x * 0.3)) + f(x + 1.7), function))
        return function

    sizes = [len(nested(graphopt.jit, levels).lower(1.0).as_text()) for levels in (8, 12, 16)]
    assert sizes[2] - sizes[1] < 1.5 * (sizes[1] - sizes[0])
    # The values are compared where the program is small enough to run.
    np.testing.assert_allclose(nested(graphopt.jit, 5)(0.5), nested(jax.jit, 5)(0.5), rtol=1e-5)


def test_a_checkpoint_may_hold_constants_that_a_pass_made() -> None:
    weights = jnp.arange(6.0).reshape(2, 3) + 0.5

    @jax.jit
    def inner(x: Any) -> Any:
        return jnp.tanh(x @ weights) + np.arange(3.0) * jnp.array([1, 2, 3])

    function = jax.checkpoint(lambda x: jnp.sin(inner(x)).sum())
    x = jnp.array([1.0, 2.0])
    for transform in (jax.grad, jax.hessian):
        np.testing.assert_allclose(graphopt.jit(transform(function))(x), jax.jit(transform(function))(x), rtol=1e-5)
        np.testing.assert_allclose(transform(graphopt.jit(function))(x), jax.jit(transform(function))(x), rtol=1e-5)
