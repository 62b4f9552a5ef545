"""Whether a repository holds what would be pushed already, so that nothing is copied, uploaded and committed again."""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.version import __version__
from embedpipe.sharing.hub import hub_errors
from embedpipe.sharing.location import Repository
from embedpipe.sharing.options import PushOptions
from embedpipe.store import FeatureStore

#: Key of the mark in the commit of a copy.
MARK = "embedpipe.pushed"


def mark_of(store: FeatureStore, options: PushOptions) -> str:
    """Return a hash of all that decides the files of a pushed store: its files, whose names hold their checksums."""
    files = sorted(file.path for file in store.table.files)
    values = [__version__, files, store.spec.to_json(), {**asdict(options), "private": None}]
    return hashlib.sha256(json.dumps(values, default=list).encode()).hexdigest()


def pushed_commit(repository: Repository, mark: str) -> str | None:
    """Return the newest commit of a repository if it is of a push with that mark, and whole; None otherwise.

    Raises what `hub_errors` raises, but for a repository that does not exist.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    name, kind = repository.name, repository.type
    with hub_errors(repository.address), suppress(RepositoryNotFoundError):
        commit = str(HfApi().repo_info(name, repo_type=kind).sha)
        names = set(HfApi().list_repo_files(name, repo_type=kind, revision=commit))
        logs = sorted(each for each in names if each.startswith("_delta_log/") and each.endswith(".json"))
        if logs and _is_of_push(repository, commit, logs[-1], names, mark):
            return commit
    return None


def page_of(repository: Repository, commit: str) -> str:
    """Return the address of the page of a commit."""
    from huggingface_hub import constants

    folder = "datasets/" if repository.kind == "store" else ""
    return f"{constants.ENDPOINT}/{folder}{repository.name}/commit/{commit}"


def _is_of_push(repository: Repository, commit: str, log: str, names: set[str], mark: str) -> bool:
    from huggingface_hub import hf_hub_download

    with tempfile.TemporaryDirectory(prefix="embedpipe-push-") as folder:
        file = hf_hub_download(repository.name, log, repo_type=repository.type, revision=commit, local_dir=folder)
        try:
            actions = [parse_json(line) for line in Path(file).read_bytes().splitlines()]
            marks = [action["commitInfo"].get(MARK) for action in actions if "commitInfo" in action]
            added = {action["add"]["path"] for action in actions if "add" in action}
        except (ValueError, LookupError, TypeError, AttributeError):
            return False
    return mark in marks and added <= names
