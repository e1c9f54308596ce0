"""Put the adapter of a finished stage among the encoders that come with the package.

    python experiments/ship.py RUN/1-mntp smollm2-135m-mntp
    python experiments/ship.py RUN/2-simcse smollm2-135m-unsup --base smollm2-135m-mntp

Tensors are written as float16, half the size; the encoder made of them is what is measured afterwards.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from unmask.backbone.adapters import CONFIG_FILE, WEIGHTS_FILE
from unmask.hub.cache import atomic_folder
from unmask.hub.locate import SHIPPED
from unmask.training.card import notes
from unmask.training.checkpoints import Reached
from unmask.training.recipe_file import read_recipe
from unmask.training.running import StageResult

_SOURCES = (
    "English Wikipedia (2015 dump, CC BY-SA 3.0); for `-sup` also SNLI (CC BY-SA 4.0), Multi30k captions, "
    "SQuAD (CC BY-SA 4.0), ASSET (CC BY-NC 4.0), Twitter URL, ParaSCI, WikiQA and SelQA (research use)"
)


def main() -> None:
    """Read the stage, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", type=Path)
    parser.add_argument("name")
    parser.add_argument("--base", default="smollm2-135m", help="what the adapter belongs on")
    given = parser.parse_args()
    adapter = given.stage / "adapter"
    config = json.loads((adapter / CONFIG_FILE).read_text(encoding="utf-8"))
    tensors = {name: tensor.to(torch.float16) for name, tensor in load_file(adapter / WEIGHTS_FILE).items()}
    with atomic_folder(SHIPPED / given.name, replace=True) as draft:
        config["base_model_name_or_path"] = given.base
        (draft / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_file(tensors, draft / WEIGHTS_FILE, metadata={"format": "pt"})
        (draft / WEIGHTS_FILE).chmod(0o644)
        (draft / "README.md").write_text(card(given.stage, given.name, given.base), encoding="utf-8")


def card(stage: Path, name: str, base: str) -> str:
    """Return the adapter's card, Markdown."""
    data = json.loads((stage / "done.json").read_text(encoding="utf-8"))
    result = StageResult(**(data | {"reached": Reached(**data["reached"])}))
    recipe = read_recipe(stage.parent / "recipe.json")
    return f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: unmask
---

# {name}

A LoRA adapter on `{base}`, trained by the Unmask team with this package; `Encoder.load("{name}")` puts it there. The
adapter is licensed Apache-2.0, as SmolLM2-135M-Instruct is. Its training texts have licences of their own: {_SOURCES}.
How good it is, beside its base and other encoders: `docs/training.md`.

{notes(recipe, [result], "STS-B dev" if result.reached.best_score is not None else None)}
"""


if __name__ == "__main__":
    main()
