# %% [markdown]
# # Lesson 22: a sample's output depends on its companions
#
# In training, a sample shares μ and σ² with whatever samples the batch happens to hold. Next time
# it meets others, and comes out differently. The paper takes this noise for a regularizer: the
# network no longer gives one answer to a sample, so it cannot lean on details of that sample alone.
#
# How much noise? Let z be the normalized value of the sample by the moments of all data. A batch
# of m errs in the mean by dμ and in the standard deviation by dσ, so that
#
#     x̂ ≈ z − dμ/σ − z dσ/σ
#     variance of x̂ ≈ (1 + z·skewness + z²·(kurtosis − 1)/4) / m
#
# which is (1 + z²/2)/m for normal data. It falls as 1/m, and the spread as 1/√m. (Lesson 19 has it
# for one layer of normal data; here it is that of a network on the digits, and what comes of it.)
#
# Source: Ioffe & Szegedy 2015, section 3.4, and reading notes on it; COMPSCI 682 session on batch
# norm (Su, 2019).
# Run: `python examples/22_noise_of_the_batch.py`

# %%
import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.train import digits, evaluate, fit

# %% [markdown]
# ## A network whose batch norm sees groups
#
# To change the noise and nothing else, the batch of 128, from which the gradient comes, stays as it
# is, and the statistics are those of groups of it: "ghost batches" (Hoffer, Hubara & Soudry 2017).
# Batch norm of each group by itself is instance norm, with the samples of a group in the place of
# the pixels of an image. In evaluation it is batch norm as ever.


# %%
class GhostBatchNorm(nn.Module):
    """Batch norm of (N, C) whose statistics in training are those of `size` samples each."""

    def __init__(self, features, size):
        super().__init__()
        self.size = size
        self.norm = nn.InstanceNorm1d(features, affine=True, track_running_stats=True)

    def forward(self, x):
        size = self.size if self.training else len(x)
        groups = x.reshape(-1, size, x.shape[1]).transpose(0, 2, 1)
        return self.norm(groups).transpose(0, 2, 1).reshape(x.shape)


def perceptron(size):
    return nn.Sequential(
        *(nn.Linear(64, 100), GhostBatchNorm(100, size), nn.ReLU()),
        *(nn.Linear(100, 100), GhostBatchNorm(100, size), nn.ReLU()),
        nn.Linear(100, 10),
    )


(all_images, all_labels), test = digits(seed=0)


def trained(size, seed):
    """A network, and the 256 digits that it was trained on: few, so that there is something to
    regularize."""
    tg.manual_seed(seed)
    rows = np.random.default_rng(seed).permutation(len(all_images))[:256]
    model, data = perceptron(size), (all_images[rows], all_labels[rows])
    fit(model, *data, epochs=lesson.pace(50, 75, 75), batch_size=128, lr=0.1, seed=seed)
    return model, data


# %% [markdown]
# ## The spread of one sample's output
#
# A trained network in training mode, five digits, and for each a number of random companies. They
# go through in one batch, a group for each.

# %%
sizes = [2, 4, 8, 16, 32, 64, 128, 256]
draws, samples = lesson.pace(50, 300, 1000), 5
model, _ = trained(size=128, seed=0)
model.train()
random = np.random.default_rng(22)


def outputs_in_company(model, sample, size):
    """(draws, outputs) for one sample, each time beside size − 1 random training digits."""
    company = all_images[random.integers(0, len(all_images), (draws, size))]
    company[:, 0] = sample
    for module in model.modules():
        if isinstance(module, GhostBatchNorm):
            module.size = size
    with tg.no_grad():
        return model(tg.tensor(company.reshape(-1, 64))).numpy()[::size]


def spread(model, size):
    """The standard deviation of an output: root mean square over the outputs and five samples."""
    variances = [outputs_in_company(model, x, size).var(axis=0) for x in test[0][:samples]]
    return float(np.sqrt(np.mean(variances)))


first_norm = nn.Sequential(model[0], GhostBatchNorm(100, 128))
spreads = [spread(first_norm, size) for size in sizes], [spread(model, size) for size in sizes]


def spread_by_formula(size):
    """That of the first norm, from the moments of its inputs over all training data."""
    x, few = (model[0](tg.tensor(a)).numpy() for a in (all_images, test[0][:samples]))
    z, few = (x - x.mean(axis=0)) / x.std(axis=0), (few - x.mean(axis=0)) / x.std(axis=0)
    skewness, kurtosis = (z**3).mean(axis=0), (z**4).mean(axis=0)
    return float(np.sqrt(np.mean(1 + few * skewness + few**2 * (kurtosis - 1) / 4) / size))


with tg.no_grad():
    formula = [spread_by_formula(size) for size in sizes]
print("group   first norm   by the formula   output of the network")
for row in zip(sizes, spreads[0], formula, spreads[1]):
    print("{:5}{:13.3f}{:17.3f}{:24.3f}".format(*row))
slopes = [np.polyfit(np.log(sizes[3:]), np.log(values[3:]), 1)[0] for values in spreads]

