"""Does the test of `shift` reject equal data as often as it says, and does it find corrupted photos?

    python benchmarks/shift.py STORE [--photos 1400] [--simulations 1000] [--severity 2] [--json FILE]
    python benchmarks/shift.py STORE --forecast 300 [--json FILE]

STORE has photos that can be read. Size: its rows are divided at random into two samples of 200, again and again; each
rejection at 5 % is false. Power: half of the photos are corrupted at the input size of the network, and samples of 500
of them are compared with 500 of the others, 20 times. The two halves are the same in these 20 draws, so that "clean"
rejects a little more often than the test does.

With --forecast: is the accuracy that `shift` says to expect right under 20 shifts, which are named beforehand: the four
corruptions at severities 1 to 5? The head learns from the rows of STORE that are not among so many photos, which are
corrupted; without their labels their accuracy is forecast, and compared with the true one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from common import make_parser, markdown_table, write_json
from PIL import Image

import embedpipe
from embedpipe.cleaning.shifts.forecasting import Forecaster
from embedpipe.decoding import decode_image
from embedpipe.finetuning.benchmark.corruptions import corrupt
from embedpipe.heads.training.vectors import read_finite
from embedpipe.neighbours.exact import normalised
from embedpipe.sources.opening import read_uri
from embedpipe.statistics import mmd_test, wilson

CORRUPTIONS = ("gaussian_noise", "fog", "jpeg_compression", "defocus_blur")
SIZE_ROWS, POWER_ROWS, DRAWS, PERMUTATIONS, ALPHA = 200, 500, 20, 199, 0.05
SIDE = 224


def rejects(X: npt.NDArray[Any], Y: npt.NDArray[Any], seed: int) -> bool:
    """Return whether the test, as `shift` makes it, rejects that two samples are alike."""
    centre = np.concatenate([X, Y]).mean(axis=0)
    return mmd_test(normalised(X - centre), normalised(Y - centre), PERMUTATIONS, seed)[1] <= ALPHA


def read_photo(uri: str, side: int) -> npt.NDArray[np.uint8]:
    """Return a photo whose shorter side is so long."""
    image: Image.Image = decode_image(read_uri(uri))
    scale = side / min(image.size)
    return np.asarray(image.resize((round(image.width * scale), round(image.height * scale))))


def read_square(uri: str) -> npt.NDArray[np.uint8]:
    """Return the centre of a photo at the size at which corruptions were published."""
    image = Image.fromarray(read_photo(uri, 256))
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def forecast(
    store: embedpipe.FeatureStore, X: npt.NDArray[np.float32], rows: pa.Table, photos: int
) -> dict[str, list[float]]:
    """Return the forecast and the true accuracy under each shift, and print them as they come."""
    y = np.array(store.to_arrow(["id", "label"])["label"].to_pylist())
    order = np.random.default_rng(0).permutation(len(X))
    new, old = order[:photos], np.sort(order[photos:])
    forecaster = Forecaster(X[old], y[old], 0)
    print(f"accuracy on held-out rows of the store: {forecaster.accuracy:.1%}", flush=True)
    recipe = store.spec.preprocessing
    side = recipe.resize[0]  # corrupted before the crop, so that "clean" is what the store has
    with ThreadPoolExecutor() as pool:
        small = list(pool.map(lambda uri: read_photo(uri, side), rows["uri"].take(pa.array(new)).to_pylist()))
    transformer = embedpipe.EmbeddingTransformer(image_size=recipe.crop[0])
    transformer.fit(small[:1])
    results = {}
    for name in ("clean", *(f"{kind} {severity}" for severity in range(1, 6) for kind in CORRUPTIONS)):
        kind, _, severity = name.partition(" ")
        made = [corrupt(each, kind, int(severity), seed) if severity else each for seed, each in enumerate(small)]
        expected, predicted = forecaster.expect(transformer.transform(made))
        results[name] = [expected, float((predicted == y[new]).mean())]
        print(f"{name}: expected {expected:.1%}, true {results[name][1]:.1%}", flush=True)
    return results


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("--photos", type=int, default=1400, help="default: 1400")
    parser.add_argument("--simulations", type=int, default=1000, help="default: 1000")
    parser.add_argument("--severity", type=int, default=2, help="default: 2")
    parser.add_argument("--forecast", type=int, metavar="PHOTOS", help="measure the expected accuracy on so many")
    options = parser.parse_args()
    store = embedpipe.FeatureStore(options.store)
    rows = store.to_arrow(["id", "uri"])
    X = read_finite(store, store.spec.layers[:1], rows["id"].combine_chunks())
    if options.forecast:
        results = forecast(store, X, rows, options.forecast)
        errors = [abs(expected - true) for name, (expected, true) in results.items() if name != "clean"]
        middle, most = 100 * np.median(errors), 100 * max(errors)
        print(f"error over {len(errors)} shifts: {middle:.1f} points in the median, {most:.1f} at most")
        write_json(options, results)
        return
    false = 0
    for seed in range(options.simulations):
        drawn = np.random.default_rng(seed).permutation(len(X))[: 2 * SIZE_ROWS]
        false += rejects(X[drawn[:SIZE_ROWS]], X[drawn[SIZE_ROWS:]], seed)
    share, low, high = wilson(false, options.simulations)
    print(f"size at {ALPHA:.0%}: {share:.1%} ({low:.1%} to {high:.1%}) of {options.simulations:,} simulations\n")

    order = np.random.default_rng(0).permutation(len(X))[: options.photos]
    with ThreadPoolExecutor() as pool:
        photos = list(pool.map(read_square, rows["uri"].take(order).to_pylist()))
    half = len(photos) // 2
    transformer = embedpipe.EmbeddingTransformer()
    old = transformer.fit_transform(photos[:half])
    table, power = [["photos", "rejected", "of"]], {}
    for name in ("clean", *CORRUPTIONS):
        made = photos[half:]
        if name != "clean":
            made = [corrupt(photo, name, options.severity, seed) for seed, photo in enumerate(made)]
        new = transformer.transform(made)
        power[name] = 0
        for seed in range(DRAWS):
            rng = np.random.default_rng(seed)
            samples = (V[rng.permutation(len(V))[:POWER_ROWS]] for V in (old, new))
            power[name] += rejects(*samples, seed)
        table.append([name, str(power[name]), str(DRAWS)])
    print(markdown_table(table))
    write_json(options, {"size": [share, low, high], "power": power})


if __name__ == "__main__":
    main()
