"""Decide after a step whether to save, to validate or to end the run."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from train.fit.state import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policies:
    """Rules that decide when a run saves, validates and ends.

    Attributes:
        steps_per_epoch: Steps in an epoch.
        total_steps: Steps at the end of the run.
        save_every_steps: Steps between saves within an epoch; 0 saves only at the end of each epoch.
        patience: Epochs without a better score after which the run ends; 0 never ends it early.
    """

    steps_per_epoch: int
    total_steps: int
    save_every_steps: int = 0
    patience: int = 0

    def ends_epoch(self, steps: int) -> bool:
        """Return whether an epoch, or the whole run, ends after this number of steps."""
        return steps > 0 and (steps % self.steps_per_epoch == 0 or steps == self.total_steps)

    def must_validate(self, run: Run) -> bool:
        """Return whether these are weights of the start or of the end of an epoch that have not been validated yet."""
        return (run.steps == 0 or self.ends_epoch(run.steps)) and run.scored_steps != run.steps

    def must_save(self, run: Run) -> bool:
        """Return whether to save within an epoch; at the end of an epoch, validation comes before the save."""
        due = self.save_every_steps > 0 and run.steps % self.save_every_steps == 0
        return due and not self.ends_epoch(run.steps)

    def must_end(self, run: Run) -> bool:
        """Return whether all steps are done, or the score has not improved for `patience` epochs."""
        if run.steps >= self.total_steps:
            return True
        if self.patience and run.epochs_since_best >= self.patience:
            logger.info("no better score for %d epochs: the run ends after step %d", run.epochs_since_best, run.steps)
            return True
        return False
