"""Each pass on small graphs: the text before and the text after, side by side in this file."""

import pytest

from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.ir.parse import parse
from graphopt.ir.sources import Sources
from graphopt.passes.dead import Dead
from graphopt.passes.fold import Fold
from graphopt.passes.inline import Inline
from graphopt.rewrite.passes import Context, Pass, run_pipeline

CASES: dict[str, tuple[Pass, str, str]] = {
    "a call becomes its body": (
        Inline(),
        """
        graph @1(%0: f32[3]) {
          %1: f32[3] = neg(%0)
          return %1, %0
        }
        graph @main(%0: f32[3]) {
          %1: (f32[3], f32[3]) = remat2[differentiated=False, jaxpr=@1, policy=None, prevent_cse=False](%0)
          %2: f32[3] = project[index=0](%1)
          %3: f32[3] = project[index=1](%1)
          %4: f32[3] = max(%2, %3)
          return %4
        }
        """,
        """
        graph @main(%0: f32[3]) {
          %1: f32[3] = neg(%0)
          %2: f32[3] = max(%1, %0)
          return %2
        }
        """,
    ),
    "calls inside calls and inside branches": (
        Inline(),
        """
        graph @1(%0: f32[]) {
          %1: f32[] = neg(%0)
          return %1
        }
        graph @2(%0: f32[]) {
          %1: f32[] = remat2[differentiated=False, jaxpr=@1, policy=None, prevent_cse=False](%0)
          return %1
        }
        graph @3(%0: f32[]) {
          return %0
        }
        graph @main(%0: i32[], %1: f32[]) {
          %2: f32[] = cond[branches=(@2, @3)](%0, %1)
          %3: f32[] = remat2[differentiated=False, jaxpr=@2, policy=None, prevent_cse=False](%2)
          return %3
        }
        """,
        """
        graph @1(%0: f32[]) {
          %1: f32[] = neg(%0)
          return %1
        }
        graph @2(%0: f32[]) {
          return %0
        }
        graph @main(%0: i32[], %1: f32[]) {
          %2: f32[] = cond[branches=(@1, @2)](%0, %1)
          %3: f32[] = neg(%2)
          return %3
        }
        """,
    ),
    "integers and sums of normal numbers are folded, a quotient is not": (
        Fold(),
        """
        graph @main(%0: i32[2]) {
          %1: i32[2] = constant(1, 2)
          %2: i32[2] = constant(2147483647, 3)
          %3: i32[2] = add(%1, %2)
          %4: i32[2] = add(%0, %3)
          %5: f32[] = constant(0.1)
          %6: f32[] = constant(0.2)
          %7: f32[] = add(%5, %6)
          %8: f32[] = div(%5, %6)
          return %4, %7, %8
        }
        """,
        """
        graph @main(%0: i32[2]) {
          %1: i32[2] = constant(-2147483648, 5)
          %2: i32[2] = add(%0, %1)
          %3: f32[] = constant(0.3)
          %4: f32[] = constant(0.1)
          %5: f32[] = constant(0.2)
          %6: f32[] = div(%4, %5)
          return %2, %3, %6
        }
        """,
    ),
    "a large result is not made": (
        Fold(max_elements=3),
        """
        graph @main() {
          %0: bool[2] = constant(true, false)
          %1: bool[2] = not(%0)
          %2: bool[4] = concatenate[dimension=0](%0, %1)
          return %1, %2
        }
        """,
        """
        graph @main() {
          %0: bool[2] = constant(false, true)
          %1: bool[2] = constant(true, false)
          %2: bool[4] = concatenate[dimension=0](%1, %0)
          return %0, %2
        }
        """,
    ),
    "a loop's carried value that only feeds itself": (
        Dead(),
        """
        graph @1(%0: f32[], %1: i32[], %2: f32[]) {
          %3: i32[] = constant(3)
          %4: bool[] = lt(%1, %3)
          return %4
        }
        graph @2(%0: f32[], %1: i32[], %2: f32[]) {
          %3: f32[] = neg(%0)
          %4: i32[] = constant(1)
          %5: i32[] = add(%1, %4)
          %6: f32[] = max(%2, %3)
          return %3, %5, %6
        }
        graph @main(%0: f32[], %1: i32[]) {
          %2: (f32[], i32[], f32[]) = while[body_jaxpr=@2, body_nconsts=0, cond_jaxpr=@1, cond_nconsts=0](%0, %1, %0)
          %3: f32[] = project[index=0](%2)
          return %3
        }
        """,
        """
        graph @1(%0: f32[], %1: i32[]) {
          %2: f32[] = neg(%0)
          %3: i32[] = constant(1)
          %4: i32[] = add(%1, %3)
          return %2, %4
        }
        graph @2(%0: f32[], %1: i32[]) {
          %2: i32[] = constant(3)
          %3: bool[] = lt(%1, %2)
          return %3
        }
        graph @main(%0: f32[], %1: i32[]) {
          %2: (f32[], i32[]) = while[body_jaxpr=@1, body_nconsts=0, cond_jaxpr=@2, cond_nconsts=0](%0, %1)
          %3: f32[] = project[index=0](%2)
          return %3
        }
        """,
    ),
    "results and operands of a choice": (
        Dead(),
        """
        graph @1(%0: f32[], %1: f32[2]) {
          %2: f32[] = neg(%0)
          return %2, %1
        }
        graph @2(%0: f32[], %1: f32[2]) {
          return %0, %1
        }
        graph @main(%0: i32[], %1: f32[], %2: f32[2]) {
          %3: f32[2] = neg(%2)
          %4: (f32[], f32[2]) = cond[branches=(@1, @2)](%0, %1, %3)
          %5: f32[] = project[index=0](%4)
          return %5
        }
        """,
        """
        graph @1(%0: f32[]) {
          %1: f32[] = neg(%0)
          return %1
        }
        graph @2(%0: f32[]) {
          return %0
        }
        graph @main(%0: i32[], %1: f32[], %2: f32[2]) {
          %3: f32[] = cond[branches=(@1, @2)](%0, %1)
          return %3
        }
        """,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_pass_turns_the_one_text_into_the_other(name: str) -> None:
    step, before, after = CASES[name]
    result, records = run_pipeline(parse(before), (step,), Context(Options(), Sources()))
    check(result)
    assert str(result).splitlines() == [
        line.removeprefix(" " * 8) for line in after.strip("\n").rstrip(" ").splitlines()
    ]
    assert result is parse(after)
    assert records[0].before is parse(before) and records[0].after is result


@pytest.mark.parametrize("name", CASES)
def test_a_second_run_changes_nothing(name: str) -> None:
    step, _, after = CASES[name]
    once: Graph = parse(after)
    assert step.run(once, Context(Options(), Sources())) is once


def test_custom_derivatives_and_checkpoints_stay_where_jax_may_still_differentiate() -> None:
    graph = parse("""
        graph @1(%0: f32[]) {
          %1: f32[] = neg(%0)
          return %1
        }
        graph @main(%0: f32[]) {
          %1: f32[] = remat2[differentiated=False, jaxpr=@1, policy=None, prevent_cse=True](%0)
          %2: f32[] = custom_jvp_call[call_jaxpr=@1, jvp_jaxpr_fun=None, num_consts=0, symbolic_zeros=False](%1)
          return %2
        }
    """)
    context = Context(Options(), Sources(), differentiable=True)
    assert Inline().run(graph, context) is graph
    assert any("differentiate" in note for note in context.notes)
    assert Inline().run(graph, Context(Options(), Sources())).count() == 2


def test_a_checkpoint_of_a_derivative_keeps_its_barrier() -> None:
    graph = parse("""
        graph @1(%0: f32[]) {
          %1: f32[] = neg(%0)
          return %1
        }
        graph @main(%0: f32[]) {
          %1: f32[] = remat2[differentiated=True, jaxpr=@1, policy=None, prevent_cse=True](%0)
          %2: f32[] = remat2[differentiated=True, jaxpr=@1, policy=None, prevent_cse=False](%1)
          return %2
        }
    """)
    result = Inline().run(graph, Context(Options(), Sources()))
    assert [node.op.name for node in result.nodes] == ["param", "remat2", "neg"]
