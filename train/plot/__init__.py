"""Draw the plots of a report as small panels of SVG. May import `train.score` and all packages below it."""
