"""Scatters as loop programs: the result begins as the operand, then the updates are combined into it.

Which element an update goes to is loaded, and two updates may go to one element. They never do where they differ in a
batch, or in the offset along an axis that no index moves, or where the program promises it; such updates are shared
among threads. The others are made one after the other, in the order of XLA; or, where the result is small and the order
does not matter, each of some parts of them goes to a result of its own, and in the end these are combined.

Loop program of `scatter_add(x: f32[10], i: i32[5,1], u: f32[5])`:
    parallel i1 < 10:
      x2: f32 = in0[i1]
      out0[i1] = x2
    serial j3 < 5:
      x4: i32 = in1[j3]
      v5: i64 = convert_element_type(x4)
      if 0 <= v5 < 10:
        x6: f32 = in2[j3]
        x7: f32 = out0[v5]
        v8: f32 = add(x7, x6)
        out0[v5] = v8
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jax import lax
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices
from graphopt.analysis.derive import Derivation
from graphopt.analysis.indexed import MODES
from graphopt.analysis.reductions import ADD, MAX, MIN, MUL, REDUCTIONS, Reduction
from graphopt.ir.attrs import EMPTY
from graphopt.ir.index import Index, delinear, linear, narrowed
from graphopt.ir.index import number as number_index
from graphopt.ir.loop import SERIAL, Apply, Buffer, Literal, Load, Store, Value
from graphopt.ir.node import Node
from graphopt.ir.op import PARAM, Op, op_of
from graphopt.ops.make import BROADCAST

SUB = op_of(p.sub_p)

_PRIMITIVES = {
    "scatter": None,
    "scatter_add": ADD,
    "scatter_sub": SUB,
    "scatter_mul": MUL,
    "scatter_min": MIN,
    "scatter_max": MAX,
}

SCATTERS: Mapping[Op, Op | None] = {
    op_of(getattr(lax, f"{name}_p")): combine for name, combine in _PRIMITIVES.items() if hasattr(lax, f"{name}_p")
}
"""The scatters, and what each combines with; None where an update takes the place of what was there."""

PARTS = 16
"""Into how many parts the updates of one small result are cut."""

MANY = 1 << 15
"""Updates from which on they are."""

ENOUGH = 8
"""Iterations that are as many as threads can share."""

LINE = 128
"""Bytes that are at least in a block: memory is written, and fetched, by pairs of lines of 64."""


def _negative_zero(dtype: Any) -> Any:
    """What is added without a change: 0.0 + -0.0 would be 0.0."""
    return 0 if dtype.kind in "iub" else complex(-0.0, -0.0) if dtype.kind == "c" else -0.0


PARTIAL: Mapping[Op | None, Reduction] = {
    ADD: Reduction(ADD, _negative_zero),
    SUB: Reduction(ADD, _negative_zero),
    MUL: REDUCTIONS[op_of(p.reduce_prod_p)],
    MIN: REDUCTIONS[op_of(p.reduce_min_p)],
    MAX: REDUCTIONS[op_of(p.reduce_max_p)],
}
"""What the updates of a part are combined with, by what the scatter combines with."""


def declined(node: Node) -> str | None:
    """Why a scatter cannot be part of a kernel; None where it can."""
    if node.attrs["mode"] not in MODES:
        return f"{node.op.name} of the mode {node.attrs['mode']}"
    if node.attrs["update_jaxpr"] is not None and not _is_plain(node):
        return f"{node.op.name} that combines with a function of its own"
    return None


def _is_plain(node: Node) -> bool:
    """Whether the sub-graph of a scatter combines with what its name says."""
    graph = node.attrs["update_jaxpr"].graph
    if len(graph.params) != 2 or len(graph.outputs) != 1:
        return False
    (result,), combine = graph.outputs, SCATTERS[node.op]
    return result is graph.params[1] if combine is None else result.op is combine and result.inputs == graph.params


def scatter(derivation: Derivation, node: Node, any_order: bool) -> None:
    """The phases of a scatter. any_order: whether sums and products may be reordered."""
    _Scatter(derivation, node, any_order).write()


def write_updates(derivation: Derivation, node: Node, out: Buffer) -> None:
    """The updates of a scatter one after the other, to a buffer that begins as its operand; no phase."""
    _Scatter(derivation, node, False).write_updates(out, {}, {})


def is_in_parts(node: Node) -> bool:
    """Whether parts of the updates of a scatter go to results of their own, where sums may be reordered."""
    return _Axes(node, True).in_parts()


def is_one_by_one(node: Node) -> bool:
    """Whether a scatter is of single elements of which any may go to any place."""
    axes = _Axes(node, True)
    alone = math.prod(axes.shape[axis] for axis in axes.window.values()) == 1
    return alone and axes.lead() == ([], None, 1)


class _Axes:
    """The axes of a scatter's updates, and which of them threads may share."""

    def __init__(self, node: Node, any_order: bool) -> None:
        self.node = node
        self.operand, self.indices, self.updates = node.inputs
        self.combine = SCATTERS[node.op]
        self.numbers = node.attrs["dimension_numbers"]
        self.any_order = any_order or node.aval.dtype.kind in "iub" or self.combine in (MIN, MAX)
        fixed = {*self.numbers.inserted_window_dims, *self.numbers.operand_batching_dims}
        window = [axis for axis in range(len(self.operand.aval.shape)) if axis not in fixed]
        self.window = dict(zip(window, self.numbers.update_window_dims, strict=True))
        self.shape = self.updates.aval.shape
        self.batch = [k for k in range(len(self.shape)) if k not in self.numbers.update_window_dims]

    def apart(self) -> list[int]:
        """The axes of the updates along which no two go to one element."""
        if self.node.attrs["unique_indices"]:
            return list(range(len(self.shape)))
        batching = {self.batch[k] for k in self.numbers.scatter_indices_batching_dims}
        moved = self.numbers.scatter_dims_to_operand_dims
        still = {of_updates for axis, of_updates in self.window.items() if axis not in moved}
        return sorted(batching | still)

    def lead(self) -> tuple[list[int], int | None, int]:
        """The axes that are shared among threads; one more axis that is cut into blocks, or none; how many blocks."""
        lead: list[int] = []
        last = len(self.shape) - 1
        for axis in self.apart():
            if math.prod(self.shape[k] for k in lead) >= ENOUGH:
                break
            blocks = min(ENOUGH, self.shape[axis] * self.node.aval.dtype.itemsize // LINE)
            if axis == last and axis in self.window.values():
                return (lead, axis, blocks) if blocks > 1 else (lead, None, 1)
            lead.append(axis)
        return lead, None, 1

    def in_parts(self) -> bool:
        """Whether parts of the updates go to results of their own."""
        lead, _, blocks = self.lead()
        shared = math.prod(self.shape[k] for k in lead) * blocks
        if self.combine is None or not self.any_order or shared >= ENOUGH:
            return False
        count = math.prod(self.shape[k] for k in self.batch)
        small = 2 * PARTS * self.node.aval.size <= self.updates.aval.size
        return small and self.updates.aval.size >= MANY and count >= PARTS


class _Scatter(_Axes):
    def __init__(self, derivation: Derivation, node: Node, any_order: bool) -> None:
        super().__init__(node, any_order)
        self.derivation = derivation
        self.clips = node.attrs["mode"] == lax.GatherScatterMode.CLIP

    def write(self) -> None:
        """All phases."""
        if self.in_parts():
            self.write_parts()
            return
        if self.operand not in self.derivation.in_place:
            self.write_operand()
        lead, split, blocks = self.lead()
        sizes = [self.shape[axis] for axis in lead]
        (out,) = self.derivation.outputs

        def write(index: Index) -> None:
            *found, block = delinear(index, (*sizes, blocks))
            fixed = dict(zip(lead, found, strict=True))
            if split is None:
                self.write_updates(out, fixed, {})
                return
            each, left = divmod(self.shape[split], blocks)
            self.write_updates(out, fixed, {split: (block * each, each)})
            if left:
                last = {split: (number_index(blocks * each), left)}
                within = ((block, blocks - 1, blocks),)
                self.derivation.condition(within, lambda: self.write_updates(out, fixed, last))

        self.derivation.phase(math.prod(sizes) * blocks, write)

    # ---- phases

    def write_operand(self) -> None:
        """The result begins as the operand."""
        d, shape = self.derivation, self.operand.aval.shape
        (out,) = d.outputs
        flat = self.operand.op is PARAM or (self.operand.op is BROADCAST and self.operand.inputs[0].aval.size == 1)
        rows, row = (shape, ()) if flat else (shape[:-1], shape[-1:])

        def write(index: Index) -> None:
            def store(inner: Indices) -> None:
                at = (*delinear(index, rows), *inner)
                d.add(Store(out, linear(at, shape), d.value(self.operand, at)))

            d.loops(row, store, True)

        d.phase(math.prod(rows), write)

    def write_parts(self) -> None:
        """Results of parts of the updates, and then of all."""
        d, size, dtype = self.derivation, self.node.aval.size, self.node.aval.dtype
        (out,), parts = d.outputs, d.new_scratch(dtype, PARTS * size)
        reduction = PARTIAL[self.combine]
        extents = tuple(self.shape[axis] for axis in self.batch)
        each, left = divmod(math.prod(extents), PARTS)

        def part(number: Index) -> None:
            neutral = Literal(reduction.start(dtype))
            d.loop(size, SERIAL, lambda j: d.add(Store(parts, number * size + j, neutral)))

            def update(batch: Index) -> None:
                fixed = dict(zip(self.batch, delinear(batch, extents), strict=True))
                self.write_window(parts, fixed, number * size, reduction.combine)

            d.loop(each, SERIAL, lambda j: update(number * each + j))
            if left:
                rest = PARTS * each
                within = ((number, PARTS - 1, PARTS),)
                d.condition(within, lambda: d.loop(left, SERIAL, lambda j: update(j + rest)))

        def combine(index: Index) -> None:
            def element(r: Indices) -> Value:
                return d.let(Load(parts, r[0] * size + index), dtype)

            total = d.converted(d.fold(reduction, dtype, [([PARTS], element)], self.node), dtype)
            start = d.value(self.operand, delinear(index, self.operand.aval.shape))
            assert self.combine is not None
            d.add(Store(out, index, d.let(Apply(self.combine, EMPTY, (start, total)), dtype, self.node)))

        d.phase(PARTS, part)
        d.phase(size, combine)

    # ---- updates

    def write_updates(self, out: Buffer, fixed: dict[int, Index], cut: dict[int, tuple[Index, int]]) -> None:
        """Updates of the batches where the axes in `fixed` are at these places; of those in `cut`, from one on some."""
        batch = [axis for axis in self.batch if axis not in fixed]

        def write(found: Indices) -> None:
            self.write_window(out, {**fixed, **dict(zip(batch, found, strict=True))}, Index(), self.combine, cut)

        self.derivation.loops([self.shape[axis] for axis in batch], write, False)

    def write_window(
        self,
        out: Buffer,
        fixed: dict[int, Index],
        start: Index,
        combine: Op | None,
        cut: Mapping[int, tuple[Index, int]] | None = None,
    ) -> None:
        """The updates of one window, which is in bounds or left out, to the result that begins at `start` of `out`."""
        d, numbers = self.derivation, self.numbers
        batch = tuple(fixed[axis] for axis in self.batch)
        shape = self.operand.aval.shape
        moved = dict.fromkeys(range(len(shape)), Index())
        for axis, by in zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True):
            moved[axis] = batch[by]
        within = []
        for number, axis in enumerate(numbers.scatter_dims_to_operand_dims):
            high = shape[axis] - (self.shape[self.window[axis]] if axis in self.window else 1)
            at, dtype = (*batch, number_index(number)), self.indices.aval.dtype
            moved[axis] = d.index(self.indices, at, dtype, high if self.clips else None)
            if not self.clips:
                within.append((moved[axis], 0, high + 1))
                moved[axis] = narrowed(moved[axis], 0, high)
        # Axes along which windows meet are gone through first, so that updates keep their order.
        inner = [axis for axis in self.window.values() if axis not in fixed]
        cut = cut or {}
        extents = [cut[axis][1] if axis in cut else self.shape[axis] for axis in inner]

        def update(offsets: Indices) -> None:
            where = dict(fixed)
            for axis, offset in zip(inner, offsets, strict=True):
                where[axis] = cut[axis][0] + offset if axis in cut else offset
            place = [moved[axis] + where[self.window[axis]] if axis in self.window else moved[axis] for axis in moved]
            value = d.value(self.updates, tuple(where[axis] for axis in range(len(self.shape))))
            self.store(out, start + linear(tuple(place), shape), value, combine)

        if within:
            d.condition(tuple(within), lambda: d.loops(extents, update, True))
        else:
            d.loops(extents, update, True)

    def store(self, out: Buffer, at: Index, value: Value, combine: Op | None) -> None:
        d, dtype = self.derivation, self.node.aval.dtype
        if combine is None:
            d.spend(self.node)
        else:
            value = d.let(Apply(combine, EMPTY, (d.let(Load(out, at), dtype), value)), dtype, self.node)
        d.add(Store(out, at, value))
