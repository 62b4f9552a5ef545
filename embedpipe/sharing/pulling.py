"""`pull`: a store or head from the Hugging Face hub."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from embedpipe._utils.atomic import whole_folder
from embedpipe._utils.folder_kinds import check_name, path_kind, refuse_url
from embedpipe._utils.progress import Progress
from embedpipe.errors import HeadError, HubError, StoreError, UsageError
from embedpipe.heads import Head
from embedpipe.heads.saving import read_head
from embedpipe.sharing.files import FILES
from embedpipe.sharing.hub import hub_errors
from embedpipe.sharing.location import Repository
from embedpipe.sharing.xet import xet_if_it_answers
from embedpipe.store import FeatureStore
from embedpipe.store.repairing.damage import find_damage

CARD = "README.md"

#: Files that are downloaded at a time.
DOWNLOADS = 8


def pull(source: str, to: str | Path, *, progress: bool | None = None) -> FeatureStore | Head:
    """Pull a store or head from the Hugging Face hub, check it, and open it.

    Only files of a store or head are downloaded. Every byte is compared with checksums, and nothing that was pulled is
    run. The folder appears when all is there and whole. The token is that of huggingface_hub: ``HF_TOKEN``, or
    ``hf auth login``.

    Parameters
    ----------
    source : str
        ``hf://datasets/ORG/NAME`` for a store, ``hf://ORG/NAME`` for a head, both with ``@REVISION`` if you like.
    to : str or path-like
        A new or empty local folder.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    FeatureStore or Head

    Raises
    ------
    UsageError
        The address is wrong, or the folder is not empty.
    HubError
        The hub refuses, or the repository holds no store or head.
    StoreError, HeadError
        What was pulled is damaged or was changed. Nothing is kept.
    UnreachableError
        The hub does not answer.

    See Also
    --------
    push : The way there.

    Examples
    --------
    >>> store = embedpipe.pull("hf://datasets/lab/photos", "photos.features")  # doctest: +SKIP
    """
    repository = Repository.parse(source)
    refuse_url(to, "pull writes a local folder")
    folder = check_name(to).resolve()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(f"pull needs a new or empty folder, and {str(to)!r} is {path_kind(folder)}: give another")
    show = Progress(progress)
    with whole_folder(folder) as part:
        _download(repository, part, show)
        with show.step("checking what was pulled"):
            _check(part, repository)
    return FeatureStore(folder) if repository.kind == "store" else Head(**read_head(folder))


def _download(repository: Repository, part: Path, show: Progress) -> None:
    from huggingface_hub import HfApi, hf_hub_download

    api, repo, kind = HfApi(), repository.name, repository.type
    with hub_errors(repository.address):
        commit = api.repo_info(repo, repo_type=kind, revision=repository.revision).sha
        known = api.list_repo_files(repo, repo_type=kind, revision=commit)
        names = [name for name in known if FILES[repository.kind].fullmatch(name)]
        if not names:
            raise HubError(f"{repository.address} holds no {repository.kind} of embedpipe")
        names += [CARD] if CARD in known else []
        xet = xet_if_it_answers(repository, "read", str(commit))
        with xet, show.step(f"pulling {repository.address}", len(names), "files") as advance:
            fetch = partial(hf_hub_download, repo, repo_type=kind, revision=commit, local_dir=part)
            with ThreadPoolExecutor(DOWNLOADS) as pool:
                for _ in pool.map(fetch, names):
                    advance()
    shutil.rmtree(part / ".cache", ignore_errors=True)  # the notes of the library about the download


def _check(part: Path, repository: Repository) -> None:
    """Raise StoreError or HeadError unless all files are as they were written."""
    try:
        if repository.kind == "head":
            read_head(part)
            return
        store = FeatureStore(part)
        damaged = [(file.path, why) for file, why in find_damage(store.table) if why]
        for layer in store.spec.layers:
            if layer.reduction and layer.reduction.read:
                layer.reduction.read()
    except (StoreError, HeadError) as error:  # names a folder that is deleted, and advises to repair it
        message = re.sub(r": run `embedpipe repair [^`]+`", "", str(error).replace(str(part), repository.address))
        raise type(error)(f"{message}. Nothing is kept: ask who pushed it to push it again") from error
    for path, why in damaged:
        raise StoreError(f"{path!r} of {repository.address} is damaged, and nothing is kept: {why}")
