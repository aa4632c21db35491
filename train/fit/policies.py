"""What decides, after a step or an epoch, whether to save, to validate or to end."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from train.fit.state import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policies:
    """The decisions of a run.

    Attributes:
        steps_per_epoch: Steps in an epoch.
        total_steps: Steps at the end of the run.
        save_every_steps: Steps between saves within an epoch; 0 saves at the ends of epochs only.
        patience: Epochs without a better score after which the run ends; 0 never ends it.
    """

    steps_per_epoch: int
    total_steps: int
    save_every_steps: int = 0
    patience: int = 0

    def ends_epoch(self, steps: int) -> bool:
        """Return whether an epoch, or the whole run, ends after so many steps."""
        return steps > 0 and (steps % self.steps_per_epoch == 0 or steps == self.total_steps)

    def must_validate(self, run: Run) -> bool:
        """Return whether an epoch has ended whose weights were not validated yet."""
        return self.ends_epoch(run.steps) and run.scored_steps != run.steps

    def must_save(self, run: Run) -> bool:
        """Return whether a save is due within an epoch; at its end the weights are validated first, and then saved."""
        due = self.save_every_steps > 0 and run.steps % self.save_every_steps == 0
        return due and not self.ends_epoch(run.steps)

    def must_end(self, run: Run) -> bool:
        """Return whether the run has all its steps, or has not become better for too long."""
        if run.steps >= self.total_steps:
            return True
        if self.patience and run.epochs_since_best >= self.patience:
            logger.info("no better score for %d epochs: the run ends after step %d", run.epochs_since_best, run.steps)
            return True
        return False
