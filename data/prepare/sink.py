"""A file for h5py to write into that survives a full disk.

When a write fails libhdf5 cannot close the file: objects stay open and the process dies of it, by an exception or by a
signal. This file keeps the first failure to itself, writes nothing from then on and lets the library end in peace; the
caller asks afterwards. data/h5_sink.h does the same in C.
"""

import io


class Sink(io.RawIOBase):
    """with Sink(path) as sink: with h5py.File(sink, "w") as file: ...; sink.check()"""

    def __init__(self, path):
        super().__init__()
        self._file = open(path, "w+b", buffering=0)
        self._at = self._end = 0
        self._failure = None

    def check(self):
        """Raises the OSError of the first write that failed."""
        if self._failure is not None:
            raise self._failure

    def close(self):
        self._file.close()
        super().close()

    def readable(self):
        return True

    def writable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        return self._at

    def tell(self):
        return self._at

    def readinto(self, target):
        """What was never written, or not any more, reads as zeros."""
        view = memoryview(target).cast("B")
        self._file.seek(self._at)
        found = self._file.readinto(view) if self._failure is None else 0
        view[found:] = bytes(len(view) - found)
        self._at += len(view)
        return len(view)

    def write(self, data):
        view = memoryview(data).cast("B")
        try:
            self._file.seek(self._at)
            done = 0
            while self._failure is None and done < len(view):
                done += self._file.write(view[done:])
        except OSError as error:
            self._failure = error
        self._at += len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def truncate(self, size=None):
        self._end = self._at if size is None else size
        try:
            if self._failure is None:
                self._file.truncate(self._end)
        except OSError as error:
            self._failure = error
        return self._end
