"""The reference library at work on the tiny checkpoints, in the environment it needs.

The reference and torch are imported when a `Reference` is made, so that the module itself can be
read, linted and type-checked anywhere.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from tests.parity.cases import CHECKPOINTS

BATCH_SIZE = 5  # texts of unequal length share a batch, so most rows are padded on the left
MARKER = "!@#$%^&*()"  # how the reference writes the border between instruction and text


class Reference:
    """The reference library, and every checkpoint of the cases in a folder of its own."""

    def __init__(self, root: Path) -> None:
        """Write the checkpoints under `root`."""
        self.tiny: Any = importlib.import_module("tests.tiny")
        self.library: Any = importlib.import_module("llm2vec").LLM2Vec
        self.torch: Any = importlib.import_module("torch")
        self.folders = {name: self._written(root / name, name) for name in CHECKPOINTS}

    def _written(self, folder: Path, name: str) -> Any:
        published = name.startswith("published")
        write = self.tiny.write_published if published else self.tiny.write_base
        return write(folder, **CHECKPOINTS[name])

    def load(
        self,
        checkpoint: str,
        *,
        adapters: str = "none",
        bidirectional: bool = True,
        **settings: Any,
    ) -> Any:
        """Return an ``LLM2Vec`` in float32; `settings` are its own keywords, as pooling_mode."""
        folder = self.folders[checkpoint]
        first = folder if adapters == "none" else folder.mntp
        if adapters in ("merged", "kept"):
            settings["peft_model_name_or_path"] = str(folder.simcse)
            settings["merge_peft"] = adapters == "merged"
        return self.library.from_pretrained(
            str(first),
            enable_bidirectional=bidirectional,
            torch_dtype=self.torch.float32,
            **settings,
        )

    def vectors(self, encoder: Any, inputs: Any) -> Any:
        """Return what the reference answers: float32 numpy [n, 64]."""
        answer = encoder.encode(inputs, batch_size=BATCH_SIZE, show_progress_bar=False, device="cpu")
        return answer.to(self.torch.float32).numpy()

    def span(self, encoder: Any, pair: list[str]) -> tuple[list[int], int, int]:
        """Return the ids, less padding, and twice the start of the pooled span.

        The first start is the reference's own, the second comes from character offsets. A lone
        ``▁`` before the text counts as the text's if the tokenizer puts one before a text that
        stands alone.
        """
        rendered = encoder.prepare_for_tokenization(encoder._convert_to_str(*pair))
        features = encoder.tokenize([rendered])
        ids = features["input_ids"][0].tolist()
        border = rendered.index(MARKER)
        whole = rendered.replace(MARKER, "")
        offsets = encoder.tokenizer(whole, return_offsets_mapping=True)["offset_mapping"]
        right = next(i for i, (_, end) in enumerate(offsets) if end > border)
        first, *_ = encoder.tokenizer(pair[1], add_special_tokens=False)["input_ids"]
        mark = encoder.tokenizer.convert_tokens_to_ids("▁")
        right -= int(ids[right - 1] == first == mark)
        return ids, len(ids) - int(features["embed_mask"].sum()), right

    def pooled(self, encoder: Any, ids: list[int], start: int) -> Any:
        """Return the mean over ids[start:] of a sequence alone, without padding: numpy [64]."""
        rows = self.torch.tensor([ids])
        mask = self.torch.ones_like(rows)
        with self.torch.no_grad():
            hidden = encoder.model(input_ids=rows, attention_mask=mask).last_hidden_state
        return hidden[0, start:].mean(dim=0).numpy()

    def right(self, encoder: Any, instruction: str, text: str, limit: int | None = None) -> Any:
        """Return the mean over the tokens that cover the text, by character offsets: numpy [64].

        `limit` keeps so many tokens of the whole. No template. Raises ValueError when a text that
        is not to be cut is longer than the encoder's max_length.
        """
        before = f"{instruction} " if instruction else ""
        tokens = encoder.tokenizer(before + text, return_offsets_mapping=True)
        length = len(tokens["input_ids"])
        if limit is None and length > encoder.max_length:
            raise ValueError(f"{text[:40]!r} has {length} tokens, more than {encoder.max_length}. Shorten it.")
        start = next(i for i, (_, end) in enumerate(tokens["offset_mapping"]) if end > len(before))
        return self.pooled(encoder, tokens["input_ids"][:limit], start)

    def last_after(self, encoder: Any, text: str, token: str) -> Any:
        """Return the hidden state of `token` put right after the text: numpy [64]."""
        ids = encoder.tokenizer(text)["input_ids"]
        ids.append(encoder.tokenizer.convert_tokens_to_ids(token))
        return self.pooled(encoder, ids, len(ids) - 1)
