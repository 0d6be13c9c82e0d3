"""Decoder-only transformers, dense or with a mixture of experts, whole or in part. Runs in the trainer process."""

from harness.worker.model.mixture import Mixture, Routing
from harness.worker.model.objective import TrainedModel, build_trained_model
from harness.worker.model.transformer import Transformer, build_model, mean_loss

__all__ = ["Mixture", "Routing", "TrainedModel", "Transformer", "build_model", "build_trained_model", "mean_loss"]
