import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hilserl.errors import TransportError
from hilserl.link import link_pb2
from hilserl.link.tensors import SUPPORTED_DTYPES, decode_named, decode_tensor, encode_named, encode_tensor, named_fields


def over_the_wire(array: np.ndarray) -> np.ndarray:
    message = link_pb2.Tensor()
    encode_tensor(array, message)
    return decode_tensor(link_pb2.Tensor.FromString(message.SerializeToString()))


@pytest.mark.parametrize("dtype", SUPPORTED_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4), (1, 0, 5)], ids=str)
def test_every_dtype_and_shape_comes_back(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    received = over_the_wire(array)
    assert received.dtype == dtype and received.shape == shape
    np.testing.assert_array_equal(received, array)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(st.sampled_from(SUPPORTED_DTYPES), hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)))
def test_any_value_comes_back_bit_for_bit(array: np.ndarray) -> None:
    assert over_the_wire(array).tobytes() == array.tobytes()


ARRAYS = hnp.arrays(st.sampled_from(SUPPORTED_DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=20))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=200), ARRAYS, max_size=4))
def test_the_fast_form_says_what_protobuf_says(arrays: dict[str, np.ndarray]) -> None:
    arrays |= {"transposed": np.arange(300, dtype=np.float32).reshape(3, 100).T, "big": np.arange(6, dtype=">f4")}
    wanted = link_pb2.Step()
    encode_named(arrays, wanted.observation)
    found = link_pb2.Step.FromString(b"".join(named_fields(arrays, link_pb2.Step.OBSERVATION_FIELD_NUMBER)))
    assert found == wanted


def test_layout_and_byte_order_do_not_matter() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for variant in (array.T, array[:, ::2], array.astype(">f4")):
        np.testing.assert_array_equal(over_the_wire(variant), variant)


def test_decoding_does_not_copy() -> None:
    assert not over_the_wire(np.zeros(3)).flags.owndata


@pytest.mark.parametrize("dtype", [object, "U4", "M8[s]", np.complex64])
def test_a_dtype_without_wire_form_is_refused(dtype: object) -> None:
    with pytest.raises(TransportError, match=r"`x`: arrays of dtype .* cannot be sent"):
        encode_tensor(np.zeros(2, dtype), link_pb2.Tensor(), "x")


@pytest.mark.failure("R18")
@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (link_pb2.Tensor(dtype=link_pb2.FLOAT32, shape=[2], data=b"\0" * 7), "needs 8 bytes, 7 came"),
        (link_pb2.Tensor(dtype=link_pb2.FLOAT32, shape=[2], data=b"\0" * 12), "needs 8 bytes, 12 came"),
        (link_pb2.Tensor(dtype=link_pb2.UINT8, shape=[2**40]), "impossible shape"),
        (link_pb2.Tensor(dtype=link_pb2.UINT8, shape=[2**30, 2**30, 0]), "came"),
        (link_pb2.Tensor(dtype=link_pb2.UINT8, shape=[1] * 9, data=b"\0"), "9 dimensions, at most 8"),
        (link_pb2.Tensor(dtype=0, shape=[1], data=b"\0"), "unknown dtype code 0"),
        (link_pb2.Tensor(dtype=99, shape=[1], data=b"\0"), "unknown dtype code 99"),
        (link_pb2.Tensor(dtype=link_pb2.BOOL, shape=[2], data=b"\1\2"), "bytes other than 0 and 1"),
    ],
)
def test_a_malformed_tensor_is_refused(tensor: link_pb2.Tensor, reason: str) -> None:
    with pytest.raises(TransportError, match=reason):
        decode_tensor(tensor)


def test_names_are_checked_and_their_order_kept() -> None:
    message = link_pb2.Step()
    encode_named({"b": np.zeros(1), "a": np.ones(1)}, message.observation)
    assert list(decode_named(message.observation, what="observation", limit=2)) == ["b", "a"]
    with pytest.raises(TransportError, match="more than 1 tensors"):
        decode_named(message.observation, what="observation", limit=1)
    encode_named({"a": np.zeros(1)}, message.observation)
    with pytest.raises(TransportError, match="repeated name: 'a'"):
        decode_named(message.observation, what="observation", limit=9)
    with pytest.raises(TransportError, match="overlong"):
        decode_named([link_pb2.Tensor(dtype=link_pb2.UINT8, name="x" * 300)], what="observation", limit=9)
