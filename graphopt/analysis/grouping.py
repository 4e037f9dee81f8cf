"""Which operations share a kernel: producers go into their consumers where nothing is computed more often for it.

Nodes are looked at from the outputs backwards. One whose users are all in one group joins it. One with other users as
well is a result of a kernel; it joins the group of a user with the same shape where that makes no cycle of kernels, and
else it begins a group. Nodes in `cut` are results of kernels whatever their users. Pieces (`graphopt.analysis.pieces`)
are in the groups of all of their users, and results of none. At last groups with results of one shape that read or
compute the same and do not need each other become one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES
from graphopt.analysis.factors import blocked, blocked_among
from graphopt.analysis.loops import LOOPS
from graphopt.analysis.reductions import CUMLOGSUMEXP, CUMULATIVE
from graphopt.analysis.scattering import SCATTERS
from graphopt.analysis.sorting import SORT
from graphopt.analysis.top_k import TOP_K
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, op_of
from graphopt.ops.make import BROADCAST

ALONE = (SORT, TOP_K, *CUMULATIVE, CUMLOGSUMEXP, *SCATTERS, *LOOPS)
"""Operations that are the last of their kernel and its only result."""

LIMIT = 1000
"""Operations in one kernel: more take long to plan and to compile. Long chains of them are split into loops over
blocks, between which values stay in the first cache (`passes/split.py`); those between kernels go to memory."""


SAME_ORDER = {op_of(primitive) for primitive in (p.reshape_p, p.squeeze_p, p.copy_p)}

MOVED = 1 << 18
"""Bytes of what is only moved for which a kernel may be made."""

FAR = 1000
"""Kernels and other operations up to which is looked for what leads from one kernel to another."""

READ = 1 << 14
"""Bytes of an operand at least for which kernels that read it become one."""


@dataclass(eq=False, slots=True)
class Group:
    """Nodes that are computed in one kernel. results: those that are needed outside; all have one shape."""

    members: set[Node] = field(default_factory=set)
    results: list[Node] = field(default_factory=list)


def is_alone(node: Node) -> bool:
    """Whether an operation is the last of its kernel and its only one with results."""
    return node.op in ALONE or len(node.avals) > 1


def is_repeated(node: Node) -> bool:
    """Whether a node is computed anew in each kernel that needs it: a constant of one number, or an array of it."""
    if node.op is BROADCAST and len(node.inputs) == 1:
        return is_repeated(node.inputs[0])
    return node.op is CONSTANT and node.attrs["value"].element is not None


def groups_of(
    graph: Graph, takes: Callable[[Node], bool], cut: Collection[Node] = (), pieces: Collection[Node] = ()
) -> list[Group]:
    """The groups of a graph, in no order. takes: whether a node can be in a kernel."""
    users = graph.users()
    outputs = set(graph.outputs)
    groups: dict[Node, tuple[Group, ...]] = {}
    for node in reversed(graph.nodes):
        if node.op is PARAM or node.op is CONSTANT or not takes(node):
            continue
        around = [group for user in users[node] for group in _groups_around(user, groups)]
        known = tuple(dict.fromkeys(group for group in around if group is not None))
        inside = node not in outputs and None not in around and all(_may_have(g, node) for g in known)
        if inside and (len(known) == 1 or node in pieces) and node not in cut and not is_alone(node):
            for group in known:
                group.members.add(node)
            groups[node] = known
            continue
        found = _joined(node, users, groups) if not is_alone(node) and node not in cut else None
        group = found or Group()
        group.members.add(node)
        group.results.append(node)
        groups[node] = (group,)
    every = list(dict.fromkeys(group for of in groups.values() for group in of))
    return _with_siblings(every, users, groups, cut, outputs)


def _groups_around(user: Node, groups: dict[Node, tuple[Group, ...]]) -> tuple[Group | None, ...]:
    """The groups that what a node is used by is computed in; a product that goes by blocks needs its factors before."""
    return (None,) if blocked(user) is not None else groups.get(user, (None,))


def _may_have(group: Group, node: Node) -> bool:
    """Whether a group may have one more member."""
    if len(group.members) >= LIMIT:
        return False
    if blocked(node) is None:
        return True
    (first, *_) = group.results
    return first.avals[0].shape == node.aval.shape and not blocked_among(group.members)


def _joined(node: Node, users: dict[Node, list[Node]], groups: dict[Node, tuple[Group, ...]]) -> Group | None:
    """The group of a user that a node can join as one more result."""
    for group in dict.fromkeys(group for user in users[node] for group in groups.get(user, ())):
        if not _may_have(group, node) or any(is_alone(r) for r in group.results):
            continue
        if group.results[0].avals[0].shape == node.avals[0].shape and not _leads_to(group, [node], users, groups):
            return group
    return None


def _leads_to(
    group: Group,
    nodes: Collection[Node],
    users: dict[Node, list[Node]],
    groups: dict[Node, tuple[Group, ...]],
    of: Group | None = None,
) -> bool:
    """Whether something outside of `group`, and of the one that `nodes` are of, needs one of `nodes` and is needed in
    `group`; or too much to look at does.

    A kernel begins when all of its operands are there: what one of its members waits for, all wait for.
    """

    def readers(of: Collection[Node]) -> set[Node | Group]:
        return {unit for n in of for user in users[n] for unit in groups.get(user, (user,))}

    own = set[Node | Group]() if of is None else {of}
    stack = list(readers(nodes) - own - {group})
    seen: set[Node | Group] = set(stack)
    while stack and len(seen) <= FAR:
        unit = stack.pop()
        more = readers(unit.results if isinstance(unit, Group) else (unit,)) - seen - own
        if group in more:
            return True
        seen |= more
        stack += more
    return bool(stack)


def _with_siblings(
    every: list[Group],
    users: dict[Node, list[Node]],
    groups: dict[Node, tuple[Group, ...]],
    cut: Collection[Node],
    outputs: Collection[Node],
) -> list[Group]:
    """The groups, those joined that read or compute the same, or of which one reads what the other computes.

    They have results of one shape, and nothing outside of them needs the one and is needed by the other.
    """
    first: dict[tuple[Node, tuple[int, ...]], Group] = {}
    place = {group: index for index, group in enumerate(every)}
    found: list[Group] = []
    for group in every:
        shape = group.results[0].avals[0].shape
        if any(is_alone(r) or r in cut for r in group.results):
            found.append(group)
            continue
        outside = dict.fromkeys(n for member in group.members for n in member.inputs if n not in group.members)
        common = [n for n in outside if n.avals[0].nbytes >= READ]
        common += [n for n in group.members if n.op not in MOVES and len(groups[n]) > 1]
        keys = [(n, shape) for n in (*common, *group.results)]
        others = sorted({first[key] for key in keys if key in first}, key=place.__getitem__)
        other = next((o for o in others if _may_join(group, o, users, groups)), None)
        if other is None:
            found.append(group)
        else:
            for member in group.members:
                groups[member] = tuple(dict.fromkeys(other if g is group else g for g in groups[member]))
            other.members |= group.members
            other.results += group.results
        for key in keys:
            first.setdefault(key, other or group)
    for group in found:
        around = {n: {g for user in users[n] for g in groups.get(user, (None,))} for n in group.results}
        group.results = [n for n in group.results if n in outputs or around[n] != {group}]
    return found


def _may_join(group: Group, other: Group, users: dict[Node, list[Node]], groups: dict[Node, tuple[Group, ...]]) -> bool:
    """Whether two groups can be one."""
    members = other.members | group.members
    if len(members) > LIMIT or len(blocked_among(members)) > 1:
        return False
    pairs = ((other, group), (group, other))
    return not any(_leads_to(to, of.results, users, groups, of) for to, of in pairs)


def is_worth_a_kernel(group: Group) -> bool:
    """Whether a group computes something: what moves data only is left where XLA may do it for nothing."""
    return any(node.op not in MOVES for node in group.members)


def is_large_move(group: Group, graph: Graph) -> bool:
    """Whether a group moves data of the arguments of `graph` to its large results, which XLA has to do as well.

    Not where they have the order of the operand: with an argument that is given away that is nothing to do.
    """
    if all(node.op in SAME_ORDER for node in group.members) or not set(group.results) <= set(graph.outputs):
        return False
    operands = (n for member in group.members for n in member.inputs if n not in group.members)
    return all(n.op in (PARAM, CONSTANT) for n in operands) and all(r.avals[0].nbytes >= MOVED for r in group.results)
