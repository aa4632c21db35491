"""Draw outlines from COCO, QuPath, Labelme and YOLO files as masks; imports `prep.files` and `prep.source`."""
