"""Fetching a published checkpoint; how it comes here is :mod:`lamella.remote.download`'s matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lamella.errors import CheckpointError, FetchError
from lamella.formats.published import Published, models_folder
from lamella.remote import download
from lamella.remote.download import Fetched, Remote

__all__ = ["Fetched", "fetch"]


def fetch(
    model: Published,
    folder: Path | None = None,
    source: str | None = None,
    overwrite: bool = False,
    on_bytes: Callable[[int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Fetched:
    """Bring a published checkpoint onto this machine.

    Args:
        model: which one.
        folder: where to put it; where :func:`lamella.load` finds it by name if not given.
        source: address to fetch it from instead of its own.
        overwrite: replace a file of its name that is not the published one.
        on_bytes: called with how many bytes are there, and of how many if the host says so.
        on_note: called with what a person who waits wants to know: which host failed, what is waited for.

    Raises:
        CheckpointError: no host gives the file, or what they give is not the published one; or a file of its name is there.
        InputError: an address that is none; a folder that cannot be written or is too full.
    """
    remote = Remote(model.name, model.file, model.sources, f"sha256:{model.sha256}")
    try:
        return download.fetch(remote, models_folder() if folder is None else folder, source, overwrite, on_bytes, on_note)
    except FetchError as error:
        raise CheckpointError(str(error)) from None
