"""Recipes: what is read, and what is refused."""

from pathlib import Path

import pytest

from ageveil.errors import DataError
from ageveil.training.recipes import Recipe, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
SMALLEST = 'name = "x"\nnetwork = "mobilenet"\ndata = ["a"]\nlicence = "CC0-1.0"\ntraining_data = ["none"]\n'


def written(folder, text):
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "path", sorted(RECIPES.glob("*/*.toml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_recipe_of_the_repository_is_one(path):
    recipe = load_recipe(path)
    assert recipe.pixels >= (8 if recipe.network.startswith("cells") else 32)
    assert Recipe.model_validate_json(recipe.model_dump_json()).digest() == recipe.digest()


def test_the_smallest_recipe(tmp_path):
    recipe = load_recipe(written(tmp_path, SMALLEST))
    assert (recipe.pixels, recipe.initial, recipe.approaches) == (160, "random", {"original": 1.0})


def test_the_digest_tells_recipes_apart(tmp_path):
    first = load_recipe(written(tmp_path, SMALLEST))
    second = load_recipe(written(tmp_path, SMALLEST + "seed = 2\n"))
    assert first.digest() != second.digest()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("colour = 1\n", "colour"),
        ("seed = -1\n", "seed"),
        ("side = 16\n", "side"),
        ("approaches = { pixelate = 1 }\n", "unknown approach"),
        ("approaches = { encryption = 1 }\n", "a recipe may use"),
        ("approaches = { des-cbc = 1 }\n", "a recipe may use"),
        ("approaches = { mask = 0 }\n", "approaches.mask"),
        ("approaches = {}\n", "wrong at approaches"),
        ("vary = 1.5\n", "vary"),
        ('teacher = "t"\n', "go together"),
        ("[loss]\ndistillation = 0.5\n", "go together"),
        ("[loss]\nranked = -1\n", "loss.ranked"),
        ("[loss]\nbounded = true\n", "answers over years can be bounded"),
        ("[loss]\nsmoothing = 0.1\n", "smoothing says nothing to mobilenet, which answers over years"),
        ("[optimization]\nepochs = 0\n", "optimization.epochs"),
        ('[optimization]\nprecision = "8-bit"\n', "optimization.precision"),
        ("[validation]\nshare = 1.0\n", "validation.share"),
        ("[validation]\nhold_out = [[13, 17]]\n", "validation.hold_out"),
        ("[validation]\nhold_out = [[17, 13, 0.5]]\n", "a span runs from its youngest age to its oldest"),
        ("[validation]\nhold_out = [[13, 17, 1.5]]\n", "validation.hold_out"),
        ("[validation]\nhold_out = [[13, 117, 0.5]]\n", "validation.hold_out"),
        ("[loss]\nemphasis = [[17, 13, 2]]\n", "a span runs from its youngest age to its oldest"),
        ("[loss]\nemphasis = [[13, 17, 0]]\n", "loss.emphasis"),
        ("[loss]\nemphasis = [[13, 17, nan]]\n", "loss.emphasis"),
        ("[optimization]\nlearning_rate = inf\n", "optimization.learning_rate"),
        ("[", "no TOML"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, change, place):
    with pytest.raises(DataError, match=place):
        load_recipe(written(tmp_path, SMALLEST + change))


@pytest.mark.parametrize("change", ["ranked = 0.2", "ranked = 0", "grouped = 0.5", "expected = 0.1"])
def test_a_network_over_groups_has_no_loss_over_years(tmp_path, change):
    groups = SMALLEST.replace("mobilenet", "vgg16")
    with pytest.raises(DataError, match=rf"{change[:6]}.* says nothing to vgg16, which answers over groups"):
        load_recipe(written(tmp_path, f"{groups}[loss]\n{change}\n"))
    assert load_recipe(written(tmp_path, f"{groups}[loss]\nsmoothing = 0.1\n")).loss.smoothing == 0.1


def test_an_unknown_network_is_named(tmp_path):
    with pytest.raises(DataError, match=r"wrong at network: .*unknown network 'lenet'"):
        load_recipe(written(tmp_path, SMALLEST.replace("mobilenet", "lenet")))


def test_a_missing_file_and_one_that_is_no_text(tmp_path):
    with pytest.raises(DataError, match="cannot read the recipe"):
        load_recipe(tmp_path / "none.toml")
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no TOML"):
        load_recipe(path)
