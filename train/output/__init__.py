"""Write the report, COCO files and stitched ROIs; imports `train.plot` and below."""
