"""Direct single shooting: the controls alone."""
