import pytest

from segedu.data.manifests import manifest
from segedu.data.pets import WHOLE, Animal, Pets
from segedu.data.sample import IGNORE
from segedu.data.splits import held_out
from segedu.errors import InputError

NAMES = ["Russian_Blue_110", "havanese_26", "Bengal_93", "pug_7", "Abyssinian_18", "pug_1"]
TRAIN = sorted(name for name in NAMES if not held_out(name, one_in=4))
VAL = sorted(name for name in NAMES if held_out(name, one_in=4))


@pytest.fixture
def root(tmp_path, write_pair):
    for name in NAMES:
        trimap = tmp_path / "annotations" / "trimaps" / f"{name}.png"
        write_pair(tmp_path / "images" / f"{name}.jpg", trimap, [[1, 2, 3]])
    (tmp_path / "annotations" / "list.txt").write_text(
        "#Image CLASS-ID SPECIES BREED ID\n\n"
        "pug_1 26 2 17\npug_7 26 2 17\nhavanese_26 17 2 11\n"
        "Bengal_93 6 1 2\nRussian_Blue_110 28 1 10\nAbyssinian_18 1 1 1\n"
    )
    return tmp_path


def test_the_animal_is_1_the_background_0_and_the_border_ignored(root):
    assert Pets(root)[0]["mask"].tolist() == [[1, 0, IGNORE]]
    assert Pets.classes == ("background", "pet")


def test_a_photograph_is_in_the_split_that_its_name_chooses(root):
    assert TRAIN
    assert VAL
    assert Pets(root, "train").names == TRAIN
    assert Pets(root, "val").names == VAL


def test_species_and_breed_are_those_of_the_list(root):
    known = {
        "Russian_Blue_110": Animal("cat", "Russian Blue", 28),
        "havanese_26": Animal("dog", "havanese", 17),
        "Bengal_93": Animal("cat", "Bengal", 6),
        "pug_7": Animal("dog", "pug", 26),
        "Abyssinian_18": Animal("cat", "Abyssinian", 1),
        "pug_1": Animal("dog", "pug", 26),
    }
    assert Pets(root).animals() == [known[name] for name in TRAIN]


def test_a_list_that_lacks_a_photograph_is_refused(root):
    (root / "annotations" / "list.txt").write_text("nobody_1 1 1 1\n")
    with pytest.raises(InputError, match=f"has no line for {TRAIN[0]}"):
        Pets(root).animals()


def test_without_the_list_masks_are_read_but_animals_are_not(root):
    (root / "annotations" / "list.txt").unlink()
    assert len(Pets(root)[0]["mask"]) == 1
    with pytest.raises(InputError, match=r"list\.txt: no such file"):
        Pets(root).animals()


def test_the_splits_of_the_whole_set_are_about_three_to_one():
    names = [path[7:-4] for path in manifest("pets").listed if path.startswith("images/")]
    val = sum(held_out(name, one_in=4) for name in names)
    assert {"train": len(names) - val, "val": val} == WHOLE


@pytest.mark.real
def test_real_cats_have_capital_names(real_root):
    data = Pets(real_root / "pets")
    for name, animal in zip(data.names, data.animals(), strict=True):
        assert (animal.species == "cat") == name[0].isupper()
        assert 1 <= animal.breed_number <= 37
    assert set(data[0]["mask"].unique().tolist()) == {0, 1, IGNORE}
