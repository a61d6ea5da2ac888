"""Telling formats apart, collecting problems, and never a traceback whatever the bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livestar.annotations.check import control_token
from livestar.annotations.problems import Problems
from livestar.annotations.read import detect_format, read_annotations, read_with_problems
from livestar.errors import LiveStarError
from livestar.model.tokenizer import REQUIRED_TOKENS, load_tokenizer

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ('{"video": "a.mp4", "events": []}', "events"),
        ('{"begin": 0}', "events"),
        ('{"broken', "events"),
        ('\ufeff\n {"conversations": 1}', "released"),
        ('{"id": 0, "image": ["', "released"),
        ('{"set": {"annotation": "x"}}', "meta"),
        ('{\n  "set": {\n "annotation": "x"}}', "meta"),
        ("a.mp4\nTimestamp: 00:00:00 Caption: x", "text"),
    ],
)
def test_the_format_is_told_by_what_is_in_the_file(write, head, expected):
    assert detect_format(write("any.name", head)) == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "is empty; give JSON lines"), ("\n \n", "is empty"), ("hello", "is in no format that is known"), ("[]", "no format")],
)
def test_what_is_no_annotation_is_refused_with_the_formats_that_are(write, content, problem):
    with pytest.raises(LiveStarError, match=problem):
        read_annotations(write("x", content))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(LiveStarError, match="No such file"):
        read_annotations(tmp_path / "gone.jsonl")
    with pytest.raises(LiveStarError, match="Is a directory"):
        read_annotations(tmp_path)
    with pytest.raises(LiveStarError, match="cannot be read"):
        read_annotations(Path("a\0b"))


def test_problems_can_be_collected_and_the_rest_is_read(write):
    good = {"begin": 0, "end": 1, "caption": "A."}
    lines = [
        {"video": "a.mp4", "events": [good, {"begin": 0.5, "end": 2, "caption": "B."}, good | {"begin": 1, "end": 2}]},
        "{\n",
        {"video": "b.mp4", "events": [good | {"caption": ""}, good]},
        {"video": "a.mp4", "events": [good]},
    ]
    path = write("a.jsonl", *lines)
    problems = Problems(str(path), max_kept=3)
    videos = read_with_problems(path, problems)
    assert [len(video.events) for video in videos] == [2, 1, 1]
    assert problems.num_found == 4
    assert [(problem.line, problem.key) for problem in problems.kept] == [
        (2, ""),
        (3, "events[0].caption"),
        (1, "events[1].begin"),
    ]


def test_every_control_token_of_the_prompt_is_known():
    assert all(control_token(f"a {token} b") == token for token in (*REQUIRED_TOKENS, "<IMG_CONTEXT>", "<|action_start|>"))


def test_every_control_token_of_the_released_tokenizer_is_known(golden_dir):
    tokens = load_tokenizer(golden_dir / "tokenizer", 92_560).control_tokens
    assert tokens and all(control_token(token) for token in tokens)


@pytest.mark.parametrize("text", ["3 < 5 and 7 > 6", "<3", "a|b", "[1] <b>bold</b>", "it's 50% <img"])
def test_plain_text_is_no_control_token(text):
    assert control_token(text) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["A.", "a.mp4", "<image>", "gpt", "human"]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=8,
)


def loosely(template: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """The right thing mostly, anything at times."""
    return template | JSON


EVENT = loosely(
    st.fixed_dictionaries(
        {"begin": loosely(st.integers(0, 5)), "end": loosely(st.integers(0, 9)), "caption": loosely(st.just("A."))},
        optional={"video": loosely(st.just("a.mp4")), "captions": JSON, "fps": JSON, "duration": JSON, "part": JSON},
    )
)
VIDEO = st.fixed_dictionaries(
    {"video": loosely(st.just("a.mp4")), "events": loosely(st.lists(EVENT, max_size=3))},
    optional={"fps": loosely(st.just(2)), "duration": loosely(st.just(9)), "part": loosely(st.just([0, 4]))},
)
TURN = loosely(
    st.fixed_dictionaries(
        {"from": loosely(st.sampled_from(["human", "gpt"])), "value": loosely(st.sampled_from(["<image>", "A.", ""]))}
    )
)
RELEASED = st.fixed_dictionaries(
    {"image": loosely(st.lists(st.just("a.jpg"), max_size=3)), "conversations": loosely(st.lists(TURN, max_size=5))},
    optional={"height_list": JSON, "width_list": JSON, "id": JSON},
)
META = st.dictionaries(
    st.text(max_size=3),
    loosely(
        st.fixed_dictionaries(
            {"annotation": loosely(st.just("a.jsonl"))}, optional={"root": JSON, "repeat_time": JSON, "length": JSON}
        )
    ),
    max_size=2,
)
JSON_LINES = st.lists(VIDEO | EVENT | RELEASED | META | JSON, min_size=1, max_size=4).map(
    lambda lines: "\n".join(json.dumps(line) for line in lines).encode()
)
TEXT_LINES = st.lists(
    st.sampled_from(["a.mp4", "b/c", "Timestamp: 00:00:01 Caption: A.", "Timestamp: 00:00:00 Caption:", "Timestamp:"])
    | st.text(max_size=12),
    max_size=8,
).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    content=st.one_of(
        JSON_LINES,
        TEXT_LINES,
        st.binary(max_size=64),
        JSON_LINES.flatmap(lambda data: st.integers(0, len(data)).map(lambda cut: data[:cut])),
    )
)
def test_whatever_the_bytes_the_answer_is_videos_or_a_named_error(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    problems = Problems(str(path), max_kept=5)
    try:
        found = read_with_problems(path, problems)
    except LiveStarError as error:
        assert str(path) in str(error)
        found = ()
        problems.add(0, "", str(error))
    try:
        videos = read_annotations(path)
    except LiveStarError as error:
        assert problems.num_found, f"not collected: {error}"
        assert str(tmp_path) in str(error)
        return
    assert not problems.num_found and videos == found
    for video in videos:
        assert video.events and all(event.begin_s <= event.end_s and event.captions for event in video.events)
        assert all(a.end_s <= b.begin_s for a, b in zip(video.events, video.events[1:], strict=False))
