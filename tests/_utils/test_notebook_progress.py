"""Progress in a notebook: one output for each cell, which changes in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from embedpipe._utils.notebook.progress_bar import MAX_MESSAGES, CellOutput
from embedpipe._utils.progress import Progress

pytest.importorskip("IPython", reason="notebooks need IPython: pip install 'embedpipe[test]'")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a shell that publishes to a list, as the kernel of a notebook publishes to its front end."""
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    class KernelShell(InteractiveShell):
        kernel = "a kernel"

    InteractiveShell.clear_instance()
    shell = KernelShell.instance(display_pub_class=CapturingDisplayPublisher, history_manager=None)
    monkeypatch.setattr(CellOutput, "INTERVAL", 0.0)
    monkeypatch.setattr(CellOutput, "_of_cell", None)
    yield shell
    KernelShell.clear_instance()


def shown(shell: Any) -> list[dict[str, Any]]:
    """Return the outputs below the cell as a front end keeps them: an update replaces the output of its id."""
    outputs: dict[str, dict[str, Any]] = {}
    for message in shell.display_pub.outputs:
        name = message["transient"]["display_id"]
        assert message.get("update", False) == (name in outputs)
        outputs[name] = message["data"]
    return list(outputs.values())


def test_steps_and_messages_of_a_cell_share_one_output(shell: Any) -> None:
    for name in ("reading", "fitting"):
        progress = Progress(None)
        progress.say("device: <cpu>")
        with progress.step(name, 3, "rows") as advance:
            for _ in range(3):
                advance()
                (output,) = shown(shell)
                assert "<progress value=" in output["text/html"]
                assert f"{name}: " in output["text/plain"]
                assert "s left" in output["text/plain"]
    (output,) = shown(shell)
    device, line = output["text/plain"].splitlines()
    assert device == "device: <cpu>"
    assert line.startswith("fitting: 3 of 3 rows in ")
    assert "device: &lt;cpu&gt;" in output["text/html"]
    assert "<progress" not in output["text/html"]
    shell.execution_count += 1
    with Progress(True).step("training", 2) as advance:
        advance(2)
    assert len(shown(shell)) == 2


def test_a_step_of_unknown_length_leaves_the_line_of_the_step_before(shell: Any) -> None:
    progress = Progress(None)
    with progress.step("fitting", 1, "fits") as advance:
        advance()
    with progress.step("comparing"):
        (output,) = shown(shell)
        assert output["text/plain"].startswith("comparing, ")
        assert "<progress style=" in output["text/html"]
    (output,) = shown(shell)
    assert output["text/plain"].startswith("fitting: 1 of 1 fit in ")


def test_a_failed_step_says_how_far_it_came(shell: Any) -> None:
    def fail() -> None:
        with Progress(None).step("reading", 5) as advance:
            advance(2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert shown(shell)[0]["text/plain"].startswith("reading: 2 of 5 items in ")


def test_few_messages_stay_and_none_is_written_when_switched_off(shell: Any, capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress(None)
    progress.say_all(f"epoch {i}" for i in range(100))
    assert shown(shell)[0]["text/plain"].splitlines() == [f"epoch {i}" for i in range(100 - MAX_MESSAGES, 100)]
    before = len(shell.display_pub.outputs)
    silent = Progress(False)
    silent.say("hello")
    with silent.step("reading", 5) as advance:
        advance()
    assert len(shell.display_pub.outputs) == before
    assert capfd.readouterr() == ("", "")
