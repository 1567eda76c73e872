"""
Sanity checks on your own model
===============================

A map can look convincing and say nothing about the model. Two checks that every attribution should
pass (Adebayo et al. 2018, arXiv 1810.03292, and the random-logit test): it must change when the
model's weights are randomized, and when another class is asked for. Put your own model and inputs
in the first step; the rest stays the same.
"""

# %%
# What is checked
# ---------------

import torch
from captum.attr import Saliency

from captum_pullback import ExcitationPullback
from captum_pullback.study import metrics
from captum_pullback.zoo import reference_network
from captum_pullback.zoo.photos import SAMPLES, sample_photo

network = reference_network()
model = network.model
images = torch.stack([network.preprocess(sample_photo(name)) for name in SAMPLES])
with torch.no_grad():
    targets = model(images).argmax(1)

#: From a network to a Captum method, and the options of its ``attribute``.
methods = {
    "plain gradient": (Saliency, {"abs": False}),
    "excitation pullback": (lambda model: ExcitationPullback(model, 1.0), {}),
}

# %%
# How similar two maps are: both are summed over colors, with signs, and their rank correlation
# over pixels is averaged over the photographs. 1 means the same, 0 means unrelated.
#
# Model parameter randomization
# -----------------------------
# From the output to the input, the weights of one stage after another are replaced by untrained
# ones, on a copy. A map that does not change does not depend on those weights. Means over three.

seeds = (1, 2, 3)
curves = {}
for name, (make, options) in methods.items():
    runs = [
        metrics.cascading_randomization(
            make, model, images, targets, absolute=False, seed=seed, **options
        )
        for seed in seeds
    ]
    stages = list(runs[0])
    curves[name] = [1.0] + [
        float(torch.stack([run[stage] for run in runs]).mean()) for stage in stages
    ]

print(f"{'randomized down to':>20}  " + "  ".join(methods))
for step, stage in enumerate(["nothing", *stages]):
    values = "  ".join(f"{curves[name][step]:{len(name)}.2f}" for name in methods)
    print(f"{stage:>20}  {values}")

# %%
# Random logit
# ------------
# The map of another class, drawn at random, should be another map.

logit = {
    name: float(
        metrics.random_logit(make(model), images, targets, len(network.classes), **options).mean()
    )
    for name, (make, options) in methods.items()
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
# A good curve falls to about zero, and a random class should be near zero or below. A
# correlation that stays high is a warning: such a map would look the same for a model that has
# learned nothing. Bear in mind that random weights have different scales from trained ones, so
# one temperature does not mean the same for both, and that three random networks are a small
# sample.
