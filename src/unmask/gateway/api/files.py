"""``/v1/files``: the input of batches, uploaded, and their output, fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from unmask.gateway.api.batch_schemas import FileDeleted, FileList, FileObject
from unmask.gateway.api.batch_store import BatchStore
from unmask.gateway.api.errors import MediaTypeError, RequestError
from unmask.gateway.api.http import Answer, Call, Operation, answer_json, answer_model
from unmask.gateway.api.limits import BodyLimits, body_chunks
from unmask.gateway.api.pages import page, page_parameters

_PURPOSES: Final = ("batch", "batch_output")
_LIST: Final[dict[str, Any]] = page_parameters(default=10_000, most=10_000) | {
    "purpose": {"type": "string", "enum": list(_PURPOSES)}
}
_TAG: Final = "Files"


class Files:
    """Answers requests about files.

    Args:
        batches: where batches and files are.
        limits: what an upload may be.
        stored: bytes of a caller's files together, None for any number.
    """

    def __init__(self, batches: BatchStore, limits: BodyLimits, *, stored: int | None = None) -> None:
        self._stored = stored
        self._batches = batches
        self._files = batches.files
        self._limits = limits

    def operations(self) -> Sequence[Operation]:
        """Return what can be asked for."""
        return (
            Operation(
                method="POST", path="/v1/files", handler=self.upload, summary="Upload a file", tag=_TAG,
                response=FileObject, upload=True, statuses=(507,),
            ),
            Operation(
                method="GET", path="/v1/files", handler=self.list, summary="List files", tag=_TAG,
                response=FileList, query=_LIST,
            ),
            Operation(
                method="GET", path="/v1/files/{id}", handler=self.get, summary="Describe a file", tag=_TAG,
                response=FileObject, statuses=(404,),
            ),
            Operation(
                method="DELETE", path="/v1/files/{id}", handler=self.delete, summary="Delete a file", tag=_TAG,
                response=FileDeleted, statuses=(404,),
            ),
            Operation(
                method="GET", path="/v1/files/{id}/content", handler=self.content, summary="Fetch a file", tag=_TAG,
                type="application/jsonl", statuses=(404,),
            ),
        )  # fmt: skip

    async def upload(self, call: Call) -> Answer:
        """Take a form with the file and its purpose."""
        if not (call.header(b"content-type") or b"").lower().startswith(b"multipart/form-data"):
            raise MediaTypeError("A file is uploaded as multipart/form-data, with the fields file and purpose.")
        chunks = body_chunks(call.receive, call.header(b"content-length"), self._limits)
        parser = MultiPartParser(Headers(raw=call.scope["headers"]), chunks, max_files=1, max_fields=8)
        try:
            form = await parser.parse()
        except (MultiPartException, UnicodeDecodeError, KeyError) as error:
            reason = getattr(error, "message", None) or "it has no boundary or is not UTF-8"
            raise RequestError(f"The form cannot be read: {reason}") from error
        try:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise RequestError("The form has no file in the field file.", param="file")
            if form.get("purpose") != "batch":
                raise RequestError("Invalid 'purpose': expected batch.", param="purpose", code="invalid_value")
            unknown = next((name for name in form if name not in ("file", "purpose")), None)
            if unknown is not None:
                raise RequestError(f"Unknown field {unknown[:64]!r}.", param=unknown[:64], code="unknown_parameter")
            if not file.size:
                raise RequestError("The file is empty.", param="file", code="empty_file")
            self._check_room(call.caller, file.size)
            name = (file.filename or "upload.jsonl")[:255]
            kept = await asyncio.to_thread(self._files.add, file.file, filename=name, owner=call.caller)
        finally:
            await form.close()
        return answer_model(kept)

    def _check_room(self, caller: str, size: int) -> None:
        """Refuse a file for which its owner has no room left.

        Raises:
            RequestError: there is none.
        """
        held = sum(file.bytes for file in self._files.of(caller))
        if self._stored is not None and held + size > self._stored:
            raise RequestError(
                f"Your files have {held:,} bytes and may have {self._stored:,}; this one has {size:,}. Delete some.",
                param="file",
                code="storage_quota",
            )

    async def list(self, call: Call) -> Answer:
        """Answer with a page of the caller's files."""
        query = call.query()
        purpose = query.get("purpose")
        if purpose is not None and purpose not in _PURPOSES:
            raise RequestError(f"Invalid 'purpose': expected {' or '.join(_PURPOSES)}.", param="purpose")
        files = [file for file in self._files.of(call.caller) if purpose in (None, file.purpose)]
        return page(files, query, _LIST)

    async def get(self, call: Call) -> Answer:
        """Describe a file."""
        return answer_model(self._files.get(call.path["id"], call.caller))

    async def content(self, call: Call) -> Answer:
        """Answer with a file's bytes."""
        file = self._files.get(call.path["id"], call.caller)
        return Answer(file=self._files.data(file.id), type="application/jsonl")

    async def delete(self, call: Call) -> Answer:
        """Delete a file that no batch is reading."""
        file = self._files.get(call.path["id"], call.caller)
        if any(batch.input_file_id == file.id for batch in self._batches.unfinished()):
            raise RequestError("A batch that has not ended reads this file. Cancel the batch first.", param="id")
        await asyncio.to_thread(self._files.delete, file.id, call.caller)
        return answer_json({"id": file.id, "object": "file", "deleted": True})
