"""From a Python function to an object file, by Numba.

Numba translates, types and lowers the function; what else `numba.cfunc` does takes more time than that, and a kernel
has no use for it: rewriting for arrays and parallel loops, inlining closures, wrappers for Python, three runs of LLVM's
passes, memory for the code in an engine of Numba's. Here LLVM's passes run once, and the object file is what they give.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import CompilerBase, Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.core.typed_passes import IRLegalization, NativeLowering, NoPythonBackend, NopythonTypeInference
from numba.core.typed_passes import PreLowerStripPhis as StripPhis
from numba.core.untyped_passes import DeadBranchPrune, FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

from graphopt.backends.numba.translating import NotTranslatedError, translated
from graphopt.backends.numba.vecmath.usual import PREFIX
from graphopt.rewrite.passes import without_collections

KERNEL_SIGNATURE = types.uintp(types.uintp, types.intp, types.intp, types.intp)
"""The signature of a kernel: (table of buffers, phase, start, stop); returns 0."""

CALLBACK_SIGNATURE = types.uintp(types.uintp)
"""The signature of what XLA calls: one word, which it returns too."""

SYMBOL = "graphopt_kernel"

_PASSES = (
    *(TranslateByteCode, FixupArgs, IRProcessing, DeadBranchPrune, ReconstructSSA),
    *(NopythonTypeInference, StripPhis, IRLegalization, NativeLowering, NoPythonBackend),
)


class _Pipeline(CompilerBase):  # type: ignore[misc]
    """What of Numba's compiler a kernel needs."""

    def define_pipelines(self) -> list[Any]:
        manager = PassManager("kernel")
        for each in _PASSES:
            manager.add_pass(each, each.__name__)
        manager.finalize()
        return [manager]


class _Library(CPUCodeLibrary):  # type: ignore[misc]
    """What Numba lowers a function to: kept as it is, with the libraries that it calls."""

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.texts: list[str] = []
        self.called: list[Any] = []

    def add_ir_module(self, ir_module: Any) -> None:
        self.texts.append(str(ir_module))

    def add_linking_library(self, library: Any) -> None:
        if library is not rtsys.library and library not in self.called:  # kernels have no objects of Numba's
            self.called.append(library)

    def _ensure_finalized(self) -> None:
        """There is nothing to do before others are linked with it."""

    def _get_module_for_linking(self) -> Any:
        first, *others = map(llvm.parse_assembly, self.texts)
        for other in (*others, *(library._get_module_for_linking() for library in self.called)):
            first.link_in(other, preserve=True)
        for function in first.functions:
            if not function.is_declaration:
                function.linkage = "linkonce_odr"
        return first


def _lowered(function: Any, signature: Any, debug: bool) -> tuple[_Library, Any]:
    """What Numba lowers a function of these types to, and what it says of it."""
    context = cpu_target.target_context
    context.refresh()
    library = _Library(context.codegen(), function.__name__)
    flags = Flags()
    flags.error_model, flags.debuginfo = "numpy", debug
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    typing = cpu_target.typing_context
    compiled = compile_extra(
        typing,
        context,
        function,
        signature.args,
        signature.return_type,
        flags,
        {},
        library=library,
        pipeline_class=_Pipeline,
    )
    return library, compiled.fndesc


_MASK_MOVES = re.compile(rb"(?:\xc5|\xc4[\x01\x21\x41\x61\x81\xa1\xc1\xe1]).[\x50\xd7][\xc0-\xff]", re.DOTALL)
"""vmovmskps, vmovmskpd and vpmovmskb of a register, as they are encoded (Intel's manual, volume 2)."""


