# %% [markdown]
# # Lesson 8: batch norm in inference is an affine map
#
# In training the output of a sample depends on its companions. In use it should not: a sample may
# come alone. So in evaluation μ and σ² are not those of the batch but fixed numbers, estimates of
# the moments of all data, and of each component batch norm makes
#
#     y = γ (x − μ) / √(σ² + ε) + β  =  s x + t        s = γ / √(σ² + ε),   t = β − s μ
#
# an affine map, to be learned during training and folded into the layer before it in the end.
#
# Source: EE-559 6.4 (Fleuret, 2020); Ioffe & Szegedy 2015, section 3.1, and reading notes on it.
# Run: `python examples/08_inference.py`

# %%
import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.train import digits, error_rate, fit

# %% [markdown]
# ## Moments learned on the way
#
# The moments are estimated as training goes, with no pass over the data of their own. Every batch
# moves them towards its own by a share α, which is called momentum; or all batches count evenly,
# and then the t-th has a share of 1/t (`momentum=None`):
#
#     running ← running + α (batch − running)
#
# While the data stay the same, the even average of t batches of m samples errs by σ/√(mt), less and
# less. A moving average forgets what is old, and ends at an error of σ √(α/(2 − α)/m). Each feature
# of this layer is a repetition of the experiment: normal values with mean 3 and variance 4.

# %%
features, m, batches = 500, 16, lesson.pace(600, 1000, 10000)
momenta = {"α = 0.1": 0.1, "α = 0.01": 0.01, "even average": None}


def running_statistics(drift):
    """(batches, 2, features) for each momentum: running mean and variance after each batch. The
    mean of the data is 3, plus `drift` for each batch before."""
    random = np.random.default_rng(8)
    norms = {
        name: nn.BatchNorm1d(features, momentum=momentum, dtype=np.float64)
        for name, momentum in momenta.items()
    }
    seen = {name: [] for name in norms}
    for t in range(batches):
        batch = tg.tensor(random.normal(3.0 + drift * t, 2.0, (m, features)))
        for name, norm in norms.items():
            norm(batch)
            seen[name].append([norm.running_mean.data.copy(), norm.running_var.data.copy()])
    return {name: np.array(values) for name, values in seen.items()}


def errors_of_the_mean(statistics, drift):
    """(batches,) for each momentum: the root mean square over the features."""
    mean = 3.0 + drift * np.arange(batches)[:, None]
    return {k: np.sqrt(np.mean((v[:, 0] - mean) ** 2, axis=1)) for k, v in statistics.items()}


statistics = running_statistics(drift=0.0)
staying = errors_of_the_mean(statistics, drift=0.0)
by_formula = {
    name: 2.0 / m**0.5 * (batches**-0.5 if alpha is None else (alpha / (2 - alpha)) ** 0.5)
    for name, alpha in momenta.items()
}
print(f"{m} samples a batch     error of the running mean after {batches}   by the formula")
for name, error in staying.items():
    print(f"{name:21}{error[-1]:20.4f}{by_formula[name]:28.4f}")

# %% [markdown]
# The variance has a correction. A batch deviates less from its own mean than from that of the data:
# on average its variance is σ² (m − 1)/m, here 3.75. So what moves into the running variance is the
# batch's times m/(m − 1), of which the average is right.

# %%
running_variance = statistics["even average"][-1, 1].mean()
print(f"running variance, average over the features: {running_variance:.4f}, the data have 4")

# %% [markdown]
# In training the data do not stay the same: what reaches a layer changes with the layers before it.
# If the mean moves by δ with every batch, the moving average lags by δ (1 − α)/α, a constant, and
# the even average by δ (t − 1)/2, which grows. So layers use the moving average. (The error is made
# of the lag and, as squares add up, of the error from before.)

# %%
drift = 0.01
moving = errors_of_the_mean(running_statistics(drift), drift)
moving_by_formula = {}
for name, alpha in momenta.items():
    lag = drift * ((batches - 1) / 2 if alpha is None else (1 - alpha) / alpha)
    moving_by_formula[name] = np.hypot(lag, by_formula[name])
    print(f"a mean that moves, {name:12}: lag {lag:.4f}, error {moving[name][-1]:.4f}")

# %% [markdown]
# ## In a network
#
# A small convnet on the digits, trained twice with the same batches, once for either average. In
# training the running statistics are not used, so the weights come out the same. The moments that
# they should have, those of all training data under the final weights, can be had at the first
# norm, which no other stands before. The paper's own recipe needs the network to hold still: train,
# then average over batches once more (`again`, below).


# %%
def convnet(momentum):
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, momentum=momentum), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(72, 32), nn.BatchNorm1d(32, momentum=momentum), nn.ReLU()),
        nn.Linear(32, 10),
    )


def as_images(data):
    x, labels = data
    return x.reshape(-1, 1, 8, 8), labels


train, test = map(as_images, digits(seed=0))
epochs = lesson.pace(2, 10, 50)


def distance(model):
    """How far the running mean and deviation of the first norm are from those of all data: root
    mean square over the channels, in true standard deviations."""
    conv, norm = model[0], model[1]
    values = conv(tg.tensor(train[0])).detach().numpy()
    mean, std = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
    off = np.array([norm.running_mean.data - mean, norm.running_var.data**0.5 - std]) / std
    return float(np.sqrt(np.mean(off**2)))


