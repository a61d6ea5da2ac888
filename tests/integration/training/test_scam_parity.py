"""What training learns from is what watching scores: perplexities of the engine against those of training sequences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch

from livestar.config import GateName
from livestar.engine.admission import make_prompt
from livestar.gate.threshold import ScheduledThreshold
from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import load_model
from livestar.types import Frame, StreamId
from tests.checkpoints import RECIPES, SYSTEM_MESSAGE, TASK, write_checkpoint
from tests.fakes.pictures import video
from tests.integration.engine.watching import Loaded, Step, steps_of, stream_config, watch
from training.batch import Batch
from training.sequence import Clip, LayoutName, SequenceBuilder, TrainingSequence, Visibility
from training.step import SequenceModel

pytestmark = pytest.mark.integration

TOLERANCE = 2e-5
"""Relative; float32 in different orders of summation."""

GATES: dict[tuple[GateName, bool], tuple[Visibility, LayoutName]] = {
    ("scam", False): ("leaf", "inference"),
    ("scam", True): ("terminal", "inference"),
    ("leaf", False): ("leaf", "training"),
    ("leaf", True): ("terminal", "training"),
}
"""The gate, whether it keeps captions, and what to train for it."""

LoadRecipe = Callable[[str], Loaded]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> LoadRecipe:
    """Loads the tiny checkpoint of a name in `tests.checkpoints.RECIPES`."""
    loaded: dict[str, Loaded] = {}

    def load(name: str) -> Loaded:
        if name not in loaded:
            directory = write_checkpoint(tmp_path_factory.mktemp("checkpoints") / name, RECIPES[name])
            model = load_model(directory, dtype=torch.float32)
            tokenizer = load_tokenizer(directory, model.config.language.vocab_size)
            loaded[name] = Loaded(model, tokenizer, SYSTEM_MESSAGE, TASK)
        return loaded[name]

    return load


def clips_watched(steps: Sequence[Step]) -> list[Clip]:
    """The clips that the engine made: a caption, and the frames until the next."""
    begins = [place for place, step in enumerate(steps) if step.caption is not None]
    captions = [step.caption for step in steps if step.caption is not None]
    stops = [*begins[1:], len(steps)]
    return [Clip(first, stop - first, text) for first, stop, text in zip(begins, stops, captions, strict=True)]


SPOKEN = frozenset({0, 3, 4, 9, 13})
"""Places of the frames that begin a clip: clips of 3, 1, 5, 4 and more frames."""


def watch_scheduled(loaded: Loaded, frames: Sequence[Frame], gate: GateName, *, keeps: bool) -> list[Step]:
    """Watches with a new caption at the frames of `SPOKEN`, whatever a random model thinks of the others."""
    numbers = {frames[place].index for place in SPOKEN if place < len(frames)}
    engine, stream_id = loaded.engine(), StreamId("scheduled")
    config = stream_config(gate, keep_captions=keeps, max_new_tokens=9)
    engine.open(stream_id, config, threshold=ScheduledThreshold(numbers.__contains__))
    events = watch(engine, stream_id, frames)
    engine.close(stream_id)
    return steps_of(events)


def perplexities(loaded: Loaded, sequence: TrainingSequence, features: torch.Tensor, lengths: Sequence[int]) -> list[float]:
    """Of each copy in a training sequence, whose targets number `lengths`."""
    with torch.inference_mode():
        nll, _ = SequenceModel(loaded.model).score(Batch.pack([sequence], [features]))
    return [part.mean().exp().item() for part in nll.split(list(lengths))]


class Trained:
    """A stream as training sees it."""

    def __init__(self, loaded: Loaded, frames: Sequence[Frame], visibility: Visibility, layout: LayoutName) -> None:
        self.loaded = loaded
        self.frames = frames
        self.prompt = make_prompt(loaded.model.config, loaded.tokenizer)
        self.builder = SequenceBuilder(self.prompt, visibility=visibility, layout=layout)
        self.features = loaded.model.features(torch.stack([torch.from_numpy(frame.image) for frame in frames]))

    def by_frame(self, clips: Sequence[Clip], num_frames: int) -> dict[int, float]:
        """Perplexity of the copy behind each of the first frames, by the frame's place."""
        numbers = [frame.index for frame in self.frames[:num_frames]]
        sequence = self.builder.build(numbers, clips)
        owners = {place: clip for clip in clips for place in range(clip.first, clip.first + clip.num_frames)}
        lengths = [len(self.prompt.caption(owners[place].caption).targets) for place in sorted(owners)]
        found = perplexities(self.loaded, sequence, self.features[:num_frames], lengths)
        return dict(zip(sorted(owners), found, strict=True))


