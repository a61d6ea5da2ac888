"""A model trained on a stream by the step alone, and then watching it: it says what it was taught, when it was taught to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from livestar.config import GateName
from livestar.engine.admission import make_prompt
from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import load_model
from tests.checkpoints import SYSTEM_MESSAGE, TASK, Recipe, write_checkpoint
from tests.fakes.pictures import video
from tests.integration.engine.watching import Loaded, stream_config, watch_alone
from training.batch import Batch
from training.config import OptimConfig
from training.optim import choose_trained, make_optimizer, make_schedule
from training.sequence import Clip, LayoutName, SequenceBuilder, Visibility
from training.step import SequenceModel

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CLIPS = [
    Clip(0, 3, "A red car turns."),
    Clip(3, 3, "The driver gets out."),
    Clip(6, 3, "It has started to rain."),
    Clip(9, 3, "The street is empty."),
]
NUM_STEPS = 150
RECIPE = Recipe(seed=5, image=56, language=(64, 96, 4, 2, 2))


@pytest.mark.parametrize(
    ("visibility", "layout", "gate", "keeps"),
    [("leaf", "inference", "scam", False), ("terminal", "inference", "scam", True), ("leaf", "training", "leaf", False)],
)
def test_a_model_says_what_it_was_trained_to_say_when_it_was_trained_to(
    visibility: Visibility, layout: LayoutName, gate: GateName, keeps: bool, tmp_path: Path
) -> None:
    directory = write_checkpoint(tmp_path / "tiny", RECIPE)
    model = load_model(directory, dtype=torch.float32)
    loaded = Loaded(model, load_tokenizer(directory, model.config.language.vocab_size), SYSTEM_MESSAGE, TASK)
    frames = video(40, 12, loaded.image_size, scene_frames=3)
    config = stream_config(gate, threshold=1.1, keep_captions=keeps, max_new_tokens=24)
    untrained = [step.caption for step in watch_alone(loaded, frames, config)]

    features = model.features(torch.stack([torch.from_numpy(frame.image) for frame in frames]))
    builder = SequenceBuilder(make_prompt(model.config, loaded.tokenizer), visibility=visibility, layout=layout)
    batch = Batch.pack([builder.build(range(1, 13), CLIPS)], [features])
    choose_trained(model, ["mlp1", "language_model"])
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optim = OptimConfig(learning_rate=5e-3, warmup=0.05, weight_decay=0.0)
    optimizer = make_optimizer(model, optim)
    schedule = make_schedule(optimizer, optim, NUM_STEPS)
    losses = []
    for _ in range(NUM_STEPS):
        found = SequenceModel(model)(batch)
        loss = found.loss / found.weight
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 < 3 < losses[0], losses[::10]
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)

    model.requires_grad_(False)
    spoken = [step.caption for step in watch_alone(loaded, frames, config)]
    expected = [clip.caption if place == clip.first else None for clip in CLIPS for place in range(clip.first, clip.first + 3)]
    assert spoken == expected != untrained
