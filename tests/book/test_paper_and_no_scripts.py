"""The built site on paper, without scripts, and its live figures in a narrow window."""

import functools
import json
import shutil
import subprocess
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from test_site import SITE, Quiet

PAPER = Path(__file__).with_name("paper.mjs")
LANDING, *CHAPTERS = PAGES = (
    "/index.html",
    "/course/01_first_segmentation.html",
    "/course/06_cross_entropy.html",
)
LIVE = (
    "05_convolution_arithmetic",
    "06_cross_entropy",
    "08_metrics",
    "16_boxes_and_anchors",
    "18_mask_rcnn",
)


@pytest.fixture(scope="module")
def looked():
    """What Chromium saw: see paper.mjs."""
    if not (SITE / "index.html").is_file():
        pytest.skip("the site is not built; `make book` builds it")
    if not (shutil.which("chromium") and shutil.which("node")):
        pytest.skip("needs Node.js and Chromium; .ci/run installs them")
    handler = functools.partial(Quiet, directory=SITE)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        origin = f"http://127.0.0.1:{server.server_port}"
        live = ",".join(f"/course/{name}.html" for name in LIVE)
        command = ["node", str(PAPER), origin, live, *PAGES]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        server.shutdown()
        thread.join()
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_on_paper_only_the_article_is_seen_and_nothing_of_it_is_cut_off(looked, page):
    paper = looked["paper"][page]
    assert paper["around"] == []
    assert paper["wide"] == []
    assert paper["lines"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("page", CHAPTERS)
def test_on_paper_folded_answers_and_solutions_are_shown(looked, page):
    assert looked["paper"][page]["unfolded"] >= 7
    assert looked["paper"][page]["folded"] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_is_dark_on_the_screen_is_light_on_paper_and_dark_again(looked, page):
    assert looked["paper"][page]["themes"] == ["dark", "light", "dark"]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_without_scripts_text_mathematics_and_pictures_are_there(looked, page):
    still = looked["still"][page]
    assert still["letters"] > 2000
    assert still["ink"] != still["ground"]
    assert still["pictures"] > 0
    assert still["missing"] == []
    assert still["formulas"] > 0
    assert still["flat"] == 0
    assert still["mathFonts"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("page", CHAPTERS)
def test_without_scripts_the_empty_places_of_live_figures_are_not_seen(looked, page):
    assert looked["still"][page]["figures"] == 0


@pytest.mark.slow
def test_no_text_of_a_live_figure_is_smaller_than_ten_pixels_in_a_narrow_window(looked):
    assert len(looked["smallest"]) == 6
    assert {name: size for name, size in looked["smallest"].items() if size < 10} == {}
