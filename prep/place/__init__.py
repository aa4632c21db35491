"""The working folder and the destination of a build, on disk or in an object store; imports `schemas`, `prep.files`."""
