"""The ablation as text and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.ablation_contests import PAIRS, POLICIES, SWEEP, TOLERANCE
from benchmarks.ablation_scores import COMPARED, F1_1S, F1_2S, NUM_SAMPLES, RATE, Difference, Metric, compare, score
from benchmarks.ablation_watching import MAX_NEW_TOKENS
from livestar.evaluation.table import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.ablation_contests import Contestant, Timing
    from benchmarks.ablation_training import Captioner

MASK_PAIRS = (("leaf", "causal"), ("terminal", "causal"), ("leaf", "terminal"))
CURVE_METRICS: tuple[Metric, ...] = (F1_1S, F1_2S)
SCORES = (
    ("response_rate", "response rate"),
    ("boundary_f1_1s", "F1 ±1 s"),
    ("boundary_f1_2s", "F1 ±2 s"),
    ("similarity", "similarity"),
    ("similarity_shuffled", "shuffled"),
    ("tim_redun", "TimRedun"),
)
LIKELIHOOD = (("token_accuracy", "token accuracy"), ("perplexity", "perplexity"))


def masks_text(
    captioners: Sequence[Captioner], contestants: Sequence[Contestant], others: Sequence[Contestant], turn_weight: float
) -> str:
    """The first comparison; `others` are gates that were worse on the validation streams."""
    rows = [
        [c.name + (" (not chosen)" if c in others else ""), c.how, *_values(c, SCORES), _floor(c), *_values(c, LIKELIHOOD)]
        for c in (*contestants, *others)
    ]
    head = ["mask", "gate", *(name for _, name in SCORES), "best floor's F1 ±1 / ±2 s", *(name for _, name in LIKELIHOOD)]
    trained = "; ".join(
        f"{c.visibility} {c.num_steps} steps in {c.seconds / 60:.1f} min, loss {c.holdout_loss:.3f} under its own mask"
        for c in captioners
    )
    return f"""## What to train with: SCAM leaf and terminal against plain causal

Trained by the same code from the same weights, on the same windows, paraphrases and copies, with the same seed and \
as many steps ({trained}). Each learns the end of turns as well, with weight {turn_weight:g}. Each is watched with its own \
gate, at the threshold that gives the truth's response rate on the validation streams. Plain causal has two gates to choose \
from, with the scored caption's copy in sight (compat) and without (scam); the better one on the validation streams counts.

{_table(head, rows)}

{_list(_mask_sentences(contestants))}"""


def timing_text(timing: Timing, captioner: str) -> str:
    """The second comparison."""
    rows = [[c.name, c.how, *_values(c, SCORES)] for c in timing.contestants]
    curve = [
        [f"{point.rate:.3f}", *(number(score(point.tallies[name], metric)) for metric in CURVE_METRICS for name in POLICIES)]
        for point in timing.curve
    ]
    shares = ", ".join(f"{share:g}" for share in SWEEP)
    names = ["response rate", *(f"{name}, {metric.name[9:].strip()}" for metric in CURVE_METRICS for name in POLICIES)]
    return f"""## When to speak: SVeD against an end-of-turn token, a fixed interval and chance

The captioner is {captioner}, the same for all. The truth's response rate is {timing.truth_rate:.3f}, first frames left out; \
{_rates(timing)}.

{_table(["policy", "how", *(name for _, name in SCORES)], rows)}

{_list(_policy_sentences(timing))}

One rate can mislead, so here is timing alone at {len(SWEEP)} rates. SVeD's threshold was aimed at {shares} times the \
truth's rate, and the others speak exactly as often as it then did.

{_table(names, curve)}

