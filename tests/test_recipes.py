from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from segedu import recipes
from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.errors import InputError
from segedu.losses import cross_entropy_loss, lovasz_loss
from segedu.models import registry
from segedu.plans import prepare
from segedu.recipes import PRETRAINED, RECIPES, Recipe


@pytest.fixture
def my_folder(tmp_path):
    """Twelve scenes as a reader's own images and masks."""
    for name in ("images", "masks"):
        (tmp_path / "mine" / name).mkdir(parents=True)
    for i in range(12):
        sample = Scenes(12, size=32)[i]
        pixels = (sample["image"] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "mine" / "images" / f"{i:02}.png")
        mask = sample["mask"].numpy().astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "mine" / "masks" / f"{i:02}.png")
    return tmp_path / "mine"


def test_a_plan_says_all_that_a_checkpoint_must_know():
    plan = prepare("scenes", "unet", {"epochs": 3, "seed": 4})
    assert plan.config.epochs == 3
    assert plan.config.batch_size == RECIPES["scenes"].config.batch_size
    assert plan.classes == CLASSES
    assert plan.about["model"] == "unet"
    assert plan.about["data"] == "scenes"


def test_the_first_weights_depend_on_the_seed_alone():
    plans = [prepare("scenes", "unet", {"seed": seed}) for seed in (1, 1, 2)]
    first, same, other = (plan.model.classify.weight for plan in plans)
    assert first.equal(same)
    assert not first.equal(other)


def test_a_readers_own_folder_trains_and_scores(my_folder, tmp_path):
    plan = prepare(str(my_folder), "unet", {"epochs": 1, "device": "cpu"})
    assert len(plan.train_data) + len(plan.val_data) == 12
    assert len(plan.val_data) >= 1
    assert plan.about["data"] == "mine"
    (epoch,) = plan.train(tmp_path / "run.pt")
    scores = plan.score(tmp_path / "run.pt")
    assert scores.whole == pytest.approx(epoch.val_score)


def test_the_same_pictures_are_held_out_each_time(my_folder):
    first, again = (prepare(str(my_folder), "unet", {}).val_data.indices for _ in range(2))
    assert list(first) == list(again)


def test_a_set_without_classes_is_refused(monkeypatch):
    class Outlines(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return {"image": torch.zeros(3, 8, 8)}

    monkeypatch.setattr("segedu.data.catalog.load", lambda *_args, **_options: Outlines())
    with pytest.raises(InputError, match="has no classes to learn"):
        prepare("bsds", "unet", {})


def test_an_unknown_set_or_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="did you mean scenes"):
        prepare("scene", "unet", {})
    with pytest.raises(InputError, match="no model 'resnet'"):
        prepare("scenes", "resnet", {})
    with pytest.raises(InputError, match="images/ and masks/"):
        prepare(str(tmp_path), "unet", {})


def test_a_recipe_without_a_crop_changes_nothing():
    assert Recipe(config=TrainConfig()).augment() is None


def test_a_recipe_crops_to_its_size():
    recipe = Recipe(config=TrainConfig(), crop=(24, 40), scale=(0.5, 1), colour=0.2)
    sample = recipe.augment()(Scenes(1)[0])
    assert sample["mask"].shape == (24, 40)


def test_pictures_are_repeated_to_about_the_size_of_an_epoch(monkeypatch):
    changed = {**RECIPES, "scenes": replace(RECIPES["scenes"], epoch_size=2700)}
    monkeypatch.setattr(recipes, "RECIPES", changed)
    plan = prepare("scenes", "unet", {})
    assert len(plan.train_data) == 3 * 1024


@pytest.mark.parametrize(("pictures", "times"), [(184, 4), (367, 2), (2000, 1)])
def test_part_of_a_set_is_seen_as_often_as_all_of_it(pictures, times):
    assert Recipe(config=TrainConfig(), epoch_size=736).repeats(pictures) == times


def test_the_two_losses_are_added():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 6, 8), torch.randint(3, (2, 6, 8))
    target[0, :2] = IGNORE
    fewer = lovasz_loss(logits[..., ::2, ::2], target[..., ::2, ::2])
    whole = cross_entropy_loss(logits, target)
    assert torch.isclose(recipes.cross_entropy_and_lovasz(logits, target), whole + fewer)


