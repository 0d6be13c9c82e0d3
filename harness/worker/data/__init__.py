"""Training text: the runner prepares and divides it among sites, the trainer process reads its shard."""

from harness.worker.data.dataset import Dataset, check_data, prepare
from harness.worker.data.shards import Shard, held_out_batches

__all__ = ["Dataset", "Shard", "check_data", "held_out_batches", "prepare"]
