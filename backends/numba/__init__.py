"""The Numba engine: kernels for a CPU, compiled by Numba and called from the XLA program."""
