"""Write the report, COCO files and stitched ROIs. May import `train.plot` and all packages below it."""
