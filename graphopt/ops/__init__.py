"""What each operation means. Importing this package registers the described operations; all others are opaque."""

from graphopt.ops import contract, elementwise, reduce, shape

__all__ = ["contract", "elementwise", "reduce", "shape"]
