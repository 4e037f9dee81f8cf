"""What the handler and those who call it agree on: the record of a kernel, and the names of symbols."""

LARGE = 1 << 22
"""Bytes from which on memory is asked for in huge pages."""

# A kernel's record, in words: address, or COMPILING, or FAILED and then the address of a message; number of inputs, of
# results, of scratch buffers and of phases, then the bytes of each result and each scratch buffer, then of each phase
# extent and grain, whether it runs beside the one before it, and whether sleeping threads are woken for it and those
# beside it.
ADDRESS, INPUTS, RESULTS, SCRATCHES, PHASES, REST = range(6)

COMPILING, FAILED = 0, 1
"""In the place of a kernel's address: a thread compiles it; it could not be compiled."""

EXTENT, GRAIN, BESIDE, WAKES, OF_PHASE = range(5)

# The table's cell, in bytes: where its slots lie; whether this process is the fork of another; and in nanoseconds when
# the last kernel that the pool could help with was done, when a thread of the pool last had a look for work, and when
# one was last woken for a short kernel, and until when short kernels are not shared.
SLOTS, IS_FORK, LAST, LOOKED, WOKEN, ALONE, CELL_SIZE = (8 * i for i in range(7))

CELL, TASK = "graphopt_cell", "graphopt_task"
"""Symbols: the table's cell, and what a thread of the pool calls."""

UNKNOWN, FORKED, LATE = "graphopt_unknown", "graphopt_forked", "graphopt_late"
"""And the messages of errors."""
