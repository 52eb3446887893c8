"""Lesson 1: the graph that a program leaves behind, and the order in which to walk it back.

An operation on Scalars returns a new Scalar that remembers what it was computed from (`parents`)
and, for each of these, the derivative of the result to it (`local`). So after

    b = a + a
    c = b * b

there is a graph: c has two edges to b, one for each factor, and b has two edges to a. On paper
c = (2a)² = 4a², so dc/da = 8a, which is 24 at a = 3.

The chain rule finds it edge by edge. The gradient at a node is a sum over the edges that reach it
from later nodes: (gradient at the later node) × (derivative on the edge). The important word is
"sum". A node may hand on its gradient only when all of it has arrived. That is certain when every
node is visited before the nodes it was computed from; such an order is called topological.
What follows walks the same graph in that order, and then in ways that break the rule.

Source: COMPSCI 682 session on batch norm (Su, 2019).
Run: python examples/01_graph_and_topological_order.py
"""

import tinygrad_bn as tg


def record(value):
    """The program of this lesson. Running it is all that it takes to record the graph."""
    a = tg.Scalar(value)
    b = a + a
    c = b * b
    a.name, b.name, c.name = "a", "b", "c"
    return a, b, c


def all_edges(node):
    """The edges of a node, (parent, local derivative). `parents` is a tuple: a pair may repeat."""
    return list(zip(node.parents, node.local))


def edges_as_a_set(node):
    """The same, had the parents been kept as a set, in which nothing stands twice."""
    return list(dict(zip(node.parents, node.local)).items())


def walk(nodes, edges=all_edges):
    """Visit each node once, in the order given, and hand its gradient on over its edges."""
    for node in nodes:
        for parent, slope in edges(node):
            parent.grad += node.grad * slope


def walk_depth_first(node):
    """Hand on whatever has arrived so far, and go down at once: the tempting recursion."""
    for parent, slope in all_edges(node):
        parent.grad += node.grad * slope
        walk_depth_first(parent)


def walk_every_path(node, gradient):
    """Hand on each contribution by itself, and count the edges that are crossed."""
    node.grad += gradient
    return sum(1 + walk_every_path(p, gradient * slope) for p, slope in all_edges(node))


def doublings(times):
    """x, x + x, and so on: `times` nodes in a row with two edges each."""
    x = tg.Scalar(1.0)
    for _ in range(times):
        x = x + x
    return x


def main():
    found = {}

    # The recorded graph. `toposort` wants the roots and a function that names a node's parents.
    a, b, c = record(3.0)
    order = tg.toposort([c], lambda node: node.parents)
    for node in order:
        edges = ", ".join(f"{slope:g} to {parent.name}" for parent, slope in all_edges(node))
        print(f"{node.name} = {node.data:<2g}  {node.op or ' '}  edges: {edges or 'none'}")
    found["dc/da on paper, 8a"] = 8 * a.data

    # 1. Topological order: c, b, a. At b both halves of the gradient, 6 + 6, arrive before b acts.
    c.grad = 1.0
    walk(order)
    found["dc/da in topological order"] = a.grad
    a, b, c = record(3.0)
    c.backward()  # the same walk, by the library
    found["dc/da by c.backward()"] = a.grad

    # 2. The order of the program: a, b, c. When a and b act nothing has arrived at them yet.
    a, b, c = record(3.0)
    c.grad = 1.0
    walk([a, b, c])
    found["dc/da in the order of the program (wrong)"] = a.grad

    # 3. Depth first. The first edge brings 6 to b, and b hands 2 × 6 = 12 to a, too early. The
    # second edge makes it 12 at b, and b hands on all of it, 2 × 12 = 24: the first 6 counts twice.
    a, b, c = record(3.0)
    c.grad = 1.0
    walk_depth_first(c)
    found["dc/da depth first (wrong)"] = a.grad

    # 4. The recursion can be mended: each contribution travels alone. The four paths from c to a
    # bring 6 each. But here every further node doubles the paths, and adds only two edges.
    a, b, c = record(3.0)
    walk_every_path(c, 1.0)
    found["dc/da by every path"] = a.grad
    tower = doublings(15)
    edges = sum(len(node.parents) for node in tg.toposort([tower], lambda node: node.parents))
    found["edges crossed for 15 doublings, topological order"] = edges
    found["edges crossed for 15 doublings, every path"] = walk_every_path(tower, 1.0)

    # 5. b = a + a is one node with two edges to one parent. A set of parents holds that one once:
    # the second edge is gone for whoever reads the graph, and a factor 2 is lost at c and at b.
    a, b, c = record(3.0)
    found["edges of b = a + a"] = len(all_edges(b))
    found["edges of b = a + a, parents as a set"] = len(edges_as_a_set(b))
    c.grad = 1.0
    walk([c, b, a], edges_as_a_set)
    found["dc/da with parents as a set (wrong)"] = a.grad

    print()
    for name, value in found.items():
        print(f"{name}: {value:.7g}")
    return found


if __name__ == "__main__":
    main()
