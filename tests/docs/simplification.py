"""The table of docs/simplification.md, from the rules themselves."""

import re
from collections.abc import Iterator
from pathlib import Path

from graphopt.ops import described_ops
from graphopt.passes.rules import DECLINED, RULES
from graphopt.rewrite.rule import LAWS, AnyRule

FILE = Path(__file__).parents[2] / "docs" / "simplification.md"

HEAD = """# What simplification knows

The pass `simplify` applies these rules, by the operation at which they begin and by the law of algebra that each one is.
*Safety* is how far a rule may move a result, by kind of dtype: b boolean, i signed and u unsigned integers, f floating,
h bfloat16 where it differs from the others, c complex, o all others. `exact` rules run under every `numerics=`, `reassociate` under "standard" and "fast", the other
two under "fast" alone, or by name: `Simplify(also=("rule",))`. `graphopt.rewrite.safety` defines the four.
*Not done* says what holds, or seems to, and is left alone on purpose.

This file is written from the rules: `GRAPHOPT_TEST_UPDATE=1 pytest tests/docs`.
"""


NEWER = {"log2", "one_minus_square", "polynomial"}
"""Operations that only newer versions of JAX have: an older one leaves what the file says of them."""


def text() -> str:
    """What the file says."""
    rules = sorted({rule.name: rule for rule in RULES}.values(), key=lambda rule: LAWS.index(rule.law))
    sections = {name: "\n".join(section(name, rules)) for name in names()}
    known = re.split(r"^## `(\w+)`\n", FILE.read_text(), flags=re.MULTILINE)[1:] if FILE.exists() else []
    for name, body in zip(known[::2], known[1::2], strict=True):
        if name in NEWER - set(sections):
            sections[name] = f"## `{name}`\n{body.removesuffix(chr(10))}"
    whole = "\n".join(sections[name] for name in sorted(sections))
    found = set(re.findall(r"^\| \w+ \| ([^|]+) \|", whole, flags=re.MULTILINE)) - {"rule"}
    with_rules = sum("| rule |" in body for body in sections.values())
    return f"{HEAD}\n{len(found)} rules on {with_rules} operations.\n\n{whole}\n"


def names() -> set[str]:
    """The operations in the table: those that are described and those of which a rule speaks."""
    return {op.name for op in described_ops()} | {op.name for rule in RULES for op in rule.ops} | set(DECLINED)


def section(name: str, rules: list[AnyRule]) -> Iterator[str]:
    """The rules of one operation."""
    yield f"## `{name}`\n"
    own = [rule for rule in rules if any(op.name == name for op in rule.ops)]
    if own:
        yield "| law | rule | what it does | safety |\n|---|---|---|---|"
        for rule in own:
            yield f"| {rule.law} | {rule.name} | `{str(rule).replace('|', chr(92) + '|')}` | {safety(rule)} |"
        yield ""
    if name in DECLINED:
        yield f"Not done: {DECLINED[name]}\n"


def safety(rule: AnyRule) -> str:
    """The safety by kinds of dtype, in one cell."""
    words: dict[str, str] = {}
    for kind, word in rule.table.items():
        if kind == "h" and word == rule.table.get("f"):
            continue
        words[word] = words.get(word, "") + kind
    return ", ".join(f"{word} ({kinds})" for word, kinds in words.items())
