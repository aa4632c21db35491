"""Names of folders for the answers of several models."""

from __future__ import annotations


class ModelFolders:
    """Gives each model a folder's name, and no two the same: paths and `baseline:` have letters that no folder has."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def __call__(self, model: str) -> str:
        """The name for a model, the same each time."""
        if model not in self._names:
            plain = name = model.replace("/", "_").replace(":", "_")
            number = 2
            while name in self._names.values():
                name, number = f"{plain}_{number}", number + 1
            self._names[model] = name
        return self._names[model]
