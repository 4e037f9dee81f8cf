"""Products with a matrix of one number, which are sums: XLA:CPU computes some of them wrongly beside other sums."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt

FORMS: dict[str, Callable[[Any], Any]] = {
    "and a sum": lambda x: x @ jnp.full((8, 16), 0.5) + x.sum(-1)[..., None],
    "and a maximum": lambda x: x @ jnp.full((8, 16), 0.5) + x.max(-1)[..., None],
    "from the left": lambda x: jnp.full((3, 576), 0.25) @ x + x.sum(0),
    "with several numbers": lambda x: sum(x @ jnp.full((8, 4), number) for number in (0.0, 0.1, 1.0, 2.0)),
    "a vector": lambda x: x @ jnp.full(8, 3.0) + x.sum(-1),
}


@pytest.mark.parametrize("backend", ["xla", "numba"])
@pytest.mark.parametrize("form", FORMS)
def test_products_with_one_number(form: str, backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((576, 8)).astype(np.float32)
    with jax.enable_x64(True):
        expected = np.asarray(FORMS[form](jnp.asarray(x, jnp.float64)))
    found = graphopt.jit(FORMS[form], backend=backend)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for node in graphopt.jit(FORMS[form], backend="xla").explain(x).graph.nodes:
        assert node.op.name != "dot_general"
