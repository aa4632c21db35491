"""What receives the answers of an evaluation one by one, such as a writer of masks."""

from __future__ import annotations

from typing import Protocol

from train.score.answers import TileAnswer


class AnswerSink(Protocol):
    """Receives every answer, and is closed after the last one."""

    def __call__(self, answer: TileAnswer) -> None:
        """Receive one answer."""
        ...

    def close(self) -> None:
        """Finish after the last answer."""
        ...
