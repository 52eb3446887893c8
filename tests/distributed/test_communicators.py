"""Communicators of threads, and what ranks tell each other besides arrays."""

import copy
import itertools
import sys

import numpy as np
import pytest

from tinygrad_bn import distributed, random_numbers
from tinygrad_bn.backend import device_of, to_device
from tinygrad_bn.creation import tensor
from tinygrad_bn.distributed import ALONE, RankError, agreement, communicator, simulate, start


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_three_collectives(size):
    def each(comm):
        mine = tensor([comm.rank, 1.0]).data
        gathered = comm.allgather(mine)
        summed, first = comm.allreduce_(mine.copy()), comm.bcast_(mine.copy())
        assert {device_of(a) for a in (gathered, summed, first)} == {device_of(mine)}
        assert mine.tolist() == [comm.rank, 1]  # which nobody wrote into
        return [to_device(a, "cpu").tolist() for a in (gathered, summed, first)]

    wanted = [[[k, 1] for k in range(size)], [sum(range(size)), size], [0, 1]]
    assert simulate(size, each) == [wanted] * size


def test_who_is_alone_is_one_of_one():
    array = np.arange(3.0)
    assert ALONE.allreduce_(array) is array
    assert ALONE.bcast_(array) is array
    np.testing.assert_array_equal(ALONE.allgather(array), [[0, 1, 2]])
    assert (ALONE.rank, ALONE.size, repr(ALONE)) == (0, 1, "one process, alone")
    assert communicator() is ALONE


def test_a_sum_is_in_the_order_of_ranks():
    """In another order it would be 0."""
    parts = np.array([1e20, -1e20, 1.0])
    sums = simulate(3, lambda comm: comm.allreduce_(parts[comm.rank : comm.rank + 1].copy()))
    assert [array.tolist() for array in sums] == [[1.0]] * 3


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 5, 21])
def test_shares_are_all_rows_in_order_and_differ_by_one_at_most(size, n):
    shares = simulate(size, lambda comm: np.arange(n)[comm.share(n)].tolist())
    assert list(itertools.chain(*shares)) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranks_take_turns_in_their_order():
    """So what they share (the generator, say) is used alike in every run."""
    turns = []

    def each(comm):
        for k in range(3):
            turns.append((k, comm.rank))
            comm.allreduce_(np.zeros(1))

    simulate(3, each)
    assert turns == [(k, rank) for k in range(3) for rank in range(3)]


def test_what_a_rank_raises_is_raised_and_nobody_waits():
    def each(comm):
        if comm.rank == 1:
            raise ZeroDivisionError("of rank 1")
        comm.allreduce_(np.zeros(1))

    with pytest.raises(ZeroDivisionError, match="of rank 1"):
        simulate(3, each)


def test_a_rank_that_ends_before_the_others_is_named():
    with pytest.raises(
        RankError, match=r"rank 1 ended while rank 0 waits in bcast_ of float64\[2\]"
    ):
        simulate(2, lambda comm: comm.rank or comm.bcast_(np.zeros(2)))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lambda comm: comm.allgather(np.zeros(2)), r"rank 1 allgather of float64\[2\]"),
        (lambda comm: comm.allreduce_(np.zeros(3)), r"rank 1 allreduce_ of float64\[3\]"),
        (lambda comm: comm.allreduce_(np.zeros(2, "f")), r"rank 1 allreduce_ of float32\[2\]"),
    ],
)
def test_ranks_that_want_different_things_are_told_what_each_wants(other, told):
    def each(comm):
        return other(comm) if comm.rank else comm.allreduce_(np.zeros(2))

    with pytest.raises(RankError, match=rf"different things: rank 0 allreduce_ of .*; {told}"):
        simulate(2, each)


def test_each_thread_knows_its_communicator_and_settings_reach_it():
    def each(comm):
        assert communicator() is comm
        return tensor(1.0).device

    assert simulate(2, each) == [tensor(1.0).device] * 2
    assert communicator() is ALONE


def test_ranks_with_one_seed_draw_different_bits():
    def each(comm):
        random_numbers.manual_seed(3)
        comm.allreduce_(np.zeros(1))  # all have seeded
        return to_device(random_numbers.random_bits(tensor(np.zeros(500)).data), "cpu")

    random_numbers.manual_seed(3)
    alone = to_device(random_numbers.random_bits(tensor(np.zeros(500)).data), "cpu")
    first, second = simulate(2, each)
    np.testing.assert_array_equal(first, alone)
    assert len({*first.tolist()} & {*second.tolist()}) == 0


def test_a_copy_of_what_holds_a_communicator_holds_the_same():
    assert copy.deepcopy([ALONE])[0] is ALONE


# --- Texts, errors, agreement ---------------------------------------------------------------------


