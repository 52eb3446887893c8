# %% [markdown]
# # Lesson 23: synchronized batch norm, for a batch that is spread over ranks
#
# Four processes, called ranks, train one network. Each has a copy of it, and a quarter of the rows
# of every batch. The loss of a batch is a sum over its rows. So the gradients that the ranks find,
# each from its own rows, add up to the gradient of the batch; with that sum all of them make the
# step that one process would make, and the copies stay copies.
#
# That is so as long as the output of a row depends on this row alone. Batch norm couples the rows
# (lesson 21): left as it is, it normalizes the rows of a rank by the μ and σ² of these few rows,
# and the four train another network. Synchronized batch norm takes μ and σ² over the rows of all
# ranks.
#
# Source: Ioffe & Szegedy 2015, section 3; Peng et al. 2018; Chan, Golub & LeVeque 1983.
# Run: `mpiexec -n 4 python examples/23_sync_batch_norm.py`, and the ranks are four processes; or
# `python examples/23_sync_batch_norm.py`, and they are four threads that take turns.

# %%
import functools
import io
import sys

import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import distributed, nn, optim
from tinygrad_bn import functional as F
from tinygrad_bn.train import digits, evaluate

started = distributed.init()  # the ranks that mpiexec has started, or one that is alone
RANKS = started.size if started.size > 1 else 4
if started.rank > 0:
    sys.stdout = io.StringIO()  # the first speaks for all


def on_all_ranks(function, **how):
    """function(comm, **how) on every rank; its answer on this one, or on the first of four that are
    simulated."""
    if started.size > 1:
        return function(started, **how)
    return distributed.simulate(RANKS, lambda comm: function(comm, **how))[0]


print("The ranks:", on_all_ranks(repr))

# %% [markdown]
# ## Forward: counts, means and squares are merged
#
# A rank tells the others of each channel how many values it has, their mean, and the sum S of the
# squares of their deviations from it. Of two such triples one is made by Chan's formula:
#
#     n = n₁ + n₂     δ = μ₂ − μ₁     μ = μ₁ + δ n₂/n     S = S₁ + S₂ + δ² n₁ n₂/n
#
# and of four by using it three times. Then σ² = S/n. A rank that has no rows tells (0, 0, 0), and
# changes nothing. It would be less to send Σx and Σx², but σ² = Σx²/n − μ² is a small difference
# of large numbers where the mean is large.


# %%
def told(x):
    return len(x), x.sum() / max(len(x), 1), x.var() * len(x) if len(x) else 0.0


def merged(a, b):
    (n1, mu1, s1), (n2, mu2, s2) = a, b
    n, delta = n1 + n2, mu2 - mu1
    return n, mu1 + delta * n2 / n, s1 + s2 + delta**2 * n1 * n2 / n


values = 1e8 + np.random.default_rng(23).normal(size=32)
parts = np.split(values, [3, 3, 14])
n, mu, S = functools.reduce(merged, [told(part) for part in parts])
by_squares = sum((part**2).sum() for part in parts) / n - mu**2
var = (values - 1e8).var()  # 1e8 is taken away without rounding
print(f"32 values around 1e8, in parts of {[len(part) for part in parts]}")
print(f"σ² of all {var:.6f}, merged {S / n:.6f}, by Σx² {by_squares:.6f}")

# %% [markdown]
# ## Backward: two sums
#
# The gradient of lesson 5 has two means over the rows of the batch, and of all else a rank has what
# it needs:
#
#     ∂ℓ/∂x = γ r (∂ℓ/∂y − Σ ∂ℓ/∂y / m − x̂ Σ(∂ℓ/∂y x̂) / m)     m the rows of all ranks
#
# So the ranks add up two numbers a channel. (They are ∂ℓ/∂β and ∂ℓ/∂γ, too.)
#
# How often do ranks talk? A communicator that counts is put between them. Composed, each mean of
# the formulas is a sum over ranks, on the way there and on the way back.


# %%
class Counting(distributed.Communicator):
    """Talks by another communicator, and notes how many numbers go in each collective."""

    def __init__(self, comm):
        self.comm, self.rank, self.size, self.sent = comm, comm.rank, comm.size, []

    def allreduce_(self, array):
        self.sent.append(array.size)
        return self.comm.allreduce_(array)

    def allgather(self, array):
        self.sent.append(array.size)
        return self.comm.allgather(array)


