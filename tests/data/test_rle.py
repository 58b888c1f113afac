import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as peer

from segedu.data.coco import INSTANCES
from segedu.data.rle import decode, encode, from_string, from_strings, to_string
from segedu.errors import InputError

masks = st.tuples(st.integers(0, 9), st.integers(0, 9)).flatmap(lambda size: arrays(bool, size))
counts_below = st.lists(st.integers(0, 2**31), max_size=30)


def peer_encode(mask):
    return peer.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()


def peer_decode(text, height, width):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return peer.decode({"size": [height, width], "counts": text.encode()}).astype(bool)


def naive_counts(mask):
    """Walk down each column, as the format says."""
    counts, inside = [0], False
    for pixel in mask.T.ravel():
        if bool(pixel) != inside:
            counts.append(0)
            inside = not inside
        counts[-1] += 1
    return counts


def naive_string(counts):
    """One number at a time, five bits at a time."""
    text = ""
    for i, count in enumerate(counts):
        number = count - counts[i - 2] if i > 2 else count
        while True:
            bits, number = number & 31, number >> 5
            done = number == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return text


def random_masks(how_many):
    """Noise and solid shapes of all densities and of many sizes, empty and full ones among them."""
    generator = np.random.default_rng(0)
    for number in range(how_many):
        height, width = generator.integers(1, 60, size=2)
        mask = generator.random((height, width)) < generator.choice([0, 0.01, 0.3, 0.5, 0.9, 1])
        if number % 2:
            mask = mask.repeat(generator.integers(1, 9), 0).repeat(generator.integers(1, 9), 1)
        yield mask


def test_four_pixels_by_hand():
    mask = np.array([[True, False], [True, True]])  # down the columns: 1 1 0 1
    assert encode(mask).tolist() == [0, 2, 1, 1]
    assert to_string([0, 2, 1, 1]) == "021O"  # 0, 2, 1 and the change 1 - 2 = -1
    assert from_string("021O").tolist() == [0, 2, 1, 1]
    assert decode([0, 2, 1, 1], 2, 2).tolist() == mask.tolist()


def test_a_number_of_more_than_five_bits_takes_several_characters():
    assert to_string([15]) == "?"
    assert to_string([16]) == "`0"  # 16 alone would read as -16: the fifth bit is the sign
    assert to_string([1000]) == "Xo0"  # 01000, 11111, 00000 from the lowest bits up
    assert from_string("?").tolist() == [15]
    assert from_string("`0").tolist() == [16]
    assert from_string("Xo0").tolist() == [1000]


def test_counts_from_the_fourth_on_are_stored_as_changes():
    assert to_string([7, 7, 7, 7, 7]) == "77700"
    assert from_string("77700").tolist() == [7, 7, 7, 7, 7]


@given(masks)
def test_counts_are_what_a_walk_down_the_columns_finds(mask):
    assert encode(mask).tolist() == naive_counts(mask)
    assert decode(encode(mask), *mask.shape).tolist() == mask.tolist()


@given(counts_below)
def test_strings_are_what_the_format_says_and_lead_back_to_the_counts(counts):
    text = to_string(counts)
    assert text == naive_string(counts)
    assert from_string(text).tolist() == counts
    assert from_string(text.encode()).tolist() == counts


def test_pycocotools_writes_and_reads_the_same_on_a_thousand_random_masks():
    for mask in random_masks(1000):
        text = to_string(encode(mask))
        assert text == peer_encode(mask)
        assert (peer_decode(text, *mask.shape) == mask).all()
        assert (decode(from_string(peer_encode(mask)), *mask.shape) == mask).all()


def test_pycocotools_makes_the_same_string_of_the_same_counts():
    for mask in random_masks(50):
        height, width = mask.shape
        uncompressed = {"size": [height, width], "counts": encode(mask).tolist()}
        assert peer.frPyObjects(uncompressed, height, width)["counts"].decode() == to_string(
            encode(mask)
        )


def test_bytes_count_as_object_unless_they_are_0_and_any_memory_order_gives_the_same():
    mask = np.array([[0, 7], [255, 0], [1, 1]], dtype=np.uint8)
    expected = encode(mask > 0).tolist()
    assert encode(mask).tolist() == expected == [1, 3, 1, 1]
    assert encode(np.asfortranarray(mask)).tolist() == expected
    assert encode(np.ascontiguousarray(mask.T).T).tolist() == expected


