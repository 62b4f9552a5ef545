"""What all applications share: limits, errors with reasons, who may ask; no pages that load from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException

from embedpipe._utils.version import __version__
from embedpipe.errors import EmbedpipeError, TemporaryError, UsageError
from embedpipe.serving.guard import Guard
from embedpipe.serving.messages import Problem

STATIC = Path(__file__).parent / "static"
#: Largest request, and largest uploaded picture, in bytes.
MOST_BYTES, MOST_UPLOADED = 1 << 20, 32 << 20
WORDS = {
    400: "Refused, with the reason",
    403: "Not allowed",
    409: "Somebody else was first",
    410: "Not there any more",
    503: "Too busy",
}


class GoneError(UsageError):
    """What a request names by number is not there any more."""


class Application(FastAPI):
    """A FastAPI application whose description names the errors that it gives: 400 in place of FastAPI's 422."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description."""
        described = super().openapi()
        for path in described["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        return described


def base_app(title: str, hosts: Iterable[str], token: str | None) -> FastAPI:
    """Return an application without routes.

    Parameters
    ----------
    title : str
    hosts : iterable of str
        Names by which it may be called; ``*`` stands for all addresses.
    token : str, optional
        What every request must bring.
    """
    app = Application(
        title=title,
        version=__version__,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        max_body_size=MOST_BYTES,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    _handle_errors(app)
    app.add_middleware(Guard, hosts=tuple(hosts), token=token)
    return app


def add_files(app: FastAPI, files: Mapping[str, str]) -> None:
    """Serve files of the page: the name of each by the path below the address."""

    def answer(file: Path, request: Request) -> FileResponse:
        return FileResponse(file)

    for path, name in files.items():
        app.add_route(f"/{path}", partial(answer, STATIC / name), include_in_schema=False)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of errors for routes."""
    return {status: {"model": Problem, "description": WORDS[status]} for status in statuses}


def _handle_errors(app: FastAPI) -> None:
    """Answer every error with a status and a JSON object that gives the reason."""

    def answer(status: int, reason: str) -> JSONResponse:
        return JSONResponse({"error": reason}, status)

    def invalid(request: Request, error: Any) -> JSONResponse:
        problems = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return answer(400, "; ".join(problems))

    def refused(request: Request, error: Any) -> JSONResponse:
        kinds = ((GoneError, 410), (TemporaryError, 503))
        return answer(next((status for kind, status in kinds if isinstance(error, kind)), 400), str(error))

    def other(request: Request, error: Any) -> JSONResponse:
        return answer(error.status_code, str(error.detail))

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(EmbedpipeError, refused)
    app.add_exception_handler(HTTPException, other)
