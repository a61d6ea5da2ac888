"""Decoding on Ray Data gives the features that decoding in this process gives."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import ray
import torch

from livestar.annotations.types import AnnotatedVideo
from livestar.errors import SourceUnreadable
from livestar.media.source import list_pictures
from tests.integration.media.clips import make_clip
from training.decode import fill_cache
from training.features import FeatureCache

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def cluster() -> Iterator[None]:
    """Ray on this machine."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # Ray sets deprecated settings of its own
def test_decoding_on_ray_gives_the_same_features(model, folder, tmp_path, cluster, caplog):
    sources = [str(make_clip(tmp_path / f"{number}.mp4", num_frames=20 + 60 * number)) for number in range(4)]
    pictures = tuple(map(str, list_pictures(str(folder))))
    videos = [
        *(AnnotatedVideo(source=source, events=(), file="x.jsonl", line=line) for line, source in enumerate(sources, 1)),
        AnnotatedVideo(source=sources[3], events=(), begin_s=1.3, end_s=4.0),
        AnnotatedVideo(source=pictures, events=(), fps=4.0),
        AnnotatedVideo(source=str(folder), events=(), fps=4.0),
        AnnotatedVideo(source=sources[0], events=(), file="y.jsonl", line=1),  # once more
    ]
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nonsense" * 100)
    spoilt = AnnotatedVideo(source=str(bad), events=(), file="x.jsonl", line=9)
    here = FeatureCache(tmp_path / "here", model, fps=8.0)
    expected = [here.get(video) for video in videos]

    there = FeatureCache(tmp_path / "there", model, fps=8.0)
    with pytest.raises(SourceUnreadable, match=r"^x\.jsonl:9: .*bad\.mp4 is not a video; give"):
        fill_cache(FeatureCache(tmp_path / "raised", model, fps=8.0), [spoilt], num_decoders=1)
    told: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        filled = fill_cache(
            there,
            [*videos, spoilt],
            on_bad="skip",
            num_decoders=2,
            on_progress=lambda done, total: told.append((done, total)),
        )
    assert [video for video, _ in filled] == videos
    for (video, found), wanted in zip(filled, expected, strict=True):
        assert found.times_s == wanted.times_s, video
        assert torch.equal(found.features, wanted.features), video
    assert told[-1] == (9, 9)
    assert "left out 1 of 9 videos" in caplog.text
    assert not list((tmp_path / "there").glob("*.partial"))
    assert {path.name for path in (tmp_path / "there").iterdir()} == {path.name for path in (tmp_path / "here").iterdir()}
