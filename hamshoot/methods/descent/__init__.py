"""Gradient descent on the same network: the baseline."""
