import builtins
import collections
import copyreg
import datetime
import decimal
import io
import os
import pickle
import struct
import subprocess

import affine
import numpy as np
import pytest
import rasterio.crs
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_support import geobench_classes

from geodino.data.labelled.restricted_pickle import MAX_STEPS, Record, restricted_loads
from geodino.errors import SourceError

PROTOCOLS = range(6)


def load(data):
    return restricted_loads(data, source="x.hdf5")


class Runs:
    """Pickles as a call of whatever it is given."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.fixture
def witness(tmp_path):
    """A path that exists only if a pickle ran something."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_come_back_as_they_were(protocol):
    values = {
        "numbers": [1, -2, 2.5, True, None, 10**30, 1 + 2j],
        "text": ("é", b"\x00\xff", bytearray(b"q")),
        "sets": [{1, 2}, frozenset({3})],
        "dates": [
            datetime.date(2020, 2, 29),
            datetime.datetime(2020, 1, 2, 3),  # noqa: DTZ001
            datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC),
            datetime.time(10, 30),
            datetime.timedelta(3),
        ],
        "ordered": collections.OrderedDict(a=1),
    }
    assert load(pickle.dumps(values, protocol)) == values


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<i4", ">u2", "b1", "f8", "U3", "S2"])
def test_arrays_of_numbers_and_text_come_back(protocol, dtype):
    for array in (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))):
        typed = np.asarray(array.astype(dtype), order="F" if array.flags.f_contiguous else "C")
        got = load(pickle.dumps({"a": typed}, protocol))["a"]
        np.testing.assert_array_equal(got, typed)
        assert got.dtype == typed.dtype
    scalar = np.float32(2.5)
    assert load(pickle.dumps(scalar, protocol)) == 2.5


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_geobench_objects_are_records_and_are_never_imported(protocol):
    with geobench_classes("Sentinel2", "Loss") as made:
        band = made["Sentinel2"]()
        band.name, band.kind = "04 - Red", made["Loss"]
        data = pickle.dumps([band, band], protocol)
    first, again = load(data)
    assert first is again
    assert (first.name, first.get("name")) == ("geobench.dataset.Sentinel2", "04 - Red")
    assert first.get("kind") == Record(name="geobench.dataset.Loss")
    assert first.get("nothing", 7) == 7


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_transforms_are_records_with_their_numbers(protocol):
    record = load(pickle.dumps(affine.Affine(10, 0, 3, 0, -10, 4), protocol))
    assert [record.get(letter) for letter in "abcdef"] == [10, 0, 3, 0, -10, 4]


def test_a_coordinate_system_is_a_record_with_its_text():
    record = load(pickle.dumps(rasterio.crs.CRS.from_epsg(32632), 4))
    assert "UTM zone 32N" in record.state


def hostile(witness):
    """Calls that would leave the witness, or hand out something that could."""
    text = f"open({str(witness)!r}, 'w').close()"
    return {
        "posix.system": Runs(os.system, (f"touch {witness}",)),
        "builtins.eval": Runs(eval, (text,)),
        "builtins.exec": Runs(exec, (text,)),
        "builtins.getattr": Runs(getattr, ("x", "upper")),
        "builtins.__import__": Runs(builtins.__import__, ("os",)),
        "builtins.open": Runs(open, (str(witness), "w")),
        "subprocess.Popen": Runs(subprocess.Popen, (["touch", str(witness)],)),
        "copyreg.add_extension": Runs(copyreg.add_extension, ("os", "system", 77)),
        "pickle.loads": Runs(pickle.loads, (b"I1\n.",)),
        "numpy.load": Runs(np.load, (str(witness),)),
    }


HOSTILE = list(hostile("x"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", HOSTILE)
def test_every_other_call_is_refused_by_name_however_deep_it_lies(name, protocol, witness):
    call = hostile(witness)[name]
    for value in (call, [{"a": (1, [call])}], {"label": call}, (call, 3)):
        with pytest.raises(SourceError, match=r"x\.hdf5 holds a pickle that asks for") as caught:
            load(pickle.dumps(value, protocol))
        assert name.split(".")[1] in str(caught.value)


def test_stack_globals_with_dots_do_not_reach_through_records(witness):
    # geobench.x:Y.__init__.__globals__ is a record of that name and nothing else.
    data = b"\x80\x04\x8c\x0ageobench.x\x8c\x1dY.__init__.__globals__.system\x93."
    assert load(data) == Record(name="geobench.x.Y.__init__.__globals__.system")
    for module, name in (("os", "path.join"), ("geobenchmark", "Y"), ("affine", "os")):
        data = (
            b"\x80\x04"
            + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name))
            + b"\x93."
        )
        with pytest.raises(SourceError, match="asks for"):
            load(data)


