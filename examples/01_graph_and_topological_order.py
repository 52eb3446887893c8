# %% [markdown]
# # Lesson 1: the graph that a program leaves behind, and the order in which to walk it back
#
# An operation on Scalars returns a new Scalar that remembers what it was computed from (`parents`)
# and, for each of these, the derivative of the result to it (`local`). So after
#
#     b = a + a
#     c = b · b
#
# there is a graph: c has two edges to b, one for each factor, and b has two edges to a. On paper
# c = (2a)² = 4a², so dc/da = 8a, which is 24 at a = 3.
#
# The chain rule finds it edge by edge:
#
#     gradient at a node  =  Σ over the edges from later nodes:
#                            gradient at the later node × derivative on the edge
#
# The important sign is Σ. A node may hand on its gradient only when all of it has arrived. That is
# certain when every node is visited before the nodes it was computed from; such an order is called
# topological. Here the same graph is walked in that order, and then in ways that break the rule.
#
# Source: COMPSCI 682 session on batch norm (Su, 2019).
# Run: `python examples/01_graph_and_topological_order.py`

# %%
import lesson

import tinygrad_bn as tg

# %% [markdown]
# ## The recorded graph
#
# Running the program is all that it takes to record it. `tg.toposort` wants the roots, and a
# function that names a node's parents. These are a tuple, in which the same node may stand twice.


# %%
def record(value):
    a = tg.named("a", tg.Scalar(value))
    b = tg.named("b", a + a)
    c = tg.named("c", b * b)
    return a, b, c


def all_edges(node):
    return list(zip(node.parents, node.local))


def topological_order(root):
    return tg.toposort([root], lambda node: node.parents)


a, b, c = record(3.0)
for node in topological_order(c):
    edges = ", ".join(f"{slope:g} to {parent.name}" for parent, slope in all_edges(node))
    print(f"{node.name} = {node.data:<2g}  {node.op or ' '}  edges: {edges or 'none'}")

# %% [markdown]
# The same as a picture: in each box the value ▸ of the way forward and the gradient ◂ of the way
# back, on each arrow what it brings: 6 + 6 = 12 to b, and 12 + 12 = 24 to a.

# %%
lesson.save(tg.draw(c, "ops", theme="light"), "01_graph_and_topological_order")

# %% [markdown]
# ## In topological order
#
# c, b, a. Both halves of the gradient at b, 6 + 6, arrive before b acts. `c.backward()` does the
# same.


# %%
def walk(nodes, edges=all_edges):
    """Visit each node once, in the order given, and hand its gradient on over its edges."""
    for node in nodes:
        for parent, slope in edges(node):
            parent.grad += node.grad * slope


def derivative(walk_back):
    """What a way of walking finds for dc/da, on a fresh graph with the gradient 1 at c."""
    a, b, c = record(3.0)
    c.grad = 1.0
    walk_back(a, b, c)
    return a.grad


on_paper = 8 * 3.0
in_order = derivative(lambda a, b, c: walk(topological_order(c)))
by_library = derivative(lambda a, b, c: c.backward())
print(f"on paper {on_paper:g}, in topological order {in_order:g}, c.backward() {by_library:g}")

# %% [markdown]
# ## In the order of the program
#
# a, b, c. When a and b act, nothing has arrived at them yet. What c hands to b comes too late.

# %%
in_program_order = derivative(lambda a, b, c: walk([a, b, c]))
print(f"in the order of the program {in_program_order:g}")

# %% [markdown]
# ## Depth first
#
# The tempting recursion: hand on whatever has arrived so far, and go down at once. The first edge
# brings 6 to b, and b hands 2 × 6 = 12 to a, too early. The second edge makes it 12 at b, and b
# hands on all of it, 2 × 12 = 24: the first 6 counts twice.


# %%
def walk_depth_first(node):
    for parent, slope in all_edges(node):
        parent.grad += node.grad * slope
        walk_depth_first(parent)


depth_first = derivative(lambda a, b, c: walk_depth_first(c))
print(f"depth first {depth_first:g}")

# %% [markdown]
# ## By every path
#
# The recursion can be mended: each contribution travels alone. The four paths from c to a bring 6
# each. But x, x + x, (x + x) + (x + x) and so on are nodes in a row, each with two edges: one more
# of them doubles the paths. So every path costs 2 + 4 + 8 + … edges, and topological order 2 a
# node.


# %%
def walk_every_path(node, gradient):
    """Hand on this one contribution, and count the edges that it crosses."""
    crossed = 0
    for parent, slope in all_edges(node):
        parent.grad += gradient * slope
        crossed += 1 + walk_every_path(parent, gradient * slope)
    return crossed


by_every_path = derivative(lambda a, b, c: walk_every_path(c, 1.0))

x = tg.Scalar(1.0)
for _ in range(15):
    x = x + x
edges_in_order = sum(len(node.parents) for node in topological_order(x))
edges_of_paths = walk_every_path(x, 1.0)
print(f"by every path {by_every_path:g}; 15 doublings: {edges_in_order} and {edges_of_paths} edges")

# %% [markdown]
# ## With the parents in a set
#
# b = a + a is one node with two edges to one parent. A set of parents holds that one once: the
# second edge is gone for whoever reads the graph, and a factor 2 is lost at c and at b.


# %%
def edges_as_a_set(node):
    return list(dict(all_edges(node)).items())


with_a_set = derivative(lambda a, b, c: walk([c, b, a], edges_as_a_set))
print(f"with parents as a set {with_a_set:g}")

# %% [markdown]
# ## What was found

# %%
found = {
    "dc/da on paper, 8a": on_paper,
    "dc/da in topological order": in_order,
    "dc/da by c.backward()": by_library,
    "dc/da in the order of the program (wrong)": in_program_order,
    "dc/da depth first (wrong)": depth_first,
    "dc/da by every path": by_every_path,
    "edges crossed for 15 doublings, topological order": edges_in_order,
    "edges crossed for 15 doublings, every path": edges_of_paths,
    "edges of b = a + a": len(all_edges(b)),
    "edges of b = a + a, parents as a set": len(edges_as_a_set(b)),
    "dc/da with parents as a set (wrong)": with_a_set,
}
lesson.close(found)