# %% [markdown]
# The formula holds at the first norm even where it was not promised to. The outputs of the network,
# which have passed two norms, follow 1/√m from m = 16 on; below, the noise is no longer small and
# the network bends it.
#
# ## Does it regularize?
#
# The same network with groups of several sizes, the same seeds for all. Both losses are taken in
# evaluation mode, by the running statistics and without noise: on the 256 digits it has seen and on
# 360 that it has not. Since the seeds choose the data, too, sizes are compared within a seed.

# %%
groups = lesson.pace((128, 16, 4), (128, 64, 32, 16, 8, 4, 2), (128, 64, 32, 16, 8, 4, 2))
seeds = range(lesson.pace(2, 5, 30))
measured = {}  # size: (train loss, test loss, test accuracy) of each seed
for size in groups:
    runs = [trained(size, seed) for seed in seeds]
    rows = [(evaluate(net, *data)[0], *evaluate(net, *test)) for net, data in runs]
    measured[size] = np.transpose(rows)
print(f"{len(seeds)} seeds, mean ± std")
print("group     train loss           test loss     its change from 128, range   test accuracy")
changes = {size: loss[1] - measured[128][1] for size, loss in measured.items()}
for size, (train_loss, test_loss, accuracy) in measured.items():
    print(f"{size:5}{train_loss.mean():10.4f} ± {train_loss.std():.4f}", end="")
    print(f"{test_loss.mean():12.4f} ± {test_loss.std():.4f}", end="")
    print(f"{changes[size].min():15.4f} … {changes[size].max():<7.4f}", end="")
    print(f"{accuracy.mean():12.2%} ± {accuracy.std():.2%}")
gaps = {size: loss[1] - loss[0] for size, loss in measured.items()}

# %% [markdown]
# Noise of the size that groups of 16 make lowers the test loss a little (at the usual pace in each
# of the five seeds), and also the distance from the loss on the training data: in this sense it
# does regularize. But a penalty on the weights, say, would raise the loss on the training data for
# that, and here it falls as well; and of the accuracy the spread over seeds is larger than the
# gain.
#
# With groups of 4 or 2 all is worse, on the training data, too. It need not be the noise: where an
# output depends that much on its company, the network that learned in company is another map than
# the one that is evaluated, alone and by running statistics (lesson 19 has the distance). The
# losses here do not tell the two apart.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
for values, colour, name in zip(spreads, (lesson.BLUE, lesson.INK), ("x̂, first norm", "output")):
    left.loglog(sizes, values, "o", color=colour, markersize=4)
    left.text(sizes[-3] * 1.15, values[-3] * 1.1, name, color=colour)
left.loglog(sizes, formula, color=lesson.BLUE, linewidth=0.8)
through_32 = spreads[1][4] * np.sqrt(32 / np.array(sizes[2:]))
left.loglog(sizes[2:], through_32, color=lesson.INK, linewidth=0.8)
left.set_xticks(sizes, sizes)
left.set_yticks([0.1, 0.2, 0.5, 1], [0.1, 0.2, 0.5, 1])
left.minorticks_off()
left.set_title("Spread over companions: dots; as 1/√m: lines")
left.set_xlabel("m: samples that share statistics")
for row, colour, name in ((0, lesson.MUTED, "training digits"), (1, lesson.RED, "new digits")):
    losses = np.array([measured[size][row] for size in groups])
    right.fill_between(groups, losses.min(axis=1), losses.max(axis=1), color=colour, alpha=0.2)
    right.loglog(groups, losses.mean(axis=1), "o-", color=colour, markersize=4)
    right.text(groups[0], losses[0].max() * 1.1, name, color=colour, ha="right")
right.set_xticks(groups, groups)
right.set_yticks([0.01, 0.1, 1], [0.01, 0.1, 1])
right.minorticks_off()
right.set_title("Loss after training: mean and range over seeds")
right.set_xlabel("m: samples that share statistics")
lesson.save(figure, "22_noise_of_the_batch")

# %% [markdown]
# ## What was found

# %%
ratios = np.array(spreads[0]) / formula
found = {
    **{f"first norm, m = {m}: spread": value for m, value in zip(sizes, spreads[0])},
    **{f"output, m = {m}: spread": value for m, value in zip(sizes, spreads[1])},
    "first norm: spread / formula, lowest": float(ratios.min()),
    "first norm: spread / formula, highest": float(ratios.max()),
    "first norm: log-log slope of the spread from m = 16": float(slopes[0]),
    "output: log-log slope of the spread from m = 16": float(slopes[1]),
}
for size in groups:
    train_loss, test_loss, accuracy = measured[size]
    found |= {
        f"groups of {size}: training loss, mean over seeds": float(train_loss.mean()),
        f"groups of {size}: test loss, mean over seeds": float(test_loss.mean()),
        f"groups of {size}: test loss, std": float(test_loss.std()),
        f"groups of {size}: test loss minus that of 128, lowest": float(changes[size].min()),
        f"groups of {size}: test loss minus that of 128, highest": float(changes[size].max()),
        f"groups of {size}: test minus training loss, mean": float(gaps[size].mean()),
        f"groups of {size}: test accuracy, mean over seeds": float(accuracy.mean()),
        f"groups of {size}: test accuracy, std": float(accuracy.std()),
    }
lesson.close(found)
