"""Engines that a graph can be lowered to."""
