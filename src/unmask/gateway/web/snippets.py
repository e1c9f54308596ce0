"""The call of a model in several languages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from unmask.gateway.accounts.keys import Key
from unmask.gateway.catalogue import Entry

#: Stands for a key where nobody is signed in, or has none.
NO_KEY: Final = "gr-…"
_TEXT: Final = "how do I compress a file"
_DOCUMENTS: Final = ("Compress bytes with gzip.", "Sort a list in place.")


def shown_key(keys: Sequence[Key], now: int) -> str:
    """Return how the newest key that works begins; all the rest of it stays hidden.

    Args:
        keys: of a user.
        now: microseconds since 1970.
    """
    good = [key for key in keys if key.revoked_at is None and (key.expires_at is None or key.expires_at > now)]
    return good[-1].shown if good else NO_KEY


def snippets(entry: Entry, base_url: str, key: str) -> dict[str, str]:
    """Return the call of a model by the name of the language.

    Args:
        entry: the model.
        base_url: of the site, without a slash at its end.
        key: as it is shown, never in full.
    """
    make = _rerank if entry.task == "text-ranking" else _embed
    return make(entry, f"{base_url}/v1", key)


def three_lines(slug: str, base_url: str) -> str:
    """Return the shortest call in Python."""
    return (
        "from openai import OpenAI\n"
        f'client = OpenAI(base_url="{base_url}/v1", api_key="{NO_KEY}")\n'
        f'vectors = client.embeddings.create(model="{slug}", input=["{_TEXT}"])\n'
    )


def _embed(entry: Entry, url: str, key: str) -> dict[str, str]:
    body = json.dumps({"model": entry.slug, "input": [_TEXT]})
    return {
        "Python": (
            "# pip install openai\n"
            "from openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{url}", api_key="{key}")\n'
            f'answer = client.embeddings.create(model="{entry.slug}", input=["{_TEXT}"])\n'
            f"print(len(answer.data[0].embedding))  # {entry.dimensions or 'its dimensions'}\n"
        ),
        "JavaScript": (
            "// npm install openai\n"
            'import OpenAI from "openai";\n\n'
            f'const client = new OpenAI({{ baseURL: "{url}", apiKey: "{key}" }});\n'
            f'const answer = await client.embeddings.create({{ model: "{entry.slug}", input: ["{_TEXT}"] }});\n'
            f"console.log(answer.data[0].embedding.length);  // {entry.dimensions or 'its dimensions'}\n"
        ),
        "curl": _curl(f"{url}/embeddings", key, body),
    }


def _rerank(entry: Entry, url: str, key: str) -> dict[str, str]:
    value = {"model": entry.slug, "query": _TEXT, "documents": _DOCUMENTS}
    body = json.dumps(value)
    return {
        "Python": (
            "# pip install httpx\n"
            "import httpx\n\n"
            "answer = httpx.post(\n"
            f'    "{url}/rerank",\n'
            f'    headers={{"Authorization": "Bearer {key}"}},\n'
            f"    json={body},\n"
            ")\n"
            'print(answer.json()["results"])\n'
        ),
        "JavaScript": (
            f'const answer = await fetch("{url}/rerank", {{\n'
            '  method: "POST",\n'
            f'  headers: {{ Authorization: "Bearer {key}", "Content-Type": "application/json" }},\n'
            f"  body: JSON.stringify({body}),\n"
            "});\n"
            "console.log((await answer.json()).results);\n"
        ),
        "curl": _curl(f"{url}/rerank", key, body),
    }


def _curl(url: str, key: str, body: str) -> str:
    return (
        f"curl {url} \\\n"
        f'  -H "Authorization: Bearer {key}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{body}'\n"
    )
