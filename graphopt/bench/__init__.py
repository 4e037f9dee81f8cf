"""Measurements behind `python -m graphopt bench`: ratios side by side in one process."""
