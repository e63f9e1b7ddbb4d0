"""The layered network, its mesh, and the path that it follows."""
