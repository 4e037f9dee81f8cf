"""From Python functions to LLVM's text in one walk over their syntax: what kernels and their runtime are written in.

That is the part of Python on numbers which the loops of a kernel need: arithmetic, comparisons, `if`, `while`, `for`
over a `range`, and calls of intrinsics. Types and results are Numba's (`graphopt.backends.numba.arithmetic`), whose
compiler takes ten times as long to the same code, and half a second before its first: by it a variable has the type
that all it is set to has in common, here that of what it is first set to. Whatever else there is in a function raises
NotTranslatedError: Numba compiles it then.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.ir.values import MDValue
from numba import from_dtype, types
from numba.core.extending import _Intrinsic
from numba.core.registry import cpu_target

from graphopt.backends.numba.arithmetic import COMPARISONS, WORD, NotTranslatedError, Numbers, Value


def inlined(function: Callable[..., Any]) -> Any:
    """A function that others call, whose body takes the place of the call."""
    return Inlined(function)


def called(function: Callable[..., Any]) -> Any:
    """A function without a result that others call, which a kernel has once: what is large takes LLVM long, each time.
    Where it is called in one place, `inlined` takes less."""
    return Inlined(function, is_called=True)


@dataclass(frozen=True, eq=False)
class Inlined:
    """What `inlined` and `called` make of a function."""

    function: Callable[..., Any]
    is_called: bool = False

    @cached_property
    def syntax(self) -> Syntax:
        """What the function says."""
        return _syntax(self.function)


@dataclass(frozen=True, slots=True)
class Syntax:
    """What a function says. sets: how often each of its names is set, loops apart. known: what it may name besides."""

    tree: ast.FunctionDef
    sets: Counter[str]
    known: Mapping[str, Any]


LONG = 32
"""Instructions of a loop's body from which on several vectors are to be computed at a time."""

CROWDED = 128
"""And from which on not: what is computed of one fills the registers. The gradient of the forces of 8000 points on each
other, of 148, takes 48 ms by four or two, and 44 one by one."""

MANY = 256
"""Iterations of a loop from which on four are: what is left over of fewer would be too large a part."""

PAIR = 32
"""Steps in two vectors of numbers of 32 bits."""


def fills_pairs(bounds: Sequence[ast.expr]) -> bool:
    """Whether few steps of a loop over a range would be left where vectors are taken two by two, one by one then.

    Known of short loops, whose range is opaque.
    """
    match bounds:
        case [ast.Call(ast.Name("opaque"), [ast.Constant(int(steps))])]:
            return steps >= PAIR and steps % PAIR < PAIR // 2
    return True


_BUILTINS: Mapping[str, Any] = {"min": min, "max": max, "int": int}


def translated(function: Callable[..., Any], signature: Any, symbol: str, lines: bool = False) -> str:
    """A function with a C interface, as LLVM's text. Raises NotTranslatedError.

    function: its attribute `source` is its source, where there is one. lines: whether each instruction has the line
    that it comes from.
    """
    context = cpu_target.target_context
    module = context.create_module(symbol)
    arguments = [context.get_value_type(kind) for kind in signature.args]
    kind = ir.FunctionType(context.get_value_type(signature.return_type), arguments)
    code = ir.Function(module, kind, symbol)
    scope = _scope(module, code) if lines else None
    with _begun(code) as builder:
        body = _Body(context, builder, _syntax(function), scope)
        found = body.run([Value(kind, value) for kind, value in zip(signature.args, code.args, strict=True)])
        builder.ret(body.cast(found, signature.return_type).code)
    return str(module)


@contextmanager
def _begun(code: Any) -> Iterator[Any]:
    """A builder of a function's body. What stands before it all is memory for variables."""
    entry, start = code.append_basic_block("entry"), code.append_basic_block("start")
    yield ir.IRBuilder(start)
    ir.IRBuilder(entry).branch(start)


