"""Predict objects in images and slides, with or without prompts; imports `train.model`, `train.results` and below."""

from train.model.loading import load_predictors
from train.model.predictor import MaskPredictor, Prediction, View
from train.predict.image_predictor import ImagePredictor, load_predictor

__all__ = ["ImagePredictor", "MaskPredictor", "Prediction", "View", "load_predictor", "load_predictors"]
