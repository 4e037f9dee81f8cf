"""Graph text for golden files: short, and the same on every version of JAX."""

import re
from typing import Any

from graphopt.ir.attrs import Attrs, SubGraph
from graphopt.ir.graph import Graph
from graphopt.ir.text import Printer

_HIDDEN = frozenset(
    [
        "accuracy",
        "compiler_options_kvs",
        "ctx_mesh",
        "debug_info",
        "donated_invars",
        "inline",
        "in_layouts",
        "in_shardings",
        "out_layouts",
        "jvp_jaxpr_fun",
        "keep_unused",
        "num_consts",
        "out_dtype",
        "out_sharding",
        "out_shardings",
        "policy",
        "sharding",
        "symbolic_zeros",
        "weak_type",
        "fwd_jaxpr_thunk",
        "bwd",
        "out_trees",
        "call",
        "callback",
        "result_avals",
        "pin",
        "kind",
        "memory_space",
    ]
)
"""Attributes that differ between versions of JAX, or that say nothing of what the passes do."""


class GoldenPrinter(Printer):
    def attrs(self, attrs: Attrs) -> str:
        shown = {name: value for name, value in attrs.items() if name not in _HIDDEN}
        if "ft_in" in attrs:  # scan from jax 0.11 on
            consts, carry, _ = map(len, attrs["ft_in"].unpack())
            shown |= {"num_consts": consts, "num_carry": carry}
            del shown["ft_in"], shown["ft_out"]
        elif "num_carry" in attrs:
            shown["num_consts"] = attrs["num_consts"]
        given = [s for s in attrs.get("in_shardings", ()) if type(s).__name__ != "UnspecifiedValue"]
        if given:
            shown["in_shardings"] = "given"
        return super().attrs(Attrs(shown))

    def reference(self, value: Any) -> str:
        return re.sub(r" .*>", f" {type(value).__name__}>", super().reference(value))

    def value(self, value: Any) -> str:
        # Whether a sub-graph is a closed jaxpr differs between versions too.
        return super().value(SubGraph(value.graph) if isinstance(value, SubGraph) else value)


def golden_text(graph: Graph) -> str:
    """The text of a graph. Keys of kernels, which are hashes of their sources, are numbered."""
    keys: dict[str, str] = {}
    text = "\n".join(GoldenPrinter().lines(graph)) + "\n"
    return re.sub(r"\bkey=(\d+)", lambda found: f"key={keys.setdefault(found[1], str(len(keys) + 1))}", text)
