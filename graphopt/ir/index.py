"""Index expressions: integers computed from loop variables, quasi-affine with known bounds.

An expression is a sum of terms `coefficient * atom` and a number. Atoms are loop variables, quotients and remainders of
expressions by positive numbers, and integers that a program has loaded. Sums are kept in one normal form, and bounds
let quotients and remainders fall away: with 0 <= j < 4, `(4*i + j) // 4` is `i` and `(4*i + j) % 4` is `j`, so that a
reshape and its inverse leave no trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Variable:
    """A loop variable, or an integer that was loaded: `low <= name <= high`."""

    name: str
    low: int
    high: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Quotient:
    """`of // by`, rounded down; by > 0."""

    of: Index
    by: int

    @property
    def low(self) -> int:
        """The least value."""
        return self.of.low // self.by

    @property
    def high(self) -> int:
        """The greatest value."""
        return self.of.high // self.by

    def __str__(self) -> str:
        return f"({self.of}) // {self.by}"


@dataclass(frozen=True, slots=True)
class Remainder:
    """`of % by`, never negative; by > 0."""

    of: Index
    by: int

    @property
    def low(self) -> int:
        """The least value."""
        return 0

    @property
    def high(self) -> int:
        """The greatest value."""
        return min(self.by - 1, self.of.high) if self.of.low >= 0 else self.by - 1

    def __str__(self) -> str:
        return f"({self.of}) % {self.by}"


Atom = Variable | Quotient | Remainder


@dataclass(frozen=True, slots=True)
class Index:
    """A sum of `coefficient * atom` and a number; the terms in a fixed order, none with the coefficient 0."""

    terms: tuple[tuple[Atom, int], ...] = ()
    number: int = 0
    _hash: int | None = field(default=None, init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        """What is known of an element is looked up in every block around, by its indices."""
        if self._hash is None:
            object.__setattr__(self, "_hash", hash((self.terms, self.number)))
        return self._hash  # type: ignore[return-value]

    @property
    def low(self) -> int:
        """A lower bound, reached where the atoms are independent."""
        return self.number + sum(c * (a.low if c > 0 else a.high) for a, c in self.terms)

    @property
    def high(self) -> int:
        """An upper bound, reached where the atoms are independent."""
        return self.number + sum(c * (a.high if c > 0 else a.low) for a, c in self.terms)

    @property
    def is_number(self) -> bool:
        """Whether no variable is in it."""
        return not self.terms

    def variables(self) -> Iterator[str]:
        """The names of the variables in it."""
        for atom, _ in self.terms:
            if isinstance(atom, Variable):
                yield atom.name
            else:
                yield from atom.of.variables()

    def with_variable(self, name: str, place: Index) -> Index:
        """This with another index in the place of a variable."""
        total = Index((), self.number)
        for atom, factor in self.terms:
            if isinstance(atom, Variable):
                total = total + (place * factor if atom.name == name else Index(((atom, factor),)))
            elif name in atom.of.variables():
                of = atom.of.with_variable(name, place)
                total = total + (of // atom.by if isinstance(atom, Quotient) else of % atom.by) * factor
            else:
                total = total + Index(((atom, factor),))
        return total

    def divisions(self, name: str | None = None) -> int:
        """How many quotients and remainders are in it; where a variable is named, of something with it."""
        found = [atom for atom, _ in self.terms if not isinstance(atom, Variable)]
        return sum(1 + atom.of.divisions(name) for atom in found if name is None or name in atom.of.variables())

    def coefficient(self, name: str) -> int | None:
        """What a variable is multiplied with; None where it is also inside of a quotient or remainder."""
        found = 0
        for atom, coefficient in self.terms:
            if isinstance(atom, Variable):
                found += coefficient if atom.name == name else 0
            elif name in atom.of.variables():
                return None
        return found

    def value(self, variables: Mapping[str, int]) -> int:
        """Its value where the variables have these."""
        total = self.number
        for atom, coefficient in self.terms:
            if isinstance(atom, Variable):
                total += coefficient * variables[atom.name]
            elif isinstance(atom, Quotient):
                total += coefficient * (atom.of.value(variables) // atom.by)
            else:
                total += coefficient * (atom.of.value(variables) % atom.by)
        return total

    def __add__(self, other: Index | int) -> Index:
        if not isinstance(other, Index):
            return Index(self.terms, self.number + int(other))  # attributes may hold NumPy's integers
        terms = dict(self.terms)
        for atom, coefficient in other.terms:
            terms[atom] = terms.get(atom, 0) + coefficient
        return _normal(terms, self.number + other.number)

    def __sub__(self, other: Index | int) -> Index:
        return self + (other * -1 if isinstance(other, Index) else -int(other))

    def __mul__(self, factor: int) -> Index:
        if factor == 0:
            return Index()
        return Index(tuple((atom, c * int(factor)) for atom, c in self.terms), self.number * int(factor))

    def __floordiv__(self, by: int) -> Index:
        by = int(by)
        whole, rest = _split(self, by)
        if rest.low // by == rest.high // by:
            return whole + rest.low // by
        step, high, _ = _in_steps(rest, by)
        return whole + (high // (by // step) if step > 1 else Index(((Quotient(rest, by), 1),)))

    def __mod__(self, by: int) -> Index:
        by = int(by)
        _, rest = _split(self, by)
        if rest.low // by == rest.high // by:
            return rest - rest.low // by * by
        step, high, low = _in_steps(rest, by)
        return (high % (by // step)) * step + low if step > 1 else Index(((Remainder(rest, by), 1),))

    def __str__(self) -> str:
        parts = []
        for atom, coefficient in self.terms:
            text = str(atom)
            if coefficient != 1:
                text = f"{coefficient} * {text}" if isinstance(atom, Variable) else f"{coefficient} * ({text})"
            parts.append(text)
        if self.number or not parts:
            parts.append(str(self.number))
        return " + ".join(parts).replace("+ -", "- ")


def number(value: int) -> Index:
    """The index that is always `value`."""
    return Index((), value)


def variable(name: str, low: int, high: int) -> Index:
    """The loop variable of this name, `low <= name <= high`; where that leaves one value, the value."""
    return number(low) if low == high else Index(((Variable(name, low, high), 1),))


def narrowed(index: Index, low: int, high: int) -> Index:
    """A number, or a variable where it is known to lie from `low` to `high`."""
    if index.is_number:
        return number(min(max(index.number, low), high))
    ((atom, _),) = index.terms
    assert isinstance(atom, Variable)
    return variable(atom.name, max(low, atom.low), min(high, atom.high))


def _normal(terms: dict[Atom, int], total: int) -> Index:
    for atom in [a for a in terms if isinstance(a, Remainder)]:
        quotient, factor = Quotient(atom.of, atom.by), terms[atom]
        if factor and terms.get(quotient, 0) == factor * atom.by:  # by * (x // by) + x % by is x
            del terms[atom], terms[quotient]
            return Index(tuple(terms.items()), total) + atom.of * factor
    return Index(tuple(sorted(((a, c) for a, c in terms.items() if c), key=lambda t: (-abs(t[1]), str(t[0])))), total)


def _split(index: Index, by: int) -> tuple[Index, Index]:
    """`index` as `by * whole + rest`, with all multiples of `by` among the terms in `whole`."""
    whole = {a: c // by for a, c in index.terms if c % by == 0}
    rest = {a: c for a, c in index.terms if c % by}
    return _normal(whole, index.number // by), _normal(rest, index.number % by)


def _in_steps(index: Index, by: int) -> tuple[int, Index, Index]:
    """`index` as `step * high + low` with 0 <= low < step, where step divides `by`; 1 where there is no such step."""
    for _, coefficient in index.terms:
        step = math.gcd(coefficient, by)
        if step > 1:
            high, low = _split(index, step)
            if low.low >= 0 and low.high < step:
                return step, high, low
    return 1, index, Index()


def linear(indices: tuple[Index, ...], shape: tuple[int, ...]) -> Index:
    """The position in memory of the element at `indices` of an array of this shape, row by row."""
    total, stride = Index(), 1
    for index, size in zip(reversed(indices), reversed(shape), strict=True):
        total = total + index * stride
        stride *= int(size)
    return total


def delinear(position: Index, shape: tuple[int, ...]) -> tuple[Index, ...]:
    """The indices, in an array of this shape, of the element at `position` in memory."""
    found: list[Index] = []
    for size in reversed(shape[1:]):
        if size == 0:
            return tuple(Index() for _ in shape)
        found.append(position % size)
        position = position // size
    return (*([position] if shape else []), *reversed(found))
