"""
Sanity checks on your own model
===============================

A map can look convincing and say nothing of the model. Two checks that every attribution should
pass (Adebayo et al. 2018, arXiv 1810.03292, and the random-logit test): it must change when the
model's weights are randomized, and when another class is asked for. Put your own model and inputs
in the first step; the rest stays as it is.
"""

# %%
# What is checked
# ---------------

import copy

import torch
from captum.attr import Saliency

from captum_pullback import ExcitationPullback
from captum_pullback.zoo.photos import SAMPLES, sample_photo
from captum_pullback.zoo import reference_network

network = reference_network()
model = network.model
images = torch.stack([network.preprocess(sample_photo(name)) for name in SAMPLES])
with torch.no_grad():
    targets = model(images).argmax(1)


def gradient(model, targets):
    """The plain gradient, for comparison."""
    return Saliency(model).attribute(images.clone().requires_grad_(), targets, abs=False)


def pullback(model, targets):
    """The excitation pullback."""
    return ExcitationPullback(model, 1.0).attribute(images, targets)


methods = {"plain gradient": gradient, "excitation pullback": pullback}

# %%
# How like two maps are: the rank correlation over pixels of their sums over colors, with signs,
# mean over the photographs. 1 is the same, 0 is unrelated.


def ranks(maps):
    """The rank of each pixel, centered and of length 1, (N, H * W)."""
    order = maps.sum(1).flatten(1).argsort(1).argsort(1).double()
    order -= order.mean(1, keepdim=True)
    return order / order.norm(dim=1, keepdim=True)


def likeness(one, other):
    """Spearman's rank correlation, mean over examples."""
    return float((ranks(one) * ranks(other)).sum(1).mean())


# %%
# Model parameter randomisation
# -----------------------------
# From the output to the input, the weights of one stage after another are replaced by untrained
# ones, on a copy. A map that stays as it was has not looked at those weights. Take other seeds
# than the training's: this network began from seed 0, and its last layer is still like it was
# then, so that the very same untrained weights would seem to change little. Means of three.

stages = ["fc", "layer4", "layer3", "layer2", "layer1", "conv1"]
seeds = (1, 2, 3)
curves = {name: [1.0] + [0.0] * len(stages) for name in methods}
for seed in seeds:
    torch.manual_seed(seed)
    untrained = type(model)(len(network.classes)).eval()
    randomized = copy.deepcopy(model)
    for step, stage in enumerate(stages, start=1):
        state = untrained.get_submodule(stage).state_dict()
        randomized.get_submodule(stage).load_state_dict(state)
        for name, method in methods.items():
            like = likeness(method(model, targets), method(randomized, targets))
            curves[name][step] += like / len(seeds)

print(f"{'randomised down to':>20}  " + "  ".join(methods))
for step, stage in enumerate(["nothing", *stages]):
    values = "  ".join(f"{curves[name][step]:{len(name)}.2f}" for name in methods)
    print(f"{stage:>20}  {values}")

# %%
# Random logit
# ------------
# The map of another class, drawn at random, should be another map.

other = (targets + torch.randint(1, len(network.classes), targets.shape)) % len(network.classes)
logit = {
    name: likeness(method(model, targets), method(model, other)) for name, method in methods.items()
}
for name, value in logit.items():
    print(f"{name:>20}: {value:.2f}")

# %%
# The figure
# ----------

from matplotlib.figure import Figure

figure = Figure(figsize=(7, 3), layout="constrained")
axis = figure.subplots()
for (name, curve), color in zip(curves.items(), ("#2166ac", "#b2182b"), strict=True):
    axis.plot(range(len(curve)), curve, "o-", color=color, label=name)
    axis.axhline(logit[name], color=color, lw=1, ls=":", label=f"{name}, random class")
axis.set_xticks(range(len(stages) + 1), ["none", *stages])
axis.set_xlabel("weights randomized from the output down to")
axis.set_ylabel("rank correlation with\nthe model's own map")
axis.axhline(0, color="0.7", lw=0.8, zorder=0)
axis.legend(frameon=False, fontsize=8)
figure.set_label(
    "Rank correlation with the model's own maps against the stages whose weights are randomized, "
    "for the plain gradient and the excitation pullback, and that of a random class, dotted."
)

# %%
# How to read it
# --------------
# Good are curves that fall to about zero, and a random class that is near zero or below. A
# correlation that stays high is a warning: such a map would look the same for a model that has
# learnt nothing. Bear in mind that random weights have other scales than trained ones, so that
# one temperature does not mean the same to both, and that three random networks are a small
# sample.
