"""The models that Unmask comes with: all there, and true as far as code can tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unmask.gateway.catalogue import SHIPPED, Catalogue, status_of
from unmask.gateway.catalogue.measuring import as_json, read_results
from unmask.hub.catalogue import CATALOGUE as SHORT_NAMES

RESULTS = Path(__file__).parents[2] / "experiments" / "results" / "evaluation"
MISSION = "llm2vec-meta-llama-3-8b-instruct-unsup-simcse"
BASES = {
    # slug: vocabulary, width, layers, width of keys, width between; as the configurations say.
    "meta-llama-3-8b-instruct": (128_256, 4096, 32, 1024, 14_336),
    "llama-3.1-8b-instruct": (128_256, 4096, 32, 1024, 14_336),
    "mistral-7b-instruct-v0.2": (32_000, 4096, 32, 1024, 14_336),
    "llama-2-7b-chat-hf": (32_000, 4096, 32, 4096, 11_008),
    "sheared-llama-1.3b": (32_000, 2048, 24, 2048, 5504),
}
OURS = ("smollm2-135m-mntp", "smollm2-135m-sup", "smollm2-135m-unsup")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load()


def published() -> list[str]:
    names = ("Meta-Llama-3-8B-Instruct", "Meta-Llama-31-8B-Instruct", "Mistral-7B-Instruct-v2", "Llama-2-7b-chat-hf")
    stages = ("", "-unsup-simcse", "-supervised")
    return [f"McGill-NLP/LLM2Vec-{name}-mntp{stage}" for name in (*names, "Sheared-LLaMA") for stage in stages]


def test_every_model_is_there(catalogue: Catalogue) -> None:
    slugs = {catalogue.find(repository).slug for repository in published()}
    assert len(slugs) == 15
    assert {each.slug for each in catalogue} == slugs | set(BASES) | set(OURS) | {"smollm2-135m"}
    for slug in slugs:
        entry = catalogue.find(slug)
        # The page of the mission's model has its repository's name in small letters, less "-mntp".
        plain = entry.source.removeprefix("McGill-NLP/").casefold()
        assert slug == (plain if plain.endswith("-mntp") else plain.replace("-mntp-", "-"))
        assert (entry.licence.label, entry.max_length, entry.pooling) == ("MIT", 512, "mean")
        assert len(catalogue.licences(entry)) == 2


def test_the_missions_model_goes_live_with_nothing_else_to_change(catalogue: Catalogue) -> None:
    entry = catalogue.find("McGill-NLP/LLM2Vec-Meta-Llama-3-8B-Instruct-mntp-unsup-simcse")
    assert entry.slug == MISSION
    assert status_of(entry, {}) == "coming soon"
    assert status_of(entry, {"smollm2-135m-unsup": "ready"}) == "coming soon"
    for name in (MISSION, entry.source, entry.source.upper(), "llm2vec-llama-3-8b-unsup"):
        assert status_of(entry, {name: "ready"}) == "live"
    assert [each.label for each in catalogue.licences(entry)] == ["MIT", "Llama 3 Community License"]
    assert {each.slug for each in catalogue.related(entry)} > {"meta-llama-3-8b-instruct"}


def test_the_short_names_of_the_hub_mean_the_same(catalogue: Catalogue) -> None:
    for short in SHORT_NAMES:
        entry = catalogue.find(short.name)
        if short.adapters:
            assert entry.source == short.adapters[-1]
            assert entry.base is not None
            assert short.base in catalogue.find(entry.base).accepted
        elif short.shipped:
            assert (entry.source, entry.base) == (short.name, "smollm2-135m")
            assert entry.licence.spdx == short.licence


@pytest.mark.parametrize("slug", BASES)
def test_parameters_follow_from_the_configurations(catalogue: Catalogue, slug: str) -> None:
    vocabulary, width, layers, keys, between = BASES[slug]
    layer = 2 * width * width + 2 * width * keys + 3 * width * between + 2 * width
    table = vocabulary * width
    encoder = table + layers * layer + width
    base = catalogue.find(slug)
    assert (base.parameters, base.dimensions) == (encoder + table, width)
    made = [each for each in catalogue if each.base == slug]
    assert len(made) == 3
    assert {(each.parameters, each.dimensions) for each in made} == {(encoder, width)}


def test_every_page_has_something_to_say(catalogue: Catalogue) -> None:
    for entry in catalogue:
        assert entry.strengths, entry.slug
        assert entry.best_for, entry.slug
        assert entry.faq, entry.slug
        assert entry.prices.batch < entry.prices.realtime, entry.slug
        assert len(catalogue.related(entry)) >= 2, entry.slug
        assert entry.published or entry.updated or entry.source.endswith("-mntp"), entry.slug
        assert (entry.task == "text-generation") == (entry.base is None)
    searched = [each for each in catalogue if each.task == "sentence-similarity"]
    assert len(searched) == 12
    assert all(each.query_instruction and each.query_instruction.endswith(":") for each in searched)


# --- ours: figures come from the evaluation -----------------------------------------------------------


@pytest.mark.parametrize("slug", OURS)
def test_figures_of_ours_are_those_of_the_evaluation(catalogue: Catalogue, slug: str) -> None:
    stored = (SHIPPED / f"{slug}.measured.json").read_text(encoding="utf-8")
    assert stored == as_json(read_results(RESULTS / slug)), (
        "Write them again: python -m unmask.gateway.catalogue.measuring experiments/results/evaluation"
    )
    model = json.loads((RESULTS / slug / "model.json").read_text(encoding="utf-8"))
    entry = catalogue.find(slug)
    assert (entry.parameters, entry.dimensions) == (model["parameters"], model["dimension"])
    assert entry.measured is not None
    tasks = {file.stem for file in (RESULTS / slug).glob("*.json")} - {"model"}
    assert {figure.name for figure in entry.measured.figures} == tasks


def test_only_ours_have_measured_figures(catalogue: Catalogue) -> None:
    assert {each.slug for each in catalogue if each.measured} == set(OURS)
    assert not [each.slug for each in catalogue if each.measured and each.benchmarks]


# --- what it stands on --------------------------------------------------------------------------------


def test_the_catalogue_needs_pydantic_and_nothing_else_heavy() -> None:
    program = """
import sys
from unmask.gateway.catalogue import Catalogue
import unmask.gateway.catalogue.measuring
Catalogue.load()
print(*{name.partition(".")[0] for name in sys.modules})
"""
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert "pydantic" in loaded
    heavy = {"torch", "transformers", "numpy", "sqlalchemy", "starlette", "uvicorn", "huggingface_hub"}
    assert not heavy & set(loaded)
