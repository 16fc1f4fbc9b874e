"""Read convolutions from a .caffemodel, without Caffe.

A .caffemodel is a protocol buffer. It may hold half a gigabyte, most of it in layers that nobody asks for; it
is mapped, and only what is wanted is read.

Source:
    Caffe's caffe.proto: messages NetParameter, LayerParameter, V1LayerParameter, BlobProto and BlobShape.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ageveil.errors import ModelError

# Field of NetParameter -> fields of its layer that hold the name and the blobs: `layers` (V1) and `layer`.
_LAYER_FIELDS = {2: (4, 6), 100: (1, 7)}

Array = NDArray[np.float32]


def read_caffemodel(path: Path, wanted: Collection[str]) -> dict[str, tuple[Array, ...]]:
    """Read the blobs of the layers of these names.

    Args:
        path: A .caffemodel with layers in the present form (`layer`) or the older one (`layers`).
        wanted: Names of layers.

    Returns:
        Layer -> its blobs, as a convolution's kernel (outputs, inputs, height, width) and bias. Layers that
        the file does not hold are left out.

    Raises:
        ModelError: The file is missing, or is no or a damaged .caffemodel.
    """
    try:
        # Not read at once: the mapping lives as long as the view.
        content = np.memmap(path, np.uint8, "r").data
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # an empty file cannot be mapped
        raise ModelError(f"{path} is empty") from error
    found: dict[str, tuple[Array, ...]] = {}
    try:
        for number, layer in _fields(content):
            if number in _LAYER_FIELDS and isinstance(layer, memoryview):
                name_field, blob_field = _LAYER_FIELDS[number]
                parts = list(_fields(layer))
                name = b"".join(_messages(parts, name_field)).decode("utf-8", "replace")
                if name in wanted:
                    found[name] = tuple(_blob(blob) for blob in _messages(parts, blob_field))
    except (IndexError, ValueError) as error:
        raise ModelError(f"{path} is no .caffemodel, or is damaged: {error}") from error
    return found


def _blob(message: memoryview) -> Array:
    """A blob, copied out of the file, in the shape that it states.

    Raises:
        ValueError: The numbers are not as many as the shape says.
    """
    parts = list(_fields(message))
    shapes = _messages(parts, 7)
    if shapes:
        shape = [size for shape in shapes for size in _integers(shape)]
    else:  # the older form: num, channels, height, width
        sizes = {number: value for number, value in parts if isinstance(value, int)}
        shape = [sizes.get(number, 1) for number in (1, 2, 3, 4)]
    data = b"".join(_messages(parts, 5))
    if len(data) != 4 * math.prod(shape):
        raise ValueError(f"a blob of shape {tuple(shape)} with {len(data)} bytes of float32")
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)


def _messages(parts: list[tuple[int, int | memoryview]], wanted: int) -> list[memoryview]:
    return [value for number, value in parts if number == wanted and isinstance(value, memoryview)]


def _integers(message: memoryview) -> Iterator[int]:
    """The field `dim` of a BlobShape: packed, as Caffe writes it, or one by one."""
    for number, value in _fields(message):
        if number != 1:
            continue
        if isinstance(value, int):
            yield value
            continue
        position = 0
        while position < len(value):
            size, position = _varint(value, position)
            yield size


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: an int, or the bytes of all else.

    Raises:
        IndexError: A number is cut off.
        ValueError: A field is cut off, or of a type that does not exist.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = _varint(message, position)
        elif kind in {1, 5}:
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of type {kind} at byte {position}")
        if length > len(message) - position:
            raise ValueError(f"a field of {length} bytes where {len(message) - position} are left")
        yield key >> 3, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends; at most ten bytes.

    Raises:
        IndexError: It is cut off.
        ValueError: It is longer.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number of more than ten bytes at byte {position}")
