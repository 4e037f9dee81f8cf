"""Rewriting: what a pass is, how it rebuilds a graph, and how a pipeline of passes is run."""
