"""The parameters that operations are made with are those that JAX's own functions bind."""

import pytest
from jax.extend.core import primitives as p

from graphopt.ir.op import op_of
from graphopt.ops.make import KNOWN_DEFAULTS, traced_defaults


@pytest.mark.parametrize("name", KNOWN_DEFAULTS)
def test_what_is_known_is_what_jax_binds(name: str) -> None:
    op = op_of(getattr(p, f"{name}_p"))
    assert traced_defaults(op) == KNOWN_DEFAULTS[name]
