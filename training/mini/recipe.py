"""livestar-mini from nothing: footage, an untrained model, two trainings, and what ships."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from livestar.annotations.read import read_annotations
from livestar.model.weights import load_model, save_model
from training.mini.build import init_mini
from training.mini.catalogue import Split
from training.mini.vocabulary import train_vocabulary

if TYPE_CHECKING:
    pass

CALM = 2.2
"""How many times longer everything lasts in calm rooms: some six seconds an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Scripted streams of the recipe."""

    name: str
    split: Split
    count: int
    first: int
    calm: float = 1.0
    plain: bool = False


STREAMS = (
    Streams(name="scripted-train", split="train", count=900, first=0),
    Streams(name="scripted-calm", split="train", count=300, first=200_000, calm=CALM),
    Streams(name="scripted-val", split="train", count=40, first=100_000),
    Streams(name="scripted-calm-val", split="train", count=40, first=400_000, calm=CALM),
    Streams(name="scripted-heldout", split="heldout", count=60, first=0),
    Streams(name="scripted-calm-heldout", split="heldout", count=60, first=300_000, calm=CALM),
    Streams(name="plain-train", split="train", count=320, first=500_000, calm=1.3, plain=True),
    Streams(name="plain-val", split="train", count=40, first=600_000, calm=CALM, plain=True),
    Streams(name="plain-heldout", split="heldout", count=60, first=600_000, calm=CALM, plain=True),
    Streams(name="scripted-unseen", split="unseen", count=30, first=0),
)
LEARNT = ("scripted-train/events.jsonl", "scripted-calm/events.jsonl", "real/real-train.jsonl")
"""What the vocabulary and the weights are learnt from."""
TARGET = Path("livestar/assets/livestar-mini")
CONFIGS = ("mini-look", "mini-follow", "mini")
"""The trainings, in order: to name what a few frames show, to follow a stream, and to tell what is plain."""


def init(data: Path, target: Path) -> None:
    """Writes the untrained model, whose vocabulary is that of the training captions and of everyday words."""
    captions = [
        caption
        for name in LEARNT
        for video in read_annotations(data / name)
        for event in video.events
        for caption in event.captions
    ]
    init_mini(target, tokenizer=train_vocabulary(captions), gate="scam")


def train(folder: Path) -> Path:
    """Runs the trainings in `folder`, which holds what they need; returns the finished model."""
    for name in CONFIGS:
        subprocess.run([sys.executable, "-m", "livestar.cli", "train", name], cwd=folder, check=True)
    return folder / "runs" / CONFIGS[-1] / "model"


def install(model: Path, target: Path) -> None:
    """Puts a finished model where the package finds it, in 16 bit; its card stays."""
    fresh = target.with_name(target.name + ".part")
    shutil.rmtree(fresh, ignore_errors=True)
    loaded = load_model(model, dtype=torch.float32)
    save_model(loaded, fresh, dtype=torch.float16)
    shutil.copyfile(model / "tokenizer.json", fresh / "tokenizer.json")
    for path in target.glob("*.md"):
        shutil.copyfile(path, fresh / path.name)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def size_of(folder: Path) -> float:
    """Size of a folder's files, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
