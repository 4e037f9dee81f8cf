"""Every error and warning that graphopt raises, in one hierarchy.

An error says what was found, where (the user's own file and line when there is one) and what to do next.
"""

from __future__ import annotations


class GraphoptError(Exception):
    """Base of all errors that graphopt itself raises.

    Errors that JAX raises while it traces or runs the user's function keep their own type; graphopt adds a note to them.
    """


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


class PassError(GraphoptError):
    """A pass failed, or returned a graph with other inputs or outputs than it was given."""


class TraceError(GraphoptError, TypeError):
    """A function cannot be traced to a graph."""


class UntriedJaxWarning(RuntimeWarning):
    """The installed JAX is of a series that graphopt was not tried on; only JAX's public interface is used."""
