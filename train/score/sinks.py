"""Define sinks: objects that receive answers one by one, such as a writer of masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from train.score.tile_answer import Answer, ScoredAnswer


class AnswerSink(Protocol):
    """Receives every answer, and is closed after the last one. It does not need the truth."""

    def __call__(self, answer: Answer) -> None:
        """Receive one answer."""
        ...

    def close(self) -> None:
        """Finish after the last answer."""
        ...


class ScoredAnswerSink(Protocol):
    """Receives every scored answer of an evaluation, and is closed after the last one."""

    def __call__(self, scored: ScoredAnswer) -> None:
        """Receive one scored answer."""
        ...

    def close(self) -> None:
        """Finish after the last answer."""
        ...


@dataclass(frozen=True)
class WithoutTruth:
    """Adapts a sink of answers to an evaluation, by passing on the answer inside each scored answer.

    Attributes:
        sink: The sink that receives the answers.
    """

    sink: AnswerSink

    def __call__(self, scored: ScoredAnswer) -> None:
        """Pass one answer on."""
        self.sink(scored.answer)

    def close(self) -> None:
        """Close the sink."""
        self.sink.close()
