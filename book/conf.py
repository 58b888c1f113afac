"""Sphinx's settings for the website; `make book` runs it on the tree that `stage.py` lays out."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))
import jieba  # noqa: E402
import papermill  # noqa: E402, F401 - it loads our engine, which is not to be imported before it
from docutils import nodes  # noqa: E402
from sphinx.search.zh import SearchChinese  # noqa: E402
from sphinx.transforms import SphinxTransform  # noqa: E402
from sphinx.util.nodes import NodeMatcher  # noqa: E402
from stage import package_version, repository  # noqa: E402

from segedu.notebooks.translate import wordless  # noqa: E402

project = "segedu"
author = "The authors of segedu"
project_copyright = "text and figures CC BY 4.0, code MIT"
version = release = package_version()
chinese = tags.has("zh_CN")  # noqa: F821 - Sphinx's
language = "zh_CN" if chinese else "en"

extensions = [
    "myst_nb",
    "sphinx_external_toc",
    "sphinxcontrib.katex",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
external_toc_path = "_toc.yml"
exclude_patterns = ["_build", "README.md"]
default_role = "code"

# Chapters are shown as they were run.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
suppress_warnings = ["mystnb.unknown_mime_type"]

# Mathematics is rendered as the site is built; its style and fonts are served from the site.
katex_prerender = True
katex_css_path = "katex/katex.min.css"

# One catalogue for each page; `translations.py` makes them.
locale_dirs = ["locale"]
gettext_compact = False
gettext_location = False
gettext_uuid = False
translation_progress_classes = True
if chinese:
    jieba.setLogLevel("WARNING")
    html_search_options = {"dict": str(here.parent / "_build/book/zh_CN/search_words.txt")}
    html_extra_path = ["../_build/book/zh_CN/extra"]
    nb_code_prompt_show = "显示代码（{type}）"
    nb_code_prompt_hide = "隐藏代码（{type}）"

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False

html_theme = "sphinx_book_theme"
html_context = {"default_mode": "auto", "chinese": chinese}
html_title = "segedu：学习图像分割" if chinese else "segedu: learn image segmentation"
templates_path = ["_templates"]
html_static_path = ["_static", "../_build/book/static"]
html_css_files = ["site.css"]
html_js_files = [(name, {"type": "module"}) for name in ("figures/figures.mjs", "paper.mjs")]
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_domain_indices = False
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None
html_theme_options = {
    "repository_url": repository(),
    "repository_branch": "main",
    "path_to_docs": "",
    "use_repository_button": True,
    "use_source_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "article_header_end": ["language-switch.html", "article-header-buttons.html"],
    "launch_buttons": {
        "notebook_interface": "jupyterlab",
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
    },
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
    "use_sidenotes": False,
    "navbar_persistent": [],
    "logo": {"text": "segedu", "alt_text": ""},
}


def bars_are_bars(_app, _what, _name, _about, _options, lines):
    """In docstrings a bar is a size or a magnitude, and no substitution of reStructuredText."""
    lines[:] = [line.replace("|", "\\|") if ">>>" not in line else line for line in lines]


SEEN = {
    r'<summary aria-label="Toggle hidden content">': "<summary>",
    r'(<button class="btn search-button-field[^>]*?)\s+aria-label="[^"]*"': r"\1",
    r'<summary>(<span class="toctree-toggle")': r'<summary aria-label="Pages of this part">\1',
    r'<div role="list" class="citation-list">': '<div class="citation-list">',
    r"<script[^>]*fontawesome\.js[^>]*></script>": "",
    r'(/blob/main/)([\w-]+\.md\?plain=1")': r"\1book/\2",
    r'/blob/main/api/[\w-]+\.md\?plain=1"': '/tree/main/segedu"',
}
"""What the theme writes, and what it should be.

Buttons have the names that they are seen to have, and the others a name. Icons come from the fonts
that the theme's style has anyway; its half a megabyte of script draws them once more.
Sources stand in `book/`, those of the API reference in the package.
"""


def pages_are_light_and_named(app, _error):
    """Mend what the theme writes; see `SEEN`."""
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for given, right in SEEN.items():
            text = re.sub(given, right, text)
        path.write_text(text, encoding="utf-8")


class NothingToTranslate(SphinxTransform):
    """What has no words is no gap in a translation, nor what was translated before Sphinx."""

    default_priority = 24  # after Locale, before the count

    def apply(self):
        """Mark such nodes as translated, and pictures whose alt text is."""
        if not chinese:
            return
        for node in list(NodeMatcher(nodes.Element, translated=Any).findall(self.document)):
            if isinstance(node, nodes.math_block | nodes.raw):
                node["translated"] = True
            elif isinstance(node, nodes.image):
                node["translated"] = any("\u4e00" <= c <= "\u9fff" for c in node.get("alt", ""))
            elif not node["translated"]:
                node["translated"] = wordless(node.rawsource or node.astext())


class Chinese(SearchChinese):
    """The search of Chinese pages; Sphinx 9.0 names a stemmer for it that there is not.

    Chinese words have no stem, and the English among them have an English one.
    """

    language_name = "English"


NOTICES = {
    "none": "本页还没有译成中文，以下是英文原文。",
    "partly": "本页有一部分还没有译成中文：左边带虚线的段落是英文原文。",
}


def say_what_is_translated(_app, pagename, _template, context, doctree):
    """Above a page that is not wholly in Chinese stands how much is."""
    context["other_language"] = f"../{pagename}.html" if chinese else f"zh_CN/{pagename}.html"
    context["chinese_notebook"] = ""
    if not chinese or doctree is None:
        return
    progress = doctree.get("translation_progress", {"total": 0, "translated": 0})
    total, done = progress["total"], progress["translated"]
    part = "none" if not (here / f"locale/zh_CN/LC_MESSAGES/{pagename}.po").is_file() else "partly"
    if total > done or part == "none":
        notice = f'<p class="not-translated" data-translated="{done}/{total}">{NOTICES[part]}</p>'
        body = context["body"]
        if part == "none":
            body = f'<div lang="en">{body}</div>'
        context["body"] = notice + body
    elif pagename.startswith("course/"):
        context["chinese_notebook"] = f"notebooks/{pagename.removeprefix('course/')}.ipynb"


def one_copy_of_each_file(app, _error):
    """Take out what no page asks for, and what the English site around the Chinese one has."""
    out = Path(app.outdir)
    shutil.rmtree(out.parent / "jupyter_execute", ignore_errors=True)  # MyST-NB's copies
    for unused in (*out.rglob("*.map"), *out.rglob("fontawesome.js")):
        unused.unlink()
    if not chinese:
        return
    shared = set()
    for folder in ("_static", "_images"):
        for path in [p for p in (out / folder).rglob("*") if p.is_file()]:
            name = path.relative_to(out)
            twin = out.parent / name
            if twin.is_file() and twin.read_bytes() == path.read_bytes():
                shared.add(name.as_posix())
                path.unlink()
    named = re.compile(r"((?:\.\./)*)(_(?:static|images)/[^\"?#\s]+)")
    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = named.sub(lambda m: f"{m[1]}../{m[2]}" if m[2] in shared else m[0], text)
        page.write_text(text, encoding="utf-8")


def setup(app):
    """Sphinx calls it once."""
    app.add_transform(NothingToTranslate)
    app.add_search_language(Chinese)
    app.connect("html-page-context", say_what_is_translated)
    app.connect("build-finished", pages_are_light_and_named)
    app.connect("build-finished", one_copy_of_each_file)
    app.connect("autodoc-process-docstring", bars_are_bars)
