"""Matrix on the wire, arrays in memory."""

import numpy as np
from numpy.typing import NDArray

from sealpool.errors import InvalidArgument
from sealpool.types import Vectors
from sealpool.v1 import common_pb2

_DTYPES: dict[common_pb2.DType.ValueType, np.dtype[np.floating]] = {
    common_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
    common_pb2.DTYPE_FLOAT16: np.dtype("<f2"),
}
_NAMES: dict[np.dtype[np.floating], common_pb2.DType.ValueType] = {
    np.dtype("<f4"): common_pb2.DTYPE_FLOAT32,
    np.dtype("<f2"): common_pb2.DTYPE_FLOAT16,
}


def to_matrix(array: NDArray[np.floating]) -> common_pb2.Matrix:
    """Encode (n, d) float16 or float32 as it is; any other float as float32."""
    matrix = common_pb2.Matrix()
    write_matrix(matrix, array)
    return matrix


def write_matrix(matrix: common_pb2.Matrix, array: NDArray[np.floating]) -> None:
    """Encode as `to_matrix` does, into a message that is part of another: that saves a copy of the numbers."""
    if array.dtype not in _NAMES:
        array = array.astype("<f4")
    matrix.rows, matrix.columns = array.shape
    matrix.dtype = _NAMES[array.dtype]
    matrix.data = array.tobytes()


def from_matrix(matrix: common_pb2.Matrix, *, field: str = "vectors") -> Vectors:
    """Decode to (rows, columns) float32. A float32 matrix is a read-only view of the message's bytes.

    Raises
    ------
    InvalidArgument
        Unknown dtype, or a number of bytes that is not rows × columns × size.
    """
    dtype = _DTYPES.get(matrix.dtype)
    if dtype is None:
        raise InvalidArgument(f"{field}.dtype", "is not DTYPE_FLOAT32 or DTYPE_FLOAT16")
    expected = matrix.rows * matrix.columns * dtype.itemsize
    data = matrix.data  # each look at the field copies it
    if len(data) != expected:
        raise InvalidArgument(
            f"{field}.data",
            f"has {len(data):,} bytes; {matrix.rows:,} × {matrix.columns:,} {dtype.name} take {expected:,}",
        )
    array = np.frombuffer(data, dtype).reshape(matrix.rows, matrix.columns)
    return array.astype(np.float32, copy=False)
