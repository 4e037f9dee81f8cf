"""Compiled code that is kept: a second process loads it and computes the same, without Numba."""

import os
import re
import subprocess
import sys
from inspect import cleandoc
from pathlib import Path

import pytest

PROGRAM = cleandoc(
    """
    import sys
    import jax, jax.numpy as jnp, numpy as np, graphopt
    def f(x):
        return jnp.sort(jnp.sin(x) * jnp.exp(x)) + x.max()
    x = np.linspace(-2, 2, 70_000).astype(np.float32)
    found = graphopt.jit(f, backend="numba")(x)
    print("numba" in sys.modules, np.asarray(found).tobytes().hex()[:400], float(found.sum()))
    np.testing.assert_allclose(found, jax.jit(f)(x), rtol=1e-4, atol=1e-5)
    """
)


def run(cache: Path, program: str = PROGRAM) -> tuple[str, str]:
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, done.stderr


def test_the_second_process_does_not_compile(tmp_path: Path) -> None:
    first, _ = run(tmp_path)
    kept = {file: file.read_bytes() for file in (tmp_path / "graphopt" / "kernels").iterdir()}
    assert len(kept) >= 3 and {file.name.split("-")[0] for file in kept} > {"handler", "task"}
    second, _ = run(tmp_path)
    assert first.startswith("True ") and second.startswith("False ") and first[5:] == second[6:]
    # Damaged, each is made anew, with a warning.
    for file, data in kept.items():
        file.write_bytes(data[:-1])
    third, warnings = run(tmp_path)
    assert third == first and warnings.count("is damaged and will be made anew") == len(kept)
    assert {file: file.read_bytes() for file in kept}.keys() == kept.keys()


def test_a_fork_fails_and_does_not_hang(tmp_path: Path) -> None:
    program = cleandoc(
        """
        import os, signal, warnings
        warnings.simplefilter("ignore")
        import jax, numpy as np, graphopt
        x = np.arange(12, dtype=np.float32)
        f = graphopt.jit(lambda x: x * 2 + 1, backend="numba")
        f(x).block_until_ready()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            try:
                f(x).block_until_ready()
            except Exception as error:
                print("child:", str(error).splitlines()[0], flush=True)
                os._exit(3)
            os._exit(4)
        _, status = os.waitpid(child, 0)
        print("exit", os.waitstatus_to_exitcode(status))
        np.testing.assert_array_equal(f(x), x * 2 + 1)
        """
    )
    out, _ = run(tmp_path, program)
    assert re.search(r"child: .*this process was made by os\.fork", out) and "exit 3" in out


@pytest.mark.parametrize("name", ["VECMATH", "HALF_POWERS"])
def test_the_functions_that_are_known_without_numba_are_those_of_the_vector_math(name: str) -> None:
    from graphopt.backends.numba import functions, vecmath

    real = vecmath.MATH if name == "VECMATH" else vecmath.HALF_POWERS
    assert set(getattr(functions, name)) == set(real)
