"""A suite of small tasks, one of every kind, to be looked at, run, and filled with data of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from unmask.hub.cache import atomic_folder

_README: Final = """\
# A suite of tasks

    unmask eval --suite {folder}

One folder a kind, whose name says how its data is read. Put your own files beside the examples, or in their place;
their names are the names of the tasks. Text is UTF-8, cells are separated by tabs, quotation marks are text.

| folder | data | what counts |
| --- | --- | --- |
| `sts/NAME.tsv` | `score<TAB>sentence<TAB>sentence`; a first line without a number is a heading | Spearman, Pearson |
| `pairs/NAME.tsv` | `0/1<TAB>sentence<TAB>sentence`, 1 for the same meaning | average precision |
| `classification/NAME/` | `train.tsv` and `test.tsv`: `label<TAB>text` | accuracy, macro-F1; all rows, and 8 a class |
| `clustering/NAME.tsv` | `label<TAB>text` | V-measure |
| `retrieval/NAME/` | BEIR's: `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`), `qrels.tsv` \
(`query-id<TAB>corpus-id<TAB>score`) | nDCG@10, MRR@10, recall@100, MAP |
| `tokens/` | `NAME.train.conll` and `NAME.test.conll`: word, part of speech, chunk, entity, as far as there are; \
or word and entity | accuracy, F1 of spans |

