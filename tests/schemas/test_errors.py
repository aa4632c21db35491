import pickle

import pytest

from schemas.errors import BcssError, CheckpointError, ConfigError, SourceError, StoreError, TrainingError


@pytest.mark.parametrize("kind", [CheckpointError, ConfigError, SourceError, StoreError, TrainingError])
def test_message_has_where_what_and_remedy_and_survives_a_process_boundary(kind: type[BcssError]) -> None:
    error = kind("a.png", "is damaged", "export it again")
    assert str(error) == "a.png: is damaged; export it again"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert isinstance(error, BcssError)
