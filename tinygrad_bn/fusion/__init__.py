"""Ops that are several layers at once: the same numbers in less time, for `nn.Sequential`.

A reader can leave this room closed: nothing in it computes what `norm` and `ops` do not.
"""