What goes before the queries of a task is given in a file with `--instructions`: `{{"kitchen": "Given a question …:"}}`.
A suite of a dozen items shows how it works, not how good a model is: look at the intervals.
"""

_STS: Final = """\
5	A cat is asleep on the sofa.	On the sofa a cat is sleeping.
4.6	A dog runs across the wet field.	A dog is running over a field that is wet.
4.2	Two birds are building a nest.	A pair of birds makes a nest out of twigs.
3.8	A horse eats hay in the barn.	The horse is having its food in the stable.
3.1	A boy feeds the ducks in the park.	Someone gives bread to the ducks on the lake.
2.6	A cat is watching the goldfish.	A cat is drinking water.
2.1	The farmer counts his sheep.	The farmer sells his sheep at the market.
1.7	A dog barks at the postman.	A postman is riding a bicycle.
1.2	A spider spins its web.	A fly is sitting on the window.
0.6	The owl hunts at night.	The bakery opens early in the morning.
0.2	A frog jumps into the pond.	The minister answered no questions.
0	Bees are visiting the lavender.	My printer is out of paper.
"""

_PAIRS: Final = """\
1	It will rain all day tomorrow.	Tomorrow we expect rain from morning to night.
0	It will rain all day tomorrow.	Tomorrow we expect sunshine from morning to night.
1	The storm broke several trees.	Several trees were snapped by the storm.
0	The storm broke several trees.	Several trees were planted after the storm.
1	Fog kept the planes on the ground.	No plane could take off because of the fog.
0	Fog kept the planes on the ground.	The planes landed on time although it was foggy.
1	It has not snowed here for ten years.	The last snow here fell a decade ago.
0	It has not snowed here for ten years.	It snowed here for the tenth year in a row.
1	The heat made the road soft.	The road went soft in the heat.
0	The heat made the road soft.	The road froze during the night.
1	A cold wind blows from the north.	There is a chilly northerly wind.
0	A cold wind blows from the north.	The wind turned the mill.
"""

_TRAIN: Final = {
    "music": (
        "play something quiet", "skip this song", "who sings this", "turn up the radio", "put on my running playlist",
        "play the album again from the start", "I want to hear some jazz", "stop the music after this track",
    ),
    "light": (
        "switch off the lamp in the hall", "make it brighter in here", "dim the bedroom to a third",
        "turn the kitchen lights blue", "it is too dark in the study", "leave the porch light on tonight",
        "lights out please", "flash the lamps when the bell rings",
    ),
    "timer": (
        "wake me at half past six", "tell me when ten minutes are over", "how long until the eggs are done",
        "cancel my alarm", "set an alarm for noon", "remind me in an hour", "start a countdown of ninety seconds",
        "snooze for five more minutes",
    ),
}  # fmt: skip
_TEST: Final = {
    "music": (
        "play the next song", "some piano music would be nice", "louder please, I love this tune", "what album is this",
    ),
    "light": (
        "turn on the light in the bathroom", "the lamp is too bright", "switch everything off upstairs",
        "dim the lights",
    ),
    "timer": (
        "set a timer for the pasta", "wake me up tomorrow at eight", "how many minutes are left", "stop the alarm",
    ),
}  # fmt: skip

_TOPICS: Final = {
    "gardening": (
        "Water tomatoes in the morning, at the root.", "Roses are pruned when the forsythia is in bloom.",
        "Compost should be turned every few weeks.", "Slugs come out after rain and eat young lettuce.",
        "Sow carrots thinly and in loose soil.", "A hedge wants to be cut before the birds nest.",
    ),
    "cycling": (
        "A dry chain wears out the gears.", "Pump the tyres before a long ride.",
        "The descent from the pass is steep and full of bends.", "My rear brake squeals when it is wet.",
        "She rode the whole river path in three days.", "A helmet has to sit level on the head.",
    ),
    "astronomy": (
        "Saturn's rings are made of ice and dust.", "The comet will be visible in the west after sunset.",
        "A larger mirror gathers more light from faint galaxies.", "The moon was full and hid the meteors.",
        "Red giants are stars near the end of their lives.", "Through the telescope we saw four moons of Jupiter.",
    ),
}  # fmt: skip

_DOCUMENTS: Final = (
    ("Boiled eggs", "A soft egg takes five minutes in boiling water, a hard one ten."),
    ("Rice", "Use one cup of rice and two of water, and leave the lid on until the water is gone."),
    ("Bread", "Dough rises in about two hours in a warm place, overnight in the fridge."),
    ("Onions", "Tears come less if the knife is sharp and the onion cold."),
    ("Salt", "Soup that is too salty can be thinned, or given a potato to boil along."),
    ("Knives", "A knife is drawn over the whetstone at a low angle, both sides alike."),
    ("Coffee", "Ground too fine, coffee tastes bitter; ground too coarse, it is thin."),
    ("Pans", "Cast iron is dried at once and rubbed with oil, or it rusts."),
    ("Beans", "Dried beans are soaked overnight and their water is thrown away."),
    ("Yeast", "Yeast that does not foam in warm sugared water is dead."),
    ("Herbs", "Cut herbs last longer upright in a glass of water."),
    ("Milk", "Milk boils over less in a pan that was rinsed with cold water."),
)
#: Each with the titles of the documents that answer it, and how well.
_QUERIES: Final[tuple[tuple[str, dict[str, int]], ...]] = (
    ("How long do I cook an egg?", {"Boiled eggs": 2}),
    ("Why does my dough not rise?", {"Yeast": 2, "Bread": 1}),
    ("What helps against crying over onions?", {"Onions": 2, "Knives": 1}),
    ("I put too much salt into the soup", {"Salt": 2}),
    ("How do I keep my skillet from rusting?", {"Pans": 2}),
    ("Why is my coffee bitter?", {"Coffee": 2}),
)

#: Sentences as ``word/part of speech/chunk``.
_TOKENS_TRAIN: Final = """\
The/DT/B-NP old/JJ/I-NP gardener/NN/I-NP waters/VBZ/B-VP the/DT/B-NP roses/NNS/I-NP ././O
She/PRP/B-NP planted/VBD/B-VP three/CD/B-NP young/JJ/I-NP trees/NNS/I-NP in/IN/B-PP spring/NN/B-NP ././O
A/DT/B-NP hedgehog/NN/I-NP sleeps/VBZ/B-VP under/IN/B-PP the/DT/B-NP leaves/NNS/I-NP ././O
We/PRP/B-NP will/MD/B-VP pick/VB/I-VP the/DT/B-NP ripe/JJ/I-NP apples/NNS/I-NP ././O
Snails/NNS/B-NP eat/VBP/B-VP the/DT/B-NP green/JJ/I-NP lettuce/NN/I-NP at/IN/B-PP night/NN/B-NP ././O
The/DT/B-NP gate/NN/I-NP was/VBD/B-VP painted/VBN/I-VP by/IN/B-PP our/PRP$/B-NP neighbour/NN/I-NP ././O
They/PRP/B-NP have/VBP/B-VP dug/VBN/I-VP a/DT/B-NP small/JJ/I-NP pond/NN/I-NP ././O
Two/CD/B-NP frogs/NNS/I-NP sat/VBD/B-VP on/IN/B-PP a/DT/B-NP stone/NN/I-NP ././O
"""
_TOKENS_TEST: Final = """\
The/DT/B-NP young/JJ/I-NP neighbour/NN/I-NP planted/VBD/B-VP a/DT/B-NP hedge/NN/I-NP ././O
We/PRP/B-NP water/VBP/B-VP the/DT/B-NP trees/NNS/I-NP in/IN/B-PP the/DT/B-NP evening/NN/I-NP ././O
She/PRP/B-NP will/MD/B-VP paint/VB/I-VP the/DT/B-NP old/JJ/I-NP gate/NN/I-NP ././O
Three/CD/B-NP snails/NNS/I-NP slept/VBD/B-VP under/IN/B-PP a/DT/B-NP stone/NN/I-NP ././O
"""

#: Sentences as ``word/entity``.
_PEOPLE_TRAIN: Final = """\
Clara/B-PER Hoffmann/I-PER moved/O from/O Lyon/B-LOC to/O Oslo/B-LOC ./O
In/O Oslo/B-LOC she/O works/O for/O Fjord/B-ORG Radio/I-ORG ./O
Her/O brother/O Emil/B-PER lives/O in/O New/B-LOC York/I-LOC ./O
Acme/B-ORG Tools/I-ORG has/O opened/O a/O shop/O in/O Porto/B-LOC ./O
Last/O week/O Maria/B-PER Silva/I-PER left/O Acme/B-ORG Tools/I-ORG ./O
The/O train/O from/O Porto/B-LOC was/O late/O again/O ./O
Emil/B-PER wrote/O a/O long/O letter/O to/O Maria/B-PER ./O
Fjord/B-ORG Radio/I-ORG plays/O no/O music/O at/O night/O ./O
"""
_PEOPLE_TEST: Final = """\
Emil/B-PER Hoffmann/I-PER moved/O to/O Lyon/B-LOC ./O
Maria/B-PER works/O for/O Fjord/B-ORG Radio/I-ORG in/O New/B-LOC York/I-LOC ./O
The/O shop/O in/O Oslo/B-LOC was/O late/O again/O ./O
Last/O week/O Clara/B-PER wrote/O to/O Acme/B-ORG Tools/I-ORG ./O
"""


def paraphrases() -> list[tuple[str, str]]:
    """Return the pairs of the example that mean the same: a handful, in English."""
    rows = [line.split("\t") for line in (_PAIRS + _STS).splitlines()]
    return [(left, right) for score, left, right in rows if float(score) == 1 or float(score) > 4]


def write_example(folder: Path) -> None:
    """Write the example suite; it appears whole or not at all.

    Raises:
        InputError: the folder exists, or cannot be written.
    """
    files = {
        "README.md": _README.format(folder=folder.name),
        "sts/animals.tsv": _STS,
        "pairs/weather.tsv": _PAIRS,
        "classification/requests/train.tsv": _labelled(_TRAIN),
        "classification/requests/test.tsv": _labelled(_TEST),
        "clustering/hobbies.tsv": _labelled(_TOPICS),
        **{f"retrieval/kitchen/{name}": text for name, text in _kitchen().items()},
        "tokens/garden.train.conll": _columns(_TOKENS_TRAIN, 2),
        "tokens/garden.test.conll": _columns(_TOKENS_TEST, 2),
        "tokens/people.train.conll": _columns(_PEOPLE_TRAIN, 1),
        "tokens/people.test.conll": _columns(_PEOPLE_TEST, 1),
    }
    with atomic_folder(folder) as draft:
        for name, text in files.items():
            file = draft / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


def _labelled(texts: Mapping[str, Sequence[str]]) -> str:
    return "".join(f"{label}\t{text}\n" for label, rows in texts.items() for text in rows)


def _kitchen() -> dict[str, str]:
    ids = {title: f"d{number}" for number, (title, _) in enumerate(_DOCUMENTS, start=1)}
    queries = [(f"q{number}", text, answers) for number, (text, answers) in enumerate(_QUERIES, start=1)]
    grades = [f"{query}\t{ids[title]}\t{grade}\n" for query, _, found in queries for title, grade in found.items()]
    return {
        "corpus.jsonl": _lines({"_id": ids[title], "title": title, "text": text} for title, text in _DOCUMENTS),
        "queries.jsonl": _lines({"_id": query, "text": text} for query, text, _ in queries),
        "qrels.tsv": "".join(["query-id\tcorpus-id\tscore\n", *grades]),
    }


def _lines(objects: Iterable[dict[str, str]]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)


def _columns(sentences: str, tags: int) -> str:
    """Return sentences as CoNLL has them: a word a line with its ``tags``, an empty line after each sentence."""
    tagged = [sentence.split() for sentence in sentences.splitlines()]
    return "".join("".join(" ".join(word.rsplit("/", tags)) + "\n" for word in words) + "\n" for words in tagged)
