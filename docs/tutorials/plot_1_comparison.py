"""
From zero to a comparison figure
================================

A network, two photographs, three methods, and their scores: a first figure of a new network.
"""

# %%
# A network and photographs
# -------------------------
# The embedded network is small and needs no download; ``load("resnet50")`` in its place gets
# torchvision's. A ``Network`` is a model with everything needed to run it on a photograph: class
# names, preprocessing, mean and standard deviation.

import torch

from captum_pullback.zoo.photos import sample_photo
from captum_pullback.zoo.networks import class_index, load

network = load("embedded")
names = ["grace_hopper", "coffee"]
images = torch.stack([network.preprocess(sample_photo(name)) for name in names])
targets = [class_index(network.classes, name) for name in ("military uniform", "espresso")]

with torch.no_grad():
    probabilities = network.model(images).softmax(1)
for name, target, row in zip(names, targets, probabilities, strict=True):
    print(f"{name}: {network.classes[target]}, probability {row[target]:.3f}")

# %%
# Three attributions
# ------------------
# All three are Captum attributions: the same arguments, the same shapes. The temperature of 1 is
# the one that suits this network (``network.meta["temperature"]``).

from captum.attr import IntegratedGradients, Saliency

from captum_pullback import ExcitationPullback

inputs = images.clone().requires_grad_()  # otherwise Captum warns that it sets this itself
attributions = {
    "Gradient": Saliency(network.model).attribute(inputs, targets, abs=False),
    "Integrated Gradients": IntegratedGradients(network.model).attribute(inputs, target=targets),
    "Excitation pullback": ExcitationPullback(network.model, 1.0).attribute(images, targets),
}

# %%
# Scores
# ------
# Captum's infidelity: how well an attribution predicts what a perturbation does to the score,
# lower is better. Gradients go with perturbations in the inputs' units, and Integrated
# Gradients, which are multiplied by the inputs, with relative ones. ``normalize=True`` scores
# each at its best scale.

from captum.metrics import infidelity, infidelity_perturb_func_decorator

from captum_pullback.perturbations import noise_squares

mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (network.mean, network.std))
black, white = (0 - mean) / std, (1 - mean) / std

scores = {}
for title, attribution in attributions.items():
    torch.manual_seed(0)  # the same perturbations for each method
    relative = title == "Integrated Gradients"
    perturb = infidelity_perturb_func_decorator(relative)(noise_squares(black, white))
    with torch.no_grad():
        scores[title] = infidelity(
            network.model,
            perturb,
            images,
            attribution,
            target=targets,
            n_perturb_samples=64,
            normalize=True,
        )
    print(f"{title:>21}: " + ", ".join(f"{value:.2f}" for value in scores[title]))

# %%
# Two photographs decide nothing: for a comparison of methods see :doc:`/benchmark`.
#
# The figure
# ----------
# Every map has its own scale, since methods have different units. Red raises the score.

from captum_pullback.figures.comparison import plot_comparison

figure = plot_comparison(
    images,
    attributions,
    mean=network.mean,
    std=network.std,
    labels=[f"{name}: {network.classes[t]}" for name, t in zip(names, targets, strict=True)],
    captions={
        title: [f"infidelity {value:.2f}" for value in values] for title, values in scores.items()
    },
)
figure.set_label(
    "An officer and a cup of coffee, each beside its plain gradient, Integrated Gradients and "
    "excitation pullback, with the infidelity of each map."
)

# %%
# ``captum_pullback.figures.comparison.save_figure(figure, "comparison.pdf", "pdf")`` writes it as
# PNG, PDF or SVG. The same from the command line, with more scores:
#
# .. code-block:: shell
#
#    captum-pullback explain grace_hopper coffee --target "military uniform,espresso"
