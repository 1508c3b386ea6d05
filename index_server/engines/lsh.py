"""`lsh`: signs of random projections, compared by Hamming distance (Charikar, STOC 2002). Approximate."""

from collections.abc import Mapping
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index_server.engines.build import BuildRequest, EngineKind
from index_server.engines.clustering import pack, unpack
from index_server.engines.faiss_cpu import rounding_of, search_parameters
from index_server.engines.refined import RefinedEngine
from index_server.ports import Engine, Rows
from index_server.spec import Device, EngineOptions
from sealpool.errors import InvalidArgument
from sealpool.types import Vectors

DEFAULT_REFINE: Final = 16
_SAMPLE: Final = 4096
_MAX_ROTATION_BYTES: Final = 1 << 30


class LshEngine(RefinedEngine):
    """Codes of `lsh_bits` bits (2·d by default); the nearest k·refine_factor codes are compared by true distance.

    A bit says on which side of its median, over a sample of the pool, a projection lies. The projections are random
    rotations one after the other, which are nearer to the angle than independent ones (super-bit LSH: Ji et al., NIPS
    2012). The codes are searched by IndexBinaryFlat, which honours a selector; IndexLSH refuses one.

    Memory: an item takes lsh_bits / 8 bytes, d/4 by default: a sixteenth of `flat`. Its whole vector, 4·d bytes (2·d of
    float16), lies on disk in the scratch folder, and in the page cache as far as there is room; the projections take
    4·d·lsh_bits bytes once. Cost: every query looks at every code, and at k·refine_factor vectors.
    """

    name = "lsh"

    def __init__(self, medians: NDArray[np.float32], request: BuildRequest) -> None:
        bits = len(medians)
        super().__init__(faiss.IndexBinaryFlat(-(-bits // 8) * 8), request, refine_factor=DEFAULT_REFINE)
        self._projections = projections(request.dimension, bits, request.seed)
        self._medians = medians

    @property
    def rounding(self) -> float:
        """Of float32."""
        return rounding_of(len(self._projections))

    def save(self) -> bytes:
        """Return the medians."""
        return pack({"medians": self._medians})

    def _add_codes(self, vectors: Vectors) -> None:
        self._index.add(self._codes(vectors))

    def _candidates(
        self,
        queries: Vectors,
        count: int,
        selector: Any | None,
        effort: float,  # noqa: ARG002 - every code is looked at
    ) -> Rows:
        parameters = None if selector is None else search_parameters("SearchParameters", sel=selector)
        found: Rows = self._index.search(self._codes(queries), count, params=parameters)[1]
        return found

    def _codes(self, vectors: Vectors) -> NDArray[np.uint8]:
        return np.packbits(vectors @ self._projections > self._medians, axis=1)

    def _structure_bytes(self) -> int:
        return int(self._index.code_size) * self.size + self._projections.nbytes + self._medians.nbytes


def projections(dimension: int, bits: int, seed: int) -> NDArray[np.float32]:
    """Return directions to project on, random rotations side by side: (dimension, bits)."""
    rng = np.random.default_rng(seed)
    count = -(-bits // dimension)
    rotations = [np.linalg.qr(rng.standard_normal((dimension, dimension)))[0] for _ in range(count)]
    return np.ascontiguousarray(np.concatenate(rotations, axis=1)[:, :bits], np.float32)


def _bits(dimension: int, options: EngineOptions) -> int:
    return options.lsh_bits or 2 * dimension


def _train(request: BuildRequest) -> Mapping[str, NDArray[Any]]:
    sample = request.sample(_SAMPLE)
    side = projections(request.dimension, _bits(request.dimension, request.options), request.seed)
    return {"medians": np.median(sample @ side, axis=0).astype(np.float32)}


def _build(request: BuildRequest) -> Engine:
    trained = _train(request) if request.saved is None else unpack(request.saved)
    return LshEngine(trained["medians"], request)


def _check(dimension: int, options: EngineOptions, _device: Device) -> None:
    needed = 4 * dimension * _bits(dimension, options)
    if needed > _MAX_ROTATION_BYTES:
        raise InvalidArgument("spec.engine", f"lsh would need {needed:,} bytes to project {dimension:,} dimensions")


KIND = EngineKind(
    name="lsh", exact=False, cuda=False, items_to_train=lambda _items, _options: _SAMPLE, build=_build, check=_check
)