{_list(_curve_sentences(timing))}"""


def masks_dict(
    captioners: Sequence[Captioner], contestants: Sequence[Contestant], others: Sequence[Contestant]
) -> dict[str, object]:
    """All numbers of the first comparison."""
    return {
        "trained": [
            {"mask": c.visibility, "steps": c.num_steps, "seconds": c.seconds, "own_mask_loss": c.holdout_loss}
            for c in captioners
        ],
        "contestants": [_plain(c) for c in contestants],
        "not_chosen": [_plain(c) for c in others],
        "differences": _differences({c.name: c for c in contestants}, MASK_PAIRS),
        "sentences": _mask_sentences(contestants),
    }


def timing_dict(timing: Timing) -> dict[str, object]:
    """All numbers of the second comparison."""
    return {
        "truth_rate": timing.truth_rate,
        "tolerance": TOLERANCE,
        "contestants": [_plain(c) for c in timing.contestants],
        "differences": _differences({c.name: c for c in timing.contestants}, PAIRS),
        "sentences": _policy_sentences(timing),
        "curve": [
            {
                "wanted_rate": point.wanted_rate,
                "response_rate": point.rate,
                "threshold": point.threshold,
                **{name: {m.key: score(point.tallies[name], m) for m in CURVE_METRICS} for name in POLICIES},
            }
            for point in timing.curve
        ],
        "curve_differences": {
            " - ".join(pair): {m.key: timing.over_curve(*pair, m).as_dict(pair) for m in CURVE_METRICS} for pair in PAIRS
        },
        "curve_sentences": _curve_sentences(timing),
    }


def write(folder: Path, name: str, facts: Mapping[str, object], text: str, values: Mapping[str, object]) -> None:
    """Writes the report beside its numbers, and prints it: `facts` stand on top of both."""
    lines = "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in facts.items())
    report = f"# Ablation: masks, and when to speak\n\n{lines}\n\n{text}\n\n## How to read it\n\n{_notes()}\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(report, encoding="utf-8")
    json_text = json.dumps({"settings": dict(facts), **values}, indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(json_text + "\n", encoding="utf-8")
    print(report)


def _notes() -> str:
    return _list(
        [
            f"A difference's interval is the middle 95 % over {NUM_SAMPLES} bootstrap samples of the held-out streams; something "
            "wins only where that excludes zero. There is one training per mask, so the intervals do not cover other seeds.",
            "Similarity is that of all-MiniLM-L6-v2 with the nearest paraphrase; shuffled is the same captions with all other "
            "events. TimRedun is how far the number of responses in an event is from one. The best floor is the better of a "
            "metronome and chance at the contestant's own rate.",
            "Token accuracy and perplexity are of the truth's canonical captions, behind each event's last frame, with the "
            "context of the contestant's own gate.",
            "The end-of-turn score of a frame is ln(P(turn ends) / P(next frame's label)) behind its line, in the context that "
            "the captioner has there.",
            f"Captions have at most {MAX_NEW_TOKENS} tokens; contexts hold as many frames as a window of training, "
            "if not set otherwise.",
        ]
    )


def _mask_sentences(contestants: Sequence[Contestant]) -> list[str]:
    return _sentences({c.name: c for c in contestants}, MASK_PAIRS)


def _policy_sentences(timing: Timing) -> list[str]:
    return _sentences({c.name: c for c in timing.contestants}, PAIRS)


def _curve_sentences(timing: Timing) -> list[str]:
    return [
        _sentence(pair, [timing.over_curve(*pair, metric).sentence(pair) for metric in CURVE_METRICS], " over all rates")
        for pair in PAIRS
    ]


def _sentences(contestants: Mapping[str, Contestant], pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [
        _sentence(pair, [_difference(contestants, pair, metric).sentence(pair) for metric in COMPARED])
        for pair in pairs
        if contestants.keys() >= {*pair}
    ]


def _sentence(pair: tuple[str, str], clauses: Sequence[str], where: str = "") -> str:
    return f"**{pair[0]} against {pair[1]}**{where}: {'; '.join(clauses)}."


def _differences(contestants: Mapping[str, Contestant], pairs: Sequence[tuple[str, str]]) -> dict[str, object]:
    return {
        " - ".join(pair): {m.key: _difference(contestants, pair, m).as_dict(pair) for m in COMPARED}
        for pair in pairs
        if contestants.keys() >= {*pair}
    }


def _difference(contestants: Mapping[str, Contestant], pair: tuple[str, str], metric: Metric) -> Difference:
    first, second = (contestants[name].tally for name in pair)
    return compare([first], [second], metric)


def _plain(contestant: Contestant) -> dict[str, object]:
    return {"name": contestant.name, "how": contestant.how, **contestant.scores}


def _rates(timing: Timing) -> str:
    """Whether all speak as often as the truth."""
    least, most = ((1 + sign * TOLERANCE) * timing.truth_rate for sign in (-1, 1))
    off = [c.name for c in timing.contestants if not least <= score(c.tally, RATE) <= most]
    if off:
        return f"{' and '.join(off)} could not be brought within {TOLERANCE:.0%} of that, so read these comparisons with care"
    return f"all are within {TOLERANCE:.0%} of that"


def _floor(contestant: Contestant) -> str:
    floor = contestant.scores["floors"]
    assert isinstance(floor, dict)
    return " / ".join(number(value) for value in floor.values())


def _values(contestant: Contestant, keys: Sequence[tuple[str, str]]) -> list[str]:
    return [number(contestant.scores[key]) for key, _ in keys]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
