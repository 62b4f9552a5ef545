"""`push`: a store or head to the Hugging Face hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from embedpipe._utils.folder_kinds import but_is, folder_kind
from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.errors import HubError, StoreNotFoundError, UsageError
from embedpipe.heads import Head
from embedpipe.heads.saving import MANIFEST, read_manifest, write_manifest
from embedpipe.sharing.card import head_card, store_card
from embedpipe.sharing.copying import copy_store
from embedpipe.sharing.files import FILES, REPLACED
from embedpipe.sharing.hub import hub_errors
from embedpipe.sharing.location import FORMS, Repository
from embedpipe.sharing.options import PushOptions
from embedpipe.sharing.unchanged import MARK, mark_of, page_of, pushed_commit
from embedpipe.sharing.xet import xet_if_it_answers
from embedpipe.store import FeatureStore
from embedpipe.store.opening import open_store

if TYPE_CHECKING:
    from embedpipe._utils.parameters import PushParameters


@dataclass(frozen=True)
class PushReport:
    """What `push` has uploaded.

    Attributes
    ----------
    repository : str
        Its address, as `pull` takes it, with the commit as revision.
    url : str
        The page of the commit.
    files, bytes : int
        Number of files of the store or head, with the card, and their size; 0 if the repository held them already.
    notes : list of str
        What was left out or replaced, or that nothing was pushed.
    """

    repository: str
    url: str
    files: int
    bytes: int
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists."""
        return asdict(self)


@takes_options(PushOptions)
def push(
    source: FeatureStore | Head | str | Path,
    to: str,
    *,
    progress: bool | None = None,
    **options: Unpack[PushParameters],
) -> PushReport:
    """Push a store or head to the Hugging Face hub, with a card of what is known of it.

    Of a store, the rows of its version are pushed, without old versions, commits, failures and indexes. Paths of this
    machine are left out. The repository is created if it does not exist, and all is in one commit; there is none if the
    repository holds the same already. The token is that of huggingface_hub: ``HF_TOKEN``, or ``hf auth login``.

    Parameters
    ----------
    source : FeatureStore, Head or path
    to : str
        ``hf://datasets/ORG/NAME`` for a store, ``hf://ORG/NAME`` for a head.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    PushReport

    Raises
    ------
    UsageError
        An option or the address is wrong, or a column holds paths of this machine.
    HubError
        The hub refuses, or the repository holds something else.
    UnreachableError
        The hub does not answer.

    See Also
    --------
    pull : Get it back.

    Examples
    --------
    >>> embedpipe.push("photos.features", "hf://datasets/lab/photos", license="cc-by-4.0")  # doctest: +SKIP
    """
    (chosen,) = build_options((PushOptions,), options)
    repository = Repository.parse(to)
    if repository.revision is not None:
        raise UsageError(f"push goes to the branch main, got the revision {repository.revision!r}: leave it out")
    show = Progress(progress)
    report = _push(source, repository, chosen, show)
    show.event("summary", **report.to_dict())
    return report


def _push(source: Any, repository: Repository, options: PushOptions, show: Progress) -> PushReport:
    store = None if _is_head(source, repository) else open_store(source, "pushing it")
    mark = "" if store is None else mark_of(store, options)
    if store is not None and (commit := pushed_commit(repository, mark)) is not None:
        notes = ["nothing is pushed: the repository holds this version with these options already"]
        return PushReport(f"{repository.address}@{commit}", page_of(repository, commit), 0, 0, notes)
    with tempfile.TemporaryDirectory(prefix="embedpipe-push-") as temporary:
        folder = Path(temporary, "repository")
        with show.step("writing what is pushed"):
            if store is None:
                notes = _prepare_head(source, folder, repository, options)
            else:
                notes = _prepare_store(store, folder, repository, options, mark)
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        with show.step(f"pushing {size / 1e6:,.1f} MB"):
            commit, url, replaced = _upload(folder, repository, options.private)
    if replaced:
        notes.append(f"what was pushed before is replaced, and stays at {repository.address}@{replaced}")
    return PushReport(f"{repository.address}@{commit}", url, len(files), size, notes)


