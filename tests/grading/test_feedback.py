import base64
import re
import struct
import time
import zlib

import pytest
from browser import CHROMIUM, counting_server, opened
from graded_class import RIGHT, TOTAL, WHY, cell, write_class, write_work

from segedu.grading import shown
from segedu.grading.feedback import feedback, write_feedback
from segedu.grading.manual import give
from segedu.grading.marks import read_one
from segedu.grading.pages import environment, marks_text, page, policy
from segedu.grading.results import result_path
from segedu.grading.roster import Person
from segedu.grading.shown import Shower, code_html, plain, text_html


def png(width=2, height=2, extra=b""):
    """A PNG of one colour."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (width + 1) * height)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", rows), chunk(b"tEXt", extra), chunk(b"IEND", b"")]
    return base64.b64encode(shown.PNG + b"".join(parts)).decode()


def display(**data):
    return {
        "output_type": "display_data",
        "metadata": {},
        "data": {name.replace("__", "+").replace("_", "/"): value for name, value in data.items()},
    }


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def outputs_of(*outputs):
    (done,) = Shower().cells({"cells": [cell("1", outputs=outputs)]})
    return done.outputs


@pytest.fixture
def graded(tmp_path):
    return write_class(tmp_path / "graded")


def page_of(graded, student, name=""):
    copy = graded / student / "tiny.ipynb"
    work = read_one(result_path(graded, student, "tiny"))
    return feedback(work, copy if copy.exists() else None, name)


def test_everybody_gets_a_page_with_marks_messages_and_comments(graded, tmp_path):
    give(graded, "ana", "why", 0.5, "Say why & when.")
    roster = {"ana": Person("ana", "Ana María Pérez")}
    paths = list(write_feedback(graded, tmp_path / "out", roster))
    assert [str(p.relative_to(tmp_path / "out")) for p in paths] == [
        f"{student}/tiny.html" for student in ("ana", "bo", "cem", "dee")
    ]
    ana, bo, cem, dee = (p.read_text(encoding="utf-8") for p in paths)
    assert "<strong>5.5 of 6</strong>" in ana
    assert "Ana María Pérez <span" in ana
    assert "marked by a person" in ana
    assert "Say why &amp; when." in ana
    assert "1 and 2 become 2 and 4" in bo
    assert "1 days late: 0.5 marks less" in cem
    assert "it is not nought" in dee
    assert "no sandbox" not in dee  # the instructor's concern


def test_a_student_without_a_notebook_reads_why(graded):
    write_work(graded, "eve", [], status="invalid", score=0.0, reason="the file is empty")
    assert "<li>the file is empty</li>" in page_of(graded, "eve")
    (graded / "eve" / "tiny.ipynb").unlink()
    assert "What you handed in" not in page_of(graded, "eve")


def test_marks_that_a_person_has_to_give_are_said(graded):
    assert "<strong>5 of 6</strong> so far" in page_of(graded, "ana")
    assert '<td class="number">?</td>' in page_of(graded, "ana")


def test_a_page_has_nothing_that_a_student_may_not_read(graded):
    text = page_of(graded, "bo")
    assert "RAISED-SECRET" not in text
    assert "[1, 4]" not in text  # the detail of what a hidden test saw
    assert "summary" not in text


def test_a_mark_in_part_is_neither_good_nor_bad(graded):
    text = page_of(graded, "cem")
    assert '<td class="">partly right</td>' in text
    assert '<td class="pass">right</td>' in text
    assert '<td class="fail">no answer</td>' in text


def test_the_policy_allows_the_pages_own_style_and_no_more(graded):
    text = page_of(graded, "ana")
    style = re.search("<style>(.*?)</style>", text, re.S)[1]
    said = re.search('Content-Security-Policy" content="([^"]*)"', text)[1]
    assert said.replace("&#39;", "'") == policy(style)
    assert policy(style).startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "style=" not in text
    assert "<script" not in text
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_a_template_that_lacks_a_value_is_an_error():
    with pytest.raises(Exception, match="undefined"):
        page("feedback.html", "")
    with pytest.raises(Exception, match=r"nothing\.html"):
        environment().get_template("nothing.html")
    assert environment().from_string("{{ x }}").render(x="<\u202e>") == "&lt;\ufffd&gt;"
    assert (marks_text(None), marks_text(1 / 3), marks_text(2.0)) == ("?", "0.33", "2")


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("# Top", "<h3>Top</h3>\n"),
        ("###### Low", "<h6>Low</h6>\n"),
        ("<b>x</b>", "<p>&lt;b&gt;x&lt;/b&gt;</p>\n"),
        ("[text](javascript:x) [b](https://b.example)", "<p>[text](javascript:x) b</p>\n"),
        ("![a picture](https://b.example/x.png)", "<p>a picture</p>\n"),
        ("<https://b.example>", "<p>https://b.example</p>\n"),
        ("[a][b]\n\n[b]: https://b.example", "<p>a</p>\n"),
        ("*a* `b`", "<p><em>a</em> <code>b</code></p>\n"),
        ("a\u202eb", "<p>a\ufffdb</p>\n"),
    ],
)
def test_markdown_keeps_what_it_says_and_loses_what_it_does(source, html):
    assert text_html(source) == html


def test_a_table_in_markdown_has_no_style_of_its_own():
    html = text_html("| a |\n|:-:|\n| 1 |")
    assert "<td>1</td>" in html
    assert "style" not in html


def test_code_is_escaped_and_cut_off():
    assert "&lt;script&gt;" in code_html("'<script>'")
    assert len(code_html("x" * (shown.MOST_SOURCE + 10))) < shown.MOST_SOURCE + 400
    assert shown.CUT in code_html("x" * (shown.MOST_SOURCE + 10))


def test_text_loses_colours_and_is_cut_off():
    assert plain("\x1b[31mred\x1b[0m") == "red"
    assert plain(["a", "b"]) == "ab"
    assert plain("y" * 20_001) == "y" * shown.MOST_TEXT + shown.CUT
    assert plain("y" * shown.MOST_TEXT) == "y" * shown.MOST_TEXT


def test_of_outputs_text_and_small_pictures_are_shown():
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["one", "\x1b[0mtwo"]}
    printed, raised, drawn, told, other = outputs_of(
        stream("<b>"),
        error,
        display(image_png=png(), text_plain="<Figure>"),
        display(text_html="<b>", text_plain="a table"),
        display(image_svg__xml="<svg/>"),
    )
    assert printed.text == "<b>"
    assert raised.text == "one\ntwo"
    assert drawn.picture == "data:image/png;base64," + png()
    assert (told.text, told.picture, told.is_note) == ("a table", "", False)
    assert (other.text, other.is_note) == ("not shown here: image/svg+xml", True)


@pytest.mark.parametrize(
    "content",
    [
        "no base64 at all!",
        base64.b64encode(b"<svg onload=alert(1)>" + b" " * 40).decode(),
        base64.b64encode(b"<svg>".ljust(16) + struct.pack(">II", 1, 1) + b" " * 40).decode(),
        base64.b64encode(shown.PNG).decode(),
        png(width=5000, height=1),
        png(height=5000, width=1),
        png(extra=b"x" * shown.MOST_PICTURE),
        {"not": "text"},
    ],
)
def test_what_is_no_small_picture_is_not_shown(content):
    (output,) = outputs_of(display(image_png=content))
    assert output.picture == ""
    assert output.is_note


def test_pictures_of_a_page_are_limited_together(monkeypatch):
    one = png()
    monkeypatch.setattr(shown, "MOST_PICTURES", 2 * len(base64.b64decode(one)))
    found = outputs_of(*[display(image_png=one)] * 3)
    assert [bool(output.picture) for output in found] == [True, True, False]


def test_many_outputs_are_counted():
    found = outputs_of(*[stream("x")] * (shown.MOST_OUTPUTS + 3))
    assert len(found) == shown.MOST_OUTPUTS + 1
    assert found[-1].text == "3 more outputs"
    assert len(outputs_of(*[stream("x")] * shown.MOST_OUTPUTS)) == shown.MOST_OUTPUTS


def attacks(server):
    """What a student may write and print so that a page does something."""
    do = f"document.title='owned';fetch('{server}/script')"
    html = [
        f"<script>{do}</script>",
        f'<img src="{server}/img" onerror="{do}"><img src=x onerror="{do}">',
        f'<svg xmlns="http://www.w3.org/2000/svg" onload="{do}"><script>{do}</script></svg>',
        f'<iframe src="{server}/frame" srcdoc="<script>parent.{do}</script>"></iframe>',
        f'<link rel="stylesheet" href="{server}/css"><style>body{{background:url({server}/bg)}}</style>',
        f'<meta http-equiv="refresh" content="0;url={server}/refresh"><base href="{server}/">',
        f'<form action="{server}/form"><input autofocus onfocus="{do}"></form>',
        f"</pre></style></title></textarea>--><script>{do}</script>",
        f'<object data="{server}/object"></object><embed src="{server}/embed">',
    ]
    return html, "\n\n".join(html)


def attacking_cells(server):
    html, together = attacks(server)
    do = html[0].removeprefix("<script>").removesuffix("</script>")
    kinds = ("text_html", "image_svg__xml", "text_markdown", "application_javascript", "text_latex")
    widget = {"model_id": "a", "version_major": 2}
    outputs = [
        *(display(**{kind: together}) for kind in kinds),
        *(stream(part) for part in html),
        display(text_plain=together),
        display(image_png=base64.b64encode(together.encode()).decode(), text_plain=html[0]),
        display(image_png=png(extra=b"<script>"), text_plain='"><script>' + do + "</script>"),
        display(application_vnd="x", **{f'"><script>{do}</script>': "x"}),
        {"output_type": "error", "ename": together, "evalue": html[0], "traceback": html},
        display(**{"application_vnd.jupyter.widget-view__json": widget}),
    ]
    links = f"[x](javascript:{do}) ![y]({server}/md.png) <javascript:{do}> [z]({server}/z)"
    return [
        cell(together, kind="markdown"),
        cell(
            f"{links}\n\n$\\href{{javascript:{do}}}{{x}}$\n\n```html\n{together}\n```",
            "why",
            "text",
        ),
        cell(f"'''{together}'''", '"><script>' + do + "</script>", outputs=outputs),
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; .ci/run installs it")
def test_in_a_browser_no_script_runs_and_nothing_is_asked_for(tmp_path):
    with counting_server() as server:
        _, together = attacks(server.address)
        odd = "<img src=x onerror=document.title=1>"
        cells = attacking_cells(server.address)
        write_work(
            *(tmp_path / "graded", odd, [RIGHT, TOTAL, WHY]),
            cells=cells,
            answer=together,
            repairs=[together],
            reason=together,
        )
        give(tmp_path / "graded", odd, "why", 1, together)
        roster = {odd: Person(odd, together)}
        (path,) = write_feedback(tmp_path / "graded", tmp_path / "out", roster)
        document, console = opened(path)
        assert server.asked == []
    assert console == []
    title = re.search("<title>(.*?)</title>", document, re.S)[1]
    assert title.startswith("tiny: &lt;script&gt;")
    assert "<script" not in document
    assert "<iframe" not in document
    assert document.count("<img") == 1
    assert "&lt;script&gt;document.title" in document


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; .ci/run installs it")
def test_the_same_attacks_succeed_in_a_page_without_guards(tmp_path):
    with counting_server() as server:
        _, together = attacks(server.address)
        naked = tmp_path / "naked.html"
        naked.write_text(f"<title>mine</title>{together}")
        document, _ = opened(naked)
        assert {"/img", "/script"} <= set(server.asked)
    assert "<title>mine</title>" not in document


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; .ci/run installs it")
def test_the_policy_alone_stops_scripts_and_requests(tmp_path):
    with counting_server() as server:
        html, _ = attacks(server.address)
        guarded = tmp_path / "guarded.html"
        rule = f'<meta http-equiv="Content-Security-Policy" content="{policy("")}">'
        guarded.write_text(f"{rule}<title>mine</title>{''.join(html[:5])}")
        document, console = opened(guarded)
        assert server.asked == []
    assert "<title>mine</title>" in document
    assert console


@pytest.mark.parametrize("source", ["*" * 50_000, "a." * 25_000])
def test_code_that_would_take_long_to_colour_is_shown_without_colours(source):
    begun = time.monotonic()
    assert code_html(f"<b>{source}") == f"&lt;b&gt;{source[:-3]}{shown.CUT}\n"
    assert time.monotonic() - begun < 2
