"""The path that `train.model.predictor` had before November 2026, for scripts that use it."""

from train.model.predictor import MaskPredictor, Prediction, View, load_predictor, load_predictors

__all__ = ["MaskPredictor", "Prediction", "View", "load_predictor", "load_predictors"]
