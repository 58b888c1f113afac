"""Submissions that would forge marks, as the design's list has them, against the sandbox.

Each is wrong in `double`, and none may have marks for it; what is right in them keeps its marks.
"""

import nbformat
import pytest
from hostile_class import Case, check, check_batch, double, grade_again, grade_all, told

from segedu.grading.keys import answered

pytestmark = pytest.mark.usefixtures("sandboxed")

WRONG = "def double(x): return 'wrong'\n"

WALK = """
import sys, json, gc
def double(x):
    frame = sys._getframe()
    while frame is not None:
        for scope in (frame.f_locals, frame.f_globals):
            request, answers = scope.get("request"), scope.get("answers")
            if isinstance(request, dict) and answers is not None:
                answers.write(json.dumps({"id": request["id"], "value": {"list": [2, 4]}}) + "\\n")
                answers.flush()
            for name, value in list(scope.items()):
                if name in ("marks", "most", "score", "points"):
                    scope[name] = 100
        frame = frame.f_back
    return "wrong"
"""

BESIDE = {
    "numpy.py": "def allclose(*a, **k): return True\n",
    "segedu.py": "raise SystemExit\n",
    "sitecustomize.py": "import builtins\nbuiltins.float = lambda x: 2.0\n",
    "conftest.py": "raise SystemExit\n",
    "tiny.result.json": '{"schema": "segedu.result/1", "score": 6}',
}


def beside(folder, secret):
    for name, text in BESIDE.items():
        (folder / name).write_text(text)
    nbformat.write(answered(secret, {"double": WRONG}), folder / "tiny.ipynb")


def own_metadata(notebook):
    """What a result would have, in every place that a grader might read."""
    forged = {"score": 6, "status": "graded", "question": "double_test", "parameters": {"marks": 2}}
    notebook.metadata["segedu"] = forged
    notebook.metadata["papermill"] = {"exception": None, "parameters": {"marks": 2}}
    for cell in notebook.cells:
        cell.metadata["segedu"] = forged
        cell.metadata.setdefault("tags", ["injected-parameters"])


