"""Files of models: what they may say, how an operator's stand over the shipped ones, what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask.errors import InputError, UnknownModelError
from unmask.gateway.catalogue import SHIPPED, Catalogue, Licence, status_of
from unmask.gateway.catalogue.entry import Entry
from unmask.gateway.catalogue.fields import Figure, Measurement, Part, Prices, Provider, Published, Question

DOCS = Path(__file__).parents[2] / "docs" / "catalogue.md"
LEAST = """
title = "Mine"
source = "me/Mine"
task = "sentence-similarity"
architecture = "a line"
about = "a text"
licence = { spdx = "MIT" }
prices = { realtime = 4, batch = 2 }
"""


def write(folder: Path, slug: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{slug}.toml"
    file.write_text(text, encoding="utf-8")
    return file


def alone(folder: Path) -> Catalogue:
    return Catalogue.load([folder], shipped=False)


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        alone(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- finding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mine", "MINE", "me/mine", "Me/Mine", "old-name"])
def test_a_model_is_found_by_every_name_in_any_letters(tmp_path: Path, name: str) -> None:
    write(tmp_path, "mine", LEAST + 'names = ["Old-Name"]')
    assert alone(tmp_path).find(name).slug == "mine"


def test_a_model_has_each_of_its_names_once(tmp_path: Path) -> None:
    write(tmp_path, "mine", LEAST + 'names = ["ME/MINE", "Mine", "other"]')
    assert alone(tmp_path).find("mine").accepted == ("mine", "me/Mine", "other")


def test_an_unknown_name_is_told_those_near_it() -> None:
    with pytest.raises(UnknownModelError) as caught:
        Catalogue.load().find("smollm2-135m-unsupp")
    assert "'smollm2-135m-unsupp'" in str(caught.value)
    assert "Near it: smollm2-135m-unsup" in str(caught.value)
    with pytest.raises(UnknownModelError) as caught:
        Catalogue.load().find("x" * 100_000)
    assert len(str(caught.value)) < 400
    assert "Near" not in str(caught.value)


# --- an operator's folder -----------------------------------------------------------------------------


def test_a_folder_adds_models_and_changes_fields_of_shipped_ones(tmp_path: Path) -> None:
    write(tmp_path / "first", "mine", LEAST + 'base = "smollm2-135m"')
    write(tmp_path / "first", "smollm2-135m-sup", 'title = "First"\nprices = { realtime = 9, batch = 1 }')
    write(tmp_path / "second", "smollm2-135m-sup", 'title = "Second"')
    shipped, changed = Catalogue.load(), Catalogue.load([tmp_path / "first", tmp_path / "second"])
    assert len(changed) == len(shipped) + 1
    before, after = shipped.find("smollm2-135m-sup"), changed.find("smollm2-135m-sup")
    assert (after.title, after.prices) == ("Second", Prices(realtime=9, batch=1))
    same = set(Entry.model_fields) - {"title", "prices"}
    assert all(getattr(after, field) == getattr(before, field) for field in same)
    assert "mine" in [each.slug for each in changed.related(after)]


def test_a_field_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = write(tmp_path, "smollm2-135m-sup", "prices = { realtime = 9 }")
    with pytest.raises(InputError, match=r"there is no prices\.batch") as caught:
        Catalogue.load([tmp_path])
    assert str(file) in str(caught.value)


def test_hidden_files_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "mine", LEAST)
    write(tmp_path, ".#mine", "not TOML")
    assert [each.slug for each in alone(tmp_path)] == ["mine"]


# --- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("prize = 3", "there is no field prize. Near it: prices"),
        ("parameters = 1.5", "parameters is 1.5; expected a valid integer"),
        ("parameters = 0", "parameters is 0; expected greater than or equal to 1"),
        ("dimensions = true", "dimensions is True; expected a valid integer"),
        ('max_length = "512"', "max_length is '512'; expected a valid integer"),
        ('pooling = "max"', "pooling is 'max'; expected 'mean', 'weighted_mean', 'last' or 'first'"),
        ('published = "2024-13"', "published is '2024-13'; expected a day as 2024-04-30, or a month as 2024-04"),
        ('published = "20240430"', "published is '20240430'; expected a day"),
        ("published = 2024-04-30T10:00:00", "expected a day as 2024-04-30"),
        ('published = "2024-05"\nupdated = 2024-04-30', "updated 2024-04-30 not to lie before published 2024-05"),
        ('languages = ["English"]', "languages.0 is 'English'; expected the tag of a language"),
        ('source = "a b"', "TOML"),
        ('faq = [{ question = "Why", answer = "so" }]', "faq.0.question is 'Why'; expected a line that ends with a q"),
        ('faq = [{ question = "Why?" }]', "there is no faq.0.answer"),
        ('benchmarks = [{ name = "a", metric = "b", value = 101, source = "c" }]', "benchmarks.0.value is 101"),
        ('benchmarks = [{ name = "a", metric = "b", value = nan, source = "c" }]', "benchmarks.0.value is nan"),
        ('benchmarks = [{ name = "a", metric = "b", value = 1 }]', "there is no benchmarks.0.source"),
        (
            'providers = [{ name = "a", url = "ftp://b", model = "c" }]',
            "providers.0.url is 'ftp://b'; expected an addr",
        ),
        ('providers = [{ name = "a", url = "http://b", model = "c", key = "SECRET" }]', "no field providers.0.key"),
        ('names = ["a b"]', "names.0 is 'a b'; expected a name"),
        ('slug = "mine"', "slug is no field of this file; it is the file's name"),
        ("[measured]", "measured is no field of this file"),
        ('related = ["mine"]', "related names mine, which is the model itself"),
        ('related = ["yours"]', "related names yours, which is no model's slug"),
        ('base = "mini"', "base names mini, which is no model's slug; expected another model's slug. Near it: mine"),
        ('languages = ["English"]\nparameters = 0', "And 1 more."),
    ],
)
def test_a_mistake_is_one_line_with_file_field_found_and_expected(tmp_path: Path, more: str, said: str) -> None:
    file = write(tmp_path, "mine", LEAST + more)
    message = refused(tmp_path)
    assert message.startswith(str(file))
    assert said in message
    assert "SECRET" not in message


@pytest.mark.parametrize(
    ("replaced", "by", "said"),
    [
        ('title = "Mine"', "", "there is no title"),
        ('about = "a text"', 'about = " "', "about is ' '; expected a text"),
        ('source = "me/Mine"', 'source = "a/b/c"', "source is 'a/b/c'; expected a name, or a repository"),
        ('"sentence-similarity"', '"embed"', "task is 'embed'; expected 'feature-extraction',"),
        ('"sentence-similarity"', '"text-ranking"', 'prices.per to be "1k documents" for task "text-ranking"'),
        ('{ spdx = "MIT" }', "{}", "licence is {}; expected either spdx, or name and link"),
        ('{ spdx = "MIT" }', '{ name = "Mine" }', "expected either spdx, or name and link"),
        ('{ spdx = "MIT" }', '{ spdx = "MIT", name = "M", link = "https://m" }', "expected either spdx, or name and"),
        ("batch = 2", "batch = 5", "expected a batch price of at most the realtime price, 4"),
        ("batch = 2", "batch = -1", "prices.batch is -1; expected greater than or equal to 0"),
        ("batch = 2", "batch = 0.5", "prices.batch is 0.5; expected a valid integer"),
        ("batch = 2", 'batch = "2"', "prices.batch is '2'; expected a valid integer"),
    ],
)
def test_a_wrong_value_is_told(tmp_path: Path, replaced: str, by: str, said: str) -> None:
    assert replaced in LEAST
    write(tmp_path, "mine", LEAST.replace(replaced, by))
    assert said in refused(tmp_path)


def test_the_file_with_the_mistake_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a", "mine", LEAST)
    wrong = write(tmp_path / "b", "mine", "parameters = 0")
    write(tmp_path / "c", "mine", 'title = "Right"')
    with pytest.raises(InputError, match="parameters") as caught:
        Catalogue.load([tmp_path / each for each in "abc"], shipped=False)
    assert str(caught.value).startswith(str(wrong))


@pytest.mark.parametrize("slug", ["Mine", "my_model", "-mine", "mi--ne", "ä", "m" * 101])
def test_a_file_must_be_called_what_an_address_can_hold(tmp_path: Path, slug: str) -> None:
    write(tmp_path, slug, LEAST)
    assert "expected small letters and digits" in refused(tmp_path)


def test_two_models_share_no_name(tmp_path: Path) -> None:
    first = write(tmp_path, "first", LEAST)
    second = write(tmp_path, "second", LEAST.replace("me/Mine", "ME/mine"))
    message = refused(tmp_path)
    assert message.startswith(f"{second}: the name ME/mine is also one of first, in {first}")


def test_a_password_in_an_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    write(tmp_path, "mine", LEAST + 'providers = [{ name = "a", url = "https://me:SECRET@b/v1", model = "c" }]')
    message = refused(tmp_path)
    assert "without password" in message
    assert "SECRET" not in message


def test_what_is_no_folder_or_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no folder of models"):
        Catalogue.load([tmp_path / "missing"])
    write(tmp_path, "mine", "title = ")
    assert "cannot be read as TOML" in refused(tmp_path)
    write(tmp_path, "mine", LEAST)
    (tmp_path / "mine.measured.json").write_text("{")
    assert "mine.measured.json cannot be read as JSON" in refused(tmp_path)
    (tmp_path / "mine.measured.json").write_text("{}")
    assert "mine.measured.json: there is no measured.date" in refused(tmp_path)


# --- the documentation --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part", [Entry, Licence, Prices, Provider, Question, Published, Figure, Measurement], ids=lambda part: part.__name__
)
def test_every_field_is_documented(part: type[Part]) -> None:
    page, own = DOCS.read_text(encoding="utf-8"), part.__doc__ or ""
    for field in part.model_fields:
        assert f"`{field}`" in page, field
        assert f"\n        {field}: " in own, field


def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = DOCS.read_text(encoding="utf-8")
    least, retired, provider = (each.partition("```")[0] for each in text.split("```toml\n")[1:])
    write(tmp_path, "my-encoder", least)
    write(tmp_path, retired.split(".toml")[0].removeprefix("# "), retired)
    write(tmp_path, provider.split(".toml")[0].removeprefix("# "), provider)
    catalogue = Catalogue.load([tmp_path])
    assert catalogue.find("me/my-encoder").prices.realtime == 20_000
    assert status_of(catalogue.find("smollm2-135m-unsup"), {"smollm2-135m-unsup": "ready"}) == "retired"
    assert status_of(catalogue.find("llm2vec-meta-llama-3-8b-instruct-unsup-simcse"), {}) == "live"
    names: dict[str, object] = {}
    exec(compile(text.partition("```python\n")[2].partition("```")[0], str(DOCS), "exec"), names)
    assert names["shown"]
    assert names["rows"]
    assert SHIPPED.relative_to(DOCS.parents[1]).as_posix() in text
