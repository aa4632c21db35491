"""Train to the last step, or measure nothing."""

from __future__ import annotations

from pathlib import Path

from schemas.store.store import Store
from train.config import FitConfig
from train.fit.trainer import OnStep, fit


def fit_whole(
    store: Store, config: FitConfig, out: Path, *, resume: bool = False, on_step: OnStep | None = None
) -> None:
    """Train as `train.fit.trainer.fit` does, and end the benchmark if a signal stopped the run.

    Raises:
        SystemExit: A signal stopped the run, so its figures would belong to fewer steps than they name.
    """
    summary = fit(store, config, out, resume=resume, on_step=on_step)
    if summary["stopped_by"]:
        raise SystemExit(f"{out}: {summary['stopped_by']} stopped the run, so nothing is measured; start it again")
