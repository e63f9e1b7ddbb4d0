"""Indirect shooting: geodesics of the Hamiltonian flow."""
