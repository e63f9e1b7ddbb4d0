"""How an optimum moves with what was asked: its derivatives, from the Newton factors there."""
