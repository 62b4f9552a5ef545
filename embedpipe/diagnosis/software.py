"""Versions, decoders, accelerators and extras. Each library is imported inside its probe, as it may be broken."""

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

#: Extras for developing embedpipe.
FOR_DEVELOPERS = {"lint", "test"}


def versions() -> Finding:
    """Find the installed versions, and check that torch and torchvision work together."""
    installed = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    warnings = []
    if problem := _mismatch():
        warnings.append(
            f"torch {installed['torch']} and torchvision {installed['torchvision']} do not work together ({problem}): "
            "install both by one command of https://pytorch.org/get-started/locally, so that they are of one release "
            "and one build"
        )
    detail = ", ".join(f"{name} {version}" for name, version in installed.items())
    return Finding("versions", detail, installed, tuple(warnings))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _mismatch() -> str | None:
    """Return the error of a small computation by torchvision's compiled code, or None if it works."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:  # builds that do not fit raise many types
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def decoding() -> Finding:
    """Find the libraries that decode images."""
    from embedpipe.decoding import available_decoders

    decoders = available_decoders()
    return Finding("decoders", "; ".join(f"{library}: {formats}" for library, formats in decoders.items()), decoders)


def accelerators() -> Finding:
    """Find the libraries that run networks faster than torch does on a CPU."""
    try:
        openvino = import_without_telemetry("openvino")
    except MissingExtraError as error:
        return Finding("accelerators", f"none: {error}", {"openvino": None, "nncf": None})
    core = openvino.Core()
    name = core.get_property("CPU", "FULL_DEVICE_NAME")
    capabilities = [str(word) for word in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")]
    values = {
        "openvino": _version("openvino"),
        "nncf": _version("nncf"),
        "processor": name,
        "capabilities": capabilities,
    }
    detail = f"OpenVINO {values['openvino']} ({', '.join(capabilities)}), nncf {values['nncf']}"
    return Finding("accelerators", detail, values)


def extras() -> Finding:
    """Find the installed extras of embedpipe, and the commands that install the others."""
    states: dict[str, dict[str, Any]] = {}
    for requirement in importlib.metadata.requires("embedpipe") or ():
        package, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if package is None or extra is None or extra[1] in FOR_DEVELOPERS:
            continue
        state = states.setdefault(extra[1], {"missing": [], "install": f"pip install 'embedpipe[{extra[1]}]'"})
        if _version(package[0]) == "not installed":
            state["missing"].append(package[0])
    parts = [
        f"{name}: {'not installed: ' + state['install'] if state['missing'] else 'installed'}"
        for name, state in sorted(states.items())
    ]
    return Finding("extras", ", ".join(parts), states)
