"""Word level on tiny models: where a word is read, and tasks from files to figures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import write_base
from unmask import Encoder, Template, Text
from unmask.checkpoint import Checkpoint
from unmask.errors import InputError
from unmask.evaluation.bootstrap import intervals
from unmask.evaluation.kinds import words as kind
from unmask.evaluation.tasks import Options, Task
from unmask.evaluation.words.conll import Sentence
from unmask.evaluation.words.states import position_for, word_states

DEV = Path(__file__).parents[3] / "shared/data/dev/tokens"
WORDS = ("The", "bread", "12", "smells")
#: What the tiny tokenizer makes of them: The |  b re ad | (space) 12 |  sm ell s.
TOKENS = ([0], [1, 2, 3], [4, 5], [6, 7, 8])


@dataclass
class Asked:
    """What a word task is run on: remembers what was encoded."""

    encoder: Encoder
    encoded: list[tuple[int, int]] = field(default_factory=list)

    def vectors(self, texts: Iterable[Text]) -> Any:
        raise AssertionError

    def advance(self, texts: int, tokens: int = 0) -> None:
        self.encoded.append((texts, tokens))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("words") / "base")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder.load(folder)


@pytest.fixture(scope="module")
def without_bos(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = write_base(tmp_path_factory.mktemp("words") / "without-bos")
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"post_processor": None}), "utf-8")
    return Encoder.load(folder)


def sentence(*words: str) -> Sentence:
    return Sentence(place="x.conll, line 7", words=words, tags={})


def hidden(encoder: Encoder, text: str) -> Any:
    """Return the states of all tokens of one text, alone in its pass, and the place of its first own one."""
    (tokenized,) = encoder.pipeline.tokenizer.tokenize([Text("", text)])
    with torch.inference_mode():
        return encoder.pipeline.hidden([tokenized]).numpy(), tokenized.start


# --- where a word is read --------------------------------------------------------------------------


def by_hand(states: Any, positions: Iterable[Iterable[int]]) -> Any:
    return np.stack([states[list(each)].mean(axis=0) for each in positions])


def test_own_is_the_mean_over_the_words_tokens(encoder: Encoder) -> None:
    states, start = hidden(encoder, " ".join(WORDS))
    assert (start, len(states)) == (1, 10)
    (found,) = word_states(encoder, [sentence(*WORDS)], "own")
    np.testing.assert_allclose(found, by_hand(states, [[1], [2, 3, 4], [5, 6], [7, 8, 9]]), atol=1e-5)


def test_before_is_one_position_earlier_and_bos_stands_before_the_first_word(encoder: Encoder) -> None:
    states, _ = hidden(encoder, " ".join(WORDS))
    (found,) = word_states(encoder, [sentence(*WORDS)], "before")
    np.testing.assert_allclose(found, by_hand(states, [[0], [1, 2, 3], [4, 5], [6, 7, 8]]), atol=1e-5)


def test_where_nothing_stands_before_a_text_its_first_token_is_read_from_its_own_position(without_bos: Encoder) -> None:
    words = ("bread", "smells")  # b re ad |  sm ell s
    states, start = hidden(without_bos, "bread smells")
    assert (start, len(states)) == (0, 6)
    (found,) = word_states(without_bos, [sentence(*words)], "before")
    np.testing.assert_allclose(found, by_hand(states, [[0, 0, 1], [2, 3, 4]]), atol=1e-5)


def test_the_template_stands_before_the_first_word_and_what_follows_is_no_words(folder: Path) -> None:
    encoder = Encoder.load(folder, template=Template(prefix="<|start_header_id|>user\n\n", suffix="<|eot_id|>"))
    states, start = hidden(encoder, " ".join(WORDS))
    assert start > 2
    assert len(states) == start + 10
    for shift, position in enumerate(("own", "before")):
        (found,) = word_states(encoder, [sentence(*WORDS)], position)  # type: ignore[arg-type]
        expected = by_hand(states, [[start + token - shift for token in tokens] for tokens in TOKENS])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_packed_is_one_at_a_time(folder: Path, encoder: Encoder) -> None:
    alone = Encoder.load(folder)
    alone.pipeline.token_budget = 1
    sentences = [sentence(*WORDS[:count], *["🙂", "bread"] * repeated) for count in (1, 4, 2) for repeated in (0, 3, 1)]
    passes: list[tuple[int, int]] = []
    packed = word_states(encoder, sentences, "before", advance=lambda *done: passes.append(done))
    assert [texts for texts, _ in passes] == [9]
    for ours, theirs, each in zip(packed, word_states(alone, sentences, "before"), sentences, strict=True):
        assert ours.shape == (len(each.words), 64)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_words_of_marked_tokenizers_have_their_marks(tmp_path: Path) -> None:
    encoder = Encoder.load(write_base(tmp_path / "base", tokenizer="llama2"))
    states, _ = hidden(encoder, "The zu 🙂")  # <s> | ▁The | ▁ z u | ▁ and four bytes
    assert len(states) == 10
    (found,) = word_states(encoder, [sentence("The", "zu", "🙂")], "own")
    np.testing.assert_allclose(found, by_hand(states, [[1], [2, 3, 4], [5, 6, 7, 8, 9]]), atol=1e-5)


def test_sentences_that_cannot_be_read_name_their_line(folder: Path, tmp_path: Path) -> None:
    short = Encoder.load(folder, max_length=10)
    assert len(word_states(short, [sentence(*WORDS)], "own")[0]) == 4
    with pytest.raises(
        InputError, match=r"x\.conll, line 7: the sentence of 5 words has more tokens than max_length 10"
    ):
        word_states(short, [sentence(*WORDS, "s")], "own")
    dropping = write_base(tmp_path / "dropping")
    file = dropping / "tokenizer.json"
    normalizer = {"type": "Replace", "pattern": {"String": "12"}, "content": ""}
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"normalizer": normalizer}), "utf-8")
    with pytest.raises(InputError, match=r"x\.conll, line 7: this model's tokenizer leaves nothing of the word '12'"):
        word_states(Encoder.load(dropping), [sentence(*WORDS)], "own")
    with pytest.raises(InputError, match="words is 'after'; expected one of before, own"):
        word_states(short, [sentence("The")], "after")  # type: ignore[arg-type]


def checkpoint(base: str = "tiny", merged: tuple[str, ...] = (), adapters: tuple[str, ...] = ()) -> Checkpoint:
    place = Path("models")
    folders = tuple(map(Path, adapters))
    return Checkpoint(layout="x", base=place, tokenizer=place, base_name=base, merged=merged, adapters=folders)


@pytest.mark.parametrize(
    ("found", "bidirectional", "expected"),
    [
        (checkpoint(), True, "own"),
        (checkpoint(), False, "own"),
        (checkpoint(adapters=("encoders/smollm2-135m-mntp", "encoders/smollm2-135m-unsup")), True, "before"),
        (checkpoint(adapters=("encoders/smollm2-135m-mntp",)), False, "own"),
        (checkpoint(adapters=("run/1-mntp/adapter",)), True, "before"),
        (checkpoint(adapters=("mntp/other/run/1-simcse/adapter",)), True, "own"),
        (checkpoint(adapters=("hub/models--McGill-NLP--LLM2Vec-Llama-3-mntp/snapshots/0a1b",)), True, "before"),
        (checkpoint(merged=("smollm2-135m-mntp",)), True, "before"),
        (checkpoint(base="McGill-NLP/LLM2Vec-Sheared-LLaMA-mntp"), True, "before"),
        (checkpoint(base="nomntpatall"), True, "own"),
    ],
)
def test_what_a_checkpoint_says_of_its_training(found: Checkpoint, bidirectional: bool, expected: str) -> None:
    encoder: Any = SimpleNamespace(checkpoint=found, bidirectional=bidirectional)
    assert position_for(encoder) == expected


# --- from files to figures -------------------------------------------------------------------------

LEXICON = {
    "the": ("DT", "B-NP", "O"), "a": ("DT", "B-NP", "O"), "bridge": ("NN", "I-NP", "O"), "map": ("NN", "I-NP", "O"),
    "Monday": ("NNP", "B-NP", "B-DAY"), "opens": ("VBZ", "B-VP", "O"), "sold": ("VBD", "B-VP", "O"),
    "of": ("IN", "B-PP", "O"),
}  # fmt: skip


def conll(sentences: int, seed: int, *, columns: int = 3) -> str:
    """Return sentences whose tags depend on the word, those of chunks on the one before, too."""
    generator = np.random.default_rng(seed)
    blocks = []
    for _ in range(sentences):
        drawn = generator.choice(list(LEXICON), generator.integers(3, 9)).tolist()
        blocks.append("".join(" ".join((word, *LEXICON[word][:columns])) + "\n" for word in [*drawn, "the"]))
    return "\n".join(blocks)


def pair(folder: Path, name: str, **options: Any) -> None:
    (folder / f"{name}.train.conll").write_text(conll(60, 1, **options))
    (folder / f"{name}.test.conll").write_text(conll(30, 2, **options))


def values(task: Task, model: Asked) -> dict[str, float]:
    return task.kind.statistic(task.run(model))


def test_a_pair_of_files_is_a_task_a_column(tmp_path: Path, encoder: Encoder) -> None:
    pair(tmp_path, "Town")
    tasks = kind.read(tmp_path, Options())
    assert [(task.name, task.kind.name, task.kind.main, task.size) for task in tasks] == [
        ("Town POS", "tokens", "accuracy", 90),
        ("Town chunks", "spans", "f1", 90),
        ("Town NER", "spans", "f1", 90),
    ]
    model = Asked(encoder)
    found = {task.name: values(task, model) for task in tasks}
    assert found["Town POS"]["accuracy"] > 0.85
    assert found["Town chunks"]["f1"] > 0.65
    assert found["Town NER"]["f1"] > 0.7
    assert sum(texts for texts, _ in model.encoded) == 90  # once for three tasks


def test_samples_are_counts_of_each_test_sentence(tmp_path: Path, encoder: Encoder) -> None:
    pair(tmp_path, "Town", columns=2)
    _, chunks = kind.read(tmp_path, Options(), words="before")
    samples = chunks.run(Asked(encoder))
    assert set(samples) == {"right", "words", "found", "predicted", "gold", "before"}
    assert {len(array) for array in samples.values()} == {30}
    assert samples["before"].all()
    assert chunks.settings["words"] == "before"
    metric = intervals(chunks.kind.statistic, samples, resamples=20)["f1"]
    assert metric.low is not None
    assert metric.low <= metric.value


def test_where_words_are_read_follows_the_model_and_matters(tmp_path: Path, encoder: Encoder) -> None:
    pair(tmp_path, "Town", columns=1)
    (asked,) = kind.read(tmp_path, Options())
    (own,) = kind.read(tmp_path, Options(), words="own")
    (before,) = kind.read(tmp_path, Options(), words="before")
    assert asked.settings["words"] == "before after MNTP, else own"
    first, second, third = (task.run(Asked(encoder)) for task in (asked, own, before))
    assert not first["before"].any()
    assert (first["right"] == second["right"]).all()
    assert (second["right"] != third["right"]).any()


def test_a_second_encoder_is_not_given_the_states_of_the_first(tmp_path: Path, encoder: Encoder, folder: Path) -> None:
    pair(tmp_path, "Town", columns=2)
    tasks = kind.read(tmp_path, Options(), words="before")
    tasks[0].run(Asked(encoder))
    other = Asked(Encoder.load(folder, bidirectional=False))
    alone = kind.read(tmp_path, Options(), words="before")[1].run(Asked(other.encoder))
    assert (tasks[1].run(other)["found"] == alone["found"]).all()
    assert sum(texts for texts, _ in other.encoded) == 90


def test_a_single_file_is_split_by_seed(tmp_path: Path, encoder: Encoder) -> None:
    rows = conll(50, 3, columns=1).replace(" ", "\t")
    blocks = [
        "".join(
            f"{number}\t{row.split()[0]}\t_\t{row.split()[1]}{'	_' * 6}\n" for number, row in enumerate(block, 1)
        )
        for block in (block.splitlines() for block in rows.split("\n\n"))
    ]
    (tmp_path / "Town.dev.conllu").write_text("\n".join(blocks))
    (task,) = kind.read(tmp_path, Options())
    (again,) = kind.read(tmp_path, Options())
    (other,) = kind.read(tmp_path, Options(seed=1))
    assert (task.name, task.size) == ("Town.dev POS", 50)
    assert task.settings["split"] == "20% drawn for the test"
    first, second, third = (each.run(Asked(encoder)) for each in (task, again, other))
    assert len(first["words"]) == 10
    assert (first["words"] == second["words"]).all()
    assert (first["words"] != third["words"]).any()


def test_limit_and_settings(tmp_path: Path) -> None:
    pair(tmp_path, "Town")
    whole, limited = (kind.read(tmp_path, Options(limit=limit))[0] for limit in (None, 20))
    assert limited.size == 40
    assert limited.settings["sample"] == {"train": "20 of 60", "test": "20 of 30"}
    assert "sample" not in whole.settings
    assert json.loads(json.dumps(limited.settings)) == limited.settings
    before = whole.settings["data"]
    with (tmp_path / "Town.test.conll").open("a") as stream:
        stream.write("\nmap NN I-NP O\n")
    assert kind.read(tmp_path, Options())[0].settings["data"] != before


def test_measure_is_what_the_tasks_give(tmp_path: Path, encoder: Encoder) -> None:
    pair(tmp_path, "Town", columns=2)
    found = kind.measure(encoder, tmp_path / "Town.train.conll", tmp_path / "Town.test.conll", words="before")
    tasks = kind.read(tmp_path, Options(), words="before")
    assert {column: {name: metric.value for name, metric in each.items()} for column, each in found.items()} == {
        task.name.removeprefix("Town "): pytest.approx(values(task, Asked(encoder))) for task in tasks
    }


# --- what is wrong with files ----------------------------------------------------------------------


def failing(tasks: list[Task], encoder: Encoder) -> dict[str, str]:
    found = {}
    for task in tasks:
        try:
            task.run(Asked(encoder))
        except InputError as error:
            found[task.name] = str(error)
    return found


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"X.conll": "a DT\nb\n"}, "X.conll, line 2: got 'b'"),
        ({"X.train.conll": "a DT\n"}, "X.test.conll is missing beside X.train.conll; expected both"),
        ({"X.test.conllu": "1\ta\n"}, "X.train.conllu is missing beside X.test.conllu"),
        ({"X.train.conll": "a DT\n", "X.test.conll": ""}, "X.test.conll holds no sentence"),
        ({"X.train.conll": "a DT\n", "X.test.conll": "a DT O\n"}, "has the columns POS, chunks; expected POS, as in"),
        ({"X.conll": "a DT\nb NN\n"}, "X.conll holds 1 sentence; expected at least 2"),
    ],
)
def test_a_file_that_cannot_be_read_costs_its_own_tasks(
    tmp_path: Path, encoder: Encoder, files: dict[str, str], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    pair(tmp_path, "Town", columns=1)
    failed = failing(kind.read(tmp_path, Options()), encoder)
    assert list(failed) == ["X"]
    assert message in failed["X"]


def test_a_column_whose_figures_are_undefined_costs_its_own_task(tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "X.train.conll").write_text("a DT B-NP O\nmap NN I-NP O\n")
    (tmp_path / "X.test.conll").write_text("a DT O O\n")
    failed = failing(kind.read(tmp_path, Options()), encoder)
    assert list(failed) == ["X chunks", "X NER"]
    assert "no word to test on is in a span of chunks" in failed["X chunks"]
    assert "every word to learn from has the tag 'O' in the column of NER; expected at least two" in failed["X NER"]


def test_a_model_that_gives_no_numbers_or_one_and_the_same(tmp_path: Path, folder: Path) -> None:
    pair(tmp_path, "Town", columns=1)
    (task,) = kind.read(tmp_path, Options())
    broken = Encoder.load(folder)
    norm = broken.backbone.model.norm
    with torch.no_grad():
        norm.weight.fill_(0)
    with pytest.raises(InputError, match="does not tell texts apart"):
        task.run(Asked(broken))
    with torch.no_grad():
        norm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="states with NaN or infinity"):
        task.run(Asked(broken))


def test_a_folder_without_sentences(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing here")
    (tmp_path / ".hidden.conll").write_text("a DT\n")
    with pytest.raises(InputError, match="holds no sentences; expected NAME.train.conll and NAME.test.conll"):
        kind.read(tmp_path, Options())


@pytest.mark.skipif(not DEV.is_dir(), reason="the development sets are not here")
def test_the_development_sets_are_read() -> None:
    tasks = kind.read(DEV, Options(limit=50))
    assert [(task.name, task.settings["sample"]) for task in tasks] == [
        ("CoNLL2000 POS", {"train": "50 of 8,936", "test": "50 of 2,012"}),
        ("CoNLL2000 chunks", {"train": "50 of 8,936", "test": "50 of 2,012"}),
        ("EWT.dev POS", {"train": "50 of 1,601", "test": "50 of 400"}),
    ]
