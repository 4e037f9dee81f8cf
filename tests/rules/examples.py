"""Programs on which rules that are functions fire, and programs on which a rule must not."""

from . import examples_movement, examples_reduction
from .example import Example

EXAMPLES: dict[str, tuple[Example, ...]] = {**examples_movement.EXAMPLES, **examples_reduction.EXAMPLES}
"""By the name of the rule."""

DECLINING: dict[str, tuple[Example, ...]] = {**examples_movement.DECLINING, **examples_reduction.DECLINING}

__all__ = ["DECLINING", "EXAMPLES", "Example"]