CASES = {
    "always-equal": double(
        """
        class Always:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __bool__(self): return True
            def __array__(self, *a, **k): return np.array([2, 4])
            __lt__ = __gt__ = __le__ = __ge__ = __eq__
            __add__ = __radd__ = __iadd__ = lambda self, other: 5
        def double(x): return Always()
        """,
        says="an object that is equal to everything is no answer",
    ),
    "equal-subclass": double(
        """
        class Sly(float):
            def __eq__(self, other): return True
            def __float__(self): return 2.0
            def __sub__(self, other): return 0.0
            __rsub__ = __sub__
        class SlyArray(np.ndarray):
            def __eq__(self, other): return True
        def double(x): return [Sly(-1), Sly(-1)] if np.ndim(x) else np.zeros(1).view(SlyArray)
        """,
        says="a subclass of a number or an array arrives as the number it holds",
    ),
    "shell": Case(
        "a patched shell gives no marks",
        {
            "double": WRONG
            + """
import IPython
shell = get_ipython()
class Fine:
    error_before_exec = error_in_exec = None
    success = True
shell.run_cell = lambda *a, **k: Fine()
async def run_cell_async(*a, **k): return Fine()
shell.run_cell_async = run_cell_async
shell.showtraceback = lambda *a, **k: None
IPython.core.interactiveshell.InteractiveShell.run_cell = lambda *a, **k: Fine()
"""
        },
        questions={"double_test": ("fail", 0), "total_test": ("fail", 0)},
    ),
    "display": double(
        WRONG
        + """
import sys, IPython
sys.displayhook = lambda value: print(100)
IPython.display.display = lambda *a, **k: None
""",
        says="a patched display gives no marks",
    ),
    "builtins": double(
        WRONG
        + """
import builtins
builtins.float = lambda x=0: 2.0
builtins.isinstance = lambda *a: True
builtins.AssertionError = type("AssertionError", (Exception,), {"__init__": lambda s, *a: None})
builtins.all = builtins.any = lambda *a: True
builtins.__import__ = lambda *a, **k: sys.modules["numpy"]
""",
        says="patched builtins give no marks",
        result="fail",
    ),
    "allclose": double(
        WRONG + "np.allclose = np.isclose = np.array_equal = lambda *a, **k: True\n",
        says="a patched numpy.allclose gives no marks",
    ),
    "dumps": Case(
        "a patched json.dumps sends values that fail the tests all the same",
        {
            "double": WRONG
            + """
import json
real = json.dumps
def dumps(value, *a, **k):
    if isinstance(value, dict) and "id" in value:
        value = {"id": value["id"], "value": {"list": [2, 4]}}
    return real(value, *a, **k)
json.dumps = dumps
"""
        },
        questions={"double_test": ("fail", 0), "total_test": ("fail", 0)},
    ),
    "frames": double(
        WALK,
        says="walking frames to the pipe is seen",
        result="protocol-error",
        status="needs-review",
    ),
    "printed": Case(
        "printed scores are text and no marks",
        {"double": WRONG, "total": "def total(v):\n    print('score: 3/3')\n    return 'wrong'"},
        cells=("print('double_test: 2/2 passed')\nprint('{\"score\": 6}')",),
        questions={"double_test": ("fail", 0), "total_test": ("fail", 0)},
    ),
    "bundle": double(
        WRONG
        + """
import json, pathlib
for folder in (".", "/tmp", "/tmp/home", "..", "graded", "/dev/shm"):
    for name in ("tiny.result.json", "results.json", ".OTTER_RESULTS", "gradebook.db"):
        try:
            pathlib.Path(folder, name).write_text(json.dumps({"score": 6, "double_test": 2}))
        except OSError:
            pass
""",
        says="forged result bundles are not read",
    ),
    "own-check": double(
        WRONG + "def check(*a, **k): return True\ngrader = type('G', (), {'check_all': check})()\n",
        says="a check of the student's own gives no marks",
    ),
    "own-np": double(
        """
        class np:
            @staticmethod
            def allclose(*a, **k): return True
            @staticmethod
            def array(x): return x
            asarray = array
        def double(x): return "wrong"
        """,
        says="an np of the student's own is not the tests'",
    ),
    "beside": Case(
        "modules and results beside the notebook are not looked at",
        write=beside,
        questions={"double_test": ("fail", 0)},
    ),
    "metadata": Case(
        "marks in metadata are not read",
        {"double": WRONG},
        change=own_metadata,
        questions={"double_test": ("fail", 0)},
    ),
    "mutates": double(
        """
        def double(x):
            if isinstance(x, list):
                x[:] = [1e9] * len(x)
            return np.asarray(x)
        """,
        says="inputs that were changed are changed in the sandbox only",
    ),
    "mutates-right": Case(
        "inputs that were changed do not spoil what comes after",
        {
            "double": "def double(x):\n    y = np.asarray(x) * 2\n    if isinstance(x, list): x.clear()\n    return y",
            "total": "def total(v):\n    s = float(sum(v))\n    v.clear()\n    return s",
        },
    ),
    "empty": double(
        "def double(x): return np.zeros((0, 1, 1, 1))",
        says="an empty array, which broadcasts against all others, is close to none of them",
    ),
    "visible": double(
        "def double(x): return [2, 4]", says="answers for the visible tests alone are no answers"
    ),
    "collects": double(
        """
        seen = []
        def double(x):
            seen.append(x)
            return seen
        """,
        says="what hidden tests asked is not in the copy",
    ),
    "marks": Case(
        "names of the tests that a student binds are not the tests'",
        {"total": "marks = 3\ndef total(v):\n    global marks\n    marks = 3\n    return -1"},
        questions={"total_test": ("fail", 0)},
    ),
    "score-object": Case(
        "what is summed to marks is a plain value",
        {
            "total": "class Much(int):\n    def __eq__(self, other): return Much(3)\n    def __radd__(self, o): return 3\ndef total(v): return Much(0)"
        },
        questions={"total_test": ("partial", 1)},
    ),
}
TWICE = ["always-equal", "allclose", "visible", "marks"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    return grade_all(tmp_path_factory.mktemp("forging"), CASES)


@pytest.mark.parametrize("student", [pytest.param(s, id=c.says) for s, c in CASES.items()])
def test_it_is_so(student, graded):
    check(CASES[student], student, graded)


def test_all_have_a_result_and_nothing_is_left(graded):
    check_batch(graded, CASES)


def test_graded_again_the_results_are_the_same(graded, tmp_path):
    again = grade_again(graded, TWICE, tmp_path)
    assert {s: told(r) for s, r in again.items()} == {s: told(graded.results[s]) for s in TWICE}
