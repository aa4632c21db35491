from pathlib import Path

import pytest
import torch
from torch import nn

from schemas.errors import TrainingError
from train.config import FitConfig
from train.runtime.device import failed_compilation_as_error


def test_compiler_that_is_missing_is_one_line_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", (None, "/nowhere/g++"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    layers = nn.Sequential(nn.Linear(5, 3), nn.GELU())
    layers.compile()
    message = r"^--compile: fails \(.*compiler.*\); install a C\+\+ compiler"
    with (
        torch.no_grad(),
        pytest.raises(TrainingError, match=message) as caught,
        failed_compilation_as_error(FitConfig(compile=True)),
    ):
        layers(torch.zeros(2, 5))
    assert len(str(caught.value).splitlines()) == 1
