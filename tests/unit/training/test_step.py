"""The step's losses: each caption apart, sequences packed, logits in parts; and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from livestar.model.livestar import LiveStarModel
from livestar.reference import PlainCache
from tests.unit.toy_prompt import toy_prompt
from tests.unit.training.released import (
    RELEASED_PROMPT,
    left_out,
    released_dialogue,
    released_extent,
    released_mask,
    released_positions,
)
from tests.unit.training.tiny import NUM_VISUAL_TOKENS, VOCABULARY, clips_of, tiny_features, tiny_model
from training import step
from training.attention import BlockAttention
from training.batch import Batch
from training.optim import choose_trained
from training.sequence import Clip, LayoutName, SequenceBuilder, Visibility
from training.step import Losses, SequenceModel

pytestmark = pytest.mark.unit

PROMPT = toy_prompt(NUM_VISUAL_TOKENS)
STREAMS = [
    clips_of([(0, 3), (0, 2), (0, 1)]),
    clips_of([(1, 2), (2, 1)]),  # gaps before and between
    clips_of([(0, 1)]),
    clips_of([(0, 2), (1, 2), (0, 2)]),
]
VISIBILITIES: tuple[Visibility, ...] = ("leaf", "terminal", "causal")
TOLERANCE = 2e-5


class Copy(NamedTuple):
    """A caption that is scored behind a frame, and all that stands before it."""

    rows: list[int]
    """The last len(targets) of them predict the targets."""
    targets: list[int]
    weight: float


def prefixes(num_frames: int, clips: Sequence[Clip], *, keeps_terminal: bool, layout: LayoutName) -> list[Copy]:
    """Every copy as a dialogue of its own, written from the definitions: the frames so far, and its caption as the answer."""
    owner = {place: clip for clip in clips for place in range(clip.first, clip.first + clip.num_frames)}
    end, user, assistant = PROMPT.turn_end, PROMPT.user_header, PROMPT.assistant_header
    encode = PROMPT.tokenizer.encode
    copies = []
    for place, clip in owner.items():
        rows = list(PROMPT.opening())
        spoken: Clip | None = None
        for frame in range(place + 1):
            current = owner.get(frame)
            if keeps_terminal and spoken is not None and current is not None and current is not spoken:
                answer = [*assistant, *encode(spoken.caption), *end]
                rows += answer if layout == "training" else [*end, *answer, *user]
            spoken = current or spoken
            rows += [*user] if layout == "training" and frame else []
            rows += [*PROMPT.frame_line(frame + 1, frame)]
            rows += [*end] if layout == "training" else []
        rows += [*end, *assistant] if layout == "inference" else [*assistant]
        ids = encode(clip.caption)
        copies.append(Copy(rows + ids, [*ids, end[0]], 1 / clip.num_frames))
    return copies


def plain_loss(model: LiveStarModel, copy: Copy, features: Tensor) -> Tensor:
    """Weighted negative log likelihood of a copy, by a plain causal pass over its dialogue: []."""
    language = model.language_model
    rows = torch.tensor(copy.rows)
    visual = model.project(features).flatten(0, 1)
    table = torch.cat([language.embed(rows.clamp(min=0)), visual])
    index = torch.where(rows < 0, len(rows) - 1 - rows, torch.arange(len(rows)))
    hidden = language(table[index], torch.arange(len(rows)), PlainCache())
    logits = language.logits(hidden[-len(copy.targets) :])
    return copy.weight * F.cross_entropy(logits, torch.tensor(copy.targets), reduction="sum")


def packed(visibility: Visibility, layout: LayoutName, streams: Sequence[int] = range(len(STREAMS))) -> Batch:
    builder = SequenceBuilder(PROMPT, visibility=visibility, layout=layout)
    sequences = [builder.build(range(1, STREAMS[i][0] + 1), STREAMS[i][1]) for i in streams]
    return Batch.pack(sequences, [tiny_features(STREAMS[i][0], seed=i) for i in streams])


def gradients(model: LiveStarModel, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Of everything that is trained."""
    model.zero_grad()
    loss().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()), msg=name)


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 2), (3, 3), (4, 1)])
@pytest.mark.parametrize("layout", ["inference", "training"])
@pytest.mark.parametrize("visibility", ["leaf", "terminal"])
def test_the_loss_is_the_sum_over_captions_computed_apart(
    visibility: Visibility, layout: LayoutName, num_heads: int, num_kv_heads: int
) -> None:
    model = tiny_model(num_heads, num_kv_heads)
    apart = [
        (copy, tiny_features(num_frames, seed=i))
        for i, (num_frames, clips) in enumerate(STREAMS)
        for copy in prefixes(num_frames, clips, keeps_terminal=visibility == "terminal", layout=layout)
    ]
    losses = SequenceModel(model)(packed(visibility, layout))
    each = torch.stack([plain_loss(model, copy, features) for copy, features in apart])
    torch.testing.assert_close(losses.loss, each.sum(), rtol=TOLERANCE, atol=TOLERANCE)
    assert float(losses.weight) == pytest.approx(sum(copy.weight * len(copy.targets) for copy, _ in apart))

    def sum_apart() -> Tensor:
        return torch.stack([plain_loss(model, copy, features) for copy, features in apart]).sum()

    got = gradients(model, lambda: SequenceModel(model)(packed(visibility, layout)).loss)
    assert_same_gradients(got, gradients(model, sum_apart))
    assert {name.split(".")[0] for name in got} == {"mlp1", "language_model"}


