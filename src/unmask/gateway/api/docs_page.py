"""``/docs``: the OpenAPI document as one page, which loads nothing from anywhere and runs no script."""

from __future__ import annotations

import hashlib
import html
from base64 import b64encode
from typing import Any, Final

import orjson

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1c2024}
h2{margin-top:2.5rem}h3{font-size:1rem;margin:1.5rem 0 .3rem}code,pre{font-family:ui-monospace,monospace;font-size:.9em}
pre{background:#f3f4f6;padding:.8rem;border-radius:6px;overflow:auto}table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid #d9dce1;padding:.3rem .6rem;text-align:left;vertical-align:top}
.method{font-weight:700;color:#0b5cad}
@media(prefers-color-scheme:dark){body{background:#15181b;color:#e6e8ea}pre{background:#22262a}.method{color:#7db8f2}}
"""
#: Sent with the page: a browser is to load nothing for it, and to take this style sheet and no other.
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_page(document: dict[str, Any]) -> bytes:
    """Return the page of an OpenAPI document."""
    info = document["info"]
    sections = [
        _operation(document, path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(info['title'])} API</h1><p>{html.escape(info['description'])} Send an API key as "
        "<code>Authorization: Bearer KEY</code>. The same as a document for programs: "
        f'<a href="/v1/openapi.json">openapi.json</a>.</p>{"".join(sections)}</body></html>'
    )
    return page.encode()


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    answers = "".join(
        f"<tr><td>{status}</td><td>{html.escape(response['description'])}</td></tr>"
        for status, response in operation["responses"].items()
    )
    return (
        f'<h2 id="{operation["operationId"]}"><span class="method">{method.upper()}</span> '
        f"<code>{html.escape(path)}</code></h2><p>{html.escape(operation['summary'])}.</p>"
        + _parameters(operation.get("parameters", []))
        + _body("Body", document, operation.get("requestBody", {}).get("content", {}))
        + _body("Answer", document, operation["responses"]["200"]["content"])
        + f"<h3>Statuses</h3><table>{answers}</table>"
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(each['name'])}</code></td><td>{each['in']}</td>"
        f"<td>{html.escape(each.get('description', each['schema'].get('description', '')))}</td></tr>"
        for each in parameters
    )
    return f"<h3>Parameters</h3><table>{rows}</table>" if rows else ""


def _body(title: str, document: dict[str, Any], content: dict[str, Any]) -> str:
    parts = []
    for kind, body in content.items():
        schema = body["schema"]
        if reference := schema.get("$ref"):
            schema = document["components"]["schemas"][reference.rsplit("/", 1)[1]]
        rows = "".join(
            f"<tr><td><code>{html.escape(name)}</code></td><td>{_kind(field)}</td>"
            f"<td>{html.escape(field.get('description', ''))}</td></tr>"
            for name, field in schema.get("properties", {}).items()
        )
        raw = orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
        details = f"<details><summary>Schema</summary><pre>{html.escape(raw)}</pre></details>" if rows else ""
        parts.append(f"<h3>{title}: {html.escape(kind)}</h3><table>{rows}</table>{details}")
    return "".join(parts)


def _kind(field: dict[str, Any]) -> str:
    """Return a field's type in a word or a few."""
    if "enum" in field:
        return html.escape(" or ".join(map(str, field["enum"])))
    options = [*field.get("anyOf", ()), *field.get("oneOf", ())]
    kinds = dict.fromkeys(_kind(option) for option in options if option.get("type") != "null")
    return " or ".join(kinds) or html.escape(str(field.get("const", field.get("type", "object"))))
