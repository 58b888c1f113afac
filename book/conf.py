"""Sphinx's settings for the website; `make book` runs it on the tree that `stage.py` lays out."""

import re
import shutil
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))
import jieba  # noqa: E402
import papermill  # noqa: E402, F401 - it loads our engine, which is not to be imported before it
from stage import package_version, repository  # noqa: E402

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
    "chinese",
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
html_context = {"default_mode": "auto"}
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
    """Mend what the theme writes, see `SEEN`, and take out what no page asks for."""
    out = Path(app.outdir)
    shutil.rmtree(out.parent / "jupyter_execute", ignore_errors=True)  # MyST-NB's copies
    for unused in (*out.rglob("*.map"), *out.rglob("fontawesome.js")):
        unused.unlink()
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for given, right in SEEN.items():
            text = re.sub(given, right, text)
        path.write_text(text, encoding="utf-8")


def list_outside_links(app, _error):
    """Write, beside the site, which addresses outside its pages name: for a person to try."""
    text = "".join(p.read_text(encoding="utf-8") for p in Path(app.outdir).rglob("*.html"))
    links = sorted(set(re.findall(r'href="(https?://[^"]+)"', text)))
    listed = Path(app.doctreedir).parent / "outside_links.txt"
    listed.write_text("\n".join(links) + "\n", encoding="utf-8")


def setup(app):
    """Sphinx calls it once."""
    app.connect("build-finished", pages_are_light_and_named)
    app.connect("build-finished", list_outside_links)
    app.connect("autodoc-process-docstring", bars_are_bars)
