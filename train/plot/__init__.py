"""Draw the plots of a report as small panels of SVG; imports `train.score` and below."""
