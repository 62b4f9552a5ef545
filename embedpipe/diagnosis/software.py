"""Versions, decoders, accelerators and extras; each is imported where it is asked, as it may be what is broken."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from typing import Any

from embedpipe._utils.importing import import_without_telemetry
from embedpipe.diagnosis.findings import Finding
from embedpipe.errors import MissingExtraError

PACKAGES = (
    "embedpipe",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "simplejpeg",
    "pyarrow",
    "deltalake",
    "scikit-learn",
    "faiss-cpu",
)

#: Extras that are for work on embedpipe, not for work with it.
FOR_DEVELOPERS = {"lint", "test"}


def versions() -> Finding:
    """Look at the versions that run, and whether torch and torchvision fit together."""
    found = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    warnings = []
    if problem := _mismatch():
        warnings.append(
            f"torch {found['torch']} and torchvision {found['torchvision']} do not work together ({problem}): install "
            "those of one release"
        )
    detail = ", ".join(f"{name} {version}" for name, version in found.items())
    return Finding("versions", detail, found, tuple(warnings))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _mismatch() -> str | None:
    """Return what goes wrong in a small computation of torchvision's own compiled code, or None."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:  # any at all: it is what two builds that do not fit raise
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def decoding() -> Finding:
    """Look at what decodes pictures."""
    from embedpipe.decoding import available_decoders

    found = available_decoders()
    return Finding("decoders", "; ".join(f"{library}: {formats}" for library, formats in found.items()), found)


def accelerators() -> Finding:
    """Look for what runs networks faster than torch does on a CPU."""
    try:
        openvino = import_without_telemetry("openvino")
    except MissingExtraError as error:
        return Finding("accelerators", f"none: {error}", {"openvino": None, "nncf": None})
    core = openvino.Core()
    name = core.get_property("CPU", "FULL_DEVICE_NAME")
    able = [str(word) for word in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")]
    values = {"openvino": _version("openvino"), "nncf": _version("nncf"), "processor": name, "capabilities": able}
    detail = f"OpenVINO {values['openvino']} ({', '.join(able)}), nncf {values['nncf']}"
    return Finding("accelerators", detail, values)


def extras() -> Finding:
    """Look at which optional parts of embedpipe are installed, and say the command that installs the others."""
    found: dict[str, dict[str, Any]] = {}
    for requirement in importlib.metadata.requires("embedpipe") or ():
        package, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if package is None or extra is None or extra[1] in FOR_DEVELOPERS:
            continue
        about = found.setdefault(extra[1], {"missing": [], "install": f"pip install 'embedpipe[{extra[1]}]'"})
        if _version(package[0]) == "not installed":
            about["missing"].append(package[0])
    said = [
        f"{name}: {'not installed: ' + about['install'] if about['missing'] else 'installed'}"
        for name, about in sorted(found.items())
    ]
    return Finding("extras", ", ".join(said), found)
