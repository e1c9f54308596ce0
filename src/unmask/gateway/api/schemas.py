"""The bodies of requests and responses: what is checked, and what the OpenAPI document says of it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

#: Most inputs of a request, and most tokens of all of them (OpenAI's contract).
MAX_INPUTS: Final = 2048
MAX_TOKENS: Final = 300_000
#: A character that is neither white space nor a control character: what makes a text more than blank.
_VISIBLE: Final = r"[^\s\x00-\x20\x7f-\xa0]"

Content = Annotated[str, StringConstraints(min_length=1, pattern=_VISIBLE)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
EmbeddingType = Literal["float", "int8", "binary"]


def _form(value: Any) -> str | None:
    """Return which of the four forms of input a value is meant to be, None for none."""
    if isinstance(value, str):
        return "string"
    if not isinstance(value, list):
        return None
    first = value[0] if value else ""
    return "strings" if isinstance(first, str) else "token_arrays" if isinstance(first, list) else "tokens"


Input = Annotated[
    Annotated[Content, Tag("string")]
    | Annotated[list[Content], Field(min_length=1, max_length=MAX_INPUTS), Tag("strings")]
    | Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS), Tag("tokens")]
    | Annotated[
        list[Annotated[list[TokenId], Field(min_length=1)]],
        Field(min_length=1, max_length=MAX_INPUTS),
        Tag("token_arrays"),
    ],
    Discriminator(
        _form,
        custom_error_type="input_form",
        custom_error_message="Input should be a string, or an array of strings, of tokens or of arrays of tokens",
    ),
]


class StrictRequest(BaseModel):
    """A body that is taken as it stands: no other fields, and no type for another."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


Model = Annotated[str, Field(min_length=1, max_length=256, description="Name of a model that `/v1/models` lists.")]
Instruction = Annotated[
    str | None, Field(description="Put before each text; by convention queries have one and documents have none.")
]
Truncate = Annotated[bool | None, Field(description="Cut the end of texts that are too long; false makes them errors.")]


class EmbeddingRequest(StrictRequest):
    """Texts to embed: OpenAI's fields, and ours from ``instruction`` on."""

    model: Model
    input: Annotated[
        Input, Field(description="One text or several, each as a string or as the model's own tokens (`/v1/tokenize`).")
    ]
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Field(
            description="Numbers, or base64 of little-endian float32 (of bytes for int8 and binary). Default: float."
        ),
    ] = None
    dimensions: Annotated[int | None, Field(ge=1, description="Keep only the first so many, and normalise.")] = None
    user: Annotated[str | None, Field(description="Taken and not used.")] = None
    instruction: Instruction = None
    input_type: Annotated[
        Literal["query", "document"] | None,
        Field(description="`query`: with the model's own query instruction. `document`: with none."),
    ] = None
    truncate: Truncate = None
    normalize: Annotated[bool | None, Field(description="Vectors of length 1. Default: true.")] = None
    embedding_types: Annotated[
        EmbeddingType | Annotated[list[EmbeddingType], Field(min_length=1, max_length=1)] | None,
        Field(description="`int8`: scaled by each vector's largest. `binary`: signs, eight to a byte. Default: float."),
    ] = None


class Usage(BaseModel):
    """Tokens, as the model read them."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingResponse(BaseModel):
    """Vectors, in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class RerankRequest(StrictRequest):
    """A query, and documents to order by how well they answer it."""

    model: Model
    query: Content
    documents: Annotated[list[Content], Field(min_length=1, max_length=MAX_INPUTS)]
    top_n: Annotated[int | None, Field(ge=1, description="Give only the best so many.")] = None
    return_documents: Annotated[bool | None, Field(description="Give the documents back, too.")] = None
    instruction: Annotated[
        str | None, Field(description="Put before the query. Default: the model's own query instruction.")
    ] = None
    truncate: Truncate = None


class RerankDocument(BaseModel):
    """A document given back."""

    text: str


class RerankResult(BaseModel):
    """How well a document answers."""

    index: int
    relevance_score: Annotated[
        float, Field(description="A cosine, from -1 to 1; of a reranker a relevance, from 0 to 1.")
    ]
    document: RerankDocument | None = None


class RerankResponse(BaseModel):
    """Documents, the best first."""

    object: Literal["list"]
    model: str
    results: list[RerankResult]
    usage: Usage


class TokenizeRequest(StrictRequest):
    """Texts to turn into tokens."""

    model: Model
    input: Annotated[
        Annotated[Content, Tag("string")]
        | Annotated[list[Content], Field(min_length=1, max_length=MAX_INPUTS), Tag("strings")],
        Discriminator(
            lambda value: "string" if isinstance(value, str) else "strings" if isinstance(value, list) else None,
            custom_error_type="input_form",
            custom_error_message="Input should be a string or an array of strings",
        ),
    ]
    instruction: Instruction = None
    truncate: Truncate = None


class Tokens(BaseModel):
    """Tokens of a text as the model reads it, template and instruction included."""

    object: Literal["tokens"]
    index: int
    tokens: list[int]
    content_start: Annotated[int, Field(description="The first token that is pooled.")]


class TokenizeResponse(BaseModel):
    """Tokens, in the order of the inputs."""

    object: Literal["list"]
    data: list[Tokens]
    model: str
    usage: Usage


class Price(BaseModel):
    """What a model costs."""

    per: Annotated[str, Field(description="What the prices are for, such as `1M tokens`.")]
    realtime: Annotated[str, Field(description="Of requests that are answered at once; a decimal number.")]
    batch: Annotated[str, Field(description="Of batches, and of requests with `X-Tier: batch`.")]
    currency: str


class Downloads(BaseModel):
    """How much a model was used in the last 30 days."""

    calls: Annotated[int, Field(description="Requests that were answered here.")]
    pulls: Annotated[int, Field(description="Visitors who went on to its weights from here, each once a day.")]
    hub: Annotated[int | None, Field(description="Downloads as its hub counts them; null where it is not asked.")]


class ModelObject(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    status: Annotated[
        Literal["cold", "warming", "ready", "failed", "live", "coming soon", "retired"],
        Field(
            description="`cold`: loaded when first asked for. `failed`: could not be loaded. Where models have pages: "
            "`live`, `warming`, `coming soon` or `retired`."
        ),
    ]
    endpoints: Annotated[list[str], Field(description="What it can be asked for. Rerankers only order documents.")]
    dimensions: Annotated[
        int | None, Field(description="Components of a vector; null until first loaded, and of rerankers.")
    ]
    max_length: Annotated[int | None, Field(description="Most tokens of a text; null until first loaded.")]
    title: Annotated[str | None, Field(description="How its page calls it.")] = None
    task: Annotated[str | None, Field(description="What it is made for.")] = None
    names: Annotated[list[str] | None, Field(description="Every name that requests may call it by.")] = None
    prices: Annotated[Price | None, Field(description="What it costs now, where requests are paid for.")] = None
    providers: Annotated[list[str] | None, Field(description="Who answers for it now.")] = None
    downloads: Annotated[Downloads | None, Field(description="A month, where they are counted.")] = None


class ModelDetail(ModelObject):
    """A model that is served, and its instructions."""

    query_instruction: Annotated[str | None, Field(description="What `input_type: query` puts before a text.")]
    instructions: Annotated[
        list[str], Field(description="An input that begins with one of these is split there, as if by `instruction`.")
    ]


class ModelList(BaseModel):
    """All models that are served."""

    object: Literal["list"]
    data: list[ModelObject]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail
