"""What LLVM made of a kernel: its vector instructions."""

import re
from collections.abc import Callable
from typing import Any

import graphopt
from graphopt.backends.numba.compiling import text_of
from graphopt.backends.numba.engine import plan_by_key
from graphopt.backends.numba.names import function_of
from graphopt.ir.graph import nested_graphs
from graphopt.ops.kernel import KERNEL


def kernels_of(function: Callable[..., Any], *args: Any) -> list[Any]:
    """The kernels of a function all of which goes to them."""
    graph = graphopt.jit(function, backend="numba").explain(*args).graph
    return [node for inner in nested_graphs(graph) for node in inner.nodes if node.op is KERNEL]


def instructions(node: Any) -> str:
    """The LLVM code of a kernel, optimized."""
    source = plan_by_key(node.attrs["key"]).source
    return text_of(function_of(source))


def accumulates_in_vectors(code: str, operation: str = r"f(?:add|mul)(?: \w+)*", kind: str = "float") -> bool:
    """Whether there is a loop whose accumulator is a vector, which `operation` adds to."""
    vector = rf"<\d+ x {kind}>"
    phis = re.findall(rf"(%[\w.\"-]+) = phi {vector}", code)
    return any(re.search(rf"= {operation} {vector} .*{re.escape(name)}[,\s]", code) for name in phis)
