from schemas.store.store import Store
from train.score.answers import score_tiles, tiles_with_objects
from train.score.protocol import ScoringProtocol
from train.score.tables import gather_scores, merge_tables, summarize


def test_parts_of_processes_merge_to_the_whole(store: Store) -> None:
    protocol = ScoringProtocol("test", ("box",))
    tiles = tiles_with_objects(store, "test").tolist()
    whole = gather_scores(score_tiles(store, tiles, {}, protocol))
    parts = [gather_scores(score_tiles(store, tiles[rank::2], {}, protocol)) for rank in (1, 0)]
    assert summarize(merge_tables(parts), store) == summarize(whole, store)
