"""What the ops of a graph compute and their derivatives, as formulas that can be printed."""
