"""Draw outlines from COCO, QuPath, Labelme and YOLO files as masks; imports `schemas`, `prep.source`, `prep.files`."""
