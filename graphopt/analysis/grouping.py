"""Which operations share a kernel: producers go into their consumers where nothing is computed more often for it.

Nodes are looked at from the outputs backwards. One whose users are all in one group joins it. One with other users as
well is a result of a kernel; it joins the group of a user with the same shape where that makes no cycle of kernels, and
else it begins a group. Nodes in `cut` are results of kernels whatever their users.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from graphopt.analysis.access import MOVES
from graphopt.analysis.reductions import CUMULATIVE
from graphopt.analysis.scattering import SCATTERS
from graphopt.analysis.sorting import SORT
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM

ALONE = (SORT, *CUMULATIVE, *SCATTERS)
"""Operations that are the last of their kernel and its only result."""

LIMIT = 48
"""Operations in one kernel: more take long to compile, and their values no longer fit into registers."""


@dataclass(eq=False, slots=True)
class Group:
    """Nodes that are computed in one kernel. results: those that are needed outside; all have one shape."""

    members: set[Node] = field(default_factory=set)
    results: list[Node] = field(default_factory=list)


def is_repeated(node: Node) -> bool:
    """Whether a node is computed anew in each kernel that needs it: a constant that is one number."""
    return node.op is CONSTANT and node.attrs["value"].element is not None


def groups_of(graph: Graph, takes: Callable[[Node], bool], cut: Collection[Node] = ()) -> list[Group]:
    """The groups of a graph, in no order. takes: whether a node can be in a kernel."""
    users = graph.users()
    outputs = set(graph.outputs)
    group_of: dict[Node, Group] = {}
    for node in reversed(graph.nodes):
        if node.op is PARAM or node.op is CONSTANT or not takes(node):
            continue
        around = {group_of.get(user) for user in users[node]}
        inside = node not in outputs and None not in around
        if inside and len(around) == 1 and node not in cut and node.op not in ALONE:
            (group,) = around
            if group is not None and len(group.members) < LIMIT:
                group.members.add(node)
                group_of[node] = group
                continue
        found = _joined(node, users, group_of) if node.op not in ALONE and node not in cut else None
        group = found or Group()
        group.members.add(node)
        group.results.append(node)
        group_of[node] = group
    return list(dict.fromkeys(group_of.values()))


def _joined(node: Node, users: dict[Node, list[Node]], group_of: dict[Node, Group]) -> Group | None:
    """The group of a user that a node can join as one more result."""
    for user in users[node]:
        group = group_of.get(user)
        if group is None or len(group.members) >= LIMIT or any(r.op in ALONE for r in group.results):
            continue
        if group.results[0].avals[0].shape == node.avals[0].shape and not _leads_back(node, group, users, group_of):
            return group
    return None


def _leads_back(node: Node, group: Group, users: dict[Node, list[Node]], group_of: dict[Node, Group]) -> bool:
    """Whether something outside of `group` needs `node` and is needed in it."""
    stack = [user for user in users[node] if group_of.get(user) is not group]
    seen: set[Node] = set()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        other = group_of.get(current)
        if other is group:
            return True
        # A kernel begins when all of its operands are there: what one of its members waits for, all wait for.
        together = other.members if other is not None else {current}
        seen |= together
        stack += [user for member in together for user in users[member] if user not in seen]
    return False


def is_worth_a_kernel(group: Group) -> bool:
    """Whether a group computes something: what moves data only is left where XLA may do it for nothing."""
    return any(node.op not in MOVES for node in group.members)
