"""Which passes run, and in which order."""

from __future__ import annotations

from collections.abc import Iterable

from graphopt.errors import OptionError
from graphopt.passes.affine import Affine
from graphopt.passes.bind import Bind
from graphopt.passes.chunk import Chunk
from graphopt.passes.contract import Contract
from graphopt.passes.dead import Dead
from graphopt.passes.fold import Fold
from graphopt.passes.hoist import Hoist
from graphopt.passes.inline import Inline
from graphopt.passes.join import Join
from graphopt.passes.reroll import Reroll
from graphopt.passes.simplify import Simplify
from graphopt.passes.solve import Solve
from graphopt.rewrite.passes import Pass

STANDARD: tuple[Pass, ...] = (
    Inline(),
    Reroll(),
    Fold(),
    Simplify(),
    Affine(),
    Bind(),
    Contract(),
    Solve(),
    Join(),
    Hoist(),
    Dead(),
    Chunk(),
)
"""Calls first, for everything else sees more without them; then unrolled loops, while their steps are alike, for what
is rolled is not gone through again and again; then constants; then the algebra of single operations, which
leaves less in loops to look at; then, where the values of large constants are known, what depends on them alone is
computed; then the order in which products of several arrays are multiplied out, and what is
multiplied with an inverse after that; then narrow products that are left are joined; then what leaves loops; then what
nobody reads any more goes; last, what is too large for the caches is computed in blocks."""

KERNELS = ("stream", "random bits", "local", "fuse", "renew", "reuse", "partition")
"""Names of the passes that make kernels of a graph: `stream` before `chunk`, the others after all above."""

LAST = ("orient",)
"""Names of the passes after these, over what is left to XLA."""

LOOPS = ("tile", "split", "peel", "jam", "bypass", "registers", "fetch", "terms", "cascade", "reciprocal")
"""Names of the passes over the loops of each kernel."""


def left_out(names: Iterable[str]) -> tuple[str, ...]:
    """The names of passes that are left out, each once, in one order.

    Raises OptionError with the known names if one is unknown. `rematerialize` runs where a memory limit asks for it.
    """
    if isinstance(names, str):
        raise OptionError(f"without must be a sequence of names, not the string {names!r}: write ({names!r},)")
    known = (*(step.name for step in STANDARD), *KERNELS, *LAST, *LOOPS)
    for name in (found := tuple(names)):
        if name not in known:
            raise OptionError(f"no pass is called {name!r}; known: {', '.join(known)}")
    return tuple(sorted(set(found)))


def resolve(passes: Iterable[str | Pass] | None) -> tuple[Pass, ...] | None:
    """Passes from names and passes; None, for the standard pipeline, from None.

    Raises OptionError with the known names if one is unknown.
    """
    if passes is None:
        return None
    if isinstance(passes, str):
        raise OptionError(
            f"passes must be a sequence of names or passes, not the string {passes!r}: write ({passes!r},)"
        )
    known = {step.name: step for step in STANDARD}
    resolved = []
    for step in passes:
        if isinstance(step, str):
            if step not in known:
                raise OptionError(f"unknown pass {step!r}; known: {', '.join(known)}")
            step = known[step]
        if not isinstance(step, Pass):
            raise OptionError(f"a pass is a name or an instance of graphopt.rewrite.passes.Pass, not {step!r}")
        resolved.append(step)
    return tuple(resolved)
