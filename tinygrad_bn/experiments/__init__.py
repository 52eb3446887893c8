"""What batch norm does to training: the experiments that the lessons and the tour show.

One file an experiment; its `run` trains the same networks with and without batch norm, several from
different seeds, and returns what it measured as a dict that JSON can hold. The accuracy, or error,
of a network that diverged is None there.
"""
