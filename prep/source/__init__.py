"""The source folder: find ROIs, read class maps, divide patients; imports nothing from `prep`."""