def estimate_again(model):
    """A network with the same weights, and running statistics averaged over one more epoch."""
    again = convnet(momentum=None)
    for ours, theirs in zip(again.parameters(), model.parameters()):
        ours.data = theirs.data
    with tg.no_grad():
        for rows in np.array_split(np.arange(len(train[0])), 45):
            again(tg.tensor(train[0][rows]))
    return again


def train_three(seed):
    models = {}
    for name, momentum in (("moving", 0.1), ("even", None)):
        tg.manual_seed(seed)
        models[name] = convnet(momentum)
        fit(models[name], *train, epochs=epochs, batch_size=32, lr=0.1, seed=seed)
    return models | {"again": estimate_again(models["even"])}


trained = [train_three(seed) for seed in range(lesson.pace(2, 5, 20))]
distances, errors = (
    {name: np.array([measure(models[name]) for models in trained]) for name in trained[0]}
    for measure in (distance, lambda model: error_rate(model, *test))
)
print(f"{len(trained)} seeds: distance from the true moments       test error, mean and range")
for name, error in errors.items():
    print(f"{name:8}{distances[name].mean():18.4f} σ ± {distances[name].std():.4f}", end="")
    print(f"{error.mean():22.2%}  {error.min():.2%} … {error.max():.2%}")
cost = errors["even"] - errors["again"]  # of the same weights
print(f"even minus again, seed by seed: {100 * cost.mean():+.2f} points", end=" ")
print(f"({100 * cost.min():+.2f} … {100 * cost.max():+.2f})")
off_weights = max(
    float(np.abs(a.data - b.data).max())
    for models in trained
    for a, b in zip(models["moving"].parameters(), models["even"].parameters())
)

# %% [markdown]
# The moments of the first epochs are not those of the last, and an even average keeps them for
# good. The moving average has forgotten them, and a second look has never seen them. The ranges of
# the test errors overlap, since seeds differ; so compare within a seed, where the weights are the
# same: the even average costs test accuracy in the mean, and how much varies a lot from seed to
# seed.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True, layout="constrained")
times = np.arange(1, batches + 1)
for panel, curves in ((left, staying), (right, moving)):
    for (name, error), colour in zip(curves.items(), (lesson.BLUE, lesson.INK, lesson.RED)):
        panel.loglog(times, error, color=colour)
        panel.text(batches * 1.1, error[-1], name, color=colour, va="center")
    panel.set_xlabel("batches seen")
left.set_title("Data that stay: the even average errs least")
right.set_title("Data that move: in the end it errs most")
left.set_ylabel("error of the running mean")
lesson.save(figure, "08_inference")

# %% [markdown]
# ## Folded away
#
# An affine map of the outputs of a linear map is a linear map: scale row k of its weights by s_k,
# and let its bias take the rest,
#
#     s (W u + b) + t  =  (s W) u + (s b + t)
#
# `nn.fold` does this for one Linear or Conv, `nn.fold_sequential` for all of a network. First the
# map itself: s and t from the formula above, against the layer; and its Jacobian, which has nothing
# off the diagonal.

# %%
model = trained[0]["moving"].eval()
conv, norm, images = model[0], model[1], tg.tensor(test[0])
maps = conv(images).detach()
s = norm.weight.data / np.sqrt(norm.running_var.data + norm.eps)
t = norm.bias.data - s * norm.running_mean.data
s, t = s.reshape(8, 1, 1), t.reshape(8, 1, 1)


def relative_difference(a, b):
    return float(abs(a - b).max() / abs(b).max())


few = maps[:2, :, :2, :2]
J = tg.jacobian(norm, few).detach().numpy().reshape(few.size, few.size)
off_the_diagonal = int(np.count_nonzero(J - np.diag(np.diag(J))))

folded = nn.fold_sequential(model)
differences = {
    "s x + t and the layer": relative_difference(maps * s + t, norm(maps)),
    "one Conv2d folded": relative_difference(nn.fold(conv, norm)(images), norm(maps)),
    "network folded": relative_difference(folded(images), model(images)),
}
for name, difference in differences.items():
    print(f"{name}: relative difference of the outputs {difference:.1e}")
print(f"layers: {len(model)} before, {len(folded)} after")

# %% [markdown]
# ## What was found

# %%
found = {}
for name in momenta:
    found[f"data that stay, {name}: error / formula"] = staying[name][-1] / by_formula[name]
    found[f"data that move, {name}: error / formula"] = moving[name][-1] / moving_by_formula[name]
found["data that stay, even average: running variance"] = running_variance
found["largest difference of the weights, moving and even"] = off_weights
for name in ("moving", "even", "again"):
    found[f"{name}: distance from the true moments, mean over seeds"] = distances[name].mean()
    found[f"{name}: distance from the true moments, std"] = distances[name].std()
    found[f"{name}: test error, mean over seeds"] = errors[name].mean()
    found[f"{name}: test error, lowest"] = errors[name].min()
    found[f"{name}: test error, highest"] = errors[name].max()
found |= {
    "test error, even minus again, mean over seeds": cost.mean(),
    "test error, even minus again, lowest": cost.min(),
    "test error, even minus again, highest": cost.max(),
}
found["entries of the Jacobian off the diagonal that are not zero"] = off_the_diagonal
for name, difference in differences.items():
    found[f"{name}: relative difference"] = difference
found["layers"], found["layers, folded"] = len(model), len(folded)
found["test error, network and folded"] = error_rate(model, *test) - error_rate(folded, *test)
lesson.close(found)
