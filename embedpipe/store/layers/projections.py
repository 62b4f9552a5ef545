"""The projections of reduced layers: files in a folder of the store, named after their hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from embedpipe._utils.atomic import whole_file
from embedpipe.backbones.projection import Projection
from embedpipe.backbones.spec import BackboneSpec, Reduction
from embedpipe.errors import StoreError
from embedpipe.sources.locations import filesystem
from embedpipe.store.schema import matrix, spec_of, vector_column

#: Folder in a store. Readers of Delta ignore names with an underscore.
PROJECTIONS = "_projections"


def stored_spec(path: str, schema: pa.Schema) -> BackboneSpec:
    """Return the spec of the store at ``path``, whose reduced layers know how to read their projections."""
    return spec_of(schema).with_projections(f"{path}/{PROJECTIONS}")


def save_projection(path: str, projection: Projection, layer: str, whiten: bool) -> Reduction:
    """Write a projection of a layer into the store at ``path``, for a layer that the next commit adds."""
    data = projection.to_bytes()
    dim, dimensions = projection.matrix.shape
    reduction = Reduction(layer, dim, whiten, hashlib.sha256(data).hexdigest())
    fs, base = filesystem(path)
    file = f"{base}/{PROJECTIONS}/{reduction.file}"
    try:
        if isinstance(fs, pafs.LocalFileSystem):
            with whole_file(Path(file)) as part:
                part.write_bytes(data)
        else:
            with fs.open_output_stream(file) as stream:
                stream.write(data)
    except OSError as error:
        raise StoreError(f"cannot write to {path!r}: {error}") from error
    return reduction.read_from(f"{path}/{PROJECTIONS}", dimensions)


def project(rows: pa.Table, spec: BackboneSpec) -> pa.Table:
    """Return rows with the reduced layers of a spec, computed from the other vector columns."""
    if not any(layer.reduction for layer in spec.layers):
        return rows
    captured = {
        layer.column: matrix(rows.column(layer.column), layer.dim, layer.column) for layer in spec.captured.layers
    }
    vectors = spec.vectors(captured)
    for name in (layer.column for layer in spec.layers if layer.reduction):
        at = rows.schema.get_field_index(name)
        rows = rows if at < 0 else rows.remove_column(at)
        rows = rows.append_column(name, vector_column(vectors[name]))
    return rows
