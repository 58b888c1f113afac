import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import nbformat
import pytest
from distributed import Client, LocalCluster

from segedu.errors import InputError
from segedu.grading import cluster as module
from segedu.grading.assignment import read_assignment
from segedu.grading.cluster import graded_there, main, on_cluster
from segedu.grading.grade import _already
from segedu.grading.job import Job
from segedu.grading.pool import in_processes
from segedu.grading.release import write_release
from segedu.grading.results import read_result, result_path

pytestmark = pytest.mark.filterwarnings("ignore")  # dask's own


@pytest.fixture
def keys(source, tmp_path):
    write_release(read_assignment(source), tmp_path / "release", tmp_path / "key")
    return tmp_path / "key" / "tiny"


def told(result):
    """A result without what differs between two runs."""
    questions = [replace(question, seconds=0.0) for question in result.questions]
    return replace(result, seconds=0.0, questions=questions)


def test_a_worker_that_is_killed_while_grading_costs_no_result(keys, hand_in, tmp_path, sandboxed):
    answers = [{"double": "import os; os._exit(1)"}, {"total": "x"}, {"why": "y"}, None]
    paths = [hand_in(f"s{number}", given) for number, given in enumerate(answers)]
    paths[3].write_text("{")
    there, here = tmp_path / "there", tmp_path / "here"
    jobs = [Job(path.parent.name, path, keys, there) for path in paths]
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as workers,
        Client(workers) as client,
    ):
        pids = client.run(os.getpid)
        found = []
        for result in on_cluster(jobs, workers.scheduler_address):
            if not found:
                busy = next(worker for worker, tasks in client.processing().items() if tasks)
                os.kill(pids[busy], signal.SIGKILL)
            found.append(result)
    alone = in_processes([replace(job, out=here) for job in jobs], 2)
    assert {r.student: told(r) for r in found} == {r.student: told(r) for r in alone}
    assert [r.status for r in sorted(found, key=lambda r: r.student)] == [
        *["needs-manual"] * 3,
        "invalid",
    ]
    copies = [nbformat.read(folder / "s1/tiny.ipynb", 4) for folder in (there, here)]
    assert [c.source for c in copies[0].cells] == [c.source for c in copies[1].cells]
    assert all(_already(job, "tiny") for job in jobs)  # grading goes on from there as from here


class Settled:
    """A future of dask's that is there."""

    def __init__(self, value):
        self.value = value
        self.status = "error" if isinstance(value, Exception) else "finished"

    def result(self):
        return self.value

    def exception(self):
        return self.value


@pytest.fixture
def settled(monkeypatch):
    """A cluster whose workers answer at once with what is given."""
    import distributed

    class Cluster:
        answer = None

        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, _, parcel, **options):
            Cluster.options, Cluster.parcel = options, parcel
            return Settled(Cluster.answer)

    monkeypatch.setattr(distributed, "Client", Cluster)
    monkeypatch.setattr(distributed, "as_completed", list)
    return Cluster


def test_what_no_worker_can_grade_is_infrastructure(keys, hand_in, tmp_path, settled):
    job = Job("ana", hand_in("ana"), keys, tmp_path / "graded")
    settled.answer = RuntimeError("said by whom?")
    (result,) = on_cluster([job], "tcp://there")
    assert (result.status, result.score) == ("infrastructure", None)
    assert result.reason == "no worker of the cluster could grade it (RuntimeError)"
    assert settled.options == {"pure": False, "retries": 2}
    settled.answer = {}
    (result,) = on_cluster([job], "tcp://there")
    assert result.reason == "the worker of the cluster has written no result"
    assert read_result(result_path(tmp_path / "graded", "ana", "tiny")) == result


def test_a_link_is_not_sent_and_a_full_disk_here_is_infrastructure(
    keys, hand_in, tmp_path, settled, monkeypatch, sandboxed
):
    path = hand_in("ana")
    job = Job("ana", path, keys, tmp_path / "graded")
    settled.answer = {}
    list(on_cluster([job], ""))
    settled.answer = graded_there(settled.parcel)
    assert sorted(settled.answer) == ["tiny.ipynb", "tiny.result.json"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_result", full)
    (result,) = on_cluster([job], "")
    assert (result.status, result.reason) == (
        "infrastructure",
        "the result could not be written: No space left on device",
    )
    path.rename(path.with_name("other.txt"))
    path.symlink_to(path.with_name("other.txt"))
    list(on_cluster([job], ""))
    assert settled.parcel.notebook is None


def test_a_process_that_fails_is_tried_again_by_the_cluster(monkeypatch, keys, hand_in, tmp_path):
    failed = subprocess.CompletedProcess([], 1, b"", b"killed")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: failed)
    parcel = module._packed(Job("ana", hand_in("ana"), keys, tmp_path))
    with pytest.raises(RuntimeError, match="ended with 1: b'killed'"):
        graded_there(parcel)


def test_a_worker_grades_what_lies_in_a_folder(keys, hand_in, tmp_path, monkeypatch, sandboxed):
    hand_in("in", {"total": "x"}).rename(tmp_path / "in.ipynb")
    (tmp_path / "key.json").write_bytes((keys / "key.json").read_bytes())
    about = {"student": "ana", "arrived": "2026-12-02T10:00:00+00:00"}
    (tmp_path / "job.json").write_text(json.dumps(about))
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path)])
    main()
    result = read_result(tmp_path / "out/ana/tiny.result.json")
    assert (result.score, result.late_days) == (pytest.approx(1.4), 1)


def test_where_no_scheduler_answers_it_is_said(monkeypatch):
    with pytest.raises(InputError, match="--dask is 'nonsense://x', where no scheduler answers"):
        list(on_cluster([], "nonsense://x"))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'segedu\[dask\]'"):
        list(on_cluster([], "tcp://there"))