@pytest.mark.parametrize("layout", ["inference", "training"])
def test_each_copy_has_the_likelihood_of_its_own_dialogue(layout: LayoutName) -> None:
    """One by one, so that no two errors cancel; and the visibilities differ where they should."""
    model = tiny_model(seed=1).requires_grad_(False)
    num_frames, clips = STREAMS[0]
    features = tiny_features(num_frames, seed=0)
    scores: dict[Visibility, list[float]] = {}
    for visibility in VISIBILITIES:
        nll, _ = SequenceModel(model).score(packed(visibility, layout, [0]))
        lengths = [len(clip.caption) + 1 for clip in clips for _ in range(clip.num_frames)]
        scores[visibility] = [float(part.sum()) for part in nll.split(lengths)]
    for visibility in ("leaf", "terminal"):
        copies = prefixes(num_frames, clips, keeps_terminal=visibility == "terminal", layout=layout)
        expected = [float(plain_loss(model, copy._replace(weight=1.0), features)) for copy in copies]
        assert scores[visibility] == pytest.approx(expected, rel=1e-5)
    leaf, terminal, causal = (torch.tensor(scores[visibility]) for visibility in VISIBILITIES)
    torch.testing.assert_close(leaf[:3], terminal[:3], rtol=1e-5, atol=1e-5)  # the first clip has no terminal caption before it
    assert (leaf[3:] - terminal[3:]).abs().min() > 1e-2
    assert float(leaf[0]) == pytest.approx(float(causal[0]), rel=1e-5)
    assert (leaf[1:] - causal[1:]).abs().min() > 1e-2


@pytest.mark.parametrize("layout", ["inference", "training"])
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_packed_sequences_score_as_one_by_one(visibility: Visibility, layout: LayoutName) -> None:
    model = tiny_model(seed=2)
    batch = packed(visibility, layout)
    alone = [packed(visibility, layout, [i]) for i in range(len(STREAMS))]
    score = SequenceModel(model).score
    for together, apart in zip(score(batch), zip(*(score(one) for one in alone), strict=True), strict=True):
        torch.testing.assert_close(together, torch.cat(apart), rtol=TOLERANCE, atol=TOLERANCE)
    losses = SequenceModel(model)(batch)
    sums = [sum(values) for values in zip(*(SequenceModel(model)(one) for one in alone), strict=True)]
    torch.testing.assert_close(list(losses), sums, rtol=TOLERANCE, atol=TOLERANCE)

    def one_by_one() -> Tensor:
        return torch.stack([SequenceModel(model)(one).loss for one in alone]).sum()

    assert_same_gradients(gradients(model, lambda: SequenceModel(model)(batch).loss), gradients(model, one_by_one))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_the_whole_model_scores_alike_with_either_attention(visibility: Visibility) -> None:
    model = tiny_model(6, 2, num_layers=3).requires_grad_(False)
    batch = packed(visibility, "inference")
    dense, block = SequenceModel(model).score(batch), SequenceModel(model).score(batch, BlockAttention)
    torch.testing.assert_close(dense[0], block[0], rtol=1e-4, atol=1e-4)


