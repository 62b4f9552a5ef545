"""The page of a training: its figures, its life while the training goes on, and what it says where it stopped."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from page import ODD, Browser, Page

from embedpipe.errors import UsageError
from embedpipe.finetuning.result import Epoch, FineTuneResult, Measured, StepZero
from embedpipe.finetuning.training.charts import draw_accuracy, draw_losses
from embedpipe.finetuning.training.page import follow_training, write_training

RELOADS = '<meta http-equiv="refresh" content="5">'


def epochs_of(count: int) -> list[Epoch]:
    """Epochs 0 to count; the third is the most accurate, the second has the smallest log-loss."""
    gains = [0.0, 0.03, 0.05, 0.06, 0.04, 0.02]
    found = [Epoch(0, None, 0.84, 0.6, 0, 2.0)]
    for i in range(1, count + 1):
        accuracy, log_loss = 0.84 + gains[min(i, 5)], 0.5 + 0.05 * abs(i - 2)
        found.append(Epoch(i, 1.2 * math.exp(-i / 3), accuracy, log_loss, 1200, 40.0))
    return found


def found_of(epochs: list[Epoch], best: int) -> FineTuneResult:
    return FineTuneResult(
        folder="tuned",
        backbone="tuned/backbone.safetensors",
        head="tuned/head",
        epochs=epochs,
        best=best,
        step_zero=StepZero(0.84, 0.84, 1e-5, 300),
        test=Measured(372, 0.85, 0.89, 0.04, 0.012, 0.068),
        train=1200,
        validation=300,
        splits_id="ab" * 32,
        seconds=202.0,
        device="cpu",
        precision="fp32",
        augmentation="light",
    )


def words_of(path: Path) -> str:
    return Page(path).words.replace("\N{MINUS SIGN}", "-").replace("\xa0", " ")


def test_a_training_under_way_reads_itself_again(tmp_path: Path) -> None:
    to = write_training(epochs_of(4), tmp_path / "new" / "live.html", finished=False, planned=10, name="shared/photos")
    assert [path.name for path in to.parent.iterdir()] == ["live.html"]
    assert RELOADS in to.read_text()
    page, words = Page(to), words_of(to)
    assert page.tags.count("svg") == 2
    assert "Epoch 4 of 10, 90.0 %: photos" in words
    assert "After epoch 4 of 10, validation accuracy is 88.0 % : +4.0 points against the probe" in words
    assert "Highest so far epoch 3: 90.0 %, log-loss 0.550" in words
    assert "Probe 84.0 %, log-loss 0.600" in words
    assert "Epoch 4 training loss 0.316, validation log-loss 0.600" in words
    assert "30.0 images/s" in words
    assert re.search(r"2 min 42 s; at most 4 min 0 s to go, until (\d{4}-\d\d-\d\d )?\d\d:\d\d", words)
    assert "3 highest 0.441 90.0 % 0.550 40 s" in words


def test_before_the_first_epoch_nothing_is_known_of_the_time(tmp_path: Path) -> None:
    to = write_training(epochs_of(0), tmp_path / "live.html", finished=False, planned=1)
    words = words_of(to)
    assert "Before training, the network has the probe" in words
    assert "84.0 % ; 1 epoch to come" in words
    assert "known after the first epoch" in words
    assert "images/s" not in words
    assert Page(to).tags.count("svg") == 2


def test_the_last_epoch_leaves_no_time(tmp_path: Path) -> None:
    assert "at most 0 s to go" in words_of(write_training(epochs_of(3), tmp_path / "a.htm", finished=False, planned=3))


def test_a_finished_training_stands_still_and_says_what_it_came_to(tmp_path: Path) -> None:
    epochs = epochs_of(5)
    to = write_training(epochs, tmp_path / "a.html", finished=True, planned=10, found=found_of(epochs, 2))
    assert "refresh" not in to.read_text()
    words = words_of(to)
    assert "Epoch 2 was kept: 89.0 % of the validation rows, +5.0 points against the probe" in words
    assert (
        "372 test rows, read once: probe 85.0 %, fine-tuned 89.0 %, that is +4.0 points (95 % interval +1.2 to +6.8)"
        in words
    )
    assert "2 kept 0.616 89.0 %" in words
    assert "highest 0." not in words
    assert "to go" not in words
    to = write_training(epochs, to, finished=True, planned=10, found=found_of(epochs, 0))
    assert "The probe was kept, 84.0 % of the validation rows, as nothing trained was better" in words_of(to)
    assert "fine-tuned 89.0 %" not in words_of(to)


def test_whatever_ends_the_training_the_page_no_longer_reads_itself(tmp_path: Path) -> None:
    to = tmp_path / "live.html"
    with follow_training(to, planned=9) as on_epoch:
        on_epoch(epochs_of(1))
    assert RELOADS in to.read_text()

    def stopped(epochs: list[Epoch], error: BaseException) -> None:
        with follow_training(to, planned=9) as on_epoch:
            on_epoch(epochs)
            raise error

    for error in (KeyboardInterrupt(), ValueError()):
        with pytest.raises(type(error)):
            stopped(epochs_of(2), error)
        assert "refresh" not in to.read_text()
        says = "It stopped after epoch 2 of 9, with validation accuracy 89.0 % : the same command goes on"
        assert says in words_of(to)
    to.unlink()
    with pytest.raises(ValueError, match="early"), follow_training(to, planned=9):
        raise ValueError("early")
    assert not to.exists()


def test_refuses_before_any_work(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"page\.pdf.*must end in \.html"),
        follow_training(tmp_path / "page.pdf", planned=1),
    ):
        pass
    with pytest.raises(UsageError, match="no epochs"):
        write_training([], tmp_path / "page.html", finished=False, planned=1)
    assert list(tmp_path.iterdir()) == []


def test_charts_follow_the_figures() -> None:
    epochs = epochs_of(5)
    other = [*epochs[:-1], Epoch(5, 0.9, 0.7, 0.9, 1200, 40.0)]
    assert draw_losses(epochs) == draw_losses(epochs) != draw_losses(other)
    assert draw_accuracy(epochs, epochs[3], "kept") != draw_accuracy(epochs, epochs[2], "kept")
    assert "from 84.0\xa0%, the probe's, to 86.0\xa0% at epoch 5; kept: epoch 3, 90.0\xa0%" in draw_accuracy(
        epochs, epochs[3], "kept"
    )
    for drawn in (draw_losses(epochs), draw_accuracy(epochs, epochs[3], "kept")):
        assert "#0" not in re.sub(r'(id|href)="[^"]*"|url\([^)]*\)', "", drawn)
    for name in ("network", "probe", "kept"):
        assert f">{name}</text>" in draw_accuracy(epochs, epochs[3], "kept")


def test_a_thousand_epochs_stay_small(tmp_path: Path) -> None:
    to = write_training(epochs_of(1000), tmp_path / "page.html", finished=False, planned=2000)
    assert to.stat().st_size < 3_000_000
    assert "After epoch 1000 of 2000" in words_of(to)


def test_names_of_any_kind_are_only_text(tmp_path: Path) -> None:
    for name in ODD:
        to = write_training(epochs_of(2), tmp_path / "page.html", finished=False, planned=3, name=f"data/{name}x")
        assert Page(to).tags.count("svg") == 2
        assert "\0" not in Page(to).source


def test_in_a_browser_without_a_network(tmp_path: Path, browser: Browser) -> None:
    page = tmp_path / "page.html"
    shades = {}
    for width, scheme, finished in ((1280, "light", True), (390, "dark", False)):
        write_training(epochs_of(4), page, finished=finished, planned=10, name=ODD[1])
        wide = browser.open_alone(page, width, scheme)
        assert len(wide) == 2
        assert min(wide) > 300
        shades[scheme] = np.median(np.asarray(browser.picture()))
    assert shades["dark"] < 60 < 240 < shades["light"]
