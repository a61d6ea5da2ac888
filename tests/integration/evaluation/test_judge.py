"""The judge, over a real HTTP server that speaks the protocol."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from livestar.errors import InvalidConfig, LiveStarError
from livestar.evaluation.judge import SEM_COR, SUM_FLUEN, Judge, JudgeConfig, load_prompts, parse_answer
from tests.integration.evaluation.judging import serve_chat
from tests.unit.evaluation.making import event, run

pytestmark = pytest.mark.integration

RUNS = [
    run(
        [event(0, 3, "A room."), event(3, 6, "A dog {truth}."), event(6, 9, "A cat.")],
        [(0.0, "a room"), (4.0, "a dog"), (5.0, "x")],
    ),
    run([event(0, 9, "A street.")], []),
]


def grades(text: str) -> str:
    """8 for a dog, else 6; narrations get 5."""
    if "Writing Logicality" in text:
        return "\n".join(f"{name}: 5" for name in SUM_FLUEN)
    grade = 8 if "<candidate>\na dog\n</candidate>" in text else 6
    return "\n".join(f"**{name}**: {grade}/10" for name in SEM_COR)


def make(url: str, *, api_key: str | None = None, **more: int) -> Judge:
    return Judge(JudgeConfig(base_url=url, model="judge-1", **more), load_prompts(), api_key=api_key)


def test_first_responses_are_graded_and_silence_is_not_asked_about() -> None:
    with serve_chat(grades) as chat:
        scores = make(chat.url).score(RUNS)
    assert scores["sem_cor"] == pytest.approx(((6 + 8 + 0) / 3 + 0) / 2)
    assert scores["sum_fluen"] == scores["sum_fluen_all"] == 2.5  # the second video was silent
    assert scores["judge"] == {"model": "judge-1", "num_calls": 4, "num_malformed": 0, "num_failed": 0}
    assert {body["model"] for body in chat.bodies} == {"judge-1"}
    narrations = [text for text in chat.asked if "Writing Logicality" in text]
    assert sorted("a room a dog x" in text for text in narrations) == [False, True]
    assert all("A room. A dog {truth}. A cat." in text for text in narrations)  # marks in the truth stay as they are


def test_answers_that_cannot_be_read_are_asked_for_again_then_counted_and_left_out() -> None:
    seen: dict[str, int] = {}

    def sometimes(text: str) -> str:
        seen[text] = seen.get(text, 0) + 1
        if "\na dog\n" in text and "Semantic Accuracy" in text:
            return "I would rather not."
        return "Hm." if seen[text] == 1 else grades(text)

    with serve_chat(sometimes) as chat:
        scores = make(chat.url).score(RUNS[:1])
    assert scores["sem_cor"] == pytest.approx((6 + 0) / 2)
    assert scores["judge"] == {"model": "judge-1", "num_calls": 8, "num_malformed": 5, "num_failed": 0}


def test_a_busy_endpoint_is_tried_again() -> None:
    seen: set[str] = set()

    def busy_once(text: str) -> str | int:
        if text in seen:
            return grades(text)
        seen.add(text)
        return 503

    with serve_chat(busy_once) as chat:
        scores = make(chat.url).score(RUNS[:1])
    assert scores["judge"]["num_failed"] == 0  # type: ignore[index]
    assert len(chat.asked) == 8


def test_the_key_goes_to_the_endpoint_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serve_chat(lambda _: 401) as chat, pytest.raises(LiveStarError) as raised:
        make(chat.url, api_key="sk-secret").score(RUNS[:1])
    assert chat.keys[0] == "Bearer sk-secret"
    assert "status 401" in str(raised.value)
    assert "sk-secret" not in str(raised.value)
    assert "sk-secret" not in caplog.text


def test_an_endpoint_that_fails_again_and_again_is_given_up() -> None:
    many = [run([event(i, i + 1, f"e{i}") for i in range(12)], [(float(i), f"t{i}") for i in range(12)])]
    with serve_chat(lambda _: 500) as chat, pytest.raises(LiveStarError, match="fails with status 500"):
        make(chat.url, max_retries=0, num_parallel=1).score(many)
    assert len(chat.asked) == 5


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with serve_chat(grades) as chat:
        gone = chat.url
    many = [run([event(i, i + 1, f"e{i}") for i in range(8)], [(float(i), f"t{i}") for i in range(8)])]
    with pytest.raises(LiveStarError, match=r"does not answer \(APIConnectionError\)"):
        make(gone, max_retries=0).score(many)


def test_prompts_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "sem_cor.txt").write_text("Compare {prediction} with {truth}.")
    own = load_prompts(tmp_path)
    assert own.sem_cor == "Compare {prediction} with {truth}."
    assert own.sum_fluen == load_prompts().sum_fluen
    (tmp_path / "sem_cor.txt").write_text("Compare {prediction}.")
    with pytest.raises(InvalidConfig, match=r"has no \{truth\}"):
        load_prompts(tmp_path)
    with pytest.raises(InvalidConfig, match="cannot be read"):
        load_prompts(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "mean"),
    [
        ("Semantic Accuracy: 6\nLanguage Quality: 9\nInformation Completeness: 3", 6),
        ("- semantic accuracy : 6.5\n* **Language Quality**: **9**\nInformation Completeness: 2.5/10.", 6),
        ("Semantic Accuracy: 6\nLanguage Quality: 9", None),
        ("Semantic Accuracy: 11\nLanguage Quality: 9\nInformation Completeness: 3", None),
        ("Semantic Accuracy: 6\nSemantic Accuracy: 7\nLanguage Quality: 9\nInformation Completeness: 3", None),
        ("Semantic Accuracy: six\nLanguage Quality: 9\nInformation Completeness: 3", None),
        ("", None),
    ],
)
def test_answers_are_read_strictly(text: str, mean: float | None) -> None:
    assert parse_answer(text, SEM_COR) == mean


def test_an_address_that_is_none_is_refused_without_showing_its_password() -> None:
    with pytest.raises(InvalidConfig, match="give an address such as") as raised:
        JudgeConfig(base_url="ftp://me:secret@host/v1", model="m")
    assert "secret" not in str(raised.value)