def streams(size: int) -> dict[str, list[Frame]]:
    """Frames as they come: all of them, with some dropped, and from the middle of a long life."""
    frames = video(31, 18, size, scene_frames=3)
    late = [Frame(frame.index + 1000, frame.pts_s, frame.image) for frame in video(32, 12, size, scene_frames=4)]
    return {"whole": frames, "dropped": [frame for frame in frames if frame.index % 4 != 2], "late": late}


@pytest.mark.parametrize("stream", ["whole", "dropped", "late"])
@pytest.mark.parametrize(("gate", "keeps"), GATES)
@pytest.mark.parametrize("name", RECIPES)
def test_the_engine_scores_what_training_learns(
    checkpoint: LoadRecipe, name: str, gate: GateName, keeps: bool, stream: str
) -> None:
    """Every number of every verdict: the reference, the verifications of the standing caption, and the one that it lost by."""
    loaded = checkpoint(name)
    frames = streams(loaded.image_size)[stream]
    steps = watch_scheduled(loaded, frames, gate, keeps=keeps)
    clips = clips_watched(steps)
    assert {clip.first for clip in clips} == {place for place in SPOKEN if place < len(frames)}
    trained = Trained(loaded, frames, *GATES[gate, keeps])
    learnt = trained.by_frame(clips, len(frames))

    compared = 0
    for place, step in enumerate(steps):
        if step.caption is not None:
            assert step.reference == pytest.approx(learnt[place], rel=TOLERANCE)
        elif step.perplexity is not None:
            assert step.perplexity == pytest.approx(learnt[place], rel=TOLERANCE)
        if step.caption is not None and step.perplexity is not None:
            before = [clip for clip in clips if clip.first < place]
            before[-1] = Clip(before[-1].first, place + 1 - before[-1].first, before[-1].caption)
            assert step.perplexity == pytest.approx(trained.by_frame(before, place + 1)[place], rel=TOLERANCE)
            compared += 1
    assert compared == len(clips) - 1


@pytest.mark.parametrize("name", ["small", "no-groups"])
def test_another_visibility_or_layout_would_not_match(checkpoint: LoadRecipe, name: str) -> None:
    """The comparison above can tell them apart, by a thousand times its tolerance."""
    loaded = checkpoint(name)
    frames = streams(loaded.image_size)["whole"]
    clips = clips_watched(watch_scheduled(loaded, frames, "scam", keeps=False))
    choices: list[tuple[Visibility, LayoutName]] = [*GATES.values(), ("causal", "inference")]
    learnt = {choice: Trained(loaded, frames, *choice).by_frame(clips, len(frames)) for choice in choices}
    last = clips[-1].first + clips[-1].num_frames - 1
    for one, other in itertools.combinations(learnt.values(), 2):
        assert abs(one[last] / other[last] - 1) > 1000 * TOLERANCE


def test_the_first_frame_is_learnt_alike_under_every_visibility(checkpoint: LoadRecipe) -> None:
    loaded = checkpoint("small")
    frames = streams(loaded.image_size)["whole"][:1]
    found = [
        Trained(loaded, frames, visibility, "inference").by_frame([Clip(0, 1, "A red car.")], 1)[0]
        for visibility in ("leaf", "terminal", "causal")
    ]
    assert found[1:] == pytest.approx(found[:1] * 2, rel=TOLERANCE)
