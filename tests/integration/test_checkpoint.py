"""Every layout on disk is understood, every damage is one clear error, and what is saved loads again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from tests.tiny import Published, tiny_model, tiny_tokenizer, write_adapter, write_base, write_published
from unmask import Encoder, Template, Text, checkpoint
from unmask.backbone.families import TEMPLATES
from unmask.checkpoint import MAX_LENGTH, inspect
from unmask.checkpoint.weights import merged_weights, write_weights
from unmask.errors import AdapterError, CheckpointError, InputError, UnmaskError
from unmask.hub import locate
from unmask.hub.catalogue import find
from unmask.tokenizers import load_tokenizer

LLAMA3 = "meta-llama/Meta-Llama-3-8B-Instruct"
TEXTS = ["The library opens at nine.", "图书馆 🌞", "x", "  Le café\n", "[INST] </s> <|eot_id|> 12345"]
INSTRUCTION = "Given a question, retrieve passages:"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return write_published(tmp_path_factory.mktemp("published"), name=LLAMA3)


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base, tmp_path / "copy")


def vectors(encoder: Encoder) -> np.ndarray[Any, Any]:
    return np.concatenate([encoder.encode(TEXTS), encoder.encode(TEXTS, instruction=INSTRUCTION)])


def assert_same(a: Encoder, b: Encoder) -> None:
    np.testing.assert_allclose(vectors(a), vectors(b), atol=1e-5)


def edit(file: Path, **changes: Any) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**data, **changes}), encoding="utf-8")


# --- layouts ---------------------------------------------------------------------------------------


def test_language_model(base: Path) -> None:
    found = inspect(base)
    assert (found.layout, found.base, found.tokenizer, found.adapters) == ("language model", base, base, ())
    encoder = Encoder.load(base)
    assert (encoder.pooling, encoder.max_length, encoder.template) == ("mean", MAX_LENGTH, TEMPLATES["bare"])


def test_sharded_language_model(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "sharded")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    write_weights(folder, tensors, shard_bytes=100_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    assert_same(Encoder.load(folder), Encoder.load(base))


def test_base_and_adapters_in_order(base: Path, tmp_path: Path) -> None:
    model = tiny_model("llama", vocab_size=len(tiny_tokenizer()))
    folders = [write_adapter(tmp_path / f"lora{i}", model, base=str(base), rank=2, alpha=4, seed=i) for i in (1, 2)]
    found = inspect(base, adapters=folders)
    assert (found.layout, found.adapters) == ("base + adapters", tuple(folders))
    both, one = Encoder.load(base, adapters=folders), Encoder.load(base, adapters=folders[:1])
    assert abs(vectors(both) - vectors(one)).max() > 1e-2
    assert_same(Encoder.load(folders[0]), one)
    assert_same(Encoder.load(folders[0], adapters=folders[1:]), both)


def test_published_layout(published: Published) -> None:
    found = inspect(published.mntp, adapters=[published.simcse])
    assert (found.base, found.tokenizer) == (published.base, published.mntp)
    assert found.adapters == (published.mntp, published.simcse)
    assert found.base_name == LLAMA3
    assert found.settings.template == TEMPLATES["llama3"]
    assert inspect(published.mntp).layout == "LLM2Vec"


@pytest.mark.parametrize(
    ("mode", "pooling", "append"),
    [("eos_token", "last", True), ("bos_token", "first", False), ("last_token", "last", False)],
)
def test_settings_of_the_published_layout(
    published: Published, tmp_path: Path, mode: str, pooling: str, append: bool
) -> None:
    adapter = shutil.copytree(published.simcse, tmp_path / "adapter")
    edit(adapter / "llm2vec_config.json", pooling_mode=mode, max_length=99, skip_instruction=False)
    for settings in (inspect(published.mntp, adapters=[adapter]).settings, inspect(adapter).settings):
        assert (settings.pooling, settings.append_eos, settings.max_length) == (pooling, append, 99)
        assert settings.pool_instruction is True


def test_name_of_the_base_survives_a_renamed_folder(published: Published, tmp_path: Path) -> None:
    copied = shutil.copytree(published.mntp, tmp_path / "anything")
    assert Encoder.load(copied).template == TEMPLATES["llama3"]


@pytest.mark.parametrize("adapters", [True, False])
def test_entry_of_the_catalogue(published: Published, monkeypatch: pytest.MonkeyPatch, adapters: bool) -> None:
    """What a short name stands for, with the hub's part played by folders."""
    entry = find("llm2vec-llama-3-8b-unsup")
    assert entry is not None
    entry = entry if adapters else replace(entry, adapters=())
    places = dict(zip((entry.name, *entry.adapters), (published.base, published.mntp, published.simcse), strict=False))

    def path_of(source: str, **_: Any) -> locate.Located:
        return locate.Located(places[source], entry if source == entry.name else None)

    monkeypatch.setattr(locate, "path_of", path_of)
    found = inspect(entry.name)
    assert found.settings.template == TEMPLATES["llama3"]
    assert found.adapters == ((published.mntp, published.simcse) if adapters else ())
    assert found.tokenizer == (published.mntp if adapters else published.base)
    assert found.base_name == LLAMA3


