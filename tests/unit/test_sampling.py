"""From logits to tokens, against transformers' processors and plain probabilities."""

from __future__ import annotations

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from livestar.config import SamplingConfig
from livestar.engine.sampling import CaptionSampler, sample

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


def sampler_after(generated: list[int], **config: float) -> CaptionSampler:
    """A sampler in the middle of a caption."""
    sampler = CaptionSampler(SamplingConfig(max_new_tokens=64, **config), CPU)  # type: ignore[arg-type]
    sampler.generated[: len(generated)] = torch.tensor(generated, dtype=torch.int64)
    sampler.num_generated = len(generated)
    return sampler


@pytest.mark.parametrize("penalty", [1.05, 1.5, 0.8, 1.0])
@pytest.mark.parametrize("generated", [[], [3], [3, 3, 3], [0, 5, 19, 5, 7]])
def test_the_repetition_penalty_equals_transformers(penalty: float, generated: list[int]) -> None:
    logits = torch.randn(20, generator=torch.Generator().manual_seed(1)) * 4
    ids = torch.tensor([generated], dtype=torch.int64)
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    wanted = processor(ids, logits.clone().unsqueeze(0))[0] if generated else logits
    got = logits.clone()
    sampler_after(generated, repetition_penalty=penalty).penalise(got)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_greedy_takes_the_likeliest_token_and_remembers_it() -> None:
    sampler = sampler_after([], repetition_penalty=1.05)
    for expected in (1, 1, 2):
        logits = torch.tensor([[-1.0, 2.05, 2.0, 0.0]])
        if expected == 2:
            logits[0, 1] = 2.09  # 2.09 / 1.05 < 2
        else:
            logits[0, 1] = 2.2
        assert sample(logits, [sampler]) == [expected]
    assert sampler.generated[:3].tolist() == [1, 1, 2]
    sampler.start()
    assert sample(torch.tensor([[-1.0, 2.01, 2.0, 0.0]]), [sampler]) == [1]


def test_each_row_is_sampled_by_its_own_sampler() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.9], [0.0, 1.0, 0.9]])
    assert sample(logits, [sampler_after([1], repetition_penalty=1.5), sampler_after([2], repetition_penalty=1.5)]) == [2, 1]


def draw(count: int, logits: torch.Tensor, **config: float) -> torch.Tensor:
    """Shares of `count` tokens drawn from the same logits."""
    sampler = sampler_after([], **config)
    chosen = torch.stack([sampler.choose(logits.clone()) for _ in range(count)])
    return torch.bincount(chosen, minlength=len(logits)) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampling_follows_the_tempered_probabilities(temperature: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -3.0])
    shares = draw(8000, logits, temperature=temperature, seed=3)
    torch.testing.assert_close(shares, (logits / temperature).softmax(0), rtol=0, atol=0.02)


@pytest.mark.parametrize("top_p", [0.3, 0.7, 0.9, 0.97])
def test_top_p_keeps_what_transformers_keeps(top_p: float) -> None:
    logits = torch.tensor([0.0, 2.0, 1.0, -1.0, -3.0])
    kept = TopPLogitsWarper(top_p)(torch.LongTensor([[0]]), torch.FloatTensor(logits.unsqueeze(0)))[0]
    shares = draw(4000, logits, temperature=1.0, top_p=top_p, seed=4)
    assert (shares > 0).tolist() == kept.isfinite().tolist()
    torch.testing.assert_close(shares, kept.softmax(0), rtol=0, atol=0.03)


def test_a_tiny_top_p_is_greedy() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(5))
    shares = draw(50, logits, temperature=5.0, top_p=1e-6)
    assert shares[logits.argmax()] == 1


def test_the_seed_decides() -> None:
    logits = torch.zeros(1, 1000)

    def tokens(seed: int) -> list[int]:
        sampler = sampler_after([], temperature=1.0, seed=seed)
        return [sample(logits.clone(), [sampler])[0] for _ in range(10)]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


def test_a_stream_samples_the_same_alone_and_with_others() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    alone = [
        sample(row.clone().unsqueeze(0), [sampler_after([], temperature=1.0, top_p=0.8, seed=seed)])[0]
        for seed, row in enumerate(logits)
    ]
    assert sample(logits, [sampler_after([], temperature=1.0, top_p=0.8, seed=seed) for seed in range(4)]) == alone
