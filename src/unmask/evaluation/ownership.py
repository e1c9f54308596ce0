"""Whose a folder of results is: figures of two models are not mixed in one."""

from __future__ import annotations

import shutil
from pathlib import Path

from unmask.errors import InputError
from unmask.evaluation.outcome import MODEL_FILE, MTEB_FOLDER, Measured, read_model
from unmask.evaluation.subject import Subject


def take_over(folder: Path, subject: Subject, *, replace_other: bool) -> Measured | None:
    """Return what an earlier run says of the same model; another model's figures are refused, or removed.

    Args:
        folder: of the model's results.
        subject: the model.
        replace_other: whether another model's figures may be removed.

    Raises:
        InputError: the figures there are of another model, and may not be replaced.
    """
    try:
        earlier = read_model(folder)
    except InputError:
        if not replace_other:
            raise
        earlier = None
    if earlier is not None and earlier.identity == subject.identity:
        return earlier
    # Samples lie beside figures, and only there: other files are none of ours.
    figures = [file for file in folder.glob("*.json") if file.with_suffix(".npz").exists()]
    # mteb's results without a word on the model are those of a run that was killed; they say their revision themselves.
    of_mteb = folder / MTEB_FOLDER / "results"
    if (figures or (earlier is not None and of_mteb.exists())) and not replace_other:
        raise InputError(
            f"{folder} holds figures of another model, or of this one with other files or settings (--max-length, "
            "--pooling, …); expected a folder of its own for each. Give another --name, or --replace."
        )
    for file in figures:
        file.unlink()
        file.with_suffix(".npz").unlink()
    if earlier is not None and of_mteb.exists():
        shutil.rmtree(of_mteb)
    (folder / MODEL_FILE).unlink(missing_ok=True)
    return None
