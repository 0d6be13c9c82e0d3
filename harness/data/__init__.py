"""Training text: where it comes from, how it is divided among sites, and how a worker reads its share."""

from harness.data.dataset import Dataset, prepare
from harness.data.shards import Shard, held_out_batches

__all__ = ["Dataset", "Shard", "held_out_batches", "prepare"]
