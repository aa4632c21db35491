"""What an evaluation leaves: report, plots, COCO files, stitched ROIs; may import `train.score` and all below it."""
