"""The source folder: finding ROIs, decoding files, class maps and splits; may import `schemas` and `prep.files`."""
