"""The page of a fine-tuning run: while it is training, and when it has finished."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from page import ODD, Browser, Page

from embedpipe.errors import UsageError
from embedpipe.finetuning.result import FineTuneResult, InitialCheck, ProbeComparison
from embedpipe.finetuning.training.charts import draw_accuracy, draw_losses
from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.finetuning.training.page import page_writer, write_training_page


def epochs_of(count: int) -> list[Epoch]:
    """Epochs 0 to count; the third is the most accurate, the second has the smallest log-loss."""
    gains = [0.0, 0.03, 0.05, 0.06, 0.04, 0.02]
    epochs = [Epoch(0, None, 0.84, 0.6, 0, 2.0)]
    for i in range(1, count + 1):
        accuracy, log_loss = 0.84 + gains[min(i, 5)], 0.5 + 0.05 * abs(i - 2)
        epochs.append(Epoch(i, 1.2 * math.exp(-i / 3), accuracy, log_loss, 1200, 40.0))
    return epochs


def result_of(epochs: list[Epoch], best_epoch: int) -> FineTuneResult:
    return FineTuneResult(
        folder="runs/tuned",
        backbone="runs/tuned/backbone.safetensors",
        head="runs/tuned/head",
        epochs=epochs,
        best_epoch=best_epoch,
        initial_check=InitialCheck(0.84, 0.84, 1e-5, 300),
        test=ProbeComparison(372, 0.85, 0.89, 0.04, 0.012, 0.068),
        train_rows=1200,
        validation_rows=300,
        splits_id="ab" * 32,
        seconds=202.0,
        device="cpu",
        precision="fp32",
        augmentation="light",
    )


def words_of(path: Path) -> str:
    return Page(path).words.replace("\N{MINUS SIGN}", "-").replace("\xa0", " ")


def test_page_in_progress_shows_the_latest_epoch(tmp_path: Path) -> None:
    path = write_training_page(tmp_path / "new" / "page.html", epochs_of(4), 10, "tuned")
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    assert Page(path).tags.count("svg") == 2
    words = words_of(path)
    assert "Epoch 4 of 10, 90.0 %: tuned" in words
    assert (
        "After epoch 4 of 10, the validation accuracy is 88.0 % , +4.0 points compared with the linear probe" in words
    )
    assert "after epoch 4; reload to see newer epochs" in words


def test_page_in_progress_shows_the_best_epoch_and_the_time_left(tmp_path: Path) -> None:
    words = words_of(write_training_page(tmp_path / "page.html", epochs_of(4), 10, "tuned"))
    assert "Best so far epoch 3: 90.0 %, log-loss 0.550" in words
    assert "Linear probe 84.0 %, log-loss 0.600" in words
    assert "Epoch 4 training loss 0.316, validation log-loss 0.600" in words
    assert "30.0 items/s" in words
    assert "2 min 42 s; at most 4 min 0 s left" in words
    assert "3 best so far 0.441 90.0 % 0.550 40 s" in words


def test_page_before_the_first_epoch(tmp_path: Path) -> None:
    path = write_training_page(tmp_path / "page.html", epochs_of(0), 1, "tuned")
    words = words_of(path)
    assert "Before training, the validation accuracy is that of the linear probe, 84.0 % . 1 epoch is planned" in words
    assert "the remaining time is estimated after the first epoch" in words
    assert "items/s" not in words
    assert Page(path).tags.count("svg") == 2


def test_no_time_is_left_after_the_last_epoch(tmp_path: Path) -> None:
    assert "at most 0 s left" in words_of(write_training_page(tmp_path / "a.htm", epochs_of(3), 3, "tuned"))


def test_page_of_a_finished_run(tmp_path: Path) -> None:
    words = words_of(result_of(epochs_of(5), 2).to_html(tmp_path / "page.html"))
    assert "Fine-tuned, 89.0 %: tuned" in words
    assert "The weights of epoch 2 were kept. Their validation accuracy is 89.0 % , +5.0 points compared with" in words
    assert (
        "On 372 test rows, read once: linear probe 85.0 %, fine-tuned 89.0 %, a difference of +4.0 points (95 % "
        "interval +1.2 to +6.8)"
    ) in words
    assert "2 kept 0.616 89.0 %" in words
    assert "best so far" not in words
    assert "at most" not in words


def test_page_of_a_run_that_kept_the_probe(tmp_path: Path) -> None:
    words = words_of(result_of(epochs_of(5), 0).to_html(tmp_path / "page.html"))
    assert "The linear probe was kept, with validation accuracy 84.0 % , because no epoch was better" in words
    assert "fine-tuned 89.0 %" not in words


def test_page_is_rewritten_after_each_epoch(tmp_path: Path) -> None:
    write = page_writer(tmp_path / "page.html", 9, "tuned")
    for count in (1, 2):
        write(epochs_of(count))
        assert f"After epoch {count} of 9" in words_of(tmp_path / "page.html")


def test_page_that_cannot_be_written_does_not_stop_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write = page_writer(tmp_path / "folder" / "page.html", 9, "tuned")
    (tmp_path / "folder").write_text("a file")
    write(epochs_of(1))
    assert "cannot write the page" in capsys.readouterr().err


def test_invalid_pages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.html, got .*page\.pdf"):
        page_writer(tmp_path / "page.pdf", 1, "tuned")
    with pytest.raises(UsageError, match="needs at least one epoch"):
        write_training_page(tmp_path / "page.html", [], 1, "tuned")
    assert list(tmp_path.iterdir()) == []


def test_charts_follow_the_epochs() -> None:
    epochs = epochs_of(5)
    other = [*epochs[:-1], Epoch(5, 0.9, 0.7, 0.9, 1200, 40.0)]
    assert draw_losses(epochs) == draw_losses(epochs) != draw_losses(other)
    assert draw_accuracy(epochs, epochs[3], "kept") != draw_accuracy(epochs, epochs[2], "kept")
    assert "from 84.0\xa0%, the linear probe, to 86.0\xa0% at epoch 5; kept: epoch 3, 90.0\xa0%" in draw_accuracy(
        epochs, epochs[3], "kept"
    )
    for svg in (draw_losses(epochs), draw_accuracy(epochs, epochs[3], "kept")):
        assert "#0" not in re.sub(r'(id|href)="[^"]*"|url\([^)]*\)', "", svg)
    for name in ("network", "linear probe", "kept"):
        assert f">{name}</text>" in draw_accuracy(epochs, epochs[3], "kept")


def test_page_of_a_thousand_epochs_is_small(tmp_path: Path) -> None:
    path = write_training_page(tmp_path / "page.html", epochs_of(1000), 2000, "tuned")
    assert path.stat().st_size < 3_000_000
    assert "After epoch 1000 of 2000" in words_of(path)


def test_names_are_escaped(tmp_path: Path) -> None:
    for name in ODD:
        page = Page(write_training_page(tmp_path / "page.html", epochs_of(2), 3, f"{name}x"))
        assert page.tags.count("svg") == 2
        assert "\0" not in page.source


@pytest.mark.long
def test_page_in_a_browser_without_a_network(tmp_path: Path, browser: Browser) -> None:
    page = tmp_path / "page.html"
    shades = {}
    epochs = epochs_of(4)
    for width, scheme, result in ((1280, "light", result_of(epochs, 2).to_dict()), (390, "dark", None)):
        write_training_page(page, epochs, 10, ODD[1], result)
        widths = browser.open_alone(page, width, scheme)
        assert len(widths) == 2
        assert min(widths) > 300
        shades[scheme] = np.median(np.asarray(browser.picture()))
    assert shades["dark"] < 60 < 240 < shades["light"]
