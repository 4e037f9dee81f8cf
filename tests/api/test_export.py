"""`jax.export` of an optimized function: portable, over symbolic shapes, platforms and derivatives."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from graphopt.api import jit, optimize

from .comparing import close

X = jnp.linspace(0.1, 1.0, 3)
TABLE = jnp.sin(jnp.arange(5000.0))

# Runs the exported function where no graphopt can be imported.
LOADER = """
import sys
sys.modules["graphopt"] = None
import jax, numpy as np
function = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
arguments = [np.asarray(a) for a in np.load(sys.argv[2]).values()]
results = jax.tree.leaves(function.call(*arguments))
results += jax.tree.leaves(function.vjp().call(*arguments, *map(np.ones_like, results)))
assert not any(name.startswith("graphopt.") for name in sys.modules)
np.savez(sys.argv[3], *results)
"""


def program(x: Any, y: Any) -> Any:
    def body(carry: Any, row: Any) -> Any:
        return jnp.tanh(carry + row), carry

    carry, rows = jax.lax.scan(body, y, x)
    return {"rows": rows @ y, "carry": optimize(lambda c: c * TABLE[: c.shape[0]] + TABLE.sum())(carry)}


def test_another_process_without_graphopt_runs_it(tmp_path: Path) -> None:
    x, y = np.arange(6.0, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
    exported = export.export(jit(program))(x, y)
    (tmp_path / "function").write_bytes(exported.serialize(vjp_order=1))
    np.savez(tmp_path / "arguments", x, y)
    command = [sys.executable, "-c", LOADER, *(str(tmp_path / n) for n in ("function", "arguments.npz", "results.npz"))]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = list(np.load(tmp_path / "results.npz").values())
    expected, pull = jax.vjp(program, x, y)
    leaves = jax.tree.leaves(expected) + jax.tree.leaves(pull(jax.tree.map(jnp.ones_like, expected)))
    close([jnp.asarray(a) for a in found], leaves)


@pytest.mark.parametrize("wrap", [jit, lambda f: jax.jit(optimize(f))], ids=["jit", "optimize"])
def test_symbolic_shapes(wrap: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        n, m = x.shape
        return jnp.concatenate([x, x]).reshape(2, n * m).sum(axis=1) * n, jnp.arange(n) + m, x @ y, jnp.zeros((m, n))

    shapes = export.symbolic_args_specs((jax.ShapeDtypeStruct((0, 0), jnp.float32),) * 2, ("n, m", "m, 2*n"))
    exported = export.export(wrap(f))(*shapes)
    for n, m in ((2, 3), (4, 1)):
        x, y = jnp.arange(float(n * m)).reshape(n, m), jnp.ones((m, 2 * n))
        close(exported.call(x, y), f(x, y))


def test_several_platforms() -> None:
    exported = export.export(jit(program), platforms=("cpu", "cuda", "tpu"))(jnp.ones((2, 3)), X)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    again = export.deserialize(exported.serialize())
    close(again.call(jnp.ones((2, 3)), X), program(jnp.ones((2, 3)), X))


def test_an_exported_function_inside_an_optimized_one() -> None:
    exported = export.export(jax.jit(lambda x: jnp.sin(x) * 2))(X)
    close(jit(lambda x: exported.call(x + 1) * x)(X), jnp.sin(X + 1) * 2 * X)


def test_effects_are_exported() -> None:
    def f(x: Any) -> Any:
        r = jax.new_ref(x)
        r[0] = 3.0
        return r[...] + jax.random.uniform(jax.random.key(0), (3,))

    close(export.export(jit(f))(X).call(X), f(X))
