"""Tiny cross-encoders with random weights, made from code: a BERT, whose pairs have types, and a RoBERTa's kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tests.tiny_tokenizer import SENTENCES

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_PAIRS = {
    "bert": "[CLS] $A [SEP] $B:1 [SEP]:1",
    "roberta": "[CLS]:0 $A:0 [SEP]:0 [SEP]:0 $B:0 [SEP]:0",
}


def write_cross_encoder(folder: Path, kind: str = "bert", *, seed: int = 0, **settings: Any) -> Path:
    """Write a cross-encoder of two layers.

    Args:
        folder: made.
        kind: ``bert`` or ``roberta``.
        seed: of its weights.
        settings: of its configuration; ``num_labels`` is 1 without.
    """
    words = sorted({word.strip(".,:;?!()").lower() for sentence in SENTENCES for word in sentence.split()} - {""})
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *words, *map(chr, range(97, 123))))}
    backend: Any = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=_PAIRS[kind], special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        model_input_names=names if kind == "bert" else [names[0], names[2]],
    ).save_pretrained(folder)
    options: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 80,
        "pad_token_id": 0,
        "num_labels": 1,
    }
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **options | settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:  # much larger than a library begins with, so that pairs are told clearly apart
                parameter.copy_(torch.randn_like(parameter) * 0.5)
    model.save_pretrained(folder)
    return folder