def _scope(module: Any, code: Any) -> Any:
    """What LLVM asks for where instructions have lines."""
    file = module.add_debug_info("DIFile", {"filename": "<kernel>", "directory": ""})
    language, emission = ir.DIToken("DW_LANG_C_plus_plus"), ir.DIToken("FullDebug")
    about: dict[str, Any] = {
        "language": language,
        "file": file,
        "emissionKind": emission,
        "isOptimized": True,
        "runtimeVersion": 0,
    }
    unit = module.add_debug_info("DICompileUnit", about, is_distinct=True)
    kind = module.add_debug_info("DISubroutineType", {"types": module.add_metadata([None])})
    flags = ir.DIToken("DISPFlagDefinition")
    about = {"name": code.name, "scope": file, "file": file, "line": 1, "type": kind, "unit": unit, "spFlags": flags}
    scope = module.add_debug_info("DISubprogram", about, is_distinct=True)
    code.set_metadata("dbg", scope)
    module.add_named_metadata("llvm.dbg.cu", unit)
    two, three = (ir.Constant(ir.IntType(32), number) for number in (2, 3))
    module.add_named_metadata("llvm.module.flags", module.add_metadata([two, "Debug Info Version", three]))
    return scope


def _syntax(function: Callable[..., Any]) -> Syntax:
    source = getattr(function, "source", None)
    if source is None:
        try:
            source = textwrap.dedent(inspect.getsource(function))
        except OSError as error:
            raise NotTranslatedError(f"there is no source of {function}") from error
    try:
        (tree,) = ast.parse(source).body
    except (SyntaxError, ValueError) as error:  # of a lambda, say, there is more than itself
        raise NotTranslatedError(str(error)) from error
    if not isinstance(tree, ast.FunctionDef):
        raise NotTranslatedError(f"{function} is no function with a name")
    sets = Counter([*(a.arg for a in tree.args.args), *_set_in(tree.body)])
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    known = {**function.__globals__, **{name: cell.cell_contents for name, cell in cells}}
    return Syntax(tree, sets, known)


def _set_in(statements: Sequence[ast.stmt]) -> Iterator[str]:
    """The names that statements set, as often as they do, those of loops apart."""
    for statement in statements:
        match statement:
            case ast.Assign(targets):
                yield from (each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))
            case ast.AugAssign(ast.Name(name)):
                yield name
            case ast.If(_, body, otherwise) | ast.While(_, body, otherwise) | ast.For(_, _, body, otherwise):
                yield from _set_in(body)
                yield from _set_in(otherwise)


