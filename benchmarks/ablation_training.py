"""Three captioners that differ in their mask alone: same weights to start from, windows, paraphrases, copies and steps."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from livestar.annotations.read import read_annotations
from training.export import export, stored_dtype
from training.loop import Trainer
from training.mini.build import init_mini
from training.mini.vocabulary import train_vocabulary
from training.prepare import load_base, make_feed, prompt_of, read_footage
from training.run import CHECKPOINTS, MODEL, claim
from training.sequence import SequenceBuilder
from training.step import SequenceModel
from training.world import World

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.config import TrainConfig
    from training.feed import Feed
    from training.sequence import Visibility

VISIBILITIES: tuple[Visibility, ...] = ("leaf", "terminal", "causal")
TURN_WEIGHT = 1.0
"""Every frame's choice between silence and speech weighs as much as a token of a caption, as VideoLLM-online trains it."""
SAY_EVERY_S = 30.0
DONE = "captioner.json"
"""Written when a captioner is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioner:
    """What came of one training."""

    visibility: Visibility
    directory: Path
    num_steps: int
    seconds: float
    """Spent on its steps, by the process that finished it."""
    holdout_loss: float
    """On the validation streams, under the captioner's own mask: with copies in sight it is easier, so no comparison."""


class Teller:
    """Tells on standard error how far a training is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = time.monotonic()

    def stage(self, name: str, done: int, total: int) -> None:
        """Now and then."""
        if done == total or time.monotonic() - self._told > SAY_EVERY_S:
            self.say(f"{name}, {done} of {total}")

    def step(self, record: Mapping[str, float | int]) -> None:
        """Nothing; steps stand in metrics.jsonl."""

    def say(self, text: str) -> None:
        """A line."""
        self._told = time.monotonic()
        print(f"{self._name}: {text}", file=sys.stderr, flush=True)


def make_base(directory: Path, files: Sequence[str], seed: int) -> Path:
    """An untrained livestar-mini whose vocabulary knows the captions of `files`, as `make mini` makes it."""
    captions = [text for file in files for video in read_annotations(Path(file)) for e in video.events for text in e.captions]
    init_mini(directory, tokenizer=train_vocabulary(captions), gate="scam", seed=seed)
    return directory


def train_captioners(config: TrainConfig, folder: Path, visibilities: Sequence[Visibility] = VISIBILITIES) -> list[Captioner]:
    """Trains one captioner for each mask into `folder`; those that are there already are kept, killed ones go on.

    How many steps fit into `optim.max_minutes` is settled by the first and holds for all.  Windows are planned for the first
    mask's rows, so that a step has the same samples under every mask.
    """
    captioners: list[Captioner] = []
    feed: Feed | None = None
    for visibility in visibilities:
        optim = config.optim
        if captioners:
            optim = dataclasses.replace(optim, max_steps=captioners[0].num_steps, max_minutes=0.0)
        own = dataclasses.replace(
            config,
            scam=dataclasses.replace(config.scam, visibility=visibility),
            optim=optim,
            run=dataclasses.replace(config.run, output=str(folder / visibility)),
        )
        claim(folder / visibility, own)
        done = folder / visibility / DONE
        if not done.exists():
            feed = feed or _make_feed(dataclasses.replace(own, scam=dataclasses.replace(own.scam, visibility=visibilities[0])))
            done.write_text(json.dumps(_train(own, feed)), encoding="utf-8")
        captioners.append(
            Captioner(
                visibility=visibility, directory=folder / visibility / MODEL, **json.loads(done.read_text(encoding="utf-8"))
            )
        )
    return captioners


def _make_feed(config: TrainConfig) -> Feed:
    model, tokenizer, base = load_base(config)
    reporter = Teller(config.scam.visibility)
    footage = read_footage(config.data)
    return make_feed(config, model, prompt_of(model, tokenizer), footage, World(), reporter, dtype=stored_dtype(base))


def _train(config: TrainConfig, feed: Feed) -> dict[str, float]:
    """Trains one captioner to the end; what `Captioner` says of it beside its name."""
    folder = Path(config.run.output)
    model, tokenizer, base = load_base(config)
    builder = SequenceBuilder(
        prompt_of(model, tokenizer),
        visibility=config.scam.visibility,
        layout=config.scam.layout,
        weigh_clips=config.scam.weigh_clips,
        turn_weight=config.scam.turn_weight,
    )
    trainer = Trainer(
        config=config,
        world=World(),
        model=SequenceModel(model),
        feed=dataclasses.replace(feed, builder=builder),
        folder=folder / CHECKPOINTS,
        reporter=Teller(config.scam.visibility),
    )
    began = time.monotonic()
    progress = trainer.run(began).progress
    seconds = time.monotonic() - began
    holdout_loss, _ = trainer.held_out_loss()
    export(model, config, base, folder / MODEL)
    return {"num_steps": progress.step, "seconds": seconds, "holdout_loss": holdout_loss}
