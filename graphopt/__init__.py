"""graphopt: a graph optimizer and JIT compiler for array programs written in JAX.

import graphopt

@graphopt.jit
def f(x): ...
"""

import graphopt.ops  # noqa: F401  registers the described operations before anything is traced
from graphopt.api import explain, jit, optimize, trace, verify
from graphopt.errors import (
    GraphError,
    GraphoptError,
    OptionError,
    ParseError,
    PassError,
    RuleError,
    RuleWarning,
    UntriedJaxWarning,
    VerificationError,
)

__version__ = "0.1.0"

__all__ = [
    "GraphError",
    "GraphoptError",
    "OptionError",
    "ParseError",
    "PassError",
    "RuleError",
    "RuleWarning",
    "UntriedJaxWarning",
    "VerificationError",
    "explain",
    "jit",
    "optimize",
    "trace",
    "verify",
]
