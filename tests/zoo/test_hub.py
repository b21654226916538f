"""Names of the hub stand in the place of folders; nothing else is asked of it."""

from __future__ import annotations

import os
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo import errors, hub
from zoo.bayes.coin import BetaBernoulli


class Hub:
    """A hub in a folder, in the place of the functions of huggingface_hub that are called; it caches as that does."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.root, self.cache, self.commits, self.asked = folder / "hub", folder / "cache", 0, []
        self.snapshots = folder / "snapshots"
        self.root.mkdir()
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.download)
        monkeypatch.setattr(
            "huggingface_hub.HfApi.create_repo", lambda _, *given, **named: self.create(*given, **named)
        )
        monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda _, **named: self.upload(**named))
        monkeypatch.setattr("zoo.hub.cache_folder", lambda: self.cache)

    def files(self, repository: str) -> set[str]:
        return {path.name for path in (self.root / repository).iterdir()}

    def create(self, repository: str, private: bool, exist_ok: bool) -> None:
        (self.root / repository).mkdir(parents=True, exist_ok=exist_ok)
        (self.root / repository / ".gitattributes").touch()

    def upload(
        self, repo_id: str, folder_path: Path, commit_message: str, allow_patterns: Any, delete_patterns: Any
    ) -> str:
        assert commit_message
        for path in (self.root / repo_id).iterdir():
            if any(fnmatch(path.name, pattern) for pattern in delete_patterns):
                path.unlink()
        for path in Path(folder_path).iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copyfile(path, self.root / repo_id / path.name)
        self.commits += 1
        return f"https://hub/{repo_id}/commit/{self.commits}"

    def download(self, repository: str, revision: str | None, allow_patterns: Any) -> str:
        self.asked.append((repository, revision))
        if not (self.root / repository).is_dir():
            raise OSError("404 Client Error. Repository not found.")
        snapshot = self.snapshots / repository / f"commit{self.commits}"
        blobs = snapshot.with_name(f"blobs{self.commits}")
        for folder in (snapshot, blobs):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for path in (self.root / repository).iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copyfile(path, blobs / path.name)
                (snapshot / path.name).symlink_to(blobs / path.name)
        return str(snapshot)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub with a coin."""
    monkeypatch.setattr(os, "fsync", lambda number: None)
    made = Hub(tmp_path, monkeypatch)
    zoo.catalogue.save(BetaBernoulli(2.0, 5.0), made.root / "me" / "coin")
    (made.root / "me" / "coin" / "large.bin").write_text("not asked for")
    return made


def test_a_repository_is_loaded_by_its_name_and_kept(there: Hub) -> None:
    for _ in range(2):
        assert zoo.load("me/coin").config() == BetaBernoulli(2.0, 5.0).config()
    kept = there.cache / "hub" / "me--coin" / "commit0"
    assert {path.name for path in kept.iterdir()} == {"config.json", "model.safetensors"}
    assert not any(path.is_symlink() for path in kept.iterdir())
    zoo.load("me/coin@v1.0")
    assert there.asked == [("me/coin", None)] * 2 + [("me/coin", "v1.0")]


def test_the_newest_commit_is_taken(there: Hub) -> None:
    zoo.load("me/coin")
    zoo.catalogue.save(BetaBernoulli(3.0, 5.0), there.root / "me" / "coin")
    there.commits += 1
    assert zoo.load("me/coin").config() == BetaBernoulli(3.0, 5.0).config()


def test_a_folder_comes_first_and_paths_never_leave_the_machine(
    there: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    zoo.catalogue.save(BetaBernoulli(7.0, 5.0), "me/coin")
    assert zoo.load("me/coin").config() == BetaBernoulli(7.0, 5.0).config()
    for name in ("./me/nothing", "/me/coin", "me/coin/more", "me", Path("me/nothing"), "../coin", "me/.."):
        assert hub.local(name) == Path(name)
    assert not there.asked


def test_what_is_not_there_is_said_of_both(there: Hub) -> None:
    with pytest.raises(errors.CheckpointError, match=r"me/nothing is no folder here.*OSError: 404 Client Error"):
        zoo.load("me/nothing")


def test_a_damaged_copy_is_seen(there: Hub) -> None:
    path = there.root / "me" / "coin" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(errors.CheckpointError, match="damaged"):
        zoo.load("me/coin")
