"""``unmask info``: what a model is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from unmask.cli.common import DEFAULT_MODEL, DtypeOption, JsonOption, load, made, option_model, print_json, print_table

if TYPE_CHECKING:
    from unmask.encoder import Encoder


def info(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Short name, folder, GGUF file or hub name.")
    ] = DEFAULT_MODEL,
    adapter: Annotated[
        list[str] | None, typer.Option("--adapter", help="Adapter on top; may be given several times, in order.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, mps, cuda:0 …")] = "auto",
    dtype: DtypeOption = "auto",
    json: JsonOption = False,
) -> None:
    """Load a model and say what it is: layout, size, pooling, and the proof that it sees both ways.

    Examples:
        unmask info smollm2-135m
        unmask info smollm2-135m --json
        unmask info smollm2-135m --device cpu --dtype fp8
    """
    facts = describe(load(model, adapters=adapter or (), device=device, dtype=dtype))
    if json:
        print_json(facts)
        return
    print_table(("", model), [(name.replace("_", " "), _words(name, value)) for name, value in facts.items()])
    made(f"{model} is ready.", f"unmask encode texts.txt -o vectors.npy{option_model(model)}")


def describe(encoder: Encoder) -> dict[str, Any]:
    """Return the facts about an encoder, in the order in which they are shown."""
    config, checkpoint, proof = encoder.backbone.config, encoder.checkpoint, encoder.backbone.proof
    parameters = sum(parameter.numel() for parameter in encoder.backbone.model.parameters())
    return {
        "layout": checkpoint.layout,
        "path": str(checkpoint.base),
        "base": checkpoint.base_name,
        "adapters": [str(folder) for folder in checkpoint.adapters],
        "adapters_merged": encoder.backbone.adapter is None if checkpoint.adapters else None,
        "family": config.model_type,
        "parameters": parameters,
        "layers": config.num_hidden_layers,
        "hidden_size": encoder.dimension,
        "pooling": encoder.pooling,
        "max_length": encoder.max_length,
        "template": encoder.template.as_dict(),
        "normalised": bool(encoder.settings.normalize),
        "bidirectional": encoder.bidirectional,
        "proof": {
            "layer_moved_least": min(proof.layers),
            "layer_moved_most": max(proof.layers),
            "first_token_moved": proof.first_token,
            "leak": proof.leak,
            "exact": proof.exact,
        },
        "layers_run": encoder.backbone.form,
        "attention": kernels_of(encoder),
        "device": str(encoder.device),
        "dtype": _formats(encoder),
        "token_budget": encoder.pipeline.token_budget,
        "memory_mb": {"float32": round(parameters * 4 / 1e6, 1), "bfloat16": round(parameters * 2 / 1e6, 1)},
    }


def _formats(encoder: Encoder) -> str:
    eight, layers = encoder.backbone.float8, encoder.backbone.config.num_hidden_layers
    name = str(encoder.dtype).removeprefix("torch.")
    return f"{name}, the last {eight} of {layers} layers in fp8" if eight else name


def kernels_of(encoder: Encoder) -> list[str]:
    """Return the kernels that compute an encoder's attention on its device: most models need one."""
    from unmask.backbone.attention import kernels_used

    with kernels_used() as names:
        encoder.encode(["Which kernels compute this?"])
    return sorted(names)


def _words(name: str, value: Any) -> str:
    """Return a fact for people."""
    if name in _WORDS:
        return _WORDS[name](value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "\n".join(value) or "none"
    return "–" if value is None else str(value)


def _proof(proof: dict[str, float | None]) -> str:
    least, most, first, leak = (
        float(proof[key] or 0) for key in ("layer_moved_least", "layer_moved_most", "first_token_moved", "leak")
    )
    exact = proof["exact"]
    lines = [
        "Another last token moves the state of the first:",
        f"  in each layer alone by {least:.2g} to {most:.2g} of its size, in the whole model by {first:.2g}"
        if most
        else "  in no layer: the model is causal",
        f"Another neighbour in a packed row moves a text's states by {leak:.1g} (nothing but rounding)",
    ]
    if exact is not None:
        lines.append(f"Packed attention differs from transformers' own by {exact:.1g}")
    return "\n".join(lines)


_KERNELS: Final = {
    "runs": "torch's, once for texts of one length",
    "padded": "torch's, once for texts of about one length",
    "varlen": "torch's variable-length attention, once for a row",
    "flash": "flash-attn, once for a row",
    "flex": "torch's FlexAttention, once for a row",
}

_WORDS: Final[dict[str, Callable[[Any], str]]] = {
    "parameters": lambda count: f"{count / 1e6:,.1f} million",
    "template": lambda template: (
        f"{template['prefix']!r} + text + {template['suffix']!r}" if any(template.values()) else "none"
    ),
    "proof": _proof,
    "layers_run": lambda form: {
        "fused": "on joined projections",
        "compiled": "compiled",
        "own": "as transformers has them",
    }[form],
    "attention": lambda kernels: "\n".join(_KERNELS[name] for name in kernels),
    "memory_mb": lambda memory: f"{memory['float32']:,.0f} MB in float32, {memory['bfloat16']:,.0f} MB in bfloat16",
    "adapters_merged": lambda merged: {None: "–", True: "yes", False: "all but the last"}[merged],
}
