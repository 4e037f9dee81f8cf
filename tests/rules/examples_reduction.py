"""Programs for the rules on reductions and contractions."""

from .example import Example

EXAMPLES: dict[str, tuple[Example, ...]] = {}

DECLINING: dict[str, tuple[Example, ...]] = {}
