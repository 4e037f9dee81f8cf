"""In which order a product of many arrays is multiplied out: the fewest operations, then the smallest intermediates.

An array is a set of labels, one for each axis, as a bit mask: bit `l` stands for an axis of `sizes[l]` elements. A
label that no other array and not the result has is summed over as soon as that is so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from opt_einsum.paths import greedy, linear_to_ssa

EXACT = 12
"""Up to so many arrays the best of all orders is found; the work triples with each."""

FEW = 6
"""Up to so many arrays all orders are tried without looking for a good one first."""

Order = tuple[tuple[int, int], ...]
"""Pairs of arrays to multiply, in order: the first result is numbered like one more array, and so on."""


@dataclass(frozen=True, slots=True)
class Product:
    """A sum of products of arrays, and how often it is computed.

    arrays: the labels of each. result: the labels of the result. sizes: elements along each label.
    kept: of which arrays (as a mask, bit `i` for array `i`) the values stay the same from one time to the next, so that
        what is made of them alone is computed once. times: how often all else is computed.
    """

    arrays: tuple[int, ...]
    result: int
    sizes: tuple[int, ...]
    kept: int = 0
    times: int = 1

    def size(self, labels: int) -> int:
        """The elements of an array with these labels."""
        return math.prod(size for label, size in enumerate(self.sizes) if labels >> label & 1)

    def needed(self, members: int) -> int:
        """The labels that remain of the product of some arrays (a mask): those that the others or the result have."""
        inside, outside = 0, self.result
        for index, labels in enumerate(self.arrays):
            if members >> index & 1:
                inside |= labels
            else:
                outside |= labels
        return inside & outside

    def runs(self, members: int) -> int:
        """How often a product of these arrays is computed."""
        return 1 if members & ~self.kept == 0 else self.times


def best_order(product: Product, limit: float = math.inf) -> Order | None:
    """The order of multiplications with the fewest operations, products of unrelated arrays included; of several the
    one with the smallest intermediates. None where every order takes more than `limit` operations.

    A multiplication and an addition are two operations, a product without a sum is one for each element. Up to `EXACT`
    arrays by dynamic programming over all subsets, pruned by the cost of a known order (R. N. C. Pfeifer, J. Haegeman,
    F. Verstraete, "Faster identification of optimal contraction sequences for tensor networks", Phys. Rev. E 90,
    033315, 2014). Above that greedily, by how much smaller the arrays become (D. G. A. Smith, J. Gray, "opt_einsum",
    J. Open Source Software 3(26), 753, 2018), which may miss the best one.
    """
    groups = _equal_labels(product)
    count = len(product.arrays)
    pairs: list[tuple[int, int]] = []
    heads: list[int] = []
    for group in groups:
        # Arrays with the same labels are multiplied at once: whatever they meet later is no larger for that.
        head = group[0]
        for other in group[1:]:
            pairs.append((head, other))
            head = count + len(pairs) - 1
        heads.append(head)
    if len(groups) == 1:
        return tuple(pairs)
    merged = Product(
        tuple(product.arrays[group[0]] for group in groups),
        product.result,
        product.sizes,
        sum(1 << k for k, group in enumerate(groups) if product.kept >> group[0] & 1),
        product.times,
    )
    found: Order | None = _greedy(merged) if len(groups) > FEW else None
    if len(groups) <= EXACT:
        found = _exact(merged, limit if found is None else min(limit, cost_of_order(merged, found)[0]))
    if found is None:
        return None
    numbers = heads
    for a, b in found:
        pairs.append((numbers[a], numbers[b]))
        numbers.append(count + len(pairs) - 1)
    return tuple(pairs)


def cost_of_order(product: Product, order: Order) -> tuple[int, int]:
    """The operations of an order, by the count of `best_order`, and the elements that its sums of products read and
    write (products without a sum are fused with what comes after or before)."""
    members = [1 << index for index in range(len(product.arrays))]
    labels, flops, moved = remaining_labels(product, order), 0, 0
    for array, left, member in zip(product.arrays, labels, members, strict=False):
        flops += product.size(array) * product.runs(member) if left != array else 0
    for (a, b), left in zip(order, labels[len(members) :], strict=True):
        both = labels[a] | labels[b]
        members.append(members[a] | members[b])
        runs = product.runs(members[-1])
        flops += product.size(both) * (2 if left != both else 1) * runs
        moved += sum(map(product.size, (labels[a], labels[b], left))) * runs if left != both else 0
    return flops, moved


def remaining_labels(product: Product, order: Order) -> list[int]:
    """The labels of each array once it is summed over those that it alone has, then those of each result in `order`."""
    holders = Counter(label for labels in product.arrays for label in _labels(labels))
    alone = sum(1 << label for label, count in holders.items() if count == 1) & ~product.result
    found = [labels & ~alone for labels in product.arrays]
    for a, b in order:
        labels = found[a] | found[b]
        for label in _labels(found[a] & found[b]):
            holders[label] -= 1
            if holders[label] == 1 and not product.result >> label & 1:
                labels &= ~(1 << label)
        found.append(labels)
    return found


def _equal_labels(product: Product) -> list[list[int]]:
    groups: dict[tuple[int, int], list[int]] = {}
    for index, labels in enumerate(product.arrays):
        groups.setdefault((labels, product.kept >> index & 1), []).append(index)
    return list(groups.values())


def _exact(product: Product, limit: float) -> Order | None:
    """The best order by dynamic programming: of each subset from the best of its parts."""
    count, everything = len(product.arrays), (1 << len(product.arrays)) - 1
    needed = [product.needed(members) for members in range(everything + 1)]
    sizes: dict[int, int] = {}
    flops: list[float] = [math.inf] * (everything + 1)
    moved = [0] * (everything + 1)
    split = [0] * (everything + 1)
    for index, labels in enumerate(product.arrays):
        flops[1 << index] = product.size(labels) * product.runs(1 << index) if needed[1 << index] != labels else 0
    for members in range(1, everything + 1):
        rest = members & (members - 1)  # the lowest array stays on the left
        if not rest:
            continue
        labels, runs = needed[members], product.runs(members)
        best = (limit, math.inf)
        right = rest
        while right:
            left = members ^ right
            below = flops[left] + flops[right]
            if below <= best[0]:
                both = needed[left] | needed[right]
                if both not in sizes:
                    sizes[both] = product.size(both)
                cost = below + sizes[both] * (1 if both == labels else 2) * runs, moved[left] + moved[right]
                if cost < best:
                    best, split[members] = cost, right
            right = (right - 1) & rest
        if split[members]:
            flops[members] = best[0]
            moved[members] = int(best[1]) + product.size(labels) * runs
    return _pairs(split, count, everything) if split[everything] else None


def _pairs(split: Sequence[int], count: int, everything: int) -> Order:
    """The splits of all subsets as pairs, each after those that it needs."""
    pairs: list[tuple[int, int]] = []

    def number(members: int) -> int:
        if not split[members]:
            return members.bit_length() - 1
        right = split[members]
        pairs.append((number(members ^ right), number(right)))
        return count + len(pairs) - 1

    number(everything)
    return tuple(pairs)


def _greedy(product: Product) -> Order:
    arrays = [frozenset(_labels(labels)) for labels in product.arrays]
    sizes = dict(enumerate(product.sizes))
    path = linear_to_ssa(greedy(arrays, frozenset(_labels(product.result)), sizes))
    return tuple((int(pair[0]), int(pair[1])) for pair in path)


def _labels(mask: int) -> list[int]:
    return [label for label in range(mask.bit_length()) if mask >> label & 1]
