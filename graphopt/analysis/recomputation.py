"""Which values are computed again rather than kept, so that no more than some bytes are live at once.

A value that is not read for a while need not be there in between: the steps that make it are run again before it is
read, from what is there then. Greedy: of all values and all pauses between their reads the one is taken that brings
most below the limit for the time that it takes, with what is live counted anew each time, as XLA's own pass
(HloRematerialization) and Chen et al. ("Training Deep Nets with Sublinear Memory Cost", 2016) choose; Jain et al.
("Checkmate", 2020) have the optimum, to which tests compare it on small graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphopt.analysis.liveness import Buffer, Step, Steps, last_reads, live
from graphopt.ir.node import Node

SMALL = 8
"""A value that is so many times smaller than the one that is computed again from it is kept instead."""

TRIED = 12
"""Candidates that are looked at closely each time: those that promise most."""

SHARES = (0.9, 0.97, 0.99)
"""By how much the peak is brought down at a time: by less where more is not to be had."""

MOST = 1000
"""Recomputations in one graph."""

OVERHEAD = 1e-7
"""Seconds of one recomputation, however small."""

DEEPEST = 200
"""Steps that one value is computed again with at most."""


@dataclass(frozen=True, slots=True)
class Again:
    """One recomputation. number: which one. buffer: what is computed again. seconds: about what that takes."""

    number: int
    buffer: Buffer
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps, those that are run again among them, and what was chosen. peak: bytes that are live at once."""

    order: list[Step]
    chosen: tuple[Again, ...]
    peak: int

    @property
    def seconds(self) -> float:
        """About the time that is added."""
        return sum(again.seconds for again in self.chosen)


@dataclass(frozen=True, slots=True)
class _Pause:
    """Steps number `first` and `next` read (or make, and read) a buffer, and none between them."""

    buffer: Buffer
    first: int
    next: int


def plan_for(steps: Steps, limit: int) -> Plan:
    """The plan within a limit that adds least time, of those in two orders; the one with least live at once where none
    is within it."""
    found = [plan_within(order, limit) for order in (steps.by_memory, steps.order)]
    return min(found, key=lambda plan: (max(plan.peak, limit), plan.seconds))


def plan_within(order: Sequence[Step], limit: int) -> Plan:
    """The steps with recomputation, so that at most `limit` bytes are live at once; as near to it as was found where
    that is not possible.

    Straight to the limit first. Where that ends before it, by degrees: a peak comes down that is not the longest.
    """
    start = Plan(list(order), (), max(live(order), default=0))
    straight = _towards(start, limit)
    if straight.peak <= limit:
        return straight
    plan = start
    for share in SHARES:
        while plan.peak > limit:
            new = _towards(plan, max(limit, int(plan.peak * share)))
            if new.peak >= plan.peak:
                break
            plan = new
    return min(plan, straight, key=lambda found: found.peak)


def _towards(plan: Plan, limit: int) -> Plan:
    """A plan with more recomputation, as long as that brings what is live nearer to a limit."""
    steps, chosen = plan.order, list(plan.chosen)
    bytes_live = live(steps)
    while max(bytes_live, default=0) > limit and len(chosen) < MOST:
        found = _best(_Place.of(steps), bytes_live, limit, len(chosen) + 1)
        if found is None:
            break
        steps, again = found
        chosen.append(again)
        bytes_live = live(steps)
    return Plan(steps, tuple(chosen), max(bytes_live, default=0))


@dataclass(frozen=True, slots=True)
class _Place:
    """Steps, where each stands, which one makes a buffer, which one reads it last, and the buffers of each value."""

    steps: list[Step]
    position: Mapping[Step, int]
    made_by: Mapping[Buffer, Step]
    last: Mapping[Buffer, Step]
    copies: Mapping[Node, Sequence[Buffer]]

    @staticmethod
    def of(steps: list[Step]) -> _Place:
        made_by = {b: step for step in steps for b in step.writes}
        copies: dict[Node, list[Buffer]] = {}
        for buffer in made_by:
            copies.setdefault(buffer.value, []).append(buffer)
        return _Place(steps, {s: k for k, s in enumerate(steps)}, made_by, last_reads(steps), copies)

    def is_live(self, buffer: Buffer, at: int) -> bool:
        """Whether a buffer is there, and will be, before step number `at`."""
        if buffer.is_given:
            return True
        if self.position[self.made_by[buffer]] >= at:
            return False
        return buffer.is_kept or self.position[self.last[buffer]] >= at

    def instead(self, buffer: Buffer, pause: _Pause, small: int) -> Buffer | None:
        """What can be read at the end of a pause for a buffer: itself or another of the same value that is live there,
        or that may as well be, for it is small; None where it is to be computed again."""
        if buffer.is_given:
            return buffer
        others = [b for b in self.copies[buffer.value] if b is not pause.buffer]
        found = next((b for b in others if self.is_live(b, pause.next)), None)
        if found is not None or buffer is pause.buffer:
            return found
        if self.made_by[buffer].may_repeat and buffer.nbytes * small > pause.buffer.nbytes:
            return None
        return buffer if self.position[self.made_by[buffer]] < pause.next else None