def test_a_pretrained_backbone_has_a_recipe_of_its_own(my_folder, monkeypatch):
    monkeypatch.setattr(recipes, "RECIPES", {str(my_folder): RECIPES["scenes"]})
    monkeypatch.setattr(recipes, "PRETRAINED", {str(my_folder): PRETRAINED["camvid"]})
    plain, begun = (prepare(str(my_folder), "unet_lite0", {}, pretrained=p) for p in (False, True))
    assert plain.loss is cross_entropy_loss
    assert begun.loss is recipes.cross_entropy_and_lovasz
    assert begun.config.backbone_rate < 1
    assert begun.model.scales == PRETRAINED["camvid"].views
    assert begun.about["options"]["views"] == list(begun.model.scales)


def test_a_plan_trains_with_its_loss(my_folder, tmp_path):
    plan = prepare(str(my_folder), "unet", {"epochs": 1, "device": "cpu"})
    zero = replace(plan, loss=lambda logits, _: 0 * logits.sum())
    [epoch] = zero.train(tmp_path / "run.pt")
    assert epoch.train_loss == 0


def test_a_pretrained_backbone_is_begun_with_and_named():
    plain, begun = (prepare("scenes", "unet_lite0", {}, pretrained=p) for p in (False, True))
    assert plain.about["begun_from"] == "random"
    assert "efficientnet_lite0" in begun.about["begun_from"]
    stems = [plan.model.backbone.conv_stem.weight for plan in (plain, begun)]
    assert not stems[0].equal(stems[1])
    assert plain.model.classify.weight.equal(begun.model.classify.weight)


def test_a_model_that_finds_objects_has_a_plan_of_its_own(monkeypatch, tmp_path):
    few = {**recipes.OBJECTS, "scenes": replace(recipes.OBJECTS["scenes"], crop=(32, 32))}
    few["scenes"] = replace(few["scenes"], drawn={"size": 32})
    monkeypatch.setattr(recipes, "OBJECTS", few)
    entry = catalog.ENTRIES["scenes"]
    short = replace(entry, drawn={"train": (4, 0), "val": (2, 1)})
    monkeypatch.setattr(catalog, "ENTRIES", {"scenes": short})
    plan = prepare("scenes", "maskrcnn", {"epochs": 1, "device": "cpu"})
    assert plan.score_name == "mask AP"
    assert plan.val_data[0]["image"].shape == (3, 32, 32)
    (epoch,) = plan.train(tmp_path / "run.pt")
    assert len(epoch.losses) == 5
    scores = plan.score(tmp_path / "run.pt")
    assert scores.name == "mask AP"
    assert scores.whole == scores.parts["AP"] == epoch.val_score


def test_scenes_for_objects_are_128_pixels_and_nuclei_many():
    assert recipes.OBJECTS["scenes"].drawn == {"size": 128}
    model = recipes.OBJECTS["nuclei"].options("maskrcnn")
    assert registry.build("maskrcnn", 2, **model).most == 400


def test_a_set_without_objects_is_refused_by_a_model_that_finds_them(my_folder):
    with pytest.raises(InputError, match="says nothing of single objects, which maskrcnn finds"):
        prepare(str(my_folder), "maskrcnn", {})


@pytest.mark.parametrize(
    ("data", "pretrained", "objects", "expected"),
    [
        ("camvid", False, False, recipes.RECIPES["camvid"]),
        ("camvid", True, False, PRETRAINED["camvid"]),
        ("nuclei", True, False, recipes.RECIPES["nuclei"]),
        ("nuclei", False, True, recipes.OBJECTS["nuclei"]),
        ("coco", False, True, recipes.OTHER_OBJECTS),
        ("tiles", True, False, recipes.OTHER),
    ],
)
def test_a_recipe_is_for_a_set_and_for_what_is_learnt(data, pretrained, objects, expected):
    assert recipes.recipe_for(data, pretrained=pretrained, objects=objects) is expected
