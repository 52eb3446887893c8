"""A recorded graph as plain data: its nodes and edges, what its places are called, its paths."""