def test_a_mask_of_no_pixels_is_one_run_of_length_0():
    assert encode(np.zeros((0, 5), dtype=bool)).tolist() == [0]
    assert decode([0], 0, 5).shape == (0, 5)
    assert decode([], 0, 0).shape == (0, 0)
    assert to_string([]) == ""
    assert from_string("").tolist() == []


def test_what_encode_and_decode_are_given_is_left_as_it_was():
    counts = np.array([1, 2, 3, 4, 5])
    to_string(counts)
    decode(counts, 3, 5)
    assert counts.tolist() == [1, 2, 3, 4, 5]
    mask = np.eye(3, dtype=bool)
    encode(mask)
    assert (mask == np.eye(3, dtype=bool)).all()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 2], "run lengths sum to 5; expected 6 for 2 x 3 pixels; check the size"),
        ([3, 4], "run lengths sum to 7; expected 6"),
        ([], "run lengths sum to 0; expected 6"),
        ([8, -2], "run length 1 is -2; expected 0 or more; the counts or their string"),
    ],
)
def test_counts_that_are_no_runs_of_the_mask_are_refused(counts, message):
    with pytest.raises(InputError, match=message):
        decode(counts, 2, 3)


@pytest.mark.parametrize("counts", [[1.5, 4.5], ["6"], [True] * 6, "021O", [[6]]])
def test_counts_that_are_no_whole_numbers_are_refused(counts):
    without_shape_checks = decode.__wrapped__
    with pytest.raises(InputError, match=r"expected a list of whole numbers; decode a string"):
        without_shape_checks(counts, 2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("02é1", r"has the byte b'\\xc3' at place 2; expected characters from '0' to 'o'"),
        ("02 1", "has the byte b' ' at place 2"),
        ("021p", "has the byte b'p' at place 3"),
        (b"02\\1/", "has the byte b'/' at place 4"),
        ("Xo", "of 2 characters ends within a number: 'Xo'; it was cut off"),
        ("0" * 20 + "X", "of 21 characters ends within a number: '0000000X'"),
        ("ooooooo0", "has a number of 8 characters; expected at most 7"),
        ("O", "run length 0 is -1; expected 0 or more"),
        ("021L", "run length 3 is -2; expected 0 or more"),
    ],
)
def test_strings_that_are_damaged_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        from_string(text)


@given(counts_below.filter(len), st.data())
def test_a_string_cut_off_anywhere_is_refused_or_misses_counts(counts, data):
    text = to_string(counts)
    cut = data.draw(st.integers(0, len(text) - 1))
    try:
        found = from_string(text[:cut]).tolist()
    except InputError as error:
        assert "ends within a number" in str(error)  # noqa: PT017 - either way is right
    else:
        assert found == counts[: len(found)]
        assert len(found) < len(counts)


@given(st.lists(counts_below))
def test_many_strings_read_in_one_go_are_read_as_one_by_one(many):
    texts = [to_string(counts) for counts in many]
    counts, lengths = from_strings(texts)
    assert lengths.tolist() == [len(one) for one in many]
    assert counts.tolist() == [count for one in many for count in one]


@pytest.mark.parametrize("texts", [["24T30", "Xo", "03"], ["X", "X"], [b"02", "021L"], ["02 1"]])
def test_one_damaged_string_among_many_is_refused(texts):
    with pytest.raises(InputError):
        from_strings(texts)


@pytest.mark.real
def test_every_real_annotation_reads_and_writes_as_in_pycocotools(real_root):
    stored = json.loads((real_root / "coco" / INSTANCES).read_text())
    sizes = {record["id"]: (record["height"], record["width"]) for record in stored["images"]}
    crowds = 0
    for thing in stored["annotations"]:
        height, width = sizes[thing["image_id"]]
        segmentation = thing["segmentation"]
        encoded = peer.frPyObjects(segmentation, height, width)
        if isinstance(segmentation, list):
            encoded = peer.merge(encoded)
        else:
            crowds += 1
            assert to_string(segmentation["counts"]) == encoded["counts"].decode()
            assert segmentation["counts"] == from_string(encoded["counts"]).tolist()
        text = encoded["counts"].decode()
        mask = decode(from_string(text), height, width)
        assert (mask == peer_decode(text, height, width)).all()
        assert to_string(encode(mask)) == peer_encode(mask)
    assert crowds == sum(thing["iscrowd"] for thing in stored["annotations"]) > 0
