"""What goes wrong at the hub, in embedpipe's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from embedpipe.errors import EmbedpipeError, HubError, UnreachableError, UsageError

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


@contextmanager
def hub_errors(address: str) -> Iterator[None]:
    """Raise HubError, UsageError or UnreachableError for errors of huggingface_hub, which shows no progress bars."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    except EmbedpipeError:
        raise
    except Exception as error:
        # An upload that fails in a thread is the cause of another error.
        if (known := _translated(error, address) or _translated(error.__cause__, address)) is None:
            raise
        raise known from error
    finally:
        if were_shown:
            enable_progress_bars()


def _translated(error: BaseException | None, address: str) -> EmbedpipeError | None:
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return UsageError(f"{address} is not a valid name of a repository: {error}")
    if isinstance(error, errors.LocalTokenNotFoundError):
        return HubError(f"the hub needs a token for {address}: {LOGIN}")
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{address} is gated: accept its conditions on its page, and {LOGIN}")
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{address} has no such revision: leave it out, or give a branch, tag or commit")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(f"there is no repository {address}, or it is private: check the name, and {LOGIN}")
    if isinstance(error, errors.HfHubHTTPError):
        status = 0 if error.response is None else error.response.status_code
        if status in (401, 403):
            return HubError(f"the hub refuses {address} ({status}): {LOGIN}, with a token that may do it")
        if status >= 500 or status == 429:
            return UnreachableError(f"the hub does not answer for {address} ({status}): try again later")
        return HubError(f"the hub refuses {address}: {error}")
    # Errors of the connection are those of the operating system, or of httpx, which is no dependency of embedpipe.
    is_of_client = type(error).__module__.startswith(("httpx", "httpcore"))
    if is_of_client or isinstance(error, ConnectionError | TimeoutError):
        return UnreachableError(f"the hub cannot be reached for {address}: {error}")
    is_of_machine = isinstance(error, OSError) and error.errno is not None  # such as a full disk
    if type(error) in (OSError, errors.FileMetadataError) and not is_of_machine:
        return HubError(f"the hub does not give the files of {address} as it lists them: {error}")
    if isinstance(error, ValueError | TypeError | KeyError):
        return HubError(f"what answered for {address} was not the hub, but perhaps a proxy: {error}")
    return None