def test_records_can_be_called_and_do_nothing(witness):
    # REDUCE on a record's class with the arguments of a command.
    command = f"touch {witness}".encode()
    data = b"cgeobench.os\nsystem\n(X" + struct.pack("<I", len(command)) + command + b"tR."
    record = load(data)
    assert record == Record(name="geobench.os.system", args=(command.decode(),))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"(S'touch x'\nios\nsystem\n.", "INST"),
        (b"(cos\nsystem\nS'touch x'\no.", "OBJ"),
        (b"(cgeobench\nA\no.", "OBJ"),
        (b"\x80\x02\x82\x4d.", "EXT1"),
        (b"\x80\x02\x83\x4d\x00.", "EXT2"),
        (b"\x80\x02\x84\x4d\x00\x00\x00.", "EXT4"),
        (b"Pabc\n.", "PERSID"),
        (b"U\x03abcQ.", "BINPERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x05\x97\x98.", "NEXT_BUFFER"),
    ],
)
def test_instructions_that_reach_around_names_are_refused(data, what):
    with pytest.raises(SourceError, match=what):
        load(data)


def test_an_extension_code_is_refused_even_when_the_process_has_used_it():
    copyreg.add_extension("os", "getpid", 77)
    try:
        assert pickle.loads(b"\x80\x02\x82\x4d.") is os.getpid  # noqa: S301
        with pytest.raises(SourceError, match="EXT1"):
            load(b"\x80\x02\x82\x4d.")
    finally:
        copyreg.remove_extension("os", "getpid", 77)
        copyreg.clear_extension_cache()


@pytest.mark.parametrize(
    "value",
    [
        np.array([{"a": 1}], dtype=object),
        np.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
        np.dtype([("a", "i4")]),
        decimal.Decimal("1.5"),
    ],
)
def test_arrays_of_objects_and_other_library_values_are_refused(value):
    with pytest.raises(SourceError):
        load(pickle.dumps(value, 4))


def test_state_cannot_be_pushed_into_what_answers():
    # BUILD on the function that answers _codecs.encode, by attributes and by slots.
    for state in (b"}U\x01aK\x01s", b"N}U\x0c__defaults__K\x01s\x86"):
        with pytest.raises(SourceError, match="cannot be read"):
            load(b"\x80\x02c_codecs\nencode\n" + state + b"b.")
    for name in (
        b"cnumpy\ndtype\n",
        b"cbuiltins\nobject\n",
        b"cgeobench\nA\n",
        b"cdatetime\ndate\n",
    ):
        with pytest.raises(SourceError):
            load(b"\x80\x02" + name + b"N}U\x01aK\x01s\x86b.")


def test_pickles_that_would_take_all_memory_or_the_stack_are_refused():
    with pytest.raises(SourceError, match="memo"):
        load(b"\x80\x02Nr\xff\xff\xff\x7f.")
    with pytest.raises(SourceError, match="instructions"):
        load(b"(" * 2 + b"N" * (MAX_STEPS + 1) + b"t.")
    with pytest.raises(SourceError):
        load(b"]" * 30_000 + b"a" * 29_999 + b".")
    # Ten levels of ten references to the level below: converted once each, not ten thousand
    # million times.
    level = [1]
    for _ in range(10):
        level = [level] * 10
    assert len(load(pickle.dumps(level, 4))) == 10


def test_lists_that_hold_themselves_come_back_so():
    ring = [1]
    ring.append(ring)
    got = load(pickle.dumps(ring, 2))
    assert got[1] is got


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_give_a_value_or_one_sentence(data):
    try:
        load(data)
    except SourceError as error:
        assert "x.hdf5" in str(error)  # noqa: PT017


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_pickle_gives_a_value_or_one_sentence(data):
    memory = io.BytesIO()
    pickle.dump({"label": np.arange(3), "t": affine.Affine.identity()}, memory, 4)
    content = bytearray(memory.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    try:
        load(bytes(content))
    except SourceError as error:
        assert "x.hdf5" in str(error)  # noqa: PT017
