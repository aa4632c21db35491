"""Write the report, plots, COCO files and stitched ROIs. May import `train.score` and all packages below it."""
