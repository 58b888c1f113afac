import warnings

import pytest

from segedu.notebooks.strict import warnings_are_errors


@pytest.fixture(autouse=True)
def _strict():
    with warnings.catch_warnings():
        warnings_are_errors()
        yield


@pytest.mark.parametrize("kind", [UserWarning, DeprecationWarning, PendingDeprecationWarning])
def test_every_kind_of_warning_is_an_error(kind):
    with pytest.raises(kind, match="old"):
        warnings.warn("old", kind, stacklevel=1)


@pytest.mark.parametrize("module", ["zmq", "zmq.sugar.socket", "ipykernel.kernelbase"])
def test_the_kernels_own_modules_may_warn(module):
    warnings.warn_explicit("old", DeprecationWarning, "file.py", 1, module=module)


def test_a_module_of_a_longer_name_may_not():
    with pytest.raises(DeprecationWarning, match="old"):
        warnings.warn_explicit("old", DeprecationWarning, "file.py", 1, module="zmqueue")


def test_a_named_message_of_a_third_party_is_no_error():
    message = (
        "__array__ implementation doesn't accept a copy keyword, so passing copy=False failed."
    )
    warnings.warn(message, DeprecationWarning, stacklevel=1)


def test_what_is_told_when_memory_is_freed_is_no_error():
    warnings.warn("unclosed file", ResourceWarning, stacklevel=1)
