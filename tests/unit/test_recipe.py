"""Recipes: learning rates in numbers, fields set from text, files read back, and the published settings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unmask.errors import InputError
from unmask.training.data.sources import PairSource, Source
from unmask.training.lora import Lora
from unmask.training.recipe import Contrastive, Mntp, Recipe, SimCse, Supervised
from unmask.training.recipe_file import read_recipe, recipe_json
from unmask.training.recipes import RECIPES, find_recipe, published, small, smollm2

RECIPE = Recipe(name="mine", base="owner/base", stages=(Mntp(), SimCse(), Supervised()))


# --- the learning rate ---------------------------------------------------------------------------


def rates(**settings: Any) -> list[float]:
    """In units of the highest rate, at each of ten steps."""
    stage = Mntp(**{"steps": 10, "learning_rate": 2.0, **settings})
    return [stage.rate_at(step) / 2 for step in range(10)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ({"warmup": 2}, [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ({"warmup": 5}, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]),
        ({"warmup": 9}, [*(step / 9 for step in range(1, 10)), 1.0]),
        ({"horizon": 10}, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ({"horizon": 100}, [1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.91]),
        ({"horizon": 42, "warmup": 2}, [0.5, 1.0, *(1 - step / 40 for step in range(8))]),
        ({"schedule": "constant"}, [1.0] * 10),
        ({"schedule": "constant", "warmup": 4, "horizon": 50}, [0.25, 0.5, 0.75, *[1.0] * 7]),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]),
        (
            {"schedule": "cosine", "warmup": 4},
            [0.25, 0.5, 0.75, 1.0, 1.0, (2 + 3**0.5) / 4, 0.75, 0.5, 0.25, (2 - 3**0.5) / 4],
        ),
        ({"schedule": "cosine", "horizon": 20}, [(1 + math.cos(math.pi * step / 20)) / 2 for step in range(10)]),
    ],
)
def test_learning_rate_in_numbers(settings: dict[str, Any], expected: list[float]) -> None:
    assert rates(**settings) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_rate_is_above_zero_to_the_last_step(schedule: str) -> None:
    assert min(rates(schedule=schedule, warmup=3)) > 0


# --- a field set from text -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("seed", "7", 7),
        ("name", "other", "other"),
        ("bidirectional", "no", False),
        ("bidirectional", "TRUE", True),
        ("pooling", "last", "last"),
        ("adapters", "a, b/c", ("a", "b/c")),
        ("adapters", "", ()),
        ("mntp.batch", "3", 3),
        ("mntp.learning_rate", "1e-3", 1e-3),
        ("mntp.clip", "none", None),
        ("mntp.clip", "2", 2.0),
        ("mntp.horizon", "5000", 5000),
        ("mntp.horizon", "None", None),
        ("mntp.schedule", "cosine", "cosine"),
        ("mntp.strategy", "all", "all"),
        ("mntp.mask_token", "none", "none"),
        ("mntp.lora.rank", "4", 4),
        ("simcse.lora.alpha", "8", 8.0),
        ("simcse.lora.dropout", "0.1", 0.1),
        ("supervised.lora.targets", "q_proj,v_proj", ("q_proj", "v_proj")),
        ("supervised.lora.targets", "none", None),
        ("simcse.dimensions", "64,128", (64, 128)),
        ("simcse.dimensions", "", ()),
        ("supervised.bidirectional_loss", "yes", True),
        ("supervised.false_negative_margin", "0.1", 0.1),
    ],
)
def test_value_is_set_and_nothing_else(path: str, text: str, expected: object) -> None:
    changed = RECIPE.with_value(path, text)
    before, after = RECIPE.as_dict(), changed.as_dict()
    *way, name = path.split(".")
    places = []
    for data in (before, after):
        place: Any = data
        for step in way:
            place = place[step] if step == "lora" else next(one for one in place["stages"] if one["kind"] == step)
        places.append(place)
    assert places[1][name] == expected
    assert type(places[1][name]) is type(expected)
    places[0][name] = expected
    assert before == after
    assert [type(stage) for stage in changed.stages] == [Mntp, SimCse, Supervised]


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("sede", "7", "no setting 'sede'; expected one of .*seed"),
        ("stages", "mntp", "no setting 'stages'"),
        ("mntp", "3", "no setting 'mntp'"),
        ("mntp.bach", "3", "no setting 'mntp.bach'; expected one of .*batch"),
        ("mntp.data", "x", "no setting 'mntp.data'"),
        ("mntp.kind", "x", "no setting 'mntp.kind'"),
        ("mntp.temperature", "1", "no setting 'mntp.temperature'"),
        ("mntp.lora.size", "1", "no setting 'mntp.lora.size'; expected one of alpha, dropout, rank, targets"),
        ("mntp.lora", "4", "mntp.lora holds several settings; name one of them, for instance mntp.lora.rank"),
        ("other.batch", "3", "no stage 'other'; expected one of mntp, simcse, supervised"),
        ("mntp.batch", "3.5", "mntp.batch is '3.5'; expected a value of type int"),
        ("mntp.batch", "none", "mntp.batch is 'none'; expected a value of type int"),
        ("mntp.learning_rate", "fast", "mntp.learning_rate is 'fast'; expected a value of type float"),
        ("bidirectional", "perhaps", "bidirectional is 'perhaps'; expected a value of type bool"),
        ("mntp.schedule", "Linear", "mntp.schedule is 'Linear'; expected one of 'linear', 'cosine', 'constant'"),
        ("pooling", "max", "pooling is 'max'; expected one of 'mean'"),
        ("simcse.dimensions", "8,x", "simcse.dimensions is 'x'; expected a value of type int"),
        ("mntp.batch", "0", "mntp.batch is 0; expected at least 1"),
        ("mntp.lora.rank", "0", "lora.rank is 0"),
        ("simcse.temperature", "0", "simcse.temperature is 0.0; expected more than 0"),
    ],
)
def test_value_that_cannot_be_set(path: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RECIPE.with_value(path, text)


@pytest.mark.parametrize(
    ("stage", "settings", "message"),
    [
        (Mntp, {"steps": 0}, "mntp.steps is 0; expected at least 1"),
        (Mntp, {"max_length": 0}, "mntp.max_length is 0"),
        (Mntp, {"learning_rate": 0}, "mntp.learning_rate is 0"),
        (Mntp, {"learning_rate": math.nan}, "mntp.learning_rate is nan"),
        (Mntp, {"steps": 5, "warmup": 5}, "mntp.warmup is 5; expected 0 to 4"),
        (Mntp, {"warmup": -1}, "mntp.warmup is -1"),
        (Mntp, {"steps": 5, "horizon": 4}, "mntp.horizon is 4; expected at least steps"),
        (Mntp, {"weight_decay": -1}, "mntp.weight_decay is -1"),
        (Mntp, {"clip": 0}, "mntp.clip is 0; expected more than 0, or none"),
        (Mntp, {"attention_dropout": 1}, "mntp.attention_dropout is 1"),
        (Mntp, {"mask_rate": 0}, "mntp.mask_rate is 0"),
        (Mntp, {"mask_rate": 1.1}, "mntp.mask_rate is 1.1"),
        (Mntp, {"strategy": "some"}, "mntp.strategy is 'some'"),
        (SimCse, {"batch": 1}, "simcse.batch is 1; expected at least 2"),
        (SimCse, {"attention_dropout": 0, "lora": Lora(dropout=0)}, "simcse.attention_dropout is 0; expected some"),
        (Supervised, {"temperature": -1}, "supervised.temperature is -1"),
    ],
)
def test_stage_out_of_range(stage: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stage(**settings)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((), r"has the stages \[\]; expected one or more"),
        ((Mntp(), Mntp()), "expected one or more, each kind once"),
        ((SimCse(), Mntp()), "expected mntp first"),
    ],
)
def test_stages_that_make_no_recipe(stages: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(name="x", base="y", stages=stages)


# --- files ---------------------------------------------------------------------------------------


def read_back(recipe: Recipe, folder: Path) -> Recipe:
    file = folder / "recipe.json"
    file.write_text(recipe_json(recipe), encoding="utf-8")
    return read_recipe(file)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipe_is_read_back(name: str, tmp_path: Path) -> None:
    assert read_back(RECIPES[name], tmp_path) == RECIPES[name]


def test_recipe_with_every_setting_is_read_back(tmp_path: Path) -> None:
    lora = Lora(rank=3, alpha=5.0, dropout=0.5, targets=("q_proj",))
    contrastive: dict[str, Any] = {"dimensions": (8, 16), "false_negative_margin": 0.1, "lora": lora}
    recipe = Recipe(
        name="Größe",
        about="x",
        base="a",
        adapters=("b", "c"),
        stages=(
            Mntp(data=(Source(path="x.txt", field="f"), Source(path="hf:a/b", config="c", split="s")), horizon=5000),
            SimCse(**contrastive, clip=None),
            Supervised(**contrastive, data=(PairSource(path="y.jsonl", instruction="Do:", symmetric=True),)),
        ),
        bidirectional=False,
        pooling="last",
        seed=0,
    )
    assert read_back(recipe, tmp_path) == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "A recipe is .*expected an object"),
        ("{}", "There is no name"),
        (
            '{"name": "a", "base": "b", "stages": [{"kind": "sft"}]}',
            "The kind of a stage is 'sft'; expected one of mntp",
        ),
        ('{"name": "a", "base": "b", "stages": [{"kind": "mntp", "bach": 1}]}', "There is no setting mntp.bach"),
        ('{"name": "a", "base": "b", "stages": [{"kind": "mntp", "batch": 0}]}', "recipe.json: mntp.batch is 0"),
        ('{"name": "a", "stages": [{"kind": "mntp"}]}', "There is no base"),
    ],
)
def test_file_that_holds_no_recipe(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "recipe.json")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_recipe(tmp_path / "missing.json")


def test_settings_that_a_file_leaves_out_have_their_defaults(tmp_path: Path) -> None:
    data = {"name": "a", "base": "b", "stages": [{"kind": "mntp", "lora": {"rank": 2}}]}
    (tmp_path / "recipe.json").write_text(json.dumps(data), encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.json") == Recipe(name="a", base="b", stages=(Mntp(lora=Lora(rank=2)),))


# --- what is shipped -----------------------------------------------------------------------------


def test_names_are_unique() -> None:
    every = [recipe.name for recipe in (*smollm2.RECIPES, *small.RECIPES, *published.RECIPES)]
    assert len(set(every)) == len(every) == len(RECIPES)
    assert all(find_recipe(name).name == name for name in every)
    with pytest.raises(InputError, match="no recipe 'smal'; expected one of .*small"):
        find_recipe("smal")


@pytest.mark.parametrize("recipe", published.RECIPES, ids=lambda recipe: recipe.name)
def test_published_settings(recipe: Recipe) -> None:
    """Of LLM2Vec's configurations (arXiv 2404.05961, appendix D), as numbers."""
    mntp, last = recipe.stages
    assert isinstance(mntp, Mntp)
    assert isinstance(last, Contrastive)
    for stage in recipe.stages:
        assert (stage.lora.rank, stage.lora.alpha, stage.lora.dropout) == (16, 32, 0.05)
        assert stage.lora.targets is None
        assert (stage.steps, stage.schedule, stage.weight_decay) == (1000, "linear", 0.0)
    assert (mntp.batch, mntp.max_length, mntp.learning_rate, mntp.warmup) == (32, 512, 5e-5, 0)
    assert mntp.mask_token == "_"
    assert mntp.attention_dropout == 0
    assert (mntp.mask_rate, mntp.strategy) == ((0.8, "all") if "mistral" in recipe.name else (0.2, "bert"))
    settings = (last.batch, last.max_length, last.learning_rate, last.warmup, last.attention_dropout)
    if recipe.name.endswith("-unsup"):
        assert isinstance(last, SimCse)
        assert settings == (128, 128, 3e-5, 0, 0.3)
        assert 1 / last.temperature == pytest.approx(20)
    else:
        assert isinstance(last, Supervised)
        assert settings == (512, 512, 2e-4, 300, 0.0)
        assert 1 / last.temperature == pytest.approx(50)
        assert not last.bidirectional_loss
    assert (last.dimensions, last.false_negative_margin) == ((), None)
    assert recipe.bidirectional
    assert recipe.pooling == "mean"


def test_published_runs_stopped_before_their_rate_fell() -> None:
    for recipe in published.RECIPES:
        for stage in recipe.stages:
            assert stage.rate_at(stage.steps - 1) > 0.9 * stage.learning_rate


def test_variant_is_a_copy() -> None:
    recipe = RECIPES["small"]
    assert replace(recipe, base="x").base == "x"
    assert recipe.with_stage("mntp", batch=3).stage("mntp").batch == 3
    assert recipe.stage("mntp").batch != 3


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("mntp.batch.x", "3", "has no parts"),
        ("mntp.lora.rank.x", "3", "has no parts"),
        ("mntp.lora.alpha", "nan", "alpha"),
        ("mntp.learning_rate", "inf", "learning_rate"),
        ("mntp.mask_token", "", "mask_token"),
        ("simcse.temperature", "inf", "temperature"),
        ("simcse.false_negative_margin", "-1", "false_negative_margin"),
        ("simcse.dimensions", "0", "dimensions"),
        ("simcse.dimensions", "8,8", "dimensions"),
    ],
)
def test_values_that_no_step_could_use_are_refused_at_once(path: str, value: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_recipe("smollm2-135m-unsup").with_value(path, value)