def _is_head(source: Any, repository: Repository) -> bool:
    """Return whether a head is pushed. Raises UsageError if the address is that of a store, or the other way round."""
    is_path = isinstance(source, str | Path)
    is_head = isinstance(source, Head) or folder_kind(source if is_path else "") == "a head"
    if is_path and not is_head and not FeatureStore.exists(source):
        raise StoreNotFoundError(f"there is no feature store and no head at {str(source)!r}{but_is(source)}")
    if is_head != (repository.kind == "head"):
        kind = "head" if is_head else "store"
        raise UsageError(f"a {kind} is pushed to {FORMS['head' if is_head else 'store']}, got {repository.address}")
    return is_head


def _prepare_store(
    store: FeatureStore, folder: Path, repository: Repository, options: PushOptions, mark: str
) -> list[str]:
    """Write the files of the repository, and return what is left out."""
    notes = copy_store(store, folder, exclude=options.exclude, keep_paths=options.keep_paths, note={MARK: mark})
    card = store_card(FeatureStore(folder), repository.address, options.license, notes)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return notes


def _prepare_head(source: Any, folder: Path, repository: Repository, options: PushOptions) -> list[str]:
    if options.exclude:
        raise UsageError(f"{option('exclude')} leaves out columns of a store, and a head has none")
    saved = source.save(folder.with_name("head")) if isinstance(source, Head) else Path(source)
    card = head_card(_copy_head(saved, folder, keep_paths=options.keep_paths), repository.address, options.license)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return []


def _copy_head(saved: Path, folder: Path, *, keep_paths: bool) -> dict[str, Any]:
    """Copy the files of a head without the place of its store, and return its manifest."""
    manifest = read_manifest(saved)
    if not keep_paths:
        manifest["store"] = Path(manifest["store"]).name
    folder.mkdir()
    for name in manifest["files"]:
        if not FILES["head"].fullmatch(name):
            raise HubError(
                f"the manifest of {str(saved)!r} names {name!r}, which is not a file of a head: fit it again"
            )
        shutil.copyfile(saved / name, folder / name)
    write_manifest(manifest, folder)
    home = str(Path.home())
    if not keep_paths and len(home) > 2 and json.dumps(home)[1:-1] in (folder / MANIFEST).read_text():
        raise UsageError(
            f"what is pushed must not hold paths of this machine, and the manifest of {str(saved)!r} names {home!r}: "
            f"push the paths too ({option('keep_paths', True)})"
        )
    return manifest


def _upload(folder: Path, repository: Repository, private: bool) -> tuple[str, str, str | None]:
    """Upload a folder in one commit. Return the commit, the address of its page, and the commit that it replaces."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    name, kind = repository.name, repository.type
    with hub_errors(repository.address):
        api.create_repo(name, repo_type=kind, private=private or None, exist_ok=True)
        known = api.list_repo_files(name, repo_type=kind)
        _refuse_other_files(known, repository)
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        replaced = [each for each in known if any(fnmatch(each, pattern) for pattern in REPLACED[repository.kind])]
        operations: list[Any] = [
            *(CommitOperationDelete(each) for each in replaced if each not in files),
            *(CommitOperationAdd(each, str(path)) for each, path in files.items()),
        ]
        before = str(api.repo_info(name, repo_type=kind).sha) if replaced else None
        # Of a folder, `upload_folder` may make several commits, between which there would be no whole store.
        with xet_if_it_answers(repository, "write"):
            commit = api.create_commit(name, operations, commit_message="Push by embedpipe", repo_type=kind)
    return commit.oid, str(commit.commit_url), before


def _refuse_other_files(names: Sequence[str], repository: Repository) -> None:
    """Raise HubError if a repository holds something, and no store or head."""
    others = [name for name in names if name not in (".gitattributes", "README.md")]
    if others and not any(FILES[repository.kind].fullmatch(name) for name in others):
        raise HubError(
            f"{repository.address} holds other files, such as {others[0]!r}, and no {repository.kind}: choose a new "
            "name"
        )