@pytest.mark.parametrize("device", ["cpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma3_text", "qwen3_moe", "gpt_oss", "phi3"])
def test_saved_encoder_gives_the_same_vectors(tmp_path: Path, model_type: str, dtype: str, device: str) -> None:
    more: dict[str, Any] = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "num_local_experts": 4,
    }
    folder = write_base(tmp_path / "base", model_type, **(more if model_type in ("qwen3_moe", "gpt_oss") else {}))
    encoder = Encoder.load(folder, template="llama3", pooling="last", max_length=77, dtype=dtype, device=device)
    before = vectors(encoder)
    saved = encoder.save(tmp_path / "saved")
    np.testing.assert_array_equal(vectors(encoder), before)
    again = Encoder.load(saved, dtype=dtype, device=device)
    assert again.settings == encoder.settings
    assert (again.tokenizer.control, again.tokenizer.bos) == (encoder.tokenizer.control, encoder.tokenizer.bos)
    assert json.loads(again.tokenizer.backend.to_str()) == json.loads(encoder.tokenizer.backend.to_str())
    np.testing.assert_allclose(vectors(again), before, atol=1e-5 if dtype == "float32" else 2e-2)
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    assert (config["is_causal"], config["dtype"]) == (False, dtype)
    with safe_open(saved / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F32" if dtype == "float32" else "BF16"}  # noqa: SIM118


@pytest.mark.parametrize("template", [Template("passage: "), Template("[INST] ", " [/INST]"), "bare"])
@pytest.mark.parametrize("tokenizer", ["llama3", "llama2"])
def test_saved_folder_keeps_its_template_and_tokenizer(
    tmp_path: Path, tokenizer: str, template: str | Template
) -> None:
    encoder = Encoder.load(write_base(tmp_path / "base", tokenizer=tokenizer), template=template)
    saved = encoder.save(tmp_path / "saved")
    copied = shutil.move(saved, tmp_path / "copied and renamed")
    assert_same(Encoder.load(copied), encoder)
    assert_same(Encoder.load(Encoder.load(copied).save(tmp_path / "twice")), encoder)


@pytest.mark.parametrize("merge", [True, False])
def test_adapters_are_merged_into_what_is_saved(published: Published, tmp_path: Path, merge: bool) -> None:
    encoder = Encoder.load(published.mntp, adapters=[published.simcse], merge_adapters=merge)
    before = vectors(encoder)
    saved = encoder.save(tmp_path / "saved")
    assert (encoder.backbone.adapter is None) == merge
    np.testing.assert_array_equal(vectors(encoder), before)
    np.testing.assert_allclose(vectors(Encoder.load(saved)), before, atol=1e-5)
    assert not list(saved.glob("adapter*"))
    assert not list(saved.glob("*.py"))
    settings = json.loads((saved / "unmask.json").read_text(encoding="utf-8"))
    assert settings["adapters"] == ["base-mntp", "base-mntp-unsup-simcse"]
    assert settings["base_name"] == LLAMA3
    again = inspect(saved)
    assert (again.layout, again.merged, again.adapters) == ("Unmask", ("base-mntp", "base-mntp-unsup-simcse"), ())


def test_saved_folder_serves_as_a_base(published: Published, tmp_path: Path) -> None:
    saved = Encoder.load(published.mntp).save(tmp_path / "saved")
    expected = Encoder.load(published.mntp, adapters=[published.simcse])
    assert_same(Encoder.load(saved, adapters=[published.simcse]), expected)
    twice = Encoder.load(saved, adapters=[published.simcse]).save(tmp_path / "twice")
    assert inspect(twice).merged == ("base-mntp", "base-mntp-unsup-simcse")


def test_saved_folder_names_no_place_of_this_machine(published: Published, tmp_path: Path) -> None:
    plain = write_base(tmp_path / "base", name=str(tmp_path / "base"))
    for number, encoder in enumerate((Encoder.load(published.mntp), Encoder.load(plain))):
        saved = encoder.save(tmp_path / f"saved{number}")
        for file in saved.rglob("*.*"):
            assert str(tmp_path.parent).encode() not in file.read_bytes(), file
        config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
        assert not {"auto_map", "quantization_config", "_name_or_path"} & config.keys()


def test_transformers_loads_a_saved_folder_bidirectional(base: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(base, pooling="first")
    model = AutoModel.from_pretrained(encoder.save(tmp_path / "saved"))
    ids = encoder.pipeline.tokenizer.tokenize([Text("", "The library opens")])[0].ids
    with torch.inference_mode():
        states = model(torch.tensor([ids])).last_hidden_state[0, 0]
    np.testing.assert_allclose(states.numpy(), encoder.encode("The library opens"), atol=1e-5)


def test_large_weights_are_sharded_with_an_index(base: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(base)
    saved = encoder.save(tmp_path / "saved")
    (saved / "model.safetensors").unlink()
    tensors = merged_weights(encoder.backbone.model)
    write_weights(saved, tensors, shard_bytes=60_000)
    index = json.loads((saved / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert_same(Encoder.load(saved), encoder)


def test_saving_needs_a_new_place(base: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(base)
    saved = encoder.save(tmp_path / "saved")
    (saved / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="exists already"):
        encoder.save(saved)
    assert (saved / "mine.txt").exists()
    encoder.save(saved, replace_existing=True)
    assert not (saved / "mine.txt").exists()
    assert_same(Encoder.load(saved), encoder)


def test_failing_save_leaves_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    encoder = Encoder.load(base)
    monkeypatch.setattr("unmask.checkpoint.saving.write_weights", fail)
    with pytest.raises(KeyboardInterrupt):
        encoder.save(tmp_path / "out" / "saved")
    assert list((tmp_path / "out").iterdir()) == []


def test_interrupted_save_leaves_nothing(base: Path, tmp_path: Path) -> None:
    """A process that gets Ctrl-C in the middle of writing its weights."""
    program = f"""
        import signal, time
        import unmask.checkpoint.weights as weights
        from unmask import Encoder
        signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background are born deaf to it
        encoder = Encoder.load({str(base)!r})
        real = weights.save_file
        def slow(*arguments, **options):
            real(*arguments, **options)
            print("writing", flush=True)
            time.sleep(60)
        weights.save_file = slow
        encoder.save({str(tmp_path / "saved")!r})
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "writing\n", process.stderr.read() if process.stderr else ""
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in complaint
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_tokenizer_of_a_saved_folder_is_read_without_transformers(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Encoder.load(base).save(tmp_path / "saved")
    found = inspect(saved)
    monkeypatch.setattr("unmask.tokenizers.AutoTokenizer", None)
    assert load_tokenizer(found.tokenizer, found.tokenizer_parts).bos == "<|begin_of_text|>"


# --- damage ----------------------------------------------------------------------------------------


def _truncate(name: str, keep: int | None = None) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2 if keep is None else keep])

    return damage


def _shard_without(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    write_weights(folder, tensors, shard_bytes=100_000)
    (folder / "model-00002-of-00003.safetensors").unlink(missing_ok=True)
    sorted(folder.glob("model-*.safetensors"))[-1].unlink()


def _remove_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors")


def _write(name: str, text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated weights": (_truncate("model.safetensors"), r"model\.safetensors is cut off: it has \d+ of \d+ bytes"),
    "empty weights": (_truncate("model.safetensors", 0), "cut off"),
    "header alone": (_truncate("model.safetensors", 100), "cut off"),
    "missing shard": (_shard_without, r"lacks model-0000.*of the \d+ files that its index names"),
    "index that is no JSON": (_write("model.safetensors.index.json", "{"), r"index\.json is not JSON"),
    "index without a map": (_write("model.safetensors.index.json", "{}"), "no weight_map"),
    "missing tensor": (_remove_tensor, "does not hold all weights"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no checkpoint Unmask knows"),
    "config that is no JSON": (_truncate("config.json"), r"config\.json is not JSON"),
    "config that is a list": (_write("config.json", "[]"), "expected a JSON object"),
    "config without a type": (_write("config.json", "{}"), "no model_type"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
    "tokenizer that is no JSON": (_truncate("tokenizer.json"), "no usable tokenizer"),
    "settings of the reference that are no JSON": (_write("llm2vec_config.json", "{"), "is not JSON"),
    "unknown pooling": (_write("llm2vec_config.json", '{"pooling_mode": "median"}'), "'median'"),
    "length that is no number": (_write("llm2vec_config.json", '{"max_length": "long"}'), "max_length: 'long'"),
    "flag that is none": (_write("llm2vec_config.json", '{"skip_instruction": 3}'), "pool_instruction: 3"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_clear_error(copy: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as raised:
        Encoder.load(copy)
    assert len(str(raised.value)) < 600
    assert str(copy) in str(raised.value)


OWN_DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no JSON": (_truncate("unmask.json"), "is not JSON"),
    "newer": (lambda folder: edit(folder / "unmask.json", format=2), "Upgrade Unmask"),
    "no tokenizer parts": (lambda folder: edit(folder / "unmask.json", tokenizer={}), "damaged"),
    "no settings": (lambda folder: edit(folder / "unmask.json", settings={}), "not as Unmask writes it"),
    "tokenizer gone": (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json"),
    "weights gone": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
    "weights cut": (_truncate("model.safetensors"), "cut off"),
}


@pytest.mark.parametrize("name", OWN_DAMAGES)
def test_damaged_saved_folder_is_one_clear_error(base: Path, tmp_path: Path, name: str) -> None:
    saved = Encoder.load(base).save(tmp_path / "saved")
    damage, message = OWN_DAMAGES[name]
    damage(saved)
    with pytest.raises(CheckpointError, match=message) as raised:
        Encoder.load(saved)
    assert str(saved) in str(raised.value)


def test_unknown_setting_of_a_saved_folder_is_named(base: Path, tmp_path: Path) -> None:
    saved = Encoder.load(base).save(tmp_path / "saved")
    data = json.loads((saved / "unmask.json").read_text(encoding="utf-8"))
    for changes, message in (
        ({"pooling": "median"}, "median"),
        ({"colour": "red"}, "colour"),
        ({"max_length": 0}, "0"),
    ):
        edit(saved / "unmask.json", settings={**data["settings"], **changes})
        with pytest.raises(CheckpointError, match=message):
            inspect(saved)


# --- adapters --------------------------------------------------------------------------------------


def test_adapter_of_another_base(published: Published, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other", hidden_size=32, head_dim=8)
    with pytest.raises(AdapterError, match=r"does not fit its base: .* has shape .*, the base wants"):
        Encoder.load(other, adapters=[published.simcse])


def test_adapter_whose_keys_find_no_module(published: Published, tmp_path: Path) -> None:
    adapter = shutil.copytree(published.simcse, tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({f"other.{name}": tensor for name, tensor in tensors.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"\d+ keys missing .* unexpected"):
        Encoder.load(published.base, adapters=[adapter])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate("adapter_model.safetensors"), "is damaged"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), r"lacks adapter_model\.safetensors"),
        (_truncate("adapter_config.json"), "adapter"),
    ],
)
def test_damaged_adapter(published: Published, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    adapter = shutil.copytree(published.simcse, tmp_path / "adapter")
    damage(adapter)
    with pytest.raises(CheckpointError, match=message):
        Encoder.load(published.base, adapters=[adapter])
    with pytest.raises(CheckpointError, match=message):
        Encoder.load(adapter)


def test_adapter_that_names_no_base_or_itself(published: Published, tmp_path: Path) -> None:
    adapter = shutil.copytree(published.simcse, tmp_path / "adapter")
    for name in (None, "", str(adapter)):
        edit(adapter / "adapter_config.json", base_model_name_or_path=name)
        with pytest.raises(CheckpointError, match="does not name its base"):
            Encoder.load(adapter)


def test_adapters_that_name_one_another(published: Published, tmp_path: Path) -> None:
    one, two = (shutil.copytree(published.simcse, tmp_path / name) for name in ("one", "two"))
    edit(one / "adapter_config.json", base_model_name_or_path=str(two))
    edit(two / "adapter_config.json", base_model_name_or_path=str(tmp_path / "one" / ".." / "one"))
    with pytest.raises(CheckpointError, match="is its own base: .*one → .*two → .*one") as raised:
        Encoder.load(one)
    assert str(raised.value).count("→") == 2


def test_base_that_is_not_there(published: Published, tmp_path: Path) -> None:
    adapter = shutil.copytree(published.simcse, tmp_path / "adapter")
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match="no file or folder"):
        Encoder.load(adapter)


def test_what_is_no_adapter(base: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no adapter: .* Expected adapter_config\.json"):
        Encoder.load(base, adapters=[base])


# --- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "median"}, "median"),
        ({"template": "unheard"}, "unheard"),
        ({"dtype": "int3"}, "int3"),
        ({"device": "moon"}, "moon"),
        ({"max_length": 1}, "at least"),
    ],
)
def test_wrong_options(base: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Encoder.load(base, **options)


def test_every_error_is_of_one_tree(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "nothing", "no-such-model"):
        with pytest.raises(UnmaskError):
            Encoder.load(source)


def test_end_of_text_pooling_survives_saving(base: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(base, pooling="eos_token")
    again = Encoder.load(encoder.save(tmp_path / "saved"))
    assert again.settings.append_eos
    assert_same(again, encoder)


def test_query_instruction_survives_saving(base: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(base)
    encoder.settings = replace(encoder.settings, query_instruction=INSTRUCTION)
    saved = encoder.save(tmp_path / "saved")
    assert inspect(saved).settings.query_instruction == INSTRUCTION
    assert INSTRUCTION in (saved / "README.md").read_text(encoding="utf-8")
    prompts = json.loads((saved / "config_sentence_transformers.json").read_text(encoding="utf-8"))["prompts"]
    assert prompts["query"].startswith(INSTRUCTION)


def test_public_names() -> None:
    assert set(checkpoint.__all__) <= set(dir(checkpoint))
