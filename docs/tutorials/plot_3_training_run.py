"""
Following your own training run
===============================

``TrainingLens`` watches some held-out examples while a network is trained: which affine map the
network has become at each of them, and which gates still flip. Here it watches a training on
scikit-learn's handwritten digits; your own loop needs two new lines.
"""

# %%
# Data and a network
# ------------------

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

digits = load_digits()
pictures = torch.from_numpy(digits.data).float()
pictures = (pictures - pictures.mean()) / pictures.std()
labels = torch.from_numpy(digits.target).long()

torch.manual_seed(0)
order = torch.randperm(len(labels))
watched, training = order[:100], order[450:]
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

# %%
# The loop
# --------
# The new lines create the lens and call ``lens.record``. ``interval`` says how often to record so
# that this takes at most a given share of the training's cost; early steps are cheap to add, and
# much happens there. With a folder, as in ``TrainingLens(inputs, labels, "runs/lens")``, a run that
# was killed continues where it stopped.

from captum_pullback import TrainingLens

lens = TrainingLens(pictures[watched], labels[watched])
every = lens.interval(classes=10, batch_size=64, share=0.5)
print(f"at half of the training's cost: every {every} steps")

optimizer = torch.optim.Adam(model.parameters(), 1e-3)
step, steps = 0, 400
early = {0, 1, 2, 5, 10, 20, 40, 80}
while step < steps:
    for batch in training[torch.randperm(len(training))].split(64):
        if step in early or step % every == 0:
            lens.record(model, step)
        optimizer.zero_grad()
        F.cross_entropy(model(pictures[batch]), labels[batch]).backward()
        optimizer.step()
        step += 1
lens.record(model, step)
print(f"recorded at {len(lens.steps)} steps; {100 * lens.accuracy()[-1]:.0f} % right at the end")

# %%
# Effective weights
# -----------------
# At each example the network is an affine map. Do the maps of one class become similar?

from captum_pullback.lens.figures import similarity_figure

similarity = lens.similarity()
figure = similarity_figure(similarity, [str(digit) for digit in range(10)], lens.accuracy())
figure.set_label(
    "Mean cosine similarity of effective weights over the training: within a class, between "
    "classes, and for each digit."
)

# %%
# Gates
# -----
# How many gates have reached their final state, and how many will not flip again.

from captum_pullback.lens.figures import gates_figure

figure = gates_figure(lens.steps, lens.agreement(), lens.settled_share())
figure.set_label(
    "The share of gates that are as they are at the end, and the share that never flips again, "
    "over the training, for each layer and their mean."
)

# %%
# A temperature from the gates
# ----------------------------
# The temperatures for which :math:`\sigma(z / T)` of the final pre-activation best fits how often
# the gate was open in the later half. ``ExcitationPullback`` takes them directly.

from captum_pullback import ExcitationPullback

temperatures = lens.fit_temperatures(model)
print({name: round(float(value), 3) for name, value in temperatures.items()})
attribution = ExcitationPullback(model, temperatures).attribute(
    pictures[watched], target=labels[watched]
)

# %%
# Do not read too much into one short run of a small network: :doc:`/are_paths_stable` reports
# measurements over several runs, and evidence against the idea. For existing checkpoints there is
# a command:
#
# .. code-block:: shell
#
#    captum-pullback lens --checkpoints runs/resnet --data photographs --model my_code:make_network
