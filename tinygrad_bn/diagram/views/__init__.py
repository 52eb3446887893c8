"""The views of a graph: each makes a Sketch of a Reading."""
