"""Compiled code in memory: what Numba makes of a function, as an object file that is kept for later processes.

An object file does not depend on where things lie in the process that made it. What it needs from outside it names:
functions of the C library, and symbols of the runtime that `define` gives an address. Where the file is there already,
Numba is not even imported, which takes half a second.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from graphopt import store

KIND = "kernels"

ERRORS = (
    "numba_do_raise",
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_runtime_build_excinfo_struct",
    "numba_unpickle",
    "NRT_Free",
)
"""What Numba's code calls where a Python exception was raised, which none of ours does: found in Numba where it was
imported, and else to be given some address, for otherwise the loader leaves all symbols without one."""

_engines: list[Any] = []  # what must live as long as its addresses are in use


@cache
def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
    for name in ERRORS:
        if llvm.address_of_symbol(name) is None:
            llvm.add_symbol(name, abort)
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(jit=True)


@cache
def compiler() -> str:
    """What compiled code depends on beside its source: versions, the processor, and how source becomes code."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")]
    cpu = [llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    texts = [file.read_bytes() for file in sorted(Path(__file__).parent.rglob("*.py"))]
    return repr((versions, cpu, hashlib.sha256(b"".join(texts)).hexdigest()))


def define(name: str, address: int) -> None:
    """Gives a symbol that code names an address, for what is loaded from now on."""
    llvm.add_symbol(name, address)


def loaded(name: str, compile: Callable[[], tuple[str, bytes]]) -> int:
    """The address of the function that is kept under `name`.

    compile: makes it where it is not: its symbol, and the object file that has it.
    """
    kept = store.read(KIND, name)
    if kept is None:
        symbol, code = compile()
        store.write(KIND, name, symbol.encode() + b"\n" + code)
    else:
        first, code = kept.split(b"\n", 1)
        symbol = first.decode()
    return load(symbol, code)


def load(symbol: str, code: bytes) -> int:
    """The address of `symbol` in an object file."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(symbol)
    assert address, f"{symbol} is not in its object file"
    _engines.append(engine)
    return int(address)
