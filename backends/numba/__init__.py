"""The backend that compiles kernels with Numba."""
