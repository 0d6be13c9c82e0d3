"""Training text: where it comes from, how it is divided among sites, and how a worker reads its share."""

from harness.worker.data.dataset import Dataset, prepare
from harness.worker.data.shards import Shard, held_out_batches

__all__ = ["Dataset", "Shard", "held_out_batches", "prepare"]
