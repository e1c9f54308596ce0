"""The README.md of a saved encoder: what it is, how to load it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from unmask._version import __version__
from unmask.checkpoint.exported_normalizer import MARKER
from unmask.checkpoint.settings import Settings

_POOLED = {
    "mean": "mean of the text's token states",
    "weighted_mean": "mean of the text's token states, weighted 1, 2, 3, …",
    "last": "state of the last token",
    "first": "state of the first token",
}


def model_card(
    settings: Settings,
    *,
    base: str | None,
    adapters: Sequence[str],
    model_type: str,
    dimension: int,
    only_here: str | None,
    strips: bool,
) -> str:
    """Return the model card, Markdown.

    Args:
        settings: all fields are set.
        base: the base's name, None if unknown.
        adapters: names of the adapters merged into it.
        model_type: the model's type in transformers.
        dimension: components of a vector.
        only_here: why sentence-transformers cannot load the folder with the same vectors; None: it can.
        strips: whether the tokenizer for sentence-transformers strips texts.
    """
    tags = ["feature-extraction"] + ([] if only_here else ["sentence-transformers"]) + ["unmask"]
    front = ["---", f"library_name: {'unmask' if only_here else 'sentence-transformers'}", "tags:"]
    front += [f"- {tag}" for tag in tags] + ["---"]
    parts = ["\n".join(front), "# A text encoder", _facts(settings, base, adapters, model_type, dimension)]
    parts += ["## Use it with Unmask", _unmask_code(settings), "## Use it with sentence-transformers"]
    parts.append(_sentence_transformers(settings, only_here, strips))
    return "\n\n".join(parts) + "\n"


def _facts(settings: Settings, base: str | None, adapters: Sequence[str], model_type: str, dimension: int) -> str:
    direction = "made bidirectional" if settings.bidirectional else "left causal"
    origin = f"`{base}`" if base else "A language model"
    rows = [
        f"{origin} (`{model_type}`), {direction} by Unmask {__version__}; its vectors stand for whole texts.",
        "",
        f"- Vectors: {dimension} components, {'of length 1' if settings.normalize else 'not normalised: use cosine'}",
        f"- Pooling: {_POOLED[settings.pooling or 'mean']}"
        + (", instruction and template included" if settings.pool_instruction else ""),
        f"- At most {settings.max_length} tokens a text; the end of a longer one is cut",
    ]
    if adapters:
        rows.append(f"- Adapters, merged: {', '.join(f'`{name}`' for name in adapters)}")
    if settings.template and settings.template.as_dict() != {"prefix": "", "suffix": ""}:
        around = settings.template
        rows.append(f"- Every text stands between `{json.dumps(around.prefix)}` and `{json.dumps(around.suffix)}`")
    return "\n".join(rows)


def _unmask_code(settings: Settings) -> str:
    instruction = settings.query_instruction or "Given a question, retrieve passages that answer it:"
    return f"""```python
from unmask import Encoder

encoder = Encoder.load("path/of/this/folder")
queries = encoder.encode(["how do I compress a file"], instruction={json.dumps(instruction, ensure_ascii=False)})
documents = encoder.encode(["Lossless compression: gzip, bz2, xz"])
print(encoder.similarity(queries, documents))
```"""


def _sentence_transformers(settings: Settings, only_here: str | None, strips: bool) -> str:
    if only_here:
        return f"It cannot be used there: {only_here}. So this folder has none of its files."
    own = f'prompt="Your instruction: {MARKER}"'
    has = "carries this encoder's instruction" if settings.query_instruction else "is the same: no instruction is set"
    rows = [
        """```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/of/this/folder")
queries = model.encode_query(["how do I compress a file"])
documents = model.encode_document(["Lossless compression: gzip, bz2, xz"])
print(model.similarity(queries, documents))
```""",
        f"The vectors are the same. `encode_document` and `encode` use no instruction; `encode_query` {has}. For an "
        f"instruction of your own: `model.encode(texts, {own})`. `{MARKER}` marks where the text begins, and is "
        "taken out wherever it stands. Needs transformers 5.2 or newer: older ones would read from left to right only.",
    ]
    if not strips:
        rows.append(
            "This tokenizer cuts texts at tokens of its own (line breaks, HTML tags) before anything else. So strip "
            "your texts first (`text.strip()`), which Unmask does; and a text that begins with an HTML tag is read "
            "there without the space that separates it from an instruction."
        )
    return "\n\n".join(rows)
