"""A figure that no report draws: held-out loss against the money that the traffic costs.

    python examples/own_figure.py runs/quickstart figure.svg

Needs records of `longhaul run`.
"""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import longhaul

DOLLARS_PER_GIGABYTE = 0.09  # what leaves a cloud's region, list price

runs, figure_file = sys.argv[1], sys.argv[2]
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for run in longhaul.read_runs(runs):
    evaluated = [step for step in run.steps(rank=0) if step.evaluation_loss is not None]
    gigabytes = [step.payload_bytes * run.result.sites / 1e9 for step in evaluated]  # of all sites, if all send alike
    losses = [step.evaluation_loss for step in evaluated]
    axes.plot([sent * DOLLARS_PER_GIGABYTE for sent in gigabytes], losses, marker="o", label=run.spec.label)
    print(f"{run.spec.label}: {len(losses)} evaluations")
axes.set(xlabel="traffic, US dollars", ylabel="held-out loss, nats per token")
axes.legend()
figure.savefig(figure_file)