CHANNELS, ROWS = 100, 8


def sent_by_a_norm(comm, impl):
    """What the norm sends forward, and what backward."""
    counting = Counting(comm)
    norm = nn.SyncBatchNorm(CHANNELS, process_group=counting, dtype=np.float64, impl=impl)
    x = np.random.default_rng(comm.rank).normal(size=(ROWS, CHANNELS))
    y = norm(tg.tensor(x, requires_grad=True))
    forward, counting.sent = counting.sent, []
    (y * y * y).sum().backward()
    return forward, counting.sent


print(f"numbers sent in each collective, {CHANNELS} channels: forward; backward")
sent = {}
for impl in ("fused", "composed"):
    sent[impl] = on_all_ranks(sent_by_a_norm, impl=impl)
    print(f"{impl:8}", *sent[impl], sep="  ")

# %% [markdown]
# ## One network on several ranks
#
# A perceptron with two norms, in float64. `DataParallel` gives all ranks the parameters of the
# first, and `sum_gradients` adds up what they find. `shares` says which rows of a batch are whose:
# all alike, or, to be unkind, none for the first rank and more for each next one.

# %%
(images, labels), (test_images, test_labels) = digits(seed=0)
images, test_images = images.astype(np.float64), test_images.astype(np.float64)


def batches(size, steps, seed):
    """The same on all ranks."""
    random, n = np.random.default_rng(seed), len(images)
    chosen = [random.choice(n, size, replace=size > n) for _ in range(steps)]
    return [(images[rows], labels[rows]) for rows in chosen]


def even(comm, n):
    return comm.share(n)


def uneven(comm, n):
    cuts = (n * max(k - 1, 0) ** 2 // (comm.size - 1) ** 2 for k in (comm.rank, comm.rank + 1))
    return slice(*cuts)


def network(comm, seed, synchronized):
    tg.manual_seed(seed)
    kind = {"dtype": np.float64}
    model = nn.Sequential(
        *(nn.Linear(64, 32, **kind), nn.BatchNorm1d(32, **kind), nn.ReLU()),
        *(nn.Linear(32, 32, **kind), nn.BatchNorm1d(32, **kind), nn.ReLU()),
        nn.Linear(32, 10, **kind),
    )
    if synchronized:
        model = nn.convert_sync_batchnorm(model, comm)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    return distributed.DataParallel(model, optimizer, comm)


def loss_and_gradients(parallel, x, y, shares=even):
    """The loss of the whole batch; its gradients are those of the parameters."""
    mine = shares(parallel.comm, len(x))
    parallel.optimizer.zero_grad()
    outputs = parallel.model(tg.tensor(x[mine]))
    loss = F.cross_entropy(outputs, tg.tensor(y[mine]), reduction="sum") / len(x)
    loss.backward()
    return parallel.sum_gradients(loss.item())[0]


# %% [markdown]
# ## What goes wrong: the gradient
#
# A first step, by four ranks and by one process that has the whole batch: the relative distance of
# the gradients, the median over batches. For a measure, the last column has that of two batches of
# this size, both of one process.


# %%
SIZES = lesson.pace((2, 8, 64), (2, 4, 8, 16, 32, 64), (2, 4, 8, 16, 32, 64))
DRAWS = lesson.pace(3, 10, 50)


def gradients(comm, rows, synchronized):
    """A vector for each of some batches of so many rows a rank."""
    found = []
    for batch in batches(rows * RANKS, DRAWS, seed=rows):
        parallel = network(comm, 0, synchronized)
        loss_and_gradients(parallel, *batch)
        found.append(np.concatenate([p.grad.numpy().ravel() for p in parallel.model.parameters()]))
    return np.array(found)


def distance(a, b):
    """Relative, of vectors; the median over the batches."""
    return float(np.median(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)))


off = {}
print("rows a rank   synchronized   not synchronized   another batch")
for rows in SIZES:
    of_one = gradients(distributed.ALONE, rows, synchronized=False)
    of_ranks = [
        on_all_ranks(gradients, rows=rows, synchronized=synchronized)
        for synchronized in (True, False)
    ]
    off[rows] = [distance(found, of_one) for found in (*of_ranks, np.roll(of_one, 1, axis=0))]
    print("{:11}{:15.1e}{:19.2f}{:16.2f}".format(rows, *off[rows]))

