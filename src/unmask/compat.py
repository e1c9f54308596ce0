"""The surface of llm2vec 0.2.3, on Unmask's encoder: change the import, keep the code.

    from unmask.compat import LLM2Vec
    l2v = LLM2Vec.from_pretrained("McGill-NLP/LLM2Vec-…-mntp", peft_model_name_or_path="…-unsup-simcse")
    vectors = l2v.encode([[instruction, text], …])

What is not as there, because it was a defect: a text is never shortened to ``doc_max_length`` (the end
of a text beyond ``max_length`` is cut, the instruction never); an empty text is an error; a single
string is one text; white space around a text does not count; the template is found without the exact
name of the base. No code of a repository is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from unmask import checkpoint as checkpoints
from unmask.backbone.backbone import Backbone
from unmask.backbone.families import TEMPLATES, template_for
from unmask.checkpoint import ADAPTER_FILE, LLM2VEC_FILE, Checkpoint, Settings, reference_pooling
from unmask.encoder import Encoder
from unmask.errors import InputError
from unmask.hub.cache import atomic_folder
from unmask.hub.catalogue import template_of_base
from unmask.text import Text
from unmask.tokenizers import from_transformers

#: Attention functions of transformers: the same numbers, faster or slower. Unmask has its own.
_ATTENTIONS: Final = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
_MODE_OF: Final = {"mean": "mean", "weighted_mean": "weighted_mean", "last": "last_token", "first": "bos_token"}
_DOC_MAX_LENGTH: Final = 400


class LLM2Vec:
    """An encoder with the methods and attributes of llm2vec's class.

    Attributes:
        encoder: Unmask's encoder underneath.
        doc_max_length: kept, and without effect.

    Args:
        model: a decoder of transformers, or peft's wrapper around one; it is made bidirectional, and from
            then on runs through this class only.
        tokenizer: its fast tokenizer.
        pooling_mode: ``mean``, ``weighted_mean``, ``eos_token``, ``last_token`` or ``bos_token``.
        max_length: most tokens of a text.
        doc_max_length: accepted, and without effect.
        skip_instruction: do not pool the instruction.
    """

    def __init__(  # noqa: PLR0917  as in llm2vec
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerFast,
        pooling_mode: str = "mean",
        max_length: int = 512,
        doc_max_length: int = _DOC_MAX_LENGTH,
        skip_instruction: bool = True,
    ) -> None:
        pooling, append_eos = reference_pooling(pooling_mode)
        adapter = model if isinstance(model, PeftModel) else None
        inner = (model.get_base_model() if adapter else model).base_model
        own = from_transformers(tokenizer)
        own = replace(own, backend=deepcopy(own.backend))
        name = str(getattr(inner.config, "_name_or_path", "") or "")
        known = template_of_base(name)
        template = TEMPLATES[known] if known else template_for(inner.config.model_type, own.chat_template)
        settings = Settings(
            pooling=pooling,
            append_eos=append_eos,
            max_length=max_length,
            pool_instruction=not skip_instruction,
            bidirectional=True,
            template=template,
            normalize=False,
        )
        place = Path(name)
        found = Checkpoint(layout="in memory", base=place, tokenizer=place, base_name=name or None)
        self.encoder = Encoder(Backbone(inner, adapter=adapter), own, settings, found)
        self.doc_max_length = doc_max_length

    @classmethod
    def from_pretrained(
        cls,
        base_model_name_or_path: str | Path,
        peft_model_name_or_path: str | Path | None = None,
        merge_peft: bool = False,
        enable_bidirectional: bool = True,
        *,
        pooling_mode: str | None = None,
        max_length: int | None = None,
        doc_max_length: int | None = None,
        skip_instruction: bool | None = None,
        torch_dtype: torch.dtype | str | None = None,
        dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        **others: Any,
    ) -> Self:
        """Load a base, an MNTP repository or any other layout, and perhaps an adapter on top.

        Args:
            base_model_name_or_path: a hub name, a folder, or a short name of Unmask.
            peft_model_name_or_path: the adapter to put on it.
            merge_peft: merge that adapter; otherwise it is kept apart. The vectors are the same.
            enable_bidirectional: False for the causal baseline.
            pooling_mode: as in llm2vec. None: as ``llm2vec_config.json`` says, else ``mean``.
            max_length: most tokens of a text. None: as the file says, else 512.
            doc_max_length: accepted, and without effect.
            skip_instruction: do not pool the instruction. None: as the file says, else True.
            torch_dtype: number format. None: float32; ``auto``: bfloat16 on CUDA, else float32.
            dtype: the newer name of the same.
            device_map: a device, ``auto``, or ``{"": device}``. None: CUDA if there is one.
            attn_implementation: one of transformers', accepted and without effect: Unmask's own
                attention gives the same numbers.
            trust_remote_code: accepted, and without effect: that code is never run.
            **others: anything else is refused.

        Raises:
            InputError: an argument is unknown, or cannot be followed.
            CheckpointError: the checkpoint is missing, damaged or unknown; an adapter does not fit.
            BackboneError: the model cannot be bidirectional.
        """
        if others:
            raise InputError(
                f"LLM2Vec.from_pretrained does not know {', '.join(sorted(others))}. Leave it out, or use "
                "transformers and LLM2Vec(model, tokenizer)."
            )
        if attn_implementation not in (None, *_ATTENTIONS):
            raise InputError(
                f"attn_implementation is {attn_implementation!r}; expected {', '.join(_ATTENTIONS)} or nothing."
            )
        if torch_dtype is not None and dtype is not None and torch_dtype != dtype:
            raise InputError(
                f"torch_dtype is {torch_dtype} and dtype is {dtype}; they are one option. Give one of them."
            )
        encoder = Encoder.load(
            base_model_name_or_path,
            adapters=[] if peft_model_name_or_path is None else [peft_model_name_or_path],
            bidirectional=enable_bidirectional,
            pooling=pooling_mode,
            max_length=max_length,
            pool_instruction=None if skip_instruction is None else not skip_instruction,
            device=_device(device_map),
            dtype=_dtype(torch_dtype if torch_dtype is not None else dtype),
            merge_adapters=merge_peft or peft_model_name_or_path is None,
        )
        made = cls.__new__(cls)
        made.encoder = encoder
        made.doc_max_length = _DOC_MAX_LENGTH if doc_max_length is None else doc_max_length
        return made

    # --- what it is --------------------------------------------------------------------------------

    @property
    def model(self) -> PreTrainedModel | PeftModel:
        """The model, in peft's wrapper if an adapter is kept apart."""
        backbone = self.encoder.backbone
        return backbone.model if backbone.adapter is None else backbone.adapter

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The model's tokenizer for transformers, padding on the left with EOS as in llm2vec."""
        own = self.encoder.tokenizer
        named = {"bos_token": own.bos, "eos_token": own.eos, "pad_token": own.eos}
        fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
            tokenizer_object=deepcopy(own.backend),
            padding_side="left",
            **{name: token for name, token in named.items() if token is not None},
        )
        return fast

    @property
    def config(self) -> PreTrainedConfig:
        """The model's configuration."""
        return self.encoder.backbone.config

    @property
    def pooling_mode(self) -> str:
        """How token states become one vector, by llm2vec's name."""
        return "eos_token" if self.encoder.settings.append_eos else _MODE_OF[self.encoder.pooling]

    @property
    def max_length(self) -> int:
        """Most tokens of a text."""
        return self.encoder.max_length

    @property
    def skip_instruction(self) -> bool:
        """Whether the instruction stays out of the vector."""
        return not self.encoder.settings.pool_instruction

    # --- what it does ------------------------------------------------------------------------------

    def encode(  # noqa: PLR0917  as in llm2vec
        self,
        sentences: str | Sequence[str] | Sequence[Sequence[str]],
        batch_size: int = 32,
        show_progress_bar: bool = True,
        convert_to_numpy: bool = False,
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
    ) -> torch.Tensor | NDArray[np.float32]:
        """Encode texts.

        Args:
            sentences: ``[[instruction, text], …]``, ``[text, …]``, or one text.
            batch_size: accepted, and without effect: texts are packed under a budget of tokens.
            show_progress_bar: show one on a terminal.
            convert_to_numpy: return a numpy array.
            convert_to_tensor: return a tensor, whatever ``convert_to_numpy`` says.
            device: where the model lies already, or None; it is not moved from here.

        Returns:
            ``[n, D]`` float32: a tensor on the CPU, or a numpy array. ``[1, D]`` for one text.

        Raises:
            InputError: a text is empty, broken or not a string, naming its index; another device.
        """
        if device is not None and torch.device(device).type != self.encoder.device.type:
            raise InputError(
                f"device is {device}, but the model lies on {self.encoder.device}. Leave device out, or load the model "
                f"with device_map={str(device)!r}."
            )
        given = [sentences] if isinstance(sentences, str) else list(sentences)
        texts = [_as_text(sentence, number) for number, sentence in enumerate(given)]
        vectors: NDArray[np.float32] = self.encoder.encode(texts, normalize=False, progress=show_progress_bar)
        return vectors if convert_to_numpy and not convert_to_tensor else torch.from_numpy(vectors)

    def save(
        self,
        output_path: str | Path,
        merge_before_save: bool = False,
        save_config: bool = True,
    ) -> None:
        """Write the adapter if one is kept apart, else the whole encoder as :meth:`Encoder.save` does.

        Args:
            output_path: a folder that does not exist, or is empty.
            merge_before_save: write the whole encoder, the adapter merged; this one stays as it is.
            save_config: write ``llm2vec_config.json``, too.

        Raises:
            InputError: the folder holds something, or cannot be written.
        """
        folder = Path(output_path)
        empty = folder.is_dir() and not any(folder.iterdir())
        extra = {LLM2VEC_FILE: json.dumps(self._llm2vec_config(), indent=4)} if save_config else {}
        encoder = self.encoder
        if encoder.backbone.adapter is None or merge_before_save:
            checkpoints.write(
                folder,
                backbone=encoder.backbone,
                tokenizer=encoder.tokenizer,
                texts=encoder.pipeline.tokenizer,
                settings=encoder.settings,
                source=encoder.checkpoint,
                extra=extra,
                replace_existing=empty,
            )
            return
        with atomic_folder(folder, replace=empty) as draft:
            encoder.backbone.adapter.save_pretrained(str(draft), save_embedding_layers=False)
            assert (draft / ADAPTER_FILE).is_file()
            self.tokenizer.save_pretrained(str(draft))
            for name, text in extra.items():
                (draft / name).write_text(text, encoding="utf-8")

    def _llm2vec_config(self) -> dict[str, Any]:
        return {
            "pooling_mode": self.pooling_mode,
            "max_length": self.max_length,
            "doc_max_length": self.doc_max_length,
            "skip_instruction": self.skip_instruction,
        }


def _as_text(sentence: Any, number: int) -> Any:
    """Return a plain string as it is and a pair as a :class:`Text`; the encoder checks what is in them."""
    if isinstance(sentence, str) or not isinstance(sentence, Sequence):
        return sentence
    if len(sentence) != 2:
        raise InputError(f"Text {number} is a list of {len(sentence)}; expected a string or [instruction, text].")
    return Text(*sentence)


def _device(device_map: Any) -> str:
    if isinstance(device_map, dict) and list(device_map) == [""]:
        device_map = device_map[""]
    if device_map is None:
        return "auto"
    if isinstance(device_map, int) and not isinstance(device_map, bool):
        return f"cuda:{device_map}"
    if isinstance(device_map, str | torch.device):
        return str(device_map)
    raise InputError(
        f'device_map is {device_map!r}; expected a device, "auto" or {{"": device}}: one device holds it all.'
    )


def _dtype(dtype: torch.dtype | str | None) -> str:
    return "float32" if dtype is None else str(dtype).removeprefix("torch.")
