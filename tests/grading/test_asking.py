import __main__
from segedu.grading.asking import student_eval, through


def test_in_a_notebook_it_evaluates_there(monkeypatch):
    monkeypatch.setattr(__main__, "seven", 7, raising=False)
    assert student_eval("seven * k", k=6) == 42


def test_while_grading_it_asks_the_sandbox():
    with through(lambda source, given: (source, given)):
        assert student_eval("f(x)", x=1) == ("f(x)", {"x": 1})
    assert student_eval("x + 1", x=1) == 2  # and then no more


def test_a_model_is_evaluated_where_it_is(verdict_of, secret):
    cell = next(c for c in secret["cells"] if c["id"] == "total_test")
    cell["source"] = (
        "from segedu.grading.asking import student_eval\nassert student_eval('Net(n).n', n=3) == 3, 'n'"
    )
    answer = "class Net:\n    def __init__(self, n): self.n = n\ntotal = Net(1)"
    assert verdict_of({"total": answer}).questions[1].status == "pass"