class MaskAttention:
    """A mask written out, over the rows of one sequence."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def __call__(self, layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q_TNH, k_TKH, v_TKH))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, enable_gqa=True)[0].transpose(0, 1)


def test_leaf_in_the_training_layout_has_the_released_codes_loss() -> None:
    """Token by token, with all the rows that the released code has, its mask and its positions."""
    model = tiny_model(seed=3).requires_grad_(False)
    num_frames, clips = clips_of([(0, 3), (0, 1), (0, 2)])
    ids, labelled = released_dialogue(num_frames, clips)
    hidden = released_extent(labelled)
    is_open = [not is_hidden for is_hidden in hidden]
    learnt = [row for row in range(len(ids)) if labelled[row]]
    rows = torch.tensor(ids)
    whole = Batch(
        ids=rows.clamp(min=0),
        visual_rows=(rows < 0).nonzero().flatten(),
        features=tiny_features(num_frames),
        positions=torch.tensor(released_positions(is_open)),
        sequences=torch.zeros_like(rows),
        leaves=torch.zeros_like(rows),
        spans=((0, len(ids)),),
        target_rows=torch.tensor(learnt) - 1,
        targets=rows[learnt],
        weights=torch.ones(len(learnt)),
    )
    ours = SequenceBuilder(RELEASED_PROMPT, layout="training", weigh_clips=False).build(range(1, num_frames + 1), clips)
    batch = Batch.pack([ours], [tiny_features(num_frames)])
    assert len(ids) == batch.num_rows + int(left_out(ids, hidden).sum())
    released, _ = SequenceModel(model).score(whole, lambda batch: MaskAttention(released_mask(is_open)))
    torch.testing.assert_close(SequenceModel(model).score(batch)[0], released, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("num_rows", [1, 3, 7, 1000])
def test_logits_in_parts_give_the_same_loss_and_gradients(num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    batch = packed("leaf", "inference")
    assert 7 < len(batch.targets) < step.MAX_LOGIT_ROWS
    assert len(batch.targets) % 7 or len(batch.targets) % 3  # a last part that is not full
    wanted = SequenceModel(model).score(batch)
    wanted_gradients = gradients(model, lambda: SequenceModel(model)(batch).loss)
    held = []
    logits = model.language_model.logits

    def counted(hidden: Tensor) -> Tensor:
        held.append(len(hidden))
        return logits(hidden)

    monkeypatch.setattr(step, "MAX_LOGIT_ROWS", num_rows)
    monkeypatch.setattr(model.language_model, "logits", counted)
    torch.testing.assert_close(SequenceModel(model).score(batch), wanted, rtol=1e-6, atol=1e-6)
    assert max(held) <= num_rows
    assert sum(held) == len(batch.targets)
    assert_same_gradients(gradients(model, lambda: SequenceModel(model)(batch).loss), wanted_gradients)


def test_losses_are_sums_weighted_by_hand() -> None:
    model = tiny_model().requires_grad_(False)
    batch = packed("leaf", "inference", [0])
    likeliest = likeliest_tokens(model, batch)
    batch = with_targets(batch, torch.where(torch.arange(len(likeliest)) % 3 == 0, likeliest, batch.targets))
    nll, is_right = SequenceModel(model).score(batch)
    losses = SequenceModel(model)(batch)
    weights = batch.weights.tolist()
    assert 0 < sum(is_right.tolist()) < len(weights)
    assert len(set(weights)) == 3
    assert float(losses.loss) == pytest.approx(sum(w * n for w, n in zip(weights, nll.tolist(), strict=True)), rel=1e-5)
    assert float(losses.weight) == pytest.approx(sum(weights))
    assert float(losses.num_right) == pytest.approx(sum(w * r for w, r in zip(weights, is_right.tolist(), strict=True)))


def test_the_likeliest_token_is_right() -> None:
    """Targets replaced by what the model says, but for one."""
    model = tiny_model().requires_grad_(False)
    batch = packed("leaf", "inference", [0])
    _, is_right = SequenceModel(model).score(batch)
    assert float(is_right.mean()) < 0.5  # a random model knows nothing
    likeliest = likeliest_tokens(model, batch)
    likeliest[2] = (likeliest[2] + 1) % VOCABULARY
    _, is_right = SequenceModel(model).score(with_targets(batch, likeliest))
    assert is_right.tolist() == [1.0, 1.0, 0.0] + [1.0] * (len(likeliest) - 3)


def likeliest_tokens(model: LiveStarModel, batch: Batch) -> Tensor:
    """What the model expects at every target: each token of the vocabulary is tried."""
    return torch.stack([-SequenceModel(model).score(with_targets(batch, token))[0] for token in range(VOCABULARY)]).argmax(0)


def with_targets(batch: Batch, targets: Tensor | int) -> Batch:
    tensors = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
    return Batch(**tensors | {"targets": torch.zeros_like(batch.targets) + targets})


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (["mlp1"], {"mlp1.0.weight", "mlp1.0.bias", "mlp1.1.weight", "mlp1.1.bias", "mlp1.3.weight", "mlp1.3.bias"}),
        (["language_model.output"], {"language_model.output.weight"}),
        (
            ["language_model.model.layers.0.attention"],
            {f"language_model.model.layers.0.attention.{n}.weight" for n in ("wqkv", "wo")},
        ),
    ],
)
def test_only_what_is_trained_gets_gradients(modules: list[str], expected: set[str]) -> None:
    model = tiny_model()
    everything = gradients(model, lambda: SequenceModel(model)(packed("terminal", "inference")).loss)
    choose_trained(model, modules)
    model.zero_grad()
    found = gradients(model, lambda: SequenceModel(model)(packed("terminal", "inference")).loss)
    assert found.keys() == expected
    assert_same_gradients(found, {name: everything[name] for name in expected})


def test_a_batch_from_which_nothing_is_learnt_has_no_loss() -> None:
    model = tiny_model()
    batch = Batch.pack([SequenceBuilder(PROMPT).build([1, 2], [])], [tiny_features(2)])
    losses = SequenceModel(model)(batch)
    assert [value.item() for value in losses] == [0.0, 0.0, 0.0]
    losses.loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_bfloat16_changes_the_loss_a_little() -> None:
    model = tiny_model()
    batch = packed("leaf", "inference")
    exact: Losses = SequenceModel(model)(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded: Losses = SequenceModel(model)(batch)
    assert rounded.loss.dtype == torch.float32
    assert rounded.loss.item() != exact.loss.item()
    assert rounded.loss.item() == pytest.approx(exact.loss.item(), rel=0.02)
    rounded.loss.backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