@dataclass(slots=True)
class _Body(Numbers):
    """The body of one function, where it is called."""

    syntax: Syntax
    scope: Any = None
    names: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Value] = field(default_factory=dict)  # of what is set more than once
    loops: list[tuple[Any, Any]] = field(default_factory=list)  # where `continue` and `break` lead
    end: Any = None
    result: Value | None = None
    functions: dict[tuple[Inlined, tuple[Any, ...]], Any] = field(default_factory=dict)  # those that are called

    def run(self, arguments: Sequence[Any]) -> Any:
        """Writes the body where the builder is; what the function returns."""
        tree = self.syntax.tree
        if len(tree.args.args) != len(arguments):
            raise NotTranslatedError("a call with another number of arguments")
        for parameter, argument in zip(tree.args.args, arguments, strict=True):
            self.set(parameter.arg, argument)
        self.end = self.builder.append_basic_block("end")
        self.statements(tree.body)
        self.go(self.end)
        self.builder.position_at_end(self.end)
        return None if self.result is None else self.load(self.result)

    # Statements.

    def statements(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            if self.builder.block.is_terminated:
                return
            if self.scope is not None:
                about = {"line": statement.lineno, "column": 1, "scope": self.scope}
                self.builder.debug_metadata = self.builder.module.add_debug_info("DILocation", about)
            self.statement(statement)

    def statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets, value):
                self.assign(targets, value)
            case ast.AugAssign(ast.Name(name), op, value):
                self.set(name, self.binary(type(op), self.name(name), self.expression(value)))
            case ast.Expr(value):
                if not isinstance(value, ast.Constant):
                    self.expression(value)
            case ast.If(test, then, otherwise):
                self.branch(test, then, otherwise)
            case ast.While(test, body, []):
                self.repeat(test, body)
            case ast.For(ast.Name(name), ast.Call(ast.Name("range"), bounds, []), body, []):
                self.count(name, [self.number(self.expression(bound)) for bound in bounds], body, fills_pairs(bounds))
            case ast.Return(value):
                self.give(None if value is None else self.expression(value))
            case ast.Continue():
                self.builder.branch(self.loops[-1][0])
            case ast.Break():
                self.builder.branch(self.loops[-1][1])
            case ast.Pass():
                pass
            case _:
                raise NotTranslatedError(ast.unparse(statement))

    def assign(self, targets: Sequence[ast.expr], value: ast.expr) -> None:
        match targets, value:
            case [ast.Tuple(names)], ast.Tuple(values) if len(names) == len(values):
                pairs = [(name, self.expression(each)) for name, each in zip(names, values, strict=True)]
            case _:
                found = self.expression(value)
                pairs = [(target, found) for target in targets]
        for target, each in pairs:
            if not isinstance(target, ast.Name):
                raise NotTranslatedError(ast.unparse(target))
            self.set(target.id, each)

    def set(self, name: str, value: Any) -> None:
        if self.syntax.sets[name] == 1:
            self.names[name] = value
            return
        found = self.number(value)
        if name not in self.memory:
            self.memory[name] = self.new(found.kind)
        elif self.memory[name].kind != found.kind:
            raise NotTranslatedError(f"{name} is {self.memory[name].kind} and {found.kind}")
        self.builder.store(found.code, self.memory[name].code)

    def new(self, kind: Any) -> Value:
        """Memory for a variable."""
        with self.builder.goto_entry_block():
            return Value(kind, self.builder.alloca(self.context.get_value_type(kind)))

    def load(self, memory: Value) -> Value:
        return Value(memory.kind, self.builder.load(memory.code))

    def go(self, block: Any) -> None:
        if not self.builder.block.is_terminated:
            self.builder.branch(block)

    def branch(self, test: ast.expr, then: Sequence[ast.stmt], otherwise: Sequence[ast.stmt]) -> None:
        found = self.expression(test) if isinstance(test, ast.Name) else None
        if isinstance(found, bool):
            self.statements(then if found else otherwise)
            return
        yes, no, after = (self.builder.append_basic_block(name) for name in ("then", "else", "after"))
        self.decide(test, yes, no)
        for block, statements in ((yes, then), (no, otherwise)):
            self.builder.position_at_end(block)
            self.statements(statements)
            self.go(after)
        self.builder.position_at_end(after)

    def decide(self, test: ast.expr, yes: Any, no: Any) -> None:
        """Goes to one of two blocks."""
        match test:
            case ast.UnaryOp(ast.Not(), inner):
                self.decide(inner, no, yes)
            case ast.BoolOp(op, [*others, last]):
                for other in others:
                    further = self.builder.append_basic_block("further")
                    self.decide(other, *((further, no) if isinstance(op, ast.And) else (yes, further)))
                    self.builder.position_at_end(further)
                self.decide(last, yes, no)
            case _:
                self.builder.cbranch(self.truth(self.expression(test)), yes, no)

    def repeat(self, test: ast.expr, body: Sequence[ast.stmt]) -> None:
        head, inside, after = (self.builder.append_basic_block(name) for name in ("head", "inside", "after"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        if isinstance(test, ast.Constant) and test.value is True:
            self.builder.branch(inside)
        else:
            self.decide(test, inside, after)
        self.inside(inside, body, head, after)
        self.builder.position_at_end(after)

    def inside(self, block: Any, body: Sequence[ast.stmt], again: Any, after: Any) -> None:
        """The body of a loop."""
        self.loops.append((again, after))
        self.builder.position_at_end(block)
        self.statements(body)
        self.go(again)
        self.loops.pop()

    def count(self, name: str, bounds: Sequence[Value], body: Sequence[ast.stmt], in_pairs: bool) -> None:
        """A loop over a range, whose step is more than zero. in_pairs: whether vectors may be taken two by two."""
        if name in self.syntax.sets or not 1 <= len(bounds) <= 3 or any(b.kind != types.int64 for b in bounds):
            raise NotTranslatedError(f"a range of {', '.join(str(bound.kind) for bound in bounds)}, by {name}")
        start, stop = (WORD(0), bounds[0].code) if len(bounds) == 1 else (bounds[0].code, bounds[1].code)
        step = bounds[2].code if len(bounds) == 3 else WORD(1)
        if isinstance(step, ir.Constant) and step.constant <= 0:
            raise NotTranslatedError(f"a range in steps of {step.constant}")
        before, function = self.builder.block, self.builder.function
        blocks = len(function.blocks)
        head, inside, again, after = map(self.builder.append_basic_block, ("head", "inside", "again", "after"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        place = self.builder.phi(WORD)
        self.builder.cbranch(self.builder.icmp_signed("<", place, stop), inside, after)
        outer = self.names.get(name)
        self.names[name] = Value(types.int64, place)
        self.inside(inside, body, again, after)
        self.names[name] = outer
        self.builder.position_at_end(again)
        place.add_incoming(start, before)
        place.add_incoming(self.builder.add(place, step, flags=["nsw"]), again)
        back = self.builder.branch(head)
        if in_pairs and LONG <= sum(len(block.instructions) for block in function.blocks[blocks:]) < CROWDED:
            self.interleave(back, 2 if not isinstance(stop, ir.Constant) or stop.constant < MANY else 4)
        self.builder.position_at_end(after)

    def interleave(self, back: Any, vectors: int) -> None:
        """Asks LLVM for some vectors at a time in a loop that ends with this branch, if it makes vectors of it at all.

        It would take them one by one where there is much to do for each. But what a vector goes through is done step by
        step, each some cycles long, and a processor does not look far enough ahead to fill them with the next vector.
        """
        module = self.builder.module
        count = module.add_metadata(["llvm.loop.interleave.count", ir.Constant(ir.IntType(32), vectors)])
        loop = MDValue(module, [], str(len(module.metadata)))
        loop.operands = (loop, count)  # so LLVM knows the loop
        back.set_metadata("llvm.loop", loop)

    def give(self, value: Any) -> None:
        """Returns."""
        if value is not None:
            if self.result is None:
                self.result = self.new(self.number(value).kind)
            self.builder.store(self.same(value, self.result.kind).code, self.result.code)
        self.builder.branch(self.end)

    # Expressions.

    def expression(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return self.name(name)
            case ast.Attribute(of, name):
                return self.attribute(self.expression(of), name)
            case ast.BinOp(left, op, right):
                return self.binary(type(op), self.expression(left), self.expression(right))
            case ast.Compare(left, [op], [right]) if type(op) in COMPARISONS:
                return self.compare(type(op), self.expression(left), self.expression(right))
            case ast.UnaryOp(ast.USub(), operand):
                return self.negative(self.expression(operand))
            case ast.UnaryOp(ast.Invert(), operand):
                found = self.integer(self.number(self.expression(operand)))
                return Value(found.kind, self.builder.not_(found.code))
            case ast.UnaryOp(ast.Not()) | ast.BoolOp():
                return self.chosen(node, True, False)
            case ast.IfExp(test, then, otherwise):
                return self.chosen(test, then, otherwise)
            case ast.Call(function, arguments, []):
                return self.call(self.expression(function), [self.expression(each) for each in arguments])
        raise NotTranslatedError(ast.unparse(node))

    def name(self, name: str) -> Any:
        if name in self.memory:
            return self.load(self.memory[name])
        for known in (self.names, self.syntax.known, _BUILTINS):
            if known.get(name) is not None:
                return known[name]
        raise NotTranslatedError(f"{name} is not known")

    def attribute(self, of: Any, name: str) -> Any:
        if not isinstance(of, Value):
            return getattr(of, name)
        if isinstance(of.kind, types.Complex) and name in ("real", "imag"):
            return Value(of.kind.underlying_float, self.builder.extract_value(of.code, int(name == "imag")))
        raise NotTranslatedError(f"{name} of {of.kind}")

    def chosen(self, test: ast.expr, then: Any, otherwise: Any) -> Value:
        """One of two, of which the other is not computed."""
        yes, no, after = (self.builder.append_basic_block(name) for name in ("then", "else", "after"))
        self.decide(test, yes, no)
        found = []
        for block, each in ((yes, then), (no, otherwise)):
            self.builder.position_at_end(block)
            value = self.number(self.expression(each) if isinstance(each, ast.expr) else each)
            found.append((value, self.builder.block))
        kind = self.common([value for value, _ in found])
        cases = []
        for value, block in found:
            self.builder.position_at_end(block)
            cases.append((self.cast(value, kind).code, block))
            self.builder.branch(after)
        self.builder.position_at_end(after)
        place = self.builder.phi(self.context.get_value_type(kind))
        for case, block in cases:
            place.add_incoming(case, block)
        return Value(kind, place)

    def call(self, function: Any, arguments: Sequence[Any]) -> Any:
        if isinstance(function, Inlined):
            if function.is_called:
                return self.call_once_written(function, [self.number(each) for each in arguments])
            scope, place = self.scope, getattr(self.builder, "debug_metadata", None)
            found = _Body(self.context, self.builder, function.syntax, functions=self.functions).run(arguments)
            self.scope, self.builder.debug_metadata = scope, place
            return found
        if isinstance(function, _Intrinsic):
            return self.intrinsic(function, arguments)
        if function in (min, max) and len(arguments) > 1:
            return reduce(lambda a, b: self.extreme("<" if function is min else ">", a, b), map(self.number, arguments))
        kind = types.int64 if function is int else function
        if isinstance(kind, type) and issubclass(kind, np.generic):
            kind = from_dtype(np.dtype(kind))
        if isinstance(kind, types.Integer | types.Float) and len(arguments) == 1:
            return self.cast(arguments[0], kind)
        raise NotTranslatedError(f"a call of {function}")

    def call_once_written(self, function: Inlined, arguments: Sequence[Value]) -> None:
        """Calls a function of the module, which is written where there is none yet for arguments of these types."""
        key = function, tuple([each.kind for each in arguments])
        if key not in self.functions:
            module, kinds = self.builder.module, [self.context.get_value_type(each.kind) for each in arguments]
            name = module.get_unique_name(function.syntax.tree.name)
            code = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
            code.linkage = "internal"
            self.functions[key] = code
            with _begun(code) as builder:
                body = _Body(self.context, builder, function.syntax, functions=self.functions)
                found = body.run([Value(each.kind, code) for each, code in zip(arguments, code.args, strict=True)])
                if found is not None:
                    raise NotTranslatedError(f"{name}, which is called, has a result")
                builder.ret_void()
        self.builder.call(self.functions[key], [each.code for each in arguments])

    def intrinsic(self, function: Any, arguments: Sequence[Any]) -> Value:
        literal = function._prefer_literal
        kinds = [
            types.literal(each) if literal and isinstance(each, int) else self.number(each).kind for each in arguments
        ]
        found = function._defn(None, *kinds)
        if found is None:
            raise NotTranslatedError(f"{function._name} of {', '.join(map(str, kinds))}")
        signature, emit = found
        pairs = zip(arguments, map(types.unliteral, signature.args), strict=True)
        values = [self.same(each, kind).code for each, kind in pairs]
        return Value(signature.return_type, emit(self.context, self.builder, signature, values))
