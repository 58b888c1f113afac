"""A small assignment of three questions, and what a full answer gets."""

SOURCE = '''\
# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Two questions

# %% nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import numpy as np

# %% nbgrader={"grade": false, "grade_id": "double", "locked": false, "schema_version": 3, "solution": true, "task": false}
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return np.asarray(x) * 2
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "double_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
assert np.allclose(double([1, 2]), [2, 4]), "1 and 2 become 2 and 4"
### BEGIN HIDDEN TESTS
assert np.allclose(double(np.array([[0.5]])), [[1.0]]), "arrays of any shape are doubled"
secret_input = -17.25
assert np.allclose(double(secret_input), -34.5), f"of {secret_input} expected -34.5"
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "total", "locked": false, "schema_version": 3, "solution": true, "task": false}
def total(values):
    """Their sum."""
    ### BEGIN SOLUTION
    return float(sum(values))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "total_test", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
marks = 0
marks += total([1, 2]) == 3
### BEGIN HIDDEN TESTS
marks += total([]) == 0
marks += total([0.5] * 4) == 2
### END HIDDEN TESTS
marks

# %% [markdown] nbgrader={"grade": true, "grade_id": "why", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Because an empty sum is nought.
# ### END SOLUTION
'''

MUTANTS = {
    "no_empty_sum.py": """\
        # An empty sum is taken for an error.
        def total(values):
            return float(sum(values)) / bool(len(values))
        """,
    "squares.py": """\
        # Doubling was taken for squaring.
        def double(x):
            return np.asarray(x) ** 2
        """,
}

FAST = (
    "limits: {cell_seconds: 2, notebook_seconds: 20, memory_gb: 2, processes: 32, output_mb: 1}\n"
)


def outcome(verdict):
    """Status and score of each question."""
    return {q.name: (q.status, q.score) for q in verdict.questions}


FULL = {"double_test": ("pass", 2), "total_test": ("pass", 3), "why": ("manual", None)}