# %% [markdown]
# Synchronized it is rounding. Otherwise it is far more, and with 64 rows a rank still a sixth. What
# does that mean for training? From 8 rows on it is less than lies between one batch and the next,
# which gradient descent has to live with anyway; with fewer it is more.
#
# With two rows a rank it is worse than far off. Then x̂ is ±1, whatever the rows are (lesson 19),
# and without ε no gradient passes a norm at all (lesson 21). With ε there is one where the two
# values of a feature nearly coincide, within √ε: seldom, and then a large one.

# %% [markdown]
# ## Twenty steps
#
# The largest difference from one process that makes the same steps: in the network, which is every
# parameter, running mean and running variance, and in the losses. And are the ranks the same?

# %%
STEPS = 20


def trained(comm, data, seed, synchronized, shares=even):
    """A network and its losses, each that of the batch before the step."""
    parallel, losses = network(comm, seed, synchronized), []
    for x, y in data:
        losses.append(loss_and_gradients(parallel, x, y, shares))
        parallel.optimizer.step()
    return parallel, np.array(losses)


def numbers(parallel):
    return np.concatenate([t.numpy().ravel() for t in parallel.model.state_dict().values()])


def trained_and_compared(comm, data, synchronized, shares):
    parallel, losses = trained(comm, data, 0, synchronized, shares)
    try:
        parallel.check_equal()
        verdict = "the same bits on all ranks"
    except distributed.RankError as error:
        verdict = f"RankError: {error}"
    return numbers(parallel), losses, verdict


data = batches(8 * RANKS, STEPS, seed=0)
one, losses_of_one = trained(distributed.ALONE, data, 0, synchronized=False)
differences = {}
for name, synchronized, shares in (
    ("synchronized, even shares", True, even),
    ("synchronized, uneven shares", True, uneven),
    ("not synchronized", False, even),
):
    how = {"data": data, "synchronized": synchronized, "shares": shares}
    state, losses, verdict = on_all_ranks(trained_and_compared, **how)
    differences[name] = (
        float(np.abs(state - numbers(one)).max()),
        float(np.abs(losses - losses_of_one).max()),
        float(verdict.startswith("RankError")),
    )
    print("{}: network {:.1e}, losses {:.1e}".format(name, *differences[name]))
    print(f"    {verdict}")

# %% [markdown]
# The ranks that are synchronized train the network of one process, however the rows are shared out,
# and all have the same bits. The others do not. Their parameters are still the same on all ranks,
# which have added up the same gradients. But each has followed the mean and variance of its own
# rows: in evaluation they are four networks, and whoever saves the first has one of them.
#
# ## Does it matter?
#
# Longer runs, the same number of steps with every number of rows, for several seeds: they choose
# the initial weights and the batches. The loss is that of the last 20 batches, as training sees it.
# The accuracy is that on 360 new digits, in evaluation; of ranks that are not synchronized it is
# the mean over them. "It costs" is how much less that is in the same seed. One process stands for
# ranks that are synchronized, too: with two rows a rank these are run, and compared.

# %%
ROWS, SEEDS = lesson.pace((2, 8), (2, 4, 8, 16), SIZES), range(lesson.pace(2, 5, 20))
LONG = lesson.pace(60, 120, 600)


def long_run(comm, rows, seed, synchronized):
    """The losses; and of each rank the accuracy."""
    parallel, losses = trained(comm, batches(rows * RANKS, LONG, seed), seed, synchronized)
    _, accuracy = evaluate(parallel.model, test_images, test_labels)
    return losses, comm.allgather(np.array([accuracy]))


def on_one(function, **how):
    return function(distributed.ALONE, **how)


def long_runs(where, rows, synchronized=False):
    """Losses (seeds, steps), and accuracies (seeds,), the mean over ranks."""
    how = {"rows": rows, "synchronized": synchronized}
    runs = [where(long_run, seed=seed, **how) for seed in SEEDS]
    losses, accuracies = zip(*runs)
    return np.array(losses), np.array([each.mean() for each in accuracies])


