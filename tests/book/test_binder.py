"""What Binder builds from, and that the site's buttons for it and for Colab lead to files."""

import re
import tomllib
import warnings
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from lxml import html
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "book" / "html"
CONDA_NAMES = {"torch": "pytorch-cpu", "torchvision": "torchvision"}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def listed():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    return environment["dependencies"]


@pytest.fixture
def pack(monkeypatch):
    """What repo2docker takes the repository for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what it imports
        from repo2docker.app import Repo2Docker

    monkeypatch.chdir(ROOT)
    packs = (kind("jammy") for kind in Repo2Docker().buildpacks)
    found = next(each for each in packs if each.detect())
    found.platform = "linux/amd64"
    return found


def test_repo2docker_takes_the_environments_file_and_its_python(pack, project):
    assert pack.binder_path("environment.yml") == "environment.yml"
    assert type(pack).__name__ == "CondaBuildPack"
    assert pack.python_version == "3.12"
    assert pack.python_version in SpecifierSet(project["requires-python"])


def test_the_repository_is_copied_before_its_package_is_installed_from_it(pack):
    lines = pack.render({"NB_UID": "1000"}).splitlines()
    copied = next(i for i, line in enumerate(lines) if "src/ ${REPO_DIR}/" in line)
    updated = next(i for i, line in enumerate(lines) if '--file "environment.yml"' in line)
    assert copied < updated


def test_pip_installs_the_repository_itself_with_an_extra_that_there_is(listed, project):
    (pip,) = (each["pip"] for each in listed if isinstance(each, dict))
    (extra,) = re.fullmatch(r"-e \.\[(\w+)\]", *pip).groups()
    wanted = [Requirement(each).name for each in project["optional-dependencies"][extra]]
    assert {"ipykernel", "jupyterlab"} <= set(wanted)
    assert "pip" in listed


def test_pytorch_comes_from_conda_with_the_bounds_that_the_package_has(listed, project):
    bounds = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    for name, theirs in CONDA_NAMES.items():
        (entry,) = (e for e in listed if isinstance(e, str) and re.match(rf"{theirs}\b", e))
        assert SpecifierSet(entry.removeprefix(theirs)) == bounds[name]


def in_the_repository(link, repository):
    """The path that a link to Colab, Binder or the repository's files names, or None."""
    parts = urlsplit(link)
    owner = urlsplit(repository).path.strip("/")
    if parts.netloc == "mybinder.org":
        assert parts.path == f"/v2/gh/{owner}/main"
        return parse_qs(parts.query)["urlpath"][0].removeprefix("lab/tree/")
    match = re.fullmatch(rf"(?:/github)?/{owner}/(?:blob|tree|edit)/main/(.*)", parts.path)
    if parts.netloc in ("github.com", "colab.research.google.com") and match:
        return unquote(match[1])
    return None


@pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="`make book` builds the site")
def test_buttons_and_links_into_the_repository_lead_to_files_that_are_there(project):
    seen, dead = set(), set()
    for page in SITE.rglob("*.html"):
        for link in html.fromstring(page.read_text(encoding="utf-8")).xpath("//a/@href"):
            path = in_the_repository(link, project["urls"]["Repository"])
            if path is not None:
                seen.add(urlsplit(link).netloc)
                dead |= set() if (ROOT / path).exists() else {f"{page.relative_to(SITE)}: {link}"}
    assert seen == {"mybinder.org", "github.com", "colab.research.google.com"}
    assert sorted(dead) == []
