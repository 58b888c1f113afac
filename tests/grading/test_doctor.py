import pytest

from segedu.errors import InputError
from segedu.grading import doctor as module
from segedu.grading import sandbox
from segedu.grading.assignment import Limits
from segedu.grading.bridge import Ended, SandboxFailed


def test_every_probe_holds_on_a_machine_with_a_sandbox(sandboxed):
    findings = list(module.examine())
    assert len(findings) == len(module.PROBES) + 1
    assert [finding.name for finding in findings if not finding.holds] == []


def test_probes_fail_where_nothing_is_enforced(monkeypatch):
    """Run them here, in the open: what can be tried without harm must be found open."""
    given: dict = {"SECRETS": [__file__], "PREFIX": "/tmp", "NAME": "x", "PORT": 1}
    for title in ("nothing to read of this user", "no rights, and none to be had"):
        names = dict(given)
        exec(module.PROBES[title], names)
        assert names["probe"]() is False


def test_without_bubblewrap_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda _: None)
    (finding,) = module.examine()
    assert not finding.holds
    assert "install the package bubblewrap" in finding.advice
    with pytest.raises(InputError, match="bwrap is not installed"):
        sandbox.refuse_without_sandbox()


def test_where_user_namespaces_are_closed_it_says_how_to_open_them(monkeypatch):
    def closed(*_, **__):
        raise SandboxFailed("no")

    monkeypatch.setattr(sandbox, "refuse_without_sandbox", lambda: None)
    monkeypatch.setattr(module, "Bridge", closed)
    (finding,) = module.examine()
    assert "AppArmor profile" in finding.advice


@pytest.mark.parametrize(("why", "holds"), [("crash", True), ("timeout", False)])
def test_a_probe_that_a_limit_ends_has_found_the_limit(monkeypatch, why, holds):
    class Dying:
        def __init__(self, limits):
            pass

        def __enter__(self):
            raise Ended(why)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(module, "Bridge", Dying)
    assert module._try(Limits(), "") is holds
