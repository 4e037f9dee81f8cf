"""Rewriting: patterns, rules and their safety, the driver, what a pass is and how a pipeline of passes is run."""

from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import Match, Rule, rewrites

__all__ = ["Match", "Rule", "operation", "rewrites", "variables"]
