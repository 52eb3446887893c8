"""Boxes and wires on paper: a Sketch is laid out, painted, and written as SVG, PNG, PDF or DOT."""
