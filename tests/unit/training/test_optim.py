"""What is trained, what decays, and how fast."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from livestar.errors import InvalidConfig
from tests.unit.training.tiny import tiny_model
from training.config import OptimConfig
from training.optim import choose_trained, make_optimizer, make_schedule

pytestmark = pytest.mark.unit


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("modules", "prefixes"),
    [
        (["mlp1"], ["mlp1."]),
        (["mlp1", "language_model"], ["mlp1.", "language_model."]),
        (["vision_model"], ["vision_model."]),
        (["language_model.model.layers.1"], ["language_model.model.layers.1."]),  # and not layers.10
        (["language_model.output.weight"], ["language_model.output.weight"]),
        (["mlp1", "mlp1.3", "mlp1"], ["mlp1."]),
    ],
)
def test_modules_are_named_by_the_beginning_of_their_parameters_names(modules: list[str], prefixes: list[str]) -> None:
    model = tiny_model(num_layers=11, head_dim=4)
    num_trained = choose_trained(model, modules)
    expected = {name: p for name, p in model.named_parameters() if name.startswith(tuple(prefixes))}
    assert trained(model) == expected.keys()
    assert num_trained == sum(p.numel() for p in expected.values()) > 0


def test_what_was_frozen_is_trained_and_what_was_trained_is_frozen() -> None:
    model = tiny_model().requires_grad_(False)
    choose_trained(model, ["mlp1"])
    assert {name.partition(".")[0] for name in trained(model)} == {"mlp1"}
    choose_trained(model, ["language_model"])
    assert {name.partition(".")[0] for name in trained(model)} == {"language_model"}


@pytest.mark.parametrize("missing", ["mlp", "mlp1.", "language_model.model.layers.9", "projector", ""])
def test_a_module_that_is_not_there_is_refused_with_those_that_are(missing: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        choose_trained(tiny_model(), ["mlp1", missing])
    assert str(refused.value) == (
        f"model.train names {missing!r}, which the model does not have; its modules are vision_model, mlp1, language_model"
    )


def test_matrices_decay_and_norms_and_biases_do_not() -> None:
    model = tiny_model()
    choose_trained(model, ["mlp1", "language_model"])
    optimizer = make_optimizer(model, OptimConfig(weight_decay=0.3, learning_rate=0.01, betas=(0.8, 0.9)))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay.keys() == trained(model)
    plain = {"mlp1.0.weight", "mlp1.0.bias", "mlp1.1.bias", "mlp1.3.bias", "language_model.model.norm.weight"}
    plain |= {f"language_model.model.layers.{n}.{norm}.weight" for n in range(2) for norm in ("attention_norm", "ffn_norm")}
    assert {name for name, value in decay.items() if value == 0.0} == plain
    assert {value for name, value in decay.items() if name not in plain} == {0.3}
    assert all((group["lr"], group["betas"]) == (0.01, (0.8, 0.9)) for group in optimizer.param_groups)


def test_a_kind_of_parameter_that_is_not_trained_has_no_group() -> None:
    model = tiny_model()
    choose_trained(model, ["language_model.output"])
    assert [len(group["params"]) for group in make_optimizer(model, OptimConfig()).param_groups] == [1]


def rates(warmup: float, num_steps: int, *, peak: float = 1.0, extra: int = 0) -> list[float]:
    """The rate that each step is taken at, and those behind the end."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = make_schedule(optimizer, OptimConfig(warmup=warmup, learning_rate=peak), num_steps)
    found = []
    for _ in range(num_steps + extra):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    assert rates(0.4, 10, peak=2.0) == pytest.approx(
        [0.4, 0.8, 1.2, 1.6, *(1 + math.cos(math.pi * n / 6) for n in range(6)), 0.0], abs=1e-12
    )


@pytest.mark.parametrize(
    ("warmup", "num_steps", "expected"),
    [
        (0.0, 1, [1.0, 0.0]),
        (0.9, 1, [1.0, 0.0]),
        (0.9, 3, [1 / 3, 2 / 3, 1.0, 0.0]),
        (0.03, 2, [1.0, 0.5, 0.0]),
        (0.5, 2, [1 / 2, 1.0, 0.0]),
        (0.0, 4, [1.0, 0.5 + 0.5 * math.cos(math.pi / 4), 0.5, 0.5 + 0.5 * math.cos(3 * math.pi / 4), 0.0]),
    ],
)
def test_few_steps_by_hand(warmup: float, num_steps: int, expected: list[float]) -> None:
    assert rates(warmup, num_steps) == pytest.approx(expected, abs=1e-12)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 60))
def test_every_step_learns_and_none_behind_the_end_does(warmup: float, num_steps: int) -> None:
    found = rates(warmup, num_steps, extra=3)
    assert all(0 < rate <= 1 for rate in found[:num_steps])
    assert found[num_steps:] == pytest.approx([0.0] * 4, abs=1e-12)
    peak = found.index(max(found))
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)


def test_a_schedule_made_anew_starts_from_the_peak_and_not_from_the_rate_of_the_moment() -> None:
    """As when a run is timed and its schedule then ends earlier, or when it is resumed."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3.0)
    config = OptimConfig(warmup=0.0, learning_rate=3.0)
    first = make_schedule(optimizer, config, 4)
    for _ in range(3):
        optimizer.step()
        first.step()
    second = make_schedule(optimizer, config, 8)
    for _ in range(4):
        optimizer.step()
        second.step()
    assert second.get_last_lr() == [pytest.approx(1.5)]
