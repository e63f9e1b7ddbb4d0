"""Direct multiple shooting, with CasADi."""