whole = {rows: long_runs(on_one, rows) for rows in ROWS}
apart = {rows: long_runs(on_all_ranks, rows) for rows in ROWS}
together, accuracies = long_runs(on_all_ranks, 2, synchronized=True)
off_one = float(np.abs(together - whole[2][0]).max())
costs = {rows: 100 * (whole[rows][1] - apart[rows][1]) for rows in ROWS}
print(f"{len(SEEDS)} seeds, {LONG} steps: mean over seeds")
print("rows        one process         not synchronized    it costs,")
print("a rank     loss  accuracy       loss  accuracy      range over seeds")
for rows in ROWS:
    print(f"{rows:6}", end="")
    for losses, accuracy in (whole[rows], apart[rows]):
        print(f"{losses[:, -20:].mean():9.3f}{accuracy.mean():10.1%}", end="  ")
    print(f"{costs[rows].min():10.1f} … {costs[rows].max():.1f} points")
print(f"2 rows a rank, synchronized: losses within {off_one:.0e} of those of one process,")
print(f"    and in evaluation {accuracies.mean():.1%}")

# %% [markdown]
# What is lost depends on how many rows a rank has. With two it is about half of all digits. With
# four it is some points, in every seed; with eight fewer; and with 16 the seeds do not agree that
# there is a loss, though it shows in training. So ranks with dozens of rows may well do without.
# (By `--full`, 20 seeds and 600 steps, those with 32 are even the better ones, by 0.3 points: as in
# lesson 22.) Ranks have few rows where a row is large: Peng et al. synchronized the norms of
# networks that find objects in photographs, with 256 images on 128 GPUs.
#
# Synchronized it is the network of one process, at the price of two collectives a norm and step.
# (Where gradients are as steep as for two rows, rounding grows: those numbers differ by `mpiexec`.)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
synchronized, not_synchronized, _ = np.transpose([off[rows] for rows in SIZES])
left.loglog(SIZES, not_synchronized, "o-", color=lesson.RED, label="not synchronized")
left.loglog(SIZES, synchronized, "o-", color=lesson.BLUE, label="synchronized")
left.legend(frameon=False, loc="center right")
left.set_xticks(SIZES, SIZES)
left.minorticks_off()
left.set(ylim=(1e-17, 1e3), xlabel="rows a rank", title="Error of the first gradient, relative")


def smooth(losses):
    """The mean over seeds and ten steps."""
    return np.convolve(losses.mean(axis=0), np.ones(10) / 10, "valid")


steps = np.arange(10, LONG + 1)
right.plot(steps, smooth(apart[2][0]), color=lesson.RED, label="not synchronized")
right.plot(steps, smooth(together), color=lesson.BLUE, lw=6, alpha=0.4, label="synchronized")
right.plot(steps, smooth(whole[2][0]), color=lesson.INK, lw=1, label="one process")
right.legend(frameon=False, loc="center right")
right.set(ylim=(0, None), xlabel="step", title=f"Loss in training, {RANKS} ranks of 2 rows")
if started.rank == 0:
    lesson.save(figure, "23_sync_batch_norm")

# %% [markdown]
# ## What was found

# %%
found = {
    "σ² merged: relative error": float(abs(S / n / var - 1)),
    "σ² by Σx²: relative error": float(abs(by_squares / var - 1)),
}
for impl, ways in sent.items():
    for way, collectives in zip(("forward", "backward"), ways):
        found[f"{impl}, {way}: collectives"] = len(collectives)
        found[f"{impl}, {way}: numbers sent"] = sum(collectives)
for rows in SIZES:
    names = ("synchronized: gradient off by", "not synchronized: gradient off by", "another batch")
    found |= {f"{rows} rows a rank, {name}": value for name, value in zip(names, off[rows])}
for name, values in differences.items():
    names = ("network off by", "losses off by", "ranks differ")
    found |= {f"{STEPS} steps, {name}: {what}": value for what, value in zip(names, values)}
for name, runs in (("one process", whole), ("not synchronized", apart)):
    for rows, (losses, accuracy) in runs.items():
        found[f"{rows} rows a rank, {name}: loss at last"] = float(losses[:, -20:].mean())
        found[f"{rows} rows a rank, {name}: accuracy"] = float(accuracy.mean())
for rows, points in costs.items():
    for most, of in (("least", np.min), ("most", np.max)):
        name = f"{rows} rows a rank, not synchronized: costs at {most}, points"
        found[name] = float(of(points))
found["2 rows a rank, synchronized: losses off by"] = off_one
found["2 rows a rank, synchronized: accuracy"] = float(accuracies.mean())
lesson.close(found)
