"""Semantic similarity with the real sentence model."""

from __future__ import annotations

import numpy as np
import pytest

from livestar.evaluation import similarity
from livestar.evaluation.evaluation import evaluate_runs
from livestar.evaluation.similarity import SentenceModel, event_similarities, score_similarity
from tests.unit.evaluation.making import event, run

pytestmark = pytest.mark.integration

SAID = [
    run(
        [event(0, 4, "A dog runs in."), event(4, 8, "A man opens the door."), event(8, 12, "The room is empty.")],
        [(0.0, "A dog enters the room, running."), (4.0, "Someone opens a door."), (5.0, "An empty room.")],
    )
]


def test_vectors_have_length_one_and_do_not_depend_on_their_batch(sentences: SentenceModel) -> None:
    texts = ["A dog.", "A very long description of a street with many cars and people in it, at night.", "a dog", "A dog."]
    together = sentences.embed(texts)
    alone = np.concatenate([SentenceModel().embed([text]) for text in texts])
    assert together.shape == (4, 384)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert sentences.embed([]).shape == (0, 384)


def test_what_means_the_same_is_nearer_than_what_does_not(sentences: SentenceModel) -> None:
    a, b, c = sentences.embed(["A dog runs in.", "A dog enters the room, running.", "Stock prices fell on Monday."])
    assert a @ b > 0.7 > 0.3 > a @ c


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "MAX_CACHED", 3)
    model = SentenceModel()
    first = model.embed([f"text {i}" for i in range(8)])
    assert len(model._cache) == 3
    np.testing.assert_allclose(model.embed(["text 0"]), first[:1], atol=1e-6)


def test_similarity_and_its_floors(sentences: SentenceModel) -> None:
    scores = score_similarity(SAID, sentences)
    one, two, three = event_similarities(SAID[0], sentences)
    assert scores["similarity"] == pytest.approx((one + two + three) / 3, abs=1e-5)
    assert scores["similarity"] > 0.6 > 0.4 > scores["similarity_shuffled"]  # type: ignore[operator]
    assert scores["similarity_shuffled"] < scores["similarity_constant"] < scores["similarity"]  # type: ignore[operator]


def test_pauc_is_higher_for_the_right_words_in_time(sentences: SentenceModel) -> None:
    events = list(SAID[0].events)
    right = run(events, [(event.begin_s, event.caption) for event in events])
    late = run(events, [(event.end_s - 1, event.caption) for event in events])
    scores, later = score_similarity([right], sentences), score_similarity([late], sentences)
    assert scores["pauc"] == pytest.approx(1, abs=1e-5)
    assert scores["similarity"] == later["similarity"] == pytest.approx(1, abs=1e-5)
    assert scores["pauc"] > later["pauc"] > scores["pauc_shuffled"]  # type: ignore[operator]


def test_an_event_without_a_response_is_told_by_the_caption_in_force(sentences: SentenceModel) -> None:
    """The last event has no response of its own; "An empty room.", said in the one before, still stands."""
    assert event_similarities(SAID[0], sentences)[2] > 0.7


def test_shuffled_is_the_mean_over_all_other_events(sentences: SentenceModel) -> None:
    texts = [response.text for response in SAID[0].responses[:2]] + ["An empty room."]
    truth = sentences.embed([event.caption for event in SAID[0].events])
    table = (sentences.embed(texts) @ truth.T).clip(0, 1)
    expected = (table.sum() - np.trace(table)) / 6
    assert score_similarity(SAID, sentences)["similarity_shuffled"] == pytest.approx(float(expected), abs=1e-5)


def test_the_nearest_paraphrase_counts(sentences: SentenceModel) -> None:
    pool = run([event(0, 4, "Prices fell.", "A dog runs in."), event(4, 8, "A door.")], [(0.0, "A dog runs in.")])
    assert event_similarities(pool, sentences)[0] == pytest.approx(1.0, abs=1e-5)
    assert score_similarity([pool], sentences)["similarity_constant"] is not None


def test_silence_is_similar_to_nothing(sentences: SentenceModel) -> None:
    scores = score_similarity([run([event(0, 4, "A dog."), event(4, 8, "A cat.")], [])], sentences)
    assert scores["similarity"] == scores["similarity_shuffled"] == 0
    assert scores["pauc"] == 0.125


def test_too_few_events_have_no_floor(sentences: SentenceModel) -> None:
    assert score_similarity([run([], [])], sentences)["similarity"] is None
    alone = score_similarity([run([event(0, 4, "A dog.")], [(0.0, "A dog.")])], sentences)
    assert alone["similarity"] == pytest.approx(1, abs=1e-5)
    assert alone["similarity_shuffled"] is None


def test_many_events_are_compared_in_pieces(sentences: SentenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score_similarity(SAID * 3, sentences)
    monkeypatch.setattr(similarity, "ROWS_AT_A_TIME", 2)
    pieces = score_similarity(SAID * 3, sentences)
    assert pieces == pytest.approx(whole)


def test_an_evaluation_with_texts_shows_silence_beside_them(sentences: SentenceModel) -> None:
    scores = evaluate_runs(SAID, settings={}, embedder=sentences).scores
    floors = scores["floors"]
    assert isinstance(floors, dict)
    assert floors["silent"]["similarity"] == 0
    assert floors["silent"]["pauc"] == 0.125