def _best(place: _Place, bytes_live: list[int], limit: int, number: int) -> tuple[list[Step], Again] | None:
    """The steps with the one recomputation more that gains most for its time; None where none gains."""
    over = _sums([max(0, size - limit) for size in bytes_live])
    promising: list[tuple[float, _Pause, _Chain]] = []
    for pause in _pauses(place.steps):
        inside = over[pause.next] - over[pause.first + 1]
        if not inside or not place.made_by[pause.buffer].may_repeat:
            continue
        saved = min(inside, pause.buffer.nbytes * (pause.next - pause.first - 1))
        lengths = set()
        for small in (SMALL, 1):
            chain = _chain(pause, place, number, small)
            if chain is not None and len(chain.steps) not in lengths:
                lengths.add(len(chain.steps))
                promising.append((saved / (chain.seconds + OVERHEAD), pause, chain))
    promising.sort(key=lambda item: -item[0])
    best: tuple[float, list[Step], Again] | None = None
    for most, pause, chain in promising[:TRIED]:
        if best is not None and most <= best[0]:
            break
        new = _with_chain(place.steps, pause, chain)
        saved = over[-1] - sum(max(0, size - limit) for size in live(new))
        score = saved / (chain.seconds + OVERHEAD)
        if saved > 0 and (best is None or score > best[0]):
            best = score, new, Again(number, pause.buffer, chain.seconds)
    return None if best is None else best[1:]


def _sums(values: Sequence[int]) -> list[int]:
    found = [0]
    for value in values:
        found.append(found[-1] + value)
    return found


def _pauses(steps: Sequence[Step]) -> Iterator[_Pause]:
    seen: dict[Buffer, int] = {}
    for number, step in enumerate(steps):
        for buffer in step.reads:
            if buffer in seen:
                if number - seen[buffer] > 1 and buffer.nbytes:
                    yield _Pause(buffer, seen[buffer], number)
                seen[buffer] = number
        for buffer in step.writes:
            seen[buffer] = number


@dataclass(frozen=True, slots=True)
class _Chain:
    """Steps that make a value again, in their order, and the buffer with it."""

    steps: list[Step]
    buffer: Buffer

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)


def _chain(pause: _Pause, place: _Place, number: int, small: int) -> _Chain | None:
    """The steps that make a value again before it is read after a pause; None where that cannot be, or takes too many.

    small: so many times smaller values stay, to be computed from."""
    there: dict[Buffer, Buffer] = {}
    found: list[Step] = []
    # A stack of our own: a recurrence's value depends on all of its steps.
    stack: list[tuple[Buffer, bool]] = [(pause.buffer, False)]
    while stack:
        buffer, entered = stack.pop()
        if buffer in there:
            continue
        known = None if entered else place.instead(buffer, pause, small)
        if known is not None:
            there[buffer] = known
            continue
        step = place.made_by[buffer]
        if entered:
            writes = [Buffer(b.value, b.value.aval.nbytes) for b in step.writes]
            there.update(zip(step.writes, writes, strict=True))
            reads = [there[b] for b in step.reads]
            found.append(Step(step.node, reads, writes, step.inner, step.seconds, True, number))
            continue
        if not step.may_repeat or len(found) + len(stack) > DEEPEST:
            return None
        stack.append((buffer, True))
        stack.extend((b, False) for b in step.reads if b not in there)
    return _Chain(found, there[pause.buffer])


def _with_chain(steps: Sequence[Step], pause: _Pause, chain: _Chain) -> list[Step]:
    """The steps with a chain of them before the end of a pause; what comes after it reads what the chain makes."""
    new = [*steps[: pause.next], *chain.steps]
    for step in steps[pause.next :]:
        if pause.buffer in step.reads:
            reads = [chain.buffer if b is pause.buffer else b for b in step.reads]
            step = Step(step.node, reads, step.writes, step.inner, step.seconds, step.may_repeat, step.recomputed)
        new.append(step)
    return new
