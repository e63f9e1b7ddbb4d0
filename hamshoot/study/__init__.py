"""The verbs: solve, compare, plot."""
