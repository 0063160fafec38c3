"""Curves for TensorBoard, written in the caller's thread: a full disk is an error there, and no thread is left waiting."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class Board:
    """An event file in a folder; each run adds one."""

    def __init__(self, folder: str | Path, first_step: int) -> None:
        """Begin a file.

        Args:
            folder: folder of the event files; it is made if it is missing.
            first_step: TensorBoard forgets what earlier files say of this step and later ones.

        Raises:
            OSError: the file cannot be written.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(Path(folder) / "events"))
        begin = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=first_step, session_log=begin))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step.

        Raises:
            OSError: the file cannot be written.
        """
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Event) -> None:
        try:
            self._file.write_event(event)
            self._file.flush()
        except OSError:
            with suppress(OSError):
                self._file.close()  # or it would be flushed once more when it is collected
            raise
