from train.output.model_folders import ModelFolders


def test_no_two_models_share_a_folder() -> None:
    folder_of = ModelFolders()
    models = ["runs/a/best.pt", "runs_a/best.pt", "runs_a_best.pt", "baseline:box"]
    names = [folder_of(model) for model in models]
    assert names == ["runs_a_best.pt", "runs_a_best.pt_2", "runs_a_best.pt_3", "baseline_box"]
    assert [folder_of(model) for model in reversed(models)] == names[::-1]


def test_no_model_has_the_folder_above() -> None:
    assert [ModelFolders()(model) for model in ("..", ".", "../a")] == ["model..", "model.", ".._a"]