def test_texts_of_any_length_reach_all():
    texts = ["", "σ²", "a\nlong one " * 50]
    assert simulate(3, lambda c: agreement.gather_texts(c, texts[c.rank])) == [texts] * 3
    content = bytes(range(256))
    got = simulate(3, lambda c: agreement.bcast_bytes(c, b"not this" if c.rank else content))
    assert got == [content] * 3


def fails_on(ranks, comm):
    if comm.rank in ranks:
        raise OSError("the disk is gone")
    return comm.rank


def caught(size, function):
    """What the ranks' errors say."""

    def each(comm):
        with pytest.raises(RankError) as raised:
            function(comm)
        return str(raised.value)

    return simulate(size, each)


def test_an_error_of_one_is_known_to_all():
    told = caught(3, lambda c: agreement.together(c, lambda: fails_on([1], c)))
    assert told == ["rank 1 of 3: the disk is gone"] * 3
    told = caught(3, lambda c: agreement.together(c, lambda: fails_on([0, 2], c)))
    assert told == ["ranks 0, 2 of 3: the disk is gone"] * 3
    told = caught(3, lambda c: agreement.together(c, lambda: fails_on([0, 1, 2], c)))
    assert told == ["the disk is gone"] * 3  # that all have alike needs no names
    told = simulate(3, lambda c: agreement.together(c, lambda: fails_on([], c)))
    assert told == [0, 1, 2]


def test_an_error_without_words_is_told_by_its_kind():
    def fail():
        raise KeyError

    assert caught(2, lambda c: agreement.together(c, fail)) == ["KeyError"] * 2
    assert caught(2, lambda c: agreement.from_rank_0(c, fail)) == ["KeyError"] * 2


def test_what_rank_0_finds_all_get_or_all_get_its_error():
    assert (
        simulate(2, lambda c: agreement.from_rank_0(c, lambda: b"x" * (c.rank + 1))) == [b"x"] * 2
    )
    assert simulate(2, lambda c: agreement.from_rank_0(c, lambda: None)) == [b""] * 2
    told = caught(2, lambda c: agreement.from_rank_0(c, lambda: fails_on([0], c)))
    assert told == ["the disk is gone"] * 2


def test_alone_an_error_stays_what_it_is():
    for function in (agreement.together, agreement.from_rank_0):
        with pytest.raises(OSError, match="the disk is gone"):
            function(ALONE, lambda: fails_on([0], ALONE))


def test_what_is_not_the_same_is_named_with_the_ranks_that_differ():
    def check(comm, **described):
        agreement.check_same(comm, described)

    assert simulate(2, lambda c: check(c, a="1", b="2")) == [None, None]
    told = caught(3, lambda c: check(c, a="1", b="2" if c.rank == 1 else "3"))
    assert told == ["b differs between ranks: on rank 1 of 3 it is not what rank 0 has"] * 3
    told = caught(3, lambda c: check(c, **({} if c.rank else {"a": "1"})))
    assert told == ["a differs between ranks: on ranks 1, 2 of 3 it is not what rank 0 has"] * 3


def test_many_ranks_are_not_all_named():
    assert agreement.named_ranks([*range(20)]) == "ranks 0, 1, 2, 3, 4, 5, 6, 7, …"


# --- init -----------------------------------------------------------------------------------------


def test_a_process_that_no_launcher_started_is_alone(monkeypatch):
    for name in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.init() is ALONE
    assert distributed.init() is ALONE  # again


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backend": "gloo"}, "backend: got 'gloo', wants"),
        ({"timeout": 0}, "timeout: got 0, wants a number of seconds above 0"),
        ({"timeout": "long"}, "timeout: got 'long', wants a number"),
        ({"device": "gpu"}, "device: got 'gpu', wants"),
    ],
)
def test_bad_settings_are_named(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        distributed.init(**given)


def test_a_launcher_without_mpi4py_is_told_of(monkeypatch):
    """And not that each process is alone: they would all write the same files."""
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    message = r'MPI needs mpi4py, which is missing: pip install "tinygrad_bn\[mpi\]"'
    with pytest.raises(RuntimeError, match=message):
        distributed.init()


class Elsewhere(distributed.Communicator):
    """The second rank on its machine, of several there."""

    rank, size, local_rank = 5, 8, 1


def test_it_is_the_number_on_its_machine_that_counts():
    assert start.device_of_rank("cuda", Elsewhere()) == "cuda:1"


def test_each_rank_has_the_gpu_with_its_number():
    got = simulate(2, lambda comm: start.device_of_rank("cuda", comm))
    assert got == ["cuda:0", "cuda:1"]
    got = simulate(2, lambda comm: start.device_of_rank("cuda:1", comm))
    assert got == ["cuda:1", "cuda:1"]
