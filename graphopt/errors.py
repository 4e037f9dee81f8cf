"""Every error and warning that graphopt raises, in one hierarchy.

An error says what was found, where (the user's own file and line when there is one) and what to do next.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import jax


class GraphoptError(Exception):
    """Base of all errors that graphopt itself raises. The message ends with the user's file and line.

    Errors that JAX raises while it traces or runs the user's function keep their type; graphopt adds a note to them.
    """

    def __init__(self, message: str) -> None:
        place = user_place()
        super().__init__(f"{message}\n  at {place}" if place else message)


class OptionError(GraphoptError, ValueError):
    """An option of `graphopt.jit`, `graphopt.optimize` or an environment variable has a value that is not known."""


class GraphError(GraphoptError, ValueError):
    """A graph breaks a rule of the intermediate representation; the message shows the node and the lines around it."""


class ParseError(GraphoptError, ValueError):
    """A graph's text cannot be read. `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class EngineError(GraphoptError):
    """An engine cannot be used on this machine, or cannot take what it was given."""


class PassError(GraphoptError):
    """A pass failed, or returned a graph with other inputs or outputs than it was given."""


class RuleError(PassError):
    """A rule made something that cannot take the place of the node it was given.

    rule, file, line: its name and where it is written. node: what it was given. reason: what is wrong.
    """

    def __init__(self, rule: str, file: str, line: int, node: Any, reason: object) -> None:
        kind = "" if isinstance(reason, GraphoptError) else f"{type(reason).__name__}: "
        self.reason = kind + (str(reason).splitlines() or [""])[0]
        operands = ", ".join(map(repr, node.inputs))
        super().__init__(
            f"the rule {rule!r} ({file}:{line}) failed on {node!r} of ({operands}): {self.reason}. Mend the rule, or "
            "leave its pass out with jit(..., without=...)"
        )
        self.rule, self.file, self.line, self.node = rule, file, line, node


class MemoryLimitError(GraphoptError):
    """A program needs more memory than its `memory_limit` allows, and no plan was found that needs so little.

    limit: bytes allowed. least: the fewest bytes of all plans that were tried. values: what is in memory then.
    """

    def __init__(self, limit: int, least: int, values: str) -> None:
        super().__init__(
            f"the memory limit of {limit:,} bytes cannot be met: the least that was found is {least:,} bytes "
            f"({values}). Allow memory_limit={least}, or make these values smaller"
        )
        self.limit, self.least, self.values = limit, least, values


class RuleWarning(RuntimeWarning):
    """A rule failed and was switched off for one program, whose results are right without it."""


class VerificationError(GraphoptError):
    """A pass changed what a program computes, failed, or did not come to an end; `finding` says which and where.

    finding: a `graphopt.verify.Finding`.
    """

    def __init__(self, finding: Any) -> None:
        super().__init__(str(finding))
        self.finding = finding


class UntriedJaxWarning(RuntimeWarning):
    """The installed JAX is of a series that graphopt was not tried on; only JAX's public interface is used."""


class LockError(GraphoptError, ValueError):
    """A lock file is missing, damaged, or of another format; the message says how to have a new one."""


class LockWarning(RuntimeWarning):
    """A lock file says nothing of a program: the graph is not what was measured. Predicted times choose."""


class StoreWarning(RuntimeWarning):
    """A file that was kept from an earlier process cannot be used; what it held is made anew."""


def user_place() -> str:
    """The innermost line that runs now outside graphopt and JAX, as `file:line (function)`; empty if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(("<frozen", "<string>", *_INTERNAL)):
            return f"{file}:{frame.f_lineno} ({frame.f_code.co_name})"
        frame = frame.f_back
    return ""


_INTERNAL = (f"{Path(__file__).parent}/", f"{Path(jax.__file__).parent}/")
