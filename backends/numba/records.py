"""What the handler and those who call it agree on: the record of a kernel, and the names of symbols."""

LARGE = 1 << 22
"""Bytes from which on memory is asked for in huge pages."""

# A kernel's record, in words: address, number of inputs, of results, of scratch buffers and of phases, then the bytes
# of each result and each scratch buffer, then extent and grain of each phase and whether it runs beside
# the one before it.
ADDRESS, INPUTS, RESULTS, SCRATCHES, PHASES, REST = range(6)

EXTENT, GRAIN, BESIDE, OF_PHASE = range(4)

CELL, TASK, UNKNOWN, FORKED = "graphopt_cell", "graphopt_task", "graphopt_unknown", "graphopt_forked"
"""Symbols: the table's cell, what a thread of the pool calls, and the messages of two errors."""