@cache
def _machine(mask_moves: bool = True) -> Any:
    """This processor, with all that it can do, as LLVM knows it.

    LLVM takes vectors of 256 bits for all of Intel's processors with AVX-512, because the first two generations are
    clocked down by longer ones. Those after them (Ice Lake, the first with VBMI2) hardly are: they get 512.

    mask_moves: whether it has AVX-512's instructions that move the signs of a vector's elements to a mask register.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    relocation = "static" if target.name.startswith("x86") else "default"
    features = [llvm.get_host_cpu_features().flatten()]
    if llvm.get_host_cpu_features().get("avx512vbmi2"):
        features.append("-prefer-256-bit")
    if not mask_moves:
        features += ["-avx512dq", "-avx512bw"]
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=",".join(features),
        opt=3,
        reloc=relocation,
        codemodel="jitdefault",
        jit=True,
    )


def object_of(function: Any, signature: Any) -> tuple[str, bytes]:
    """The symbol of a function with a C interface, and the object file that it is in.

    Since its version 22, LLVM makes one instruction of AVX-512's move of signs to a mask register and the move from
    there to a general one, and does so where that is wrong: of a vector in registers 16 to 31, which the one cannot
    name, so that it reads another register (its issue 191304), and where the mask register is read once more (198197).
    Code that has such an instruction is made again for a processor without the first of the two moves.
    """
    code = _code(function, signature, mask_moves=True)
    if has_mask_moves(code):
        code = _code(function, signature, mask_moves=False)
    return SYMBOL, code


def _code(function: Any, signature: Any, mask_moves: bool) -> bytes:
    module = _module(function, signature, mask_moves=mask_moves)
    with addresses_as_written():
        return bytes(_machine(mask_moves).emit_object(module))


def has_mask_moves(code: bytes) -> bool:
    """Whether LLVM may have made what it makes wrongly: where AVX-512 is, nothing else makes these instructions."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512dq") and _MASK_MOVES.search(code) and llvm.llvm_version_info >= (22,))


@contextmanager
def addresses_as_written() -> Iterator[None]:
    """Leaves the addresses in loops as they are, while LLVM makes instructions of a module.

    It would look for those that take the fewest registers and additions (its "loop strength reduction"), which takes up
    to two thirds of that time where loops are in loops, and changes nothing that can be measured: a processor adds a
    base and a scaled index for nothing. Options of LLVM hold for a process, so this one is put back; one that a later
    version does not know would end the process.
    """
    if llvm.llvm_version_info >= (23,):
        yield
        return
    with global_compiler_lock:
        llvm.set_option("graphopt", "-disable-lsr=true")
        try:
            yield
        finally:
            llvm.set_option("graphopt", "-disable-lsr=false")


def text_of(kernel: Any, debug: bool = False) -> str:
    """A kernel as LLVM's optimized text.

    debug: whether each instruction has the line of the source that it comes from.
    """
    return str(_module(kernel, KERNEL_SIGNATURE, debug))


def _module(function: Any, signature: Any, debug: bool = False, mask_moves: bool = True) -> Any:
    """A function as LLVM's optimized module."""
    with without_collections():  # a full one takes a tenth of a second
        try:
            module = llvm.parse_assembly(translated(function, signature, SYMBOL, debug))
        except NotTranslatedError:
            module = _by_numba(function, signature, debug)
    module.verify()
    _optimize(module, _machine(mask_moves))
    return module


def _by_numba(function: Any, signature: Any, debug: bool) -> Any:
    """A function as the module that Numba's own compiler makes of it, not yet optimized."""
    with global_compiler_lock:
        library, described = _lowered(function, signature, debug)
        module = library._get_module_for_linking()
        module.link_in(llvm.parse_assembly(str(_entry(cpu_target.target_context, described))))
    return module


def _entry(context: Any, described: Any) -> Any:
    """A module with a function of a C interface that calls Numba's."""
    module = context.create_module("entry")
    kinds = [context.get_value_type(kind) for kind in described.argtypes]
    entry = ir.Function(module, ir.FunctionType(context.get_value_type(described.restype), kinds), SYMBOL)
    builder = ir.IRBuilder(entry.append_basic_block())
    convention = context.call_conv
    kind = convention.get_function_type(described.restype, described.argtypes)
    function = cgutils.get_or_insert_function(module, kind, described.llvm_func_name)
    _, found = convention.call_function(builder, function, described.restype, described.argtypes, entry.args)
    builder.ret(found)
    return module


def _optimize(module: Any, machine: Any) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    variants = [function for function in module.functions if function.name.startswith(PREFIX)]
    for function in module.functions:
        if not function.is_declaration and function.name != SYMBOL:
            # So that nothing is left of what has been inlined. Variants are not called before there are vectors.
            function.linkage = "external" if function.name.startswith(PREFIX) else "internal"
    builder.getModulePassManager().run(module, builder)
    if variants:
        for function in variants:
            function.linkage = "internal"
        manager = llvm.create_new_module_pass_manager()
        manager.add_always_inliner_pass()
        manager.add_new_gvn_pass()
        manager.add_global_dead_code_eliminate_pass()
        manager.run(module, builder)
