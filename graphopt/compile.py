"""The driver: from a program as JAX traced it to the program that is lowered."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from graphopt.analysis.engine import Engine, Schedule
from graphopt.analysis.local import local_graphs
from graphopt.analysis.machine import Machine, this_machine
from graphopt.backends.agreement import disagreement
from graphopt.backends.reference import apply_opened, drawn, evaluate
from graphopt.backends.xla.memory import needed_bytes
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.backends.xla.target import Target
from graphopt.config import Options, settings
from graphopt.debug import show
from graphopt.errors import LockWarning, OptionError, PassError
from graphopt.ir.graph import Graph
from graphopt.ir.sources import Sources
from graphopt.lock import Decision, hash_of
from graphopt.passes.choose import wants_another_engine
from graphopt.passes.chunk import Chunk
from graphopt.passes.fuse import Fuse
from graphopt.passes.orient import Orient
from graphopt.passes.partition import Partition
from graphopt.passes.pipelines import LOOPS, STANDARD
from graphopt.passes.random_bits import RandomBits
from graphopt.passes.rematerialize import Rematerialize
from graphopt.passes.renew import Renew, copied
from graphopt.passes.reuse import Reuse
from graphopt.passes.stream import Stream
from graphopt.rewrite.passes import Context, Pass, PassRecord, run_pipeline
from graphopt.rewrite.safety import SAFETIES
from graphopt.trace.jaxpr import graph_of


def rewrite_jaxpr(jaxpr: ClosedJaxpr, options: Options, target: Target) -> ClosedJaxpr:
    """The program that computes what `jaxpr` computes, after the passes; the same inputs, results and effects."""
    graph, sources = graph_of(jaxpr)
    graph, records = optimize_graph(graph, sources, options, target)
    if settings().check > 1:
        check_results(records)
    lowered = jaxpr_of(graph, sources)
    name = jaxpr.jaxpr.debug_info.func_name
    if settings().dump is not None:
        dump(records, name, target)
    if settings().debug:
        show(name, records, lowered, settings().debug)
    return lowered


def optimize_graph(
    graph: Graph, sources: Sources, options: Options, target: Target, timed: bool = False
) -> tuple[Graph, tuple[PassRecord, ...]]:
    """The graph after the passes that `options` name (the standard pipeline by default), and a record of each."""
    context = context_for(options, sources, target, timed)
    # What a faulty rule would have done can be done without; who looks for faults sets GRAPHOPT_CHECK, or verifies.
    context.strict = settings().check > 0
    kernels = may_have_kernels(options, context, target)
    steps = with_streams(options) if kernels and target.num_devices == 1 else pipeline_of(options)
    graph, records = run_pipeline(graph, kept(steps, options), context)
    decision = decision_for(graph, options, context) if kernels and options.tuning else None
    if decision is not None and decision.block is not None:
        graph, records = in_other_blocks(records, options, context, decision.block)

    def last_passes(graph: Graph) -> tuple[Pass, ...]:
        engines = engine_passes(graph, options, target, decision) if kernels else ()
        return kept((*engines, *([Orient()] if options.passes is None else [])), options)

    graph, limited = run_pipeline(graph, memory_passes(sources, options, context, target, last_passes), context)
    graph, more = run_pipeline(graph, last_passes(graph), context)
    return graph, (*records, *limited, *more)


def with_streams(options: Options) -> tuple[Pass, ...]:
    """The pipeline where another engine than XLA may take part: it has large arrays row by row before `chunk` has them
    in blocks."""

    machine = machine_for_decisions() if options.backend == "auto" else None
    found: list[Pass] = []
    for step in pipeline_of(options):
        if isinstance(step, Chunk):
            found.append(Stream(partial(engine_of, options), machine, step.memory))
            # Where all goes to another engine that can, that takes apart what XLA would have computed row by row.
            step = replace(step, leaves=step.leaves and machine is not None)
        found.append(step)
    return tuple(found)


def engine_of(options: Options) -> Engine:
    """The engine that makes kernels, without the passes over loops that are left out."""
    # Numba takes a second to import: not before it is needed.
    from graphopt.backends.numba import lowering

    without = frozenset(options.without).intersection(LOOPS)
    return replace(lowering.ENGINE, without=without) if without else lowering.ENGINE


def memory_passes(
    sources: Sources,
    options: Options,
    context: Context,
    target: Target,
    last_passes: Callable[[Graph], tuple[Pass, ...]],
) -> tuple[Pass, ...]:
    """What keeps a program within its memory limit. last_passes: what follows.

    Raises OptionError where it cannot be compiled here to know.
    """
    if options.memory_limit is None:
        return ()
    if context.portable or context.differentiable or jax.devices()[0].platform not in (*target.platforms, "gpu"):
        raise OptionError("memory_limit is for programs that are compiled for one device of this process")

    def measure(graph: Graph) -> int:
        # What other engines compute is not in XLA's memory: the program is measured as it will run.
        own = context_for(options, sources, target)
        return needed_bytes(run_pipeline(graph, last_passes(graph), own)[0])

    return (Rematerialize(options.memory_limit, measure),)


def may_have_kernels(options: Options, context: Context, target: Target) -> bool:
    """Whether another engine than XLA may take part: on CPUs, in this process."""
    elsewhere = target.for_export or target.symbolic or target.platforms != ("cpu",)
    return options.backend != "xla" and not elsewhere and not context.differentiable


def in_other_blocks(
    records: tuple[PassRecord, ...], options: Options, context: Context, block: int
) -> tuple[Graph, tuple[PassRecord, ...]]:
    """What the pipeline makes of a graph where large arrays are computed in blocks of so many bytes; `records` says
    what it made of it with blocks of the usual size."""
    steps = passes_of(options)
    place = next((k for k, step in enumerate(steps) if isinstance(step, Chunk)), len(steps))
    if place == len(steps):
        return records[-1].after, records
    again = [replace(step, block=block) if isinstance(step, Chunk) else step for step in steps[place:]]
    graph, more = run_pipeline(records[place].before, again, context)
    return graph, (*records[:place], *more)


def engine_passes(graph: Graph, options: Options, target: Target, decision: Decision | None = None) -> tuple[Pass, ...]:
    """What follows the pipeline where another engine than XLA may take part. decision: what was measured."""
    inside = local_graphs(graph)
    base = options.backend if decision is None else decision.base
    machine = machine_for_decisions() if base == "auto" else None
    if decision is not None and not decision.kernels:
        return ()
    renews = target.alone and decision is None and bool(copied(graph))
    if decision is None and machine is not None and not (renews or wants_another_engine(graph, machine)):
        return ()
    engine = engine_of(options)
    only = None if decision is None else frozenset(decision.kernels)
    schedules = {} if decision is None else {name: Schedule(way, grain) for name, way, grain in decision.schedules}
    kernels: tuple[Pass, ...] = (
        Fuse(engine, machine, only, target.num_devices, schedules),
        *([Renew(engine, machine_for_decisions())] if renews else []),
        Reuse(engine, schedules),
        Partition(engine, machine_for_decisions(), schedules=schedules),
    )
    if inside:
        from graphopt.passes.local import Local

        kernels = (Local(engine), *kernels)
    return kernels if base == "auto" else (RandomBits(), *kernels)


def machine_for_decisions() -> Machine:
    """What predicted times rest on: among several processes the defaults, for all must compile the same program."""
    return this_machine() if jax.process_count() == 1 else Machine()


def decision_for(graph: Graph, options: Options, context: Context) -> Decision | None:
    """What was measured of a program, as the options have it; None, with a warning, where it is not among that."""
    name = hash_of(str(graph))
    for decision in options.tuning:
        if decision.program == name:
            return decision
    text = "the lock file says nothing of this program; f.tune(*args, lock=...) adds it"
    context.note(text)
    warnings.warn(text, LockWarning, stacklevel=2)
    return None


def pipeline_of(options: Options) -> tuple[Pass, ...]:
    """The passes that `options` name, or the standard pipeline; those too that are left out."""
    return STANDARD if options.passes is None else options.passes


def kept(steps: tuple[Pass, ...], options: Options) -> tuple[Pass, ...]:
    """Those of some passes that are not left out."""
    return tuple(step for step in steps if step.name not in options.without)


def passes_of(options: Options) -> tuple[Pass, ...]:
    """The passes that run before kernels are made."""
    return kept(pipeline_of(options), options)


def context_for(options: Options, sources: Sources, target: Target | None = None, timed: bool = False) -> Context:
    """What the passes may know of a program for `target`; by default one platform and one device.

    timed: whether the time of each rule is measured, which takes some time too.
    """
    target = target or Target(())
    portable = target.for_export or target.symbolic or target.num_devices > 1 or len(target.platforms) > 1
    timed = timed or settings().debug > 0
    return Context(
        options,
        sources,
        differentiable=target.transformable,
        portable=portable,
        platforms=target.platforms,
        timed=timed,
    )


def check_results(records: Sequence[PassRecord]) -> None:
    """Evaluates the graph before the first pass and after each one, on arguments that are drawn.

    Raises PassError at the first pass that moves a result by more than the safety of its rules allows. A program with
    effects is not run, nor one whose arguments cannot be drawn.
    """
    if not records or any(node.effects for node in records[0].before.nodes):
        return
    start, random, safety = records[0].before, np.random.default_rng(0), 0
    with jax.ensure_compile_time_eval():
        try:
            args = [drawn(aval, random) for aval in start.in_avals]
        except TypeError:
            return
        expected = evaluate(start, *args, apply=apply_opened)
        for record in records:
            safety = max([safety, *(SAFETIES.index(firing.safety) for firing in record.firings)])
            difference = disagreement(start, record.after, args, SAFETIES[safety], expected)
            if difference is not None:
                advice = "find the rule with graphopt.verify(f)(*args)"
                raise PassError(f"the pass {record.name!r} changed a result: {difference}; {advice}")


_dumped = itertools.count(1)


def dump(records: Sequence[PassRecord], name: str, target: Target) -> None:
    """Writes the graph before the first pass and after each one to a new folder of GRAPHOPT_DUMP."""
    root = settings().dump
    if root is None:
        return
    safe = re.sub(r"\W+", "_", name).strip("_") or "region"
    folder: Path = root / f"{next(_dumped):03d}-{safe}-{'-'.join(target.platforms)}"
    folder.mkdir(parents=True, exist_ok=True)
    for number, record in enumerate(records):
        if number == 0:
            (folder / "00-traced.txt").write_text(f"{record.before}\n")
        (folder / f"{number + 1:02d}-{record.name}.txt").write_text(f"{record.after}\n")
