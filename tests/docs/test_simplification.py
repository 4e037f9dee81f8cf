"""The table of rules is that of the rules, and every described operation is in it."""

import os

import pytest

from graphopt.ops import described_ops
from graphopt.passes.rules import DECLINED, RULES

from .simplification import FILE, names, text


def test_the_table_is_up_to_date() -> None:
    expected = text()
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(expected)
    assert FILE.read_text() == expected, "GRAPHOPT_TEST_UPDATE=1 writes the file anew"


@pytest.mark.parametrize("name", sorted(op.name for op in described_ops()))
def test_each_described_operation_has_rules_or_a_reason(name: str) -> None:
    assert name in DECLINED or any(op.name == name for rule in RULES for op in rule.ops)


def test_reasons_are_for_operations() -> None:
    from graphopt.ir.op import op_named

    assert [name for name in DECLINED if op_named(name) is None] == []
    assert all(reason.strip().endswith(".") for reason in DECLINED.values())
    assert names() >= set(DECLINED)
