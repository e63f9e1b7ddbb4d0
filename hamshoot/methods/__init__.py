"""The solvers; none of them knows another."""
