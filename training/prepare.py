"""From a config to what the loop needs: the model, the annotated videos, their visual tokens."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from livestar.annotations.duration import measure_duration
from livestar.annotations.part import parse_part
from livestar.annotations.problems import named
from livestar.annotations.read import read_annotations
from livestar.config import MediaConfig
from livestar.engine.admission import make_prompt
from livestar.errors import InvalidConfig, SourceError
from livestar.model.mini import model_directory
from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import load_model
from training.dataset import StreamDataset
from training.decode import Fill, fill_cache
from training.export import refuse_adapter, stored_dtype
from training.features import FeatureCache
from training.feed import Feed
from training.lora import add_lora
from training.optim import choose_trained
from training.pictures import PictureCache, trains_tower
from training.sequence import SequenceBuilder
from training.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.annotations.types import AnnotatedVideo
    from livestar.model.livestar import LiveStarModel
    from livestar.model.prompt import Prompt
    from livestar.model.tokenizer import Tokenizer
    from training.config import BadVideo, DataConfig, TrainConfig
    from training.decode import OnProgress
    from training.feature_file import VideoFeatures
    from training.log import Reporter

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """The videos of a run."""

    train: tuple[AnnotatedVideo, ...]
    holdout: tuple[AnnotatedVideo, ...]
    """Held out from training: for the held-out loss, and to set the threshold on."""


def load_base(config: TrainConfig) -> tuple[LiveStarModel, Tokenizer, Path]:
    """The checkpoint to start from, in float32, and its folder; what is trained has gradients.

    The same config gives the same weights, adapters' first ones too.
    """
    directory = model_directory(Path(config.model.base))
    trains_tower(config)  # refuses what cannot be, before weights are read
    if config.lora.rank:
        refuse_adapter(directory)
    model = load_model(directory, dtype=torch.float32)
    tokenizer = load_tokenizer(directory, model.config.language.vocab_size)
    if config.lora.rank:
        torch.manual_seed(config.optim.seed)
        add_lora(model, config.lora)
    else:
        choose_trained(model, config.model.train)
    return model, tokenizer, directory


def read_footage(config: DataConfig) -> Footage:
    """Reads and splits the annotations.  Raises `InvalidConfig` where none are named, `InvalidAnnotation` for what is wrong."""
    if not config.files:
        raise InvalidConfig(
            "data.files names no annotations; give some, such as --set data.files=room.events.jsonl (docs/data.md)"
        )
    sets = [list(read_annotations(Path(file))) for file in config.files]
    if config.part:
        sets = [cut_all(videos, config.part, config.on_bad) for videos in sets]
    if config.holdout_files:
        held = [video for file in config.holdout_files for video in read_annotations(Path(file))]
    elif config.holdout:
        held = [video for videos in sets for video in cut_all(videos, f"{1 - config.holdout}:1", config.on_bad)]
        sets = [cut_all(videos, f"0:{1 - config.holdout}", config.on_bad) for videos in sets]
    else:
        held = []
    repeats = config.repeats or (1,) * len(sets)
    videos = [video for videos, number in zip(sets, repeats, strict=True) for video in videos * number]
    if not any(video.events for video in videos):
        raise InvalidConfig("data.files and data.part leave no event to train on; widen data.part or lower data.holdout")
    return Footage(train=tuple(v for v in videos if v.events), holdout=tuple(v for v in held if v.events))


def cut_all(videos: Sequence[AnnotatedVideo], part: str, on_bad: BadVideo) -> list[AnnotatedVideo]:
    """A part of every video, whose length is measured where the annotation does not say it.

    Raises `SourceError` for a video that cannot be measured, unless such are left out.
    """
    wanted, parts = parse_part(part), []
    for video in videos:
        try:
            duration_s = measure_duration(video.source, video.fps) if video.duration_s is None else video.duration_s
        except SourceError as error:
            if on_bad == "raise":
                raise named(error, video) from error
            logger.warning("left out: %s", named(error, video))
            continue
        parts.append(wanted.cut(video, duration_s))
    return parts


def look(config: TrainConfig, reporter: Reporter, device: torch.device) -> None:
    """Computes the visual tokens of all footage with the tower on `device`, and finds what is wrong with the footage.

    Decoding runs on Ray's CPUs where Ray is initialised.
    """
    model, tokenizer, base = load_base(config)
    del model.language_model.model.layers  # the tower alone is needed, and all of it may not fit the device
    model.to(device)
    footage = read_footage(config.data)
    make_feed(config, model, prompt_of(model, tokenizer), footage, World(device=device), reporter, dtype=stored_dtype(base))
    del model
    if device.type == "cuda":
        torch.cuda.empty_cache()  # for workers on the same GPU


def make_feed(
    config: TrainConfig,
    model: LiveStarModel,
    prompt: Prompt,
    footage: Footage,
    world: World,
    reporter: Reporter,
    *,
    dtype: torch.dtype,
) -> Feed:
    """Computes or finds the visual tokens of all footage, and arranges it in batches.

    The tokens are kept in `dtype`, that of the stored weights.  Where the tower is trained, pictures are kept in their place.
    """
    cache = _make_cache(config, model, dtype, verify=world.is_first)
    builder = SequenceBuilder(
        prompt,
        visibility=config.scam.visibility,
        layout=config.scam.layout,
        weigh_clips=config.scam.weigh_clips,
        turn_weight=config.scam.turn_weight,
    )

    most = config.data.max_copies

    def num_rows(num_frames: int, clips: Sequence[tuple[int, int]]) -> int:
        return builder.estimate(num_frames, [(min(frames, most or frames), tokens) for frames, tokens in clips])

    def dataset(videos: Sequence[AnnotatedVideo], stage: str) -> StreamDataset:
        kept = _fill(cache, videos, config.data, world, lambda done, total: reporter.stage(stage, done, total))
        return StreamDataset(
            kept,
            max_frames=config.data.max_frames,
            windows_per_video=config.data.windows_per_video,
            max_batch_tokens=config.optim.max_batch_tokens,
            max_batch_sequences=config.optim.max_batch_sequences,
            num_tokens=num_rows,
            count_tokens=lambda text: len(prompt.caption(text).rows),
            seed=config.optim.seed,
        )

    train = dataset(footage.train, "looking at the training footage")
    try:
        holdout = dataset(footage.holdout, "looking at the held-out footage") if footage.holdout else None
    except InvalidConfig as error:
        raise InvalidConfig(f"held-out footage: {error}; or hold more of it out, or nothing, by data.holdout") from error
    return Feed(config=config.data, seed=config.optim.seed, world=world, builder=builder, train=train, holdout=holdout)


def _make_cache(config: TrainConfig, model: LiveStarModel, dtype: torch.dtype, *, verify: bool) -> FeatureCache:
    folder, fps = Path(config.data.cache), frames_per_second(config.data, model)
    if trains_tower(config):
        return PictureCache(folder, model, fps=fps, verify=verify)
    precision = getattr(torch, config.model.precision)
    return FeatureCache(folder, model, fps=fps, dtype=dtype, precision=precision, verify=verify)


def _fill(
    cache: FeatureCache, videos: Sequence[AnnotatedVideo], config: DataConfig, world: World, on_progress: OnProgress
) -> list[tuple[AnnotatedVideo, VideoFeatures]]:
    """The features of all videos, from the cache or computed now.

    Workers of Ray Train find what `look` has put there; what it left out they try themselves, since tasks of Ray Data would wait
    for the CPUs that they hold.
    """
    if not world.is_on_ray:
        return fill_cache(cache, videos, on_bad=config.on_bad, on_progress=on_progress)
    fill = Fill(cache, len(videos), on_progress, config.on_bad)
    for number, video in enumerate(videos):
        fill.take_decoded(number, video)
    return fill.result(videos)


def frames_per_second(config: DataConfig, model: LiveStarModel) -> float:
    """The config's frame rate, or the model's own, or 1."""
    return config.fps or model.config.fps or MediaConfig().fps


def prompt_of(model: LiveStarModel, tokenizer: Tokenizer) -> Prompt:
    """The prompt that the model is watched with."""
    return make_prompt(model.config, tokenizer)
