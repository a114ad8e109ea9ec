"""A published checkpoint is fetched into its place, and only the published one."""

from __future__ import annotations

import hashlib

import pytest

from lamella.errors import CheckpointError
from lamella.formats.fetch import fetch
from lamella.formats.published import Published, models_folder
from remote.file_server import Host, serving

CONTENT = b"weights" * 1000


def model(content: bytes, *addresses: str) -> Published:
    return Published("M", "model.pt", hashlib.sha256(content).hexdigest(), "page", addresses)


@pytest.fixture
def host(monkeypatch, tmp_path):
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path))
    monkeypatch.delenv("http_proxy", raising=False)
    with serving(Host(CONTENT)) as running:
        yield running


def test_checkpoint_lies_where_load_finds_it(host):
    assert fetch(model(CONTENT, host.url)).path == models_folder() / "model.pt"
    assert fetch(model(CONTENT, host.url)).was_there


def test_other_checkpoint_is_refused(host, tmp_path):
    with pytest.raises(CheckpointError, match=r"M could not be fetched .* not the published file"):
        fetch(model(b"other", host.url), tmp_path / "here")
