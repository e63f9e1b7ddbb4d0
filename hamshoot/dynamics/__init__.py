"""The same formulas compiled: sweeps of layers and the Hamiltonian flow."""
