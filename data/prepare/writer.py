"""Datasets in format version 1 (docs/formats.md, "Dataset"), written so that a reader finds the old file or the new.

Tokens and masks go to unnamed temporary files while documents come, since how many there are is known at the end only,
and from there to contiguous HDF5 arrays. Memory stays small however long the text is.
"""

import array
import contextlib
import errno
import hashlib
import os
import tempfile

import h5py
import numpy
import sink
from faults import Fault

FORMAT, VERSION = "cadre-dataset", 1
BLOCK = 1 << 22  # elements copied at a time


def attributes(path):
    """Root attributes of the dataset at `path`, or None when there is none that can be read."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = {name: value.decode() if isinstance(value, bytes) else value for name, value in file.attrs.items()}
    except (OSError, RuntimeError, UnicodeDecodeError):
        return None
    return found if found.get("format") == FORMAT else None


def _cut_short(path):
    """A dataset that cannot be read any more: it has the first bytes of HDF5, and HDF5 cannot open it."""
    try:
        with open(path, "rb") as file:
            if file.read(8) != b"\x89HDF\r\n\x1a\n":
                return False
        with h5py.File(path, "r", locking=False):
            return False
    except (OSError, RuntimeError):
        return True


class Writer:
    """with Writer(path) as writer: writer.add(document) ...; writer.finish(attributes)

    Without finish nothing is left behind and what stood at `path` stays. Raises Fault (IO-02)."""

    def __init__(self, path):
        self.path = path
        self.folder = os.path.dirname(os.path.abspath(path))
        self._offsets, self._supervised, self._line = array.array("q", [0]), array.array("i"), array.array("q")
        self._temporary = f"{path}.tmp-{os.getpid()}"

    def __enter__(self):
        if os.path.exists(self.path) and attributes(self.path) is None and not _cut_short(self.path):
            raise Fault("IO-02", self.path, "there is a file that is no dataset; it is not replaced")
        with self._reported():
            os.makedirs(self.folder, exist_ok=True)
            self._tokens = tempfile.TemporaryFile(dir=self.folder)
            self._mask = tempfile.TemporaryFile(dir=self.folder)
        return self

    def __exit__(self, *error):
        for file in (self._tokens, self._mask):
            with contextlib.suppress(OSError):  # a full disk: what was not written is thrown away
                file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)

    @contextlib.contextmanager
    def _reported(self):
        try:
            yield
        except OSError as error:
            status = 4 if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else 3
            raise Fault("IO-02", self.path, error.strerror or str(error), status=status) from None

    def add(self, document):
        with self._reported():
            self._tokens.write(document.ids.astype("<i4", copy=False).tobytes())
            self._mask.write(document.mask.tobytes())
        self._offsets.append(self._offsets[-1] + len(document.ids))
        self._supervised.append(int(document.mask.sum()))
        self._line.append(document.line)

    def finish(self, texts, numbers):
        """Writes the file with these attributes, to which it adds format, counts and the hash of the content."""
        offsets = numpy.frombuffer(self._offsets, dtype=numpy.int64)
        supervised = numpy.frombuffer(self._supervised, dtype=numpy.int32)
        line = numpy.frombuffer(self._line, dtype=numpy.int64)
        digest = hashlib.sha256(offsets.astype("<i8", copy=False).tobytes())
        with self._reported():
            with sink.Sink(self._temporary) as target:
                # Metadata with checksums: a changed byte is found instead of followed.
                with h5py.File(target, "w", libver=("v108", "v108")) as file:
                    file.create_dataset("offsets", data=offsets.astype("<i8", copy=False))
                    self._copy(file, "tokens", self._tokens, "<i4", int(offsets[-1]), digest)
                    self._copy(file, "loss_mask", self._mask, "u1", int(offsets[-1]), digest)
                    file.create_dataset("supervised", data=supervised.astype("<i4", copy=False))
                    file.create_dataset("line", data=line.astype("<i8", copy=False))
                    counts = (len(line), int(offsets[-1]), int(supervised.sum(dtype=numpy.int64)))
                    _put_attributes(file, {**texts, "content_sha256": digest.hexdigest()}, numbers, counts)
                target.check()
            _sync(self._temporary)
            os.replace(self._temporary, self.path)
            _sync(self.folder)

    @staticmethod
    def _copy(file, name, source, dtype, count, digest):
        target = file.create_dataset(name, shape=(count,), dtype=dtype)
        source.seek(0)
        for begin in range(0, count, BLOCK):
            block = source.read(min(BLOCK, count - begin) * target.dtype.itemsize)
            digest.update(block)
            target[begin : begin + BLOCK] = numpy.frombuffer(block, dtype=dtype)


def _put_attributes(file, texts, numbers, counts):
    numbers = {"format_version": VERSION, **numbers}
    numbers.update(zip(("num_documents", "num_tokens", "num_supervised"), counts))
    for name, value in {"format": FORMAT, **texts}.items():
        # Of fixed length: the heap of variable ones has no checksum.
        data = value.encode()
        kind = h5py.string_dtype("utf-8", max(len(data), 1))
        file.attrs.create(name, numpy.array(data, dtype=kind), dtype=kind)
    for name, value in numbers.items():
        file.attrs.create(name, value, dtype="<i8")


def _sync(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
