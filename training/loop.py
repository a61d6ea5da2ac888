"""The training loop: steps, measurements of the held-out loss, checkpoints, early stopping.

A run is a function of its config: the order of the data, the windows and the paraphrases drawn, and dropout follow from the
seed and the step alone, so a run that is killed and started again ends with the same weights.  With `max_minutes` the number of
steps, and with it the learning rate, depends on the clock too, until it is settled and in a checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from livestar.errors import LiveStarError
from training.checkpoint import (
    CheckpointFailed,
    Progress,
    check_checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune,
    save_checkpoint,
    step_of,
)
from training.log import TRAINING, RunLog
from training.optim import make_optimizer, make_schedule
from training.parallel import shard_again
from training.step import Losses

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn
    from torch.optim.lr_scheduler import LambdaLR

    from training.batch import Batch
    from training.config import TrainConfig
    from training.feed import Feed
    from training.log import Reporter
    from training.world import World

NUM_TIMED_STEPS = 5
"""Steps that are timed, behind the first, before `max_minutes` settles how many there will be."""
TIME_RESERVE = 0.1
"""Share of `max_minutes` kept for what follows the last step."""

Ending = Literal["done", "early", "asked"]
"""All steps are done; the held-out loss has not fallen for too long; somebody asked to stop."""


class Outcome(NamedTuple):
    """How the loop ended."""

    progress: Progress
    ending: Ending


def never() -> bool:
    """Nobody asks to stop."""
    return False


@dataclass(slots=True, kw_only=True)
class Trainer:
    """Everything that the loop moves, in one worker."""

    config: TrainConfig
    world: World
    model: nn.Module
    """`SequenceModel`, bare, replicated (DDP) or sharded (FSDP2)."""
    feed: Feed
    folder: Path
    """Where checkpoints go; the log's files go beside it."""
    reporter: Reporter
    should_stop: Callable[[], bool] = never
    """Asked by the first worker before every step; a checkpoint is written then."""
    _log: RunLog | None = field(default=None, init=False)

    def run(self, started: float) -> Outcome:
        """Trains from the newest sound checkpoint, or from the start.  `started` is when the command was, by `time.monotonic`.

        Raises `CheckpointFailed` or `LiveStarError` where the disk is full, and where numbers are none any more.
        """
        optimizer = make_optimizer(self.model, self.config.optim)
        progress = self._resume(optimizer)
        try:
            if self.world.is_first:
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                self._log = RunLog(self.folder.parent, step=progress.step)
            return self._train(optimizer, progress, started)
        finally:
            if self._log is not None:
                self._log.close()

    def _train(self, optimizer: torch.optim.Optimizer, progress: Progress, started: float) -> Outcome:
        optim = self.config.optim
        num_steps = progress.num_steps or self._planned_steps()
        is_settled = bool(progress.num_steps) or not optim.max_minutes
        schedule = self._schedule(optimizer, progress.step, num_steps)
        progress = dataclasses.replace(progress, num_steps=num_steps if is_settled else 0)
        first_step, first_time = progress.step, time.monotonic()
        ending: Ending = "early" if self._is_patience_over(progress) else "done"
        while progress.step < num_steps and ending == "done":
            begin = time.monotonic()
            batches, place = self.feed.next_step(progress.epoch, progress.batch, optim.accumulate)
            total, is_asked = self.world.sum([sum(float(b.weights.sum()) for b in batches), self._is_asked()])
            if is_asked:
                ending = "asked"
                break
            losses, norm = self._step(batches, total, optimizer, progress.step)
            schedule.step()
            progress = dataclasses.replace(progress, step=progress.step + 1, epoch=place.epoch, batch=place.batch)
            self._record(progress, losses, norm, float(schedule.get_last_lr()[0]), time.monotonic() - begin)
            if progress.step == first_step + 1:  # which took longer than the others will
                first_time = time.monotonic()
            is_settling = not is_settled and progress.step - first_step > NUM_TIMED_STEPS
            if is_settling:
                num_steps = self._steps_in_time(optimizer, progress, started, first_time, num_steps)
                schedule = self._schedule(optimizer, progress.step, num_steps)
                progress, is_settled = dataclasses.replace(progress, num_steps=num_steps), True
            self.reporter.stage(TRAINING, progress.step, num_steps)
            progress, is_best, is_over = self._measure(progress, is_last=progress.step == num_steps)
            ending = "early" if is_over else "done"
            is_due = progress.step % self.config.run.checkpoint_every == 0 or progress.step == num_steps
            if is_best or is_over or is_settling or is_due:
                self._save(optimizer, progress)
        if ending == "asked" and progress.step > first_step:
            self._save(optimizer, progress)
        return Outcome(progress, ending)

    def _is_asked(self) -> float:
        return float(self.world.is_first and self.should_stop())

    def _resume(self, optimizer: torch.optim.Optimizer) -> Progress:
        """From the newest checkpoint that is sound; damaged ones are told, and replaced when their step comes again."""
        step = int(self.world.first(self._newest_sound() if self.world.is_first else 0.0))
        if not step:
            return Progress()
        path = next(path for path in list_checkpoints(self.folder) if step_of(path) == step)
        progress = load_checkpoint(path, self.model, optimizer)
        self.reporter.say(f"goes on behind step {progress.step}")
        return progress

    def _newest_sound(self) -> int:
        for path in reversed(list_checkpoints(self.folder)):
            try:
                return check_checkpoint(path).step
            except CheckpointFailed as error:
                self.reporter.say(f"{str(error).partition(';')[0]}; an older one, or the beginning, is taken instead")
        return 0

    def _schedule(self, optimizer: torch.optim.Optimizer, step: int, num_steps: int) -> LambdaLR:
        """The schedule as it is behind `step` steps."""
        schedule = make_schedule(optimizer, self.config.optim, num_steps)
        if step:
            schedule.last_epoch, schedule._step_count = step - 1, step + 1  # what so many calls of step() would leave
            schedule.step()
        return schedule

    def _planned_steps(self) -> int:
        optim = self.config.optim
        steps = max(1, round(optim.epochs * self.feed.steps_per_epoch(optim.accumulate)))
        return min(steps, optim.max_steps) if optim.max_steps else steps

    def _steps_in_time(
        self, optimizer: torch.optim.Optimizer, progress: Progress, started: float, first_time: float, planned: int
    ) -> int:
        """How many steps fit `max_minutes`, at the pace so far, with what comes between steps; all workers' mean counts."""
        run = self.config.run
        pace = (time.monotonic() - first_time) / NUM_TIMED_STEPS
        is_measured = bool(run.evaluate_every) and self.feed.has_holdout
        save_every = min(run.checkpoint_every, run.evaluate_every) if is_measured else run.checkpoint_every
        pauses: list[tuple[Callable[[], object], int]] = [(lambda: self._save(optimizer, progress), save_every)]
        if is_measured:
            pauses.append((self.held_out_loss, run.evaluate_every))
        for pause, every in pauses:
            begin = time.monotonic()
            pause()
            pace += (time.monotonic() - begin) / every
        left = started + self.config.optim.max_minutes * 60 * (1 - TIME_RESERVE) - time.monotonic()
        total = self.world.sum([max(0.0, left / pace)])[0] / self.world.size
        return min(planned, progress.step + int(total))

    def _step(self, batches: list[Batch], total: float, optimizer: torch.optim.Optimizer, step: int) -> tuple[list[float], float]:
        """One optimiser step over `batches` of every worker, whose targets weigh `total` together.

        Returns loss, weight and right answers summed over all of them, and the gradient's norm.
        """
        torch.manual_seed(hash((self.config.optim.seed, step, self.world.rank)))
        self.model.train()
        sums = [0.0, 0.0, 0.0]
        for number, batch in enumerate(batches):
            with self._unsynchronised(is_last=number == len(batches) - 1), self._numbers():
                losses = forward(self.model, batch)
                # Gradients are averaged over the workers, so the sum of all must be divided by what all have in common.
                (losses.loss * (self.world.size / total)).backward()
            sums = [a + float(b.detach()) for a, b in zip(sums, losses, strict=True)]
        trained = [p for p in self.model.parameters() if p.requires_grad]
        norm = _plain(clip_grad_norm_(trained, self.config.optim.max_grad_norm or float("inf")))
        if not math.isfinite(norm):
            raise LiveStarError(
                f"step {step + 1} has gradients that are no numbers; lower optim.learning_rate, and start anew with --restart"
            )
        optimizer.step()
        optimizer.zero_grad()
        return self.world.sum(sums), norm

    def _unsynchronised(self, *, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Lets replicas add up their gradients only once a step."""
        if isinstance(self.model, DistributedDataParallel) and not is_last:
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _numbers(self) -> torch.autocast:
        is_half = self.config.model.precision == "bfloat16"
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=is_half)

    def _record(self, progress: Progress, sums: list[float], norm: float, rate: float, seconds: float) -> None:
        loss, weight, right = sums
        record = {
            "step": progress.step,
            "loss": loss / weight,
            "token_accuracy": right / weight,
            "learning_rate": rate,
            "grad_norm": norm,
            "seconds": round(seconds, 4),
        }
        self.reporter.step(record)
        if self._log is not None:
            self._log.write(record)

    def _measure(self, progress: Progress, *, is_last: bool) -> tuple[Progress, bool, bool]:
        """The held-out loss, when it is due: progress with it, whether it is the best, and whether to stop."""
        run = self.config.run
        is_due = run.evaluate_every and (progress.step % run.evaluate_every == 0 or is_last)
        if not is_due or not self.feed.has_holdout:
            return progress, False, False
        loss, accuracy = self.held_out_loss()
        record = {"step": progress.step, "holdout_loss": loss, "holdout_token_accuracy": accuracy}
        self.reporter.step(record)
        if self._log is not None:
            self._log.write(record)
        if progress.best_loss is None or loss < progress.best_loss:
            return dataclasses.replace(progress, best_loss=loss, best_step=progress.step, num_worse=0), True, False
        progress = dataclasses.replace(progress, num_worse=progress.num_worse + 1)
        return progress, False, self._is_patience_over(progress)

    def _is_patience_over(self, progress: Progress) -> bool:
        patience = self.config.run.patience
        return bool(patience) and progress.num_worse >= patience

    @torch.no_grad()
    def held_out_loss(self) -> tuple[float, float]:
        """Mean loss and token accuracy over the held-out batches of all workers."""
        self.model.eval()
        sums = [0.0, 0.0, 0.0]
        for batch in self.feed.holdout_batches():
            with self._numbers():
                losses = forward(self.model, batch)
            sums = [a + float(b.detach()) for a, b in zip(sums, losses, strict=True)]
        shard_again(self.model)
        loss, weight, right = self.world.sum(sums)
        return loss / max(weight, 1e-9), right / max(weight, 1e-9)

    def _save(self, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        save_checkpoint(self.folder, self.model, optimizer, progress, rank=self.world.rank)
        if self.world.is_first:
            steps = sorted(step_of(path) for path in list_checkpoints(self.folder) if step_of(path) <= progress.step)
            prune(self.folder, {*steps[-self.config.run.keep_checkpoints :], progress.best_step})
        self.world.barrier()


def forward(model: nn.Module, batch: Batch) -> Losses:
    """The model's losses, whatever it is wrapped in."""
    losses: Losses = model(batch)
    return losses


def _plain(norm: Tensor) -> float:
    """A norm as a number; a sharded model's is put together first."""
    full = getattr(norm, "full_tensor", None)
    return float(full() if full is not None else norm)
