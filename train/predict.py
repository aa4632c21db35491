"""Old import path of `train.model.predictor`, in use before November 2026; kept for existing scripts."""

from train.model.predictor import MaskPredictor, Prediction, View, load_predictor, load_predictors

__all__ = ["MaskPredictor", "Prediction", "View", "load_predictor", "load_predictors"]
