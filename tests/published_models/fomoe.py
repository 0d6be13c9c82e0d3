"""FoMoE's compute, memory, communication and wall-clock models (arXiv 2606.19025, equations 1-12).

M sites, every expert on O_e of them, K local steps per round. The paper contradicts itself in places (the dossier in
`docs/methods.md` lists them); where it does, the form here is the one that reproduces its figures.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mixture:
    """The numbers of a sigma-MoE transformer: attention 4 d^2 and experts 2 d N_e d_e a layer, router d N_e a layer."""

    layers: int
    width: int
    experts: int
    top_k: int
    expert_width: int
    vocabulary: int
    sequence: int

    @property
    def dense(self) -> int:
        """Parameters that every site holds: attention and the tied embedding."""
        return self.layers * 4 * self.width**2 + self.vocabulary * self.width

    @property
    def expert(self) -> int:
        """Parameters of one expert of one layer, with its router row."""
        return 2 * self.width * self.expert_width + self.width

    @property
    def sparse(self) -> int:
        return self.layers * self.experts * self.expert

    @property
    def sparse_share(self) -> float:
        """f: the share of all parameters that is partitioned."""
        return self.sparse / (self.dense + self.sparse)

    def resident(self, sites: int, replication: int) -> float:
        """N_le = O_e N_e / M, experts per layer at a site."""
        return replication * self.experts / sites

    def flops_per_token(self, sites: int, replication: int, skip: bool = False, unembedding: bool = True) -> float:
        """Equations 1-3. skip: chosen experts that are elsewhere are dropped, so the share O_e / M is executed."""
        resident, d = self.resident(sites, replication), self.width
        executed = min(self.top_k, resident) / self.top_k * (resident / self.experts if skip else 1.0)
        ffn = 6 * self.top_k * 2 * d * self.expert_width * executed
        gate = 6 * d * self.experts * resident / self.experts
        dense = 6 * 4 * d**2 + 12 * d * self.sequence
        return self.layers * (dense + ffn + gate) + (6 * self.vocabulary * d if unembedding else 0)

    def memory(self, sites: int, replication: int, bytes_per_parameter: float = 18) -> float:
        """Bytes at a site in steady state (section 4.1): 18 = 2 half-precision weights, 4 master, 8 moments, 4
        gradients. The outer momentum is not counted, as in the paper."""
        return bytes_per_parameter * (self.dense + replication / sites * self.sparse)

    def traffic(
        self, sites: int, replication: int, moved: float = 0.0, bytes_per_number: float = 2, tensors: int = 1
    ) -> float:
        """Equations 4-9: bytes that a site sends per synchronisation.

        moved: gamma, how often experts are redrawn, per round.  tensors: 1 for DiLoCo, 3 for LocalAdamW.
        """
        m, o = sites, replication
        dense = 2 * (m - 1) / m * self.dense
        sparse = o / m * self.sparse * (2 * (o - 1) / o + moved * (1 - o / m))
        return bytes_per_number * tensors * (dense + sparse)


def gain_over_full_replica(sparse_share: float, sites: int, replication: int, moved: float = 0.0) -> float:
    """Traffic of a full replica over that of partial replication: 1 / (1 - f (M - O)/(M - 1) (1 - gamma O / (2 M)))."""
    m, o = sites, replication
    return 1 / (1 - sparse_share * (m - o) / (m - 1) * (1 - moved * o / (2 * m)))


def gain_over_data_parallel(every: int, gain: float, tensors: int = 1) -> float:
    """K G / c: 45.44 = 32 x 1.42 for K = 32 and DiLoCo."""
    return every * gain / tensors


def wall_seconds(
    *,
    tokens: float,
    sites: int,
    batch: float,
    every: int,
    flops_per_token: float,
    flops: float,
    traffic: float,
    bandwidth: float,
    overlap: float = 0.0,
) -> float:
    """Equations 10-12. batch: tokens per step of all sites; flops: achieved FLOP/s of a site; traffic: bytes that a
    site sends per synchronisation; bandwidth: bytes/s. The paper has no latency term."""
    compute = flops_per_token * batch / sites / flops
    rounds = tokens / (batch * every)
    return rounds * (every * compute + (1 - overlap) * traffic / bandwidth)
