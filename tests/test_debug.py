"""What GRAPHOPT_DEBUG prints, and the rules in the report."""

import os
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.config import read_settings
from graphopt.errors import OptionError

PROGRAM = """
import jax.numpy as jnp, graphopt

@graphopt.jit
def doubled(x):
    y = -(-x)
    return jnp.transpose(jnp.transpose(y)) * 2.0

doubled(jnp.ones((2, 3)))
"""


@pytest.mark.parametrize("level", range(5))
def test_each_level_prints_more(level: int, tmp_path: Any) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    environment = {**os.environ, "GRAPHOPT_DEBUG": str(level), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, str(file)], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == ""
    text = done.stderr
    assert ("graphopt doubled: passes took" in text) == (level >= 1)
    assert ("simplify: 5 → 1 nodes" in text) == (level >= 1)
    assert ("-  %1: f32[2,3] = neg(%0)" in text) == (level >= 2)
    assert ("double negation (" in text and "program.py:6" in text) == (level >= 3)
    assert ("{ lambda ;" in text) == (level >= 4)


WRONG = """
import jax, jax.numpy as jnp, graphopt
from graphopt.passes.simplify import Simplify
from graphopt.rewrite import Rule, operation, variables

(x,) = variables("x")
wrong = Rule("wrong", operation(jax.lax.sin_p)(x), x + 1.0)
right = graphopt.jit(lambda x: jnp.sin(x) + jax.lax.fori_loop(0, 3, lambda i, c: c * jnp.exp(-x), x))
right(jnp.ones(3))
graphopt.jit(jnp.sin, passes=(Simplify(rules=(wrong,)),))(jnp.ones(3))
"""


def test_results_are_checked_while_compiling() -> None:
    environment = {**os.environ, "GRAPHOPT_CHECK": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", WRONG], env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "PassError: the pass 'simplify' changed a result: output 0[0] is" in done.stderr
    assert "graphopt.verify(f)(*args)" in done.stderr


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(OptionError, match="unknown GRAPHOPT_DEBUG '5'; known: 0, 1, 2, 3, 4"):
        read_settings({"GRAPHOPT_DEBUG": "5"})


def test_the_report_lists_rules_with_lines() -> None:
    def function(x: Any) -> Any:
        first = jnp.negative(jnp.negative(x))
        second = jnp.sin(first)
        return jnp.negative(jnp.negative(second))

    report = graphopt.explain(function)(jnp.ones(3))
    used = {use.rule.name: use for use in report.rules}
    assert used["double negation"].times == 2 and used["double negation"].safety == "exact"
    assert len(used["double negation"].lines) == 2
    assert all("test_debug.py" in line for line in used["double negation"].lines)
    assert "rules that fired" in str(report) and "double negation" in str(report)


def test_a_report_without_rules() -> None:
    assert "rules that fired" not in str(graphopt.explain(lambda x: jnp.sin(x))(np.float32(1)))


FAILING = """
import jax, jax.numpy as jnp, graphopt
from graphopt.passes.simplify import Simplify
from graphopt.rewrite import Rule, operation, rewrites, variables

(x,) = variables("x")
wrong_type = Rule("wrong type", operation(jax.lax.sin_p)(x), operation(jax.lax.gt_p)(x, 0.0))

@rewrites(jax.lax.cos_p, safety="exact")
def careless(node):
    return node.inputs[7]

f = graphopt.jit(lambda x: jnp.sin(x) + jnp.cos(x) + (x + 0.0), passes=(Simplify(rules=(wrong_type, careless)), Simplify()))
print(f(jnp.zeros(3)))
print(*f.explain(jnp.zeros(3)).notes)
"""


@pytest.mark.parametrize("check", ["0", "1"])
def test_a_rule_that_fails_is_switched_off_or_an_error(check: str) -> None:
    environment = {**os.environ, "GRAPHOPT_CHECK": check, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", FAILING], env=environment, check=False, capture_output=True, text=True)
    if check == "1":
        assert done.returncode == 1
        assert "RuleError: the rule 'wrong type' (<string>:7) failed on <sin: f32[3]>" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("[1. 1. 1.]\n")
        assert "switched off: the rule 'wrong type' (<string>:7)" in done.stdout
        assert "switched off: the rule 'careless' (<string>:9)" in done.stdout and "IndexError" in done.stdout
        assert done.stderr.count("RuleWarning: the rule") >= 2
