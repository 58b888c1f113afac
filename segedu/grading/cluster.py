"""A class on many machines: submissions as tasks of a dask.distributed cluster that is there.

The bytes of the key and of one notebook travel to a worker, a result and a graded copy travel back;
no file system need be shared. A worker needs segedu in its environment and bubblewrap, and grades
each submission in a process of its own, where a test's time limit works.

The scheduler and its workers must be trusted, and so must everybody who can reach them: dask sends
pickles between them, and a worker sees the key. What a student made is only ever sent as bytes.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.grading.job import Job, beginning, digest, failed, grade_safely
from segedu.grading.results import Result, read_result, result_path, write_result

TRIES = 3
PROGRAM = "from segedu.grading.cluster import main; main()"


@dataclass(frozen=True)
class Parcel:
    """What a worker is sent.

    Attributes:
        student: The student's id.
        notebook: The bytes of the file; None if it is no ordinary file.
        key: The bytes of the key.
        arrived: When it was handed in, in ISO form; "" if nobody knows.
    """

    student: str
    notebook: bytes | None
    key: bytes
    arrived: str


def on_cluster(jobs: list[Job], address: str) -> Iterator[Result]:
    """Grade on a cluster's workers and yield each result as it is there.

    A submission whose worker dies is given to another; after `TRIES` it is "infrastructure".

    Args:
        jobs: Submissions.
        address: Of the scheduler, such as "tcp://10.0.0.1:8786".

    Raises:
        InputError: If dask is not installed, or no scheduler answers there.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise InputError("--dask needs dask.distributed: pip install 'segedu[dask]'") from error
    try:
        client = Client(address, timeout=20, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--dask is {address!r}, where no scheduler answers ({type(error).__name__}); expected "
            "an address such as tcp://10.0.0.1:8786"
        ) from error
    with client:
        futures = {
            client.submit(graded_there, _packed(job), pure=False, retries=TRIES - 1): job
            for job in jobs
        }
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            job = futures.pop(future)  # and so its bytes are dropped there
            if future.status == "finished":
                yield _unpacked(job, future.result())
            else:
                kind = type(future.exception()).__name__
                yield failed(job, f"no worker of the cluster could grade it ({kind})")


def graded_there(parcel: Parcel) -> dict[str, bytes]:
    """On a worker: the files that grading writes, by name.

    Raises:
        RuntimeError: If the process that grades fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key.json").write_bytes(parcel.key)
        about = {"student": parcel.student, "arrived": parcel.arrived}
        (folder / "job.json").write_text(json.dumps(about), encoding="utf-8")
        if parcel.notebook is not None:
            (folder / "in.ipynb").write_bytes(parcel.notebook)
        program = [sys.executable, "-c", PROGRAM, str(folder)]
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "--", *program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"grading ended with {done.returncode}: {done.stderr[-300:]!r}")
        return {p.name: p.read_bytes() for p in (folder / "out").glob("*/*") if p.is_file()}


def main() -> None:
    """In the process that a worker starts: grade what lies in the folder named."""
    folder = Path(sys.argv[1])
    about = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    arrived = datetime.fromisoformat(about["arrived"]) if about["arrived"] else None
    job = Job(about["student"], folder / "in.ipynb", folder, folder / "out", arrived)
    grade_safely(job)


def _packed(job: Job) -> Parcel:
    key = job.secret / "key.json" if job.secret.is_dir() else job.secret
    ordinary = job.notebook.is_file() and not job.notebook.is_symlink()
    return Parcel(
        job.student,
        beginning(job.notebook) if ordinary else None,
        key.read_bytes(),
        job.arrived.isoformat() if job.arrived else "",
    )


def _unpacked(job: Job, files: dict[str, bytes]) -> Result:
    """Write what a worker graded as if it had been graded here."""
    name = next((n for n in files if n.endswith(".result.json")), "")
    if not name:
        return failed(job, "the worker of the cluster has written no result")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(files[name])
        result = replace(read_result(Path(folder, name)), digest=digest(job))
    try:
        copy = files.get(f"{result.assignment}.ipynb")
        if copy is not None:
            target = result_path(job.out, job.student, result.assignment)
            with whole_file(target.with_name(f"{result.assignment}.ipynb")) as unfinished:
                unfinished.write_bytes(copy)
        write_result(result, job.out)
    except OSError as error:
        return failed(job, f"the result could not be written: {error.strerror}")
    return result
