"""Level one: the graph. Interned immutable nodes, closed graphs, their text, and the checks on them."""
