"""A training run's config: what is read, what is refused and with which words, and what `--set` makes of its text."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.errors import InvalidConfig
from training import config as module
from training.config import (
    DataConfig,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScamConfig,
    TrainConfig,
    load_config,
    named_configs,
    parse_config,
)

pytestmark = pytest.mark.unit

SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "lora": LoraConfig,
    "data": DataConfig,
    "scam": ScamConfig,
    "optim": OptimConfig,
    "run": RunConfig,
}
NAN, INF = math.nan, math.inf


def get(config: TrainConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def nested(key: str, value: object) -> dict[str, dict[str, object]]:
    section, _, name = key.partition(".")
    return {section: {name: value}}


def refusal(values: Mapping[str, object]) -> str:
    with pytest.raises(InvalidConfig) as refused:
        parse_config(values, "mine.toml")
    return str(refused.value)


# Reading


def test_an_empty_config_is_the_defaults() -> None:
    assert parse_config({}) == TrainConfig()


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        """
        [model]
        base = "models/one"
        train = "mlp1"
        [lora]
        rank = 8
        [data]
        files = ["a.jsonl", "b.txt"]
        fps = 2
        [scam]
        visibility = "terminal"
        weigh_clips = false
        [optim]
        betas = [0.5, 0]
        learning_rate = 1e-3
        """,
        encoding="utf-8",
    )
    assert load_config(str(file)) == TrainConfig(
        model=ModelConfig(base="models/one", train=("mlp1",)),
        lora=LoraConfig(rank=8),
        data=DataConfig(files=("a.jsonl", "b.txt"), fps=2.0),
        scam=ScamConfig(visibility="terminal", weigh_clips=False),
        optim=OptimConfig(betas=(0.5, 0.0), learning_rate=1e-3),
    )


def test_whole_numbers_become_floats_where_floats_are_meant() -> None:
    made = parse_config({"optim": {"epochs": 3, "betas": [0, 0.5]}, "data": {"fps": 2}})
    assert [type(value) for value in (made.optim.epochs, *made.optim.betas, made.data.fps)] == [float] * 4


def test_one_text_stands_for_a_list_of_one() -> None:
    assert parse_config({"data": {"files": "room.jsonl"}}).data.files == ("room.jsonl",)


def test_the_name_of_a_config_that_comes_along_needs_no_path() -> None:
    names = named_configs()
    assert {"finetune", "paper", "released-full", "released-lora", "released-checkpoint"} <= names.keys()
    assert all(about and not about.startswith("#") and "\n" not in about for about in names.values())
    for name in names:
        assert load_config(name) != TrainConfig()


def test_the_named_configs_say_what_was_published() -> None:
    """Section E.4 of the design: batches, rates, what is trained."""
    published = {name: load_config(name) for name in ("paper", "released-full", "released-lora", "released-checkpoint")}
    for made in published.values():
        optim = made.optim
        assert (optim.learning_rate, optim.warmup, optim.weight_decay, optim.betas) == (4e-5, 0.03, 0.05, (0.9, 0.999))
        assert (optim.max_batch_tokens, optim.max_batch_sequences, optim.epochs) == (8192, 1, 1)
        assert (made.scam.layout, made.scam.weigh_clips, made.model.precision) == ("training", False, "bfloat16")
    workers = {name: (made.run.workers, made.optim.accumulate) for name, made in published.items()}
    assert workers == {"paper": (8, 4), "released-full": (8, 4), "released-lora": (2, 4), "released-checkpoint": (6, 4)}
    batch = {name: made.run.workers * made.optim.accumulate * made.optim.max_batch_sequences for name, made in published.items()}
    assert batch == {"paper": 32, "released-full": 32, "released-lora": 8, "released-checkpoint": 24}
    visible = {name: made.scam.visibility for name, made in published.items()}
    assert visible == {"paper": "terminal", "released-full": "leaf", "released-lora": "leaf", "released-checkpoint": "leaf"}
    lora = published["released-lora"].lora
    assert (lora.rank, lora.alpha, lora.dropout, lora.also_train) == (16, 32.0, 0.05, ())
    assert set(lora.targets) == {"wqkv", "wo", "w1", "w2", "w3"}
    assert all(made.lora.rank == 0 for name, made in published.items() if name != "released-lora")
    assert published["released-checkpoint"].optim.max_steps == 504


# Refusing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimm": {}}, "mine.toml: there is no key optimm; did you mean optim?"),
        ({"optim": {"learning_rte": 1}}, "mine.toml: there is no key optim.learning_rte; did you mean optim.learning_rate?"),
        ({"scam": {"visible": "leaf"}}, "mine.toml: there is no key scam.visible; did you mean scam.visibility?"),
        (
            {"scam": {"zzz": 1}},
            "mine.toml: there is no key scam.zzz; there are scam.visibility, scam.layout, scam.weigh_clips, scam.turn_weight",
        ),
        ({"zzz": 1}, "mine.toml: there is no key zzz; there are model, lora, data, scam, optim, run"),
        ({"optim": 3}, "mine.toml: optim is 3; expected a table"),
        ({"optim": []}, "mine.toml: optim is []; expected a table"),
    ],
)
def test_a_key_that_does_not_exist_is_refused_with_the_nearest(values: dict[str, object], message: str) -> None:
    assert refusal(values) == message


def test_an_unknown_key_is_refused_even_where_it_would_change_nothing() -> None:
    assert "there is no key data.fpss; did you mean data.fps?" in refusal({"data": {"fpss": None}})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model.base", 3, "expected a text in quotes"),
        ("model.base", ["a"], "expected a text in quotes"),
        ("model.base", None, "expected a text in quotes"),
        ("model.train", [1], "expected a text in quotes"),
        ("data.files", {"a": 1}, "expected a text in quotes"),
        ("lora.rank", 1.0, "expected a whole number"),
        ("lora.rank", "8", "expected a whole number"),
        ("lora.rank", True, "expected a whole number"),
        ("lora.rank", "none", "expected a whole number"),
        ("lora.merge", 1, "expected true or false"),
        ("lora.merge", "yes", "expected true or false"),
        ("optim.learning_rate", "1e-4", "expected a number"),
        ("optim.learning_rate", False, "expected a number"),
        ("optim.learning_rate", [1e-4], "expected a number"),
        ("data.fps", "fast", 'expected a number or "none"'),
        ("data.fps", True, 'expected a number or "none"'),
        ("scam.visibility", "all", "choose one of leaf, terminal, causal"),
        ("scam.visibility", ["leaf"], "choose one of leaf, terminal, causal"),
        ("scam.layout", 1, "choose one of inference, training"),
        ("run.sharding", None, "choose one of none, fsdp"),
        ("optim.betas", [0.9], "expected a list of 2"),
        ("optim.betas", [0.9, 0.9, 0.9], "expected a list of 2"),
        ("optim.betas", 0.9, "expected a list of 2"),
        ("optim.betas", [], "expected a list of 2"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(key: str, value: object, expected: str) -> None:
    message = refusal(nested(key, value))
    assert message.startswith(f"mine.toml: {key} is ")
    assert message.endswith(f"; {expected}")


def test_an_entry_of_a_list_of_the_wrong_type_is_named() -> None:
    assert refusal({"optim": {"betas": [0.9, "x"]}}) == "mine.toml: optim.betas is 'x'; expected a number"
    assert refusal({"model": {"train": ["mlp1", 2]}}) == "mine.toml: model.train is 2; expected a text in quotes"


FLOATS = [
    f"{section}.{field.name}"
    for section, kind in SECTIONS.items()
    for field in dataclasses.fields(kind)
    if field.type in ("float", "float | None")
]


@pytest.mark.parametrize("value", [NAN, INF, -INF, 10**400], ids=["nan", "inf", "-inf", "10^400"])
@pytest.mark.parametrize("key", FLOATS)
def test_numbers_are_finite(key: str, value: float) -> None:
    assert refusal(nested(key, value)).endswith("; expected a finite number")


BAD: list[tuple[str, Any, str]] = [
    ("model.train", (), 'name at least one module, such as "mlp1"'),
    *[("lora.rank", value, "give 0 for none, or a rank such as 16, up to 4096") for value in (-1, 4097)],
    ("lora.alpha", 0.0, "give a number above 0"),
    *[("lora.dropout", value, "give a share from 0, below 1") for value in (-0.1, 1.0)],
    ("data.repeats", (2,), "give a number from 1 to 1000 for each of data.files, or none"),
    *[("data.holdout", value, "give a share from 0, below 1") for value in (-0.1, 1.0)],
    *[("data.fps", value, "give 0.001 to 240") for value in (0.0, -1.0, 241.0)],
    ("data.max_frames", 1, "give at least 2"),
    ("data.max_first_frame", 0, "give at least 1"),
    ("data.max_copies", -1, "give 0 or more"),
    *[("data.windows_per_video", value, "give 0 to 10000") for value in (-0.5, 10_001.0)],
    ("scam.turn_weight", -0.5, "give 0 or more"),
    *[("optim.epochs", value, "give a number above 0") for value in (0.0, -1.0)],
    ("optim.max_steps", -1, "give 0 or more"),
    ("optim.max_minutes", -1.0, "give 0 or more"),
    ("optim.max_batch_tokens", 63, "give at least 64"),
    ("optim.max_batch_sequences", -1, "give 0 or more"),
    ("optim.accumulate", 0, "give at least 1"),
    *[("optim.learning_rate", value, "give a number above 0") for value in (0.0, -1e-4)],
    *[("optim.warmup", value, "give a share from 0, below 1") for value in (-0.1, 1.0)],
    ("optim.weight_decay", -0.1, "give 0 or more"),
    *[("optim.betas", value, "give two numbers from 0, below 1") for value in ((0.9, 1.0), (-0.1, 0.9))],
    ("optim.max_grad_norm", -1.0, "give 0 or more"),
    *[("optim.seed", value, "give a number from 0, below 2^63") for value in (-1, 2**63)],
    ("run.output", "", "name a folder"),
    ("run.evaluate_every", -1, "give 0 or more"),
    ("run.checkpoint_every", 0, "give at least 1"),
    ("run.keep_checkpoints", 0, "give at least 1"),
    ("run.patience", -1, "give 0 or more"),
    ("run.calibrate_videos", 0, "give at least 1"),
    *[("run.workers", value, "give 1 to 4096") for value in (0, 4097)],
]


@pytest.mark.parametrize(("key", "value", "remedy"), BAD, ids=[f"{key}={value}" for key, value, _ in BAD])
def test_a_value_out_of_range_is_refused_with_the_remedy(key: str, value: Any, remedy: str) -> None:
    plain = list(value) if isinstance(value, tuple) else value
    assert refusal(nested(key, plain)) == f"mine.toml: {key} is {value!r}; {remedy}"
    section, _, name = key.partition(".")
    with pytest.raises(InvalidConfig, match=f"^{key} is "):
        SECTIONS[section](**{name: value})


def test_every_number_has_a_case_above() -> None:
    """A new one must say what it cannot be."""
    numbers = {
        f"{section}.{field.name}"
        for section, kind in SECTIONS.items()
        for field in dataclasses.fields(kind)
        if "int" in str(field.type) or "float" in str(field.type)
    }
    assert numbers == {key for key, value, _ in BAD if not isinstance(value, str) and key != "model.train"}


@pytest.mark.parametrize(
    "values",
    [
        {"lora": {"rank": 0, "dropout": 0, "alpha": 1e-9}, "data": {"holdout": 0, "fps": 0.001, "max_frames": 2}},
        {"data": {"fps": 240, "max_first_frame": 1, "max_copies": 0, "windows_per_video": 0}},
        {"lora": {"rank": 4096}, "data": {"windows_per_video": 10_000, "files": ["a"], "repeats": [1000]}},
        {"optim": {"max_steps": 0, "max_batch_tokens": 64, "warmup": 0, "weight_decay": 0, "max_grad_norm": 0, "betas": [0, 0]}},
        {"optim": {"seed": 2**63 - 1, "accumulate": 1}, "run": {"workers": 4096, "evaluate_every": 0, "checkpoint_every": 1}},
    ],
)
def test_the_extremes_are_allowed(values: dict[str, dict[str, Any]]) -> None:
    made = parse_config(values)
    for section, keys in values.items():
        for name, value in keys.items():
            assert get(made, f"{section}.{name}") == (tuple(value) if isinstance(value, list) else value)


def test_repeats_are_one_number_from_1_for_each_file() -> None:
    files = ["a.jsonl", "b.jsonl"]
    assert parse_config({"data": {"files": files, "repeats": [1, 3]}}).data.repeats == (1, 3)
    for repeats in ([1], [1, 2, 3], [1, 0], [1, 1001]):
        message = refusal({"data": {"files": files, "repeats": repeats}})
        remedy = "give a number from 1 to 1000 for each of data.files, or none"
        assert message == f"mine.toml: data.repeats is {tuple(repeats)}; {remedy}"


def test_patience_needs_measurements() -> None:
    message = refusal({"run": {"patience": 3, "evaluate_every": 0}})
    assert message.startswith("mine.toml: run.patience is 3; the held-out loss is never measured where run.evaluate_every is 0; ")
    assert parse_config({"run": {"patience": 0, "evaluate_every": 0}}).run.patience == 0


def test_the_end_of_turn_needs_the_inference_layout() -> None:
    message = refusal({"scam": {"turn_weight": 0.5, "layout": "training"}})
    assert message == (
        "mine.toml: scam.turn_weight is 0.5; the training layout ends a turn behind every frame; set scam.layout to inference"
    )


# Files


def test_a_name_that_is_nothing_is_refused_with_the_names_there_are() -> None:
    for name in ("nowhere", "nowhere.toml", "no/where.toml"):
        with pytest.raises(InvalidConfig) as refused:
            load_config(name)
        assert str(refused.value).startswith(f"config {name!r} is neither a file nor one of finetune, ")
        assert str(refused.value).endswith("; livestar train --list")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[optim\n", "at line 1"),
        ("[optim]\nepochs = \n", "at line 2"),
        ("[optim]\nepochs = 1\nepochs = 2\n", "at line 3"),
        ("[optim]\n[optim]\n", "at line 2"),
        ("base = livestar-mini", "at line 1"),
        ("epochs = " + "9" * 5000, "integer string conversion"),
        ("x = " + "[" * 5000, "recursion"),
    ],
)
def test_what_is_not_toml_is_refused_with_the_place(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfig) as refused:
        load_config(str(file))
    assert str(refused.value).startswith(f"{file} is not TOML: ")
    assert why in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'[model]\nbase = "\xe9"\n')
    (tmp_path / "folder.toml").mkdir()
    for name in (str(tmp_path / "latin.toml"), str(tmp_path / "folder.toml"), str(tmp_path), "", "x" * 5000, "a\0b"):
        with pytest.raises(InvalidConfig, match=r"cannot be read \(.*\); give a TOML file$"):
            load_config(name)


def test_what_is_wrong_in_a_file_is_said_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[run]\nworkers = 0\n")
    with pytest.raises(InvalidConfig) as refused:
        load_config(str(file))
    assert str(refused.value) == f"{file}: run.workers is 0; give 1 to 4096"


# --set


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optim.learning_rate=1e-4", 1e-4),
        ("optim.epochs=3", 3.0),
        ("optim.max_steps=1_000", 1000),
        ("lora.merge=false", False),
        ("model.base=livestar-mini", "livestar-mini"),
        ("model.base='livestar-mini'", "livestar-mini"),
        ('model.base="with # and = in it"', "with # and = in it"),
        ("model.base=a=b", "a=b"),
        ("model.base=../models/one two", "../models/one two"),
        (" model.base = spaced ", "spaced"),
        ("model.base=nan-model", "nan-model"),
        ("data.files=room.events.jsonl", ("room.events.jsonl",)),
        ('data.files=["a.jsonl", "b.jsonl"]', ("a.jsonl", "b.jsonl")),
        ("data.files=[]", ()),
        ("data.part=0:0.6", "0:0.6"),
        ("data.part=10s:70s", "10s:70s"),
        ("data.part=", ""),
        ("run.output=2026-01-31", "2026-01-31"),  # a date in TOML
        ("run.output=12:30:00", "12:30:00"),
        ("optim.betas=[0.8, 0.9]", (0.8, 0.9)),
        ("scam.visibility=terminal", "terminal"),
        ("scam.weigh_clips=false", False),
        ("data.fps=none", None),
        ("data.fps=4", 4.0),
        ("run.sharding=none", "none"),
        ("run.calibrate=none", "none"),
    ],
)
def test_set_takes_toml_and_bare_words(override: str, value: object) -> None:
    made = load_config("finetune", [override])
    key = override.partition("=")[0].strip()
    assert get(made, key) == value
    assert type(get(made, key)) is type(value)
    untouched = {f"{section}.{field.name}" for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)} - {key}
    assert all(get(made, other) == get(load_config("finetune"), other) for other in untouched)


def test_the_last_of_several_settings_holds(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[data]\nfps = 5\n[optim]\nepochs = 2\n")
    made = load_config(str(file), ["optim.epochs=3", "data.fps=none", "optim.epochs=4", "lora.rank=2"])
    assert (made.optim.epochs, made.data.fps, made.lora.rank) == (4.0, None, 2)


@pytest.mark.parametrize("override", ["", "=", "epochs=3", "optim.epochs", "optim=3", "optim.=3", ".epochs=3", ".=", "epochs"])
def test_set_without_section_key_or_value_is_refused(override: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        load_config("finetune", [override])
    assert str(refused.value) == (
        f"--set {override!r} is not section.key=value; write for example --set optim.learning_rate=1e-4"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optm.epochs=3", "there is no key optm; did you mean optim?"),
        ("optim.epoch=3", "there is no key optim.epoch; did you mean optim.epochs?"),
        ("optim.epoch=none", "there is no key optim.epoch; did you mean optim.epochs?"),
        ("optim.betas.first=3", "there is no key optim.betas.first; did you mean optim.betas?"),
        ("optim.epochs=many", "optim.epochs is 'many'; expected a number"),
        ("optim.epochs=none", "optim.epochs is 'none'; expected a number"),
        ("optim.epochs={a = 1}", "optim.epochs is '{a = 1}'; expected a number"),
        ("optim.epochs=1\naccumulate=7", "optim.epochs is '1\\naccumulate=7'; expected a number"),
        ("optim.epochs=" + "9" * 5000, "; expected a number"),
        ("model.base=123", "model.base is 123; expected a text in quotes"),
        ("run.workers=0", "run.workers is 0; give 1 to 4096"),
    ],
)
def test_a_bad_setting_is_refused_as_in_a_file(override: str, message: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        load_config("finetune", [override])
    assert str(refused.value).startswith("finetune: ")
    assert str(refused.value).endswith(message)


def test_a_section_that_is_no_table_is_refused_whatever_is_set(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("optim = 3\n")
    for override in ("optim.epochs=2", "optim.epochs=none"):
        with pytest.raises(InvalidConfig, match="optim is 3; expected a table"):
            load_config(str(file), [override])


@given(
    st.text(max_size=30), st.sampled_from(["data.fps", "model.base", "optim.betas", "lora.merge", "scam.layout", "run.workers"])
)
def test_no_setting_fails_but_with_an_error_for_a_person(text: str, key: str) -> None:
    try:
        made = load_config("finetune", [f"{key}={text}"])
    except InvalidConfig as error:
        assert key in str(error)
    else:
        assert type(get(made, key)) in (float, type(None), str, tuple, bool, int)


# As a whole


PLAIN = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8)
SHARE = st.floats(0, 1, exclude_max=True)
CONFIGS = st.builds(
    TrainConfig,
    model=st.builds(ModelConfig, base=PLAIN, train=st.lists(PLAIN, min_size=1, max_size=3).map(tuple)),
    data=st.builds(
        DataConfig, files=st.lists(PLAIN, max_size=3).map(tuple), fps=st.none() | st.floats(0.001, 240), holdout=SHARE
    ),
    optim=st.builds(OptimConfig, betas=st.tuples(SHARE, SHARE), seed=st.integers(0, 2**63 - 1), warmup=SHARE),
    run=st.builds(RunConfig, calibrate=st.sampled_from(["none", "truth", "f1"]), use_gpu=st.booleans()),
)


@given(CONFIGS)
def test_a_config_survives_being_written_down_and_sent(made: TrainConfig) -> None:
    """As a checkpoint holds it, and as a worker gets it."""
    assert parse_config(made.as_dict()) == made
    assert parse_config(json.loads(json.dumps(made.as_dict()))) == made


@pytest.mark.parametrize("kind", [TrainConfig, *SECTIONS.values()])
def test_configs_are_frozen_and_take_names_only(kind: type) -> None:
    with pytest.raises(TypeError):
        kind(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(), dataclasses.fields(kind)[0].name, None)
    with pytest.raises((AttributeError, TypeError)):
        kind().__dict__  # noqa: B018


def test_every_setting_says_what_it_is() -> None:
    """Each field of a section is followed by a docstring, which ends as a sentence does."""
    tree = ast.parse(inspect.getsource(module))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for kind in SECTIONS.values():
        body = classes[kind.__name__].body
        told = {
            node.target.id
            for node, behind in itertools.pairwise(body)
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(behind, ast.Expr)
            and isinstance(behind.value, ast.Constant)
            and str(behind.value.value).endswith(".")
        }
        assert told == {field.name for field in dataclasses.fields(kind)}, kind.__name__


def test_every_default_is_one_of_its_choices() -> None:
    for kind in SECTIONS.values():
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if typing.get_origin(hints[field.name]) is Literal:
                assert field.default in typing.get_args(hints[field.name])
