"""Programs on which rules that are functions fire, and programs on which a rule must not."""

from . import (
    examples_composites,
    examples_elementwise,
    examples_logic,
    examples_movement,
    examples_places,
    examples_reduction,
    examples_stable,
    examples_structure,
)
from .example import Example

_FILES = (
    examples_composites,
    examples_elementwise,
    examples_logic,
    examples_movement,
    examples_places,
    examples_reduction,
    examples_stable,
    examples_structure,
)

EXAMPLES: dict[str, tuple[Example, ...]] = {name: found for file in _FILES for name, found in file.EXAMPLES.items()}
"""By the name of the rule."""

DECLINING: dict[str, tuple[Example, ...]] = {name: found for file in _FILES for name, found in file.DECLINING.items()}

__all__ = ["DECLINING", "EXAMPLES", "Example"]
