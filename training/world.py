"""Which worker of a run this is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One worker among `size`; alone it needs no process group."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  (immutable)
    is_on_ray: bool = False
    """Whether Ray Train started it, and holds CPUs that tasks of Ray Data would wait for."""

    @property
    def is_first(self) -> bool:
        """Whether this worker writes files and talks to people."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """The sums of `values` over all workers, in float64."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def first(self, value: float) -> float:
        """What the first worker says; the others' values do not count."""
        return self.sum([value if self.is_first else 0.0])[0]

    def barrier(self) -> None:
        """Waits for all workers."""
        if self.size > 1:
            dist.barrier()
