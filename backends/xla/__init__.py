"""The XLA engine: the call primitive that an optimized function becomes, and its lowering."""
