"""The built site, as files: links, pictures, sizes. `make book` builds it."""

import functools
import gzip
import json
import re
import shutil
import subprocess
import threading
from functools import cache
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from lxml import html

from segedu.palette import class_colours

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "book" / "html"
BROWSE = Path(__file__).with_name("browse.mjs")
OUTSIDE = ("http", "https", "mailto")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def site():
    """The folder of the built site."""
    if not (SITE / "index.html").is_file():
        pytest.skip("the site is not built; `make book` builds it")
    return SITE


@pytest.fixture(scope="session")
def browse(site):
    """Visit pages in Chromium and say what was met there: see browse.mjs."""
    if not (shutil.which("chromium") and shutil.which("node")):
        pytest.skip("needs Node.js and Chromium; .ci/run installs them")
    handler = functools.partial(Quiet, directory=site)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}"

    def visit(paths, *, width=1440, scheme="light"):
        command = ["node", str(BROWSE), origin, str(width), scheme, *paths]
        run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    yield visit
    server.shutdown()
    server.server_close()


@cache
def parsed(path):
    return html.fromstring(path.read_text(encoding="utf-8"))


@cache
def names(path):
    """What a link into that page may name."""
    return set(parsed(path).xpath("//@id"))


@pytest.fixture(scope="session")
def pages(site):
    """All pages that a reader may open."""
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


def test_every_chapter_is_a_page(pages, site):
    numbers = {path.name[:2] for path in pages if path.parent == site / "course"}
    assert numbers == {f"{n:02}" for n in range(1, 23)}


def test_no_link_and_no_anchor_inside_is_dead(pages, site):
    dead = []
    for page in pages:
        for link in parsed(page).xpath("//a/@href"):
            parts = urlsplit(link)
            if parts.scheme in OUTSIDE:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            there = target.is_file()
            if not there or (parts.fragment and unquote(parts.fragment) not in names(target)):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert dead == []


def test_outside_links_are_well_formed_and_name_one_repository(pages):
    links = {link for p in pages for link in parsed(p).xpath("//a/@href")}
    outside = sorted(link for link in links if urlsplit(link).scheme in OUTSIDE)
    odd = [u for u in outside if not re.fullmatch(r"https?://[\w.-]+\.\w+(:\d+)?(/\S*)?", u)]
    assert odd == []
    listed = (SITE.parent / "outside_links.txt").read_text(encoding="utf-8").splitlines()
    listed += (SITE.parent / "zh_CN" / "outside_links.txt").read_text("utf-8").splitlines()
    assert set(outside) <= {unescape(link) for link in listed}
    assert not [u for u in outside if "REPOSITORY" in u or "COLAB" in u]
    chapters = [u for u in outside if "colab.research.google.com/github/" in u]
    assert chapters
    assert all("/github/segedu/segedu/blob/main/course/" in u for u in chapters)


def test_every_chapter_has_buttons_for_colab_binder_and_its_source(pages, site):
    for page in pages:
        if page.parent != site / "course":
            continue
        links = " ".join(parsed(page).xpath("//a/@href"))
        assert (
            f"colab.research.google.com/github/segedu/segedu/blob/main/course/{page.stem}" in links
        )
        assert "mybinder.org" in links
        assert f"course/{page.stem}.ipynb?plain=1" in links


def test_every_picture_says_what_is_to_be_seen(pages, site):
    pictures = [(page, image) for page in pages for image in parsed(page).xpath("//article//img")]
    said = [(page, image.get("src"), image.get("alt", "")) for page, image in pictures]
    assert len(said) > 300
    short = [(p, src) for p, src, alt in said if len(alt) < (20 if alt.isascii() else 10)]
    assert [f"{page.relative_to(site)}: {src}" for page, src in short] == []


def test_mathematics_is_there_before_any_script(site):
    text = (site / "course" / "06_cross_entropy.html").read_text(encoding="utf-8")
    assert text.count('class="katex"') > 100
    assert 'class="katex-error"' not in text


def test_no_formula_of_any_page_has_an_error(pages):
    wrong = [p.name for p in pages if "katex-error" in p.read_text(encoding="utf-8")]
    assert wrong == []


def test_solutions_are_folded(site):
    page = parsed(site / "course" / "06_cross_entropy.html")
    folded = page.xpath("//article//details")
    assert any("exercise.check(" in part.text_content() for part in folded)
    assert not any("open" in part.attrib for part in folded)


def test_the_site_is_at_most_60_megabytes(site):
    assert sum(p.stat().st_size for p in site.rglob("*") if p.is_file()) <= 60e6


@pytest.mark.parametrize("first", ["/index.html", "/zh_CN/index.html"])
def test_a_first_page_is_at_most_600_kilobytes_compressed(browse, site, first):
    (visit,) = browse([first])
    once = {path for path in visit["loaded"] if not path.endswith("/")}
    here = [site / path.lstrip("/") for path in once]
    total = sum(
        path.stat().st_size
        if path.suffix in (".woff2", ".png")
        else len(gzip.compress(path.read_bytes()))
        for path in here
    )
    assert total <= 600_000


@pytest.mark.slow
def test_pages_load_without_an_error_or_a_request_outside_and_are_accessible(browse, pages, site):
    visits = browse([f"/{p.relative_to(site).as_posix()}" for p in pages])
    kinds = ("errors", "outside", "violations")
    assert [(v["path"], v[k]) for v in visits for k in kinds if v[k]] == []
    assert len(visits) == len(pages)


@pytest.mark.parametrize("width", [360, 768])
def test_no_page_is_wider_than_a_small_window(browse, width):
    paths = ["/index.html", "/course/06_cross_entropy.html", "/errata.html", "/api/losses.html"]
    paths += ["/zh_CN/index.html", "/zh_CN/course/06_cross_entropy.html", "/zh_CN/errata.html"]
    visits = browse(paths, width=width, scheme="dark")
    assert [(v["path"], v["wide"]) for v in visits if v["wide"] > 0] == []
    assert [(v["path"], v["violations"]) for v in visits if v["violations"]] == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("/search.html?q=receptive+field", "Convolution arithmetic"),
        ("/search.html?q=RoIAlign", "mask of its own"),
        ("/zh_CN/search.html?q=交叉熵", "交叉熵"),
        ("/zh_CN/search.html?q=感受野", "卷积"),
    ],
)
def test_the_search_finds(browse, query, found):
    (visit,) = browse([query])
    assert any(found.lower() in result.lower() for result in visit["results"])


# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", IEEE TVCG 15(6), 2009: severity 1.0, on linear RGB.
DEFICIENCIES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_colours_of_classes_stay_apart_for_eyes_that_lack_a_cone(kind):
    import numpy as np
    from skimage.color import deltaE_ciede2000, rgb2lab

    srgb = class_colours(6) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DEFICIENCIES[kind]).T, 0, 1)
    back = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(back)
    apart = [
        deltaE_ciede2000(lab[i], lab[j]) for i in range(len(lab)) for j in range(i + 1, len(lab))
    ]
    assert min(apart) >= 10  # a difference of about 2 is just seen
