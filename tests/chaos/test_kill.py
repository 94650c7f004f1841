"""Kill -9 at any point: nothing recorded is lost or asked for again, whoever resumes."""

import random

import pytest

from tests.chaos.rounds import Rounds


def test_three_kills_lose_nothing_and_repeat_only_what_was_in_flight(tmp_path):
    """Before a commit, after one, and from outside in the middle; each resume is a new process."""
    with Rounds(tmp_path / "journal.db", ids=80, concurrency=4) as rounds:
        assert rounds.run(kill_at="before:9")[0] == -9
        assert rounds.run(kill_at="after:9")[0] == -9
        assert rounds.run(after_lines=20)[0] == -9
        rounds.check_complete()
        assert rounds.kills == 3


@pytest.mark.chaos
@pytest.mark.parametrize("place", ["before", "after"])
def test_killed_at_every_commit_in_turn(tmp_path, place):
    """The first commits make the file, the run and the lease; those after them record."""
    with Rounds(tmp_path / "journal.db", ids=200, concurrency=5) as rounds:
        for number in range(1, 16):
            assert rounds.run(kill_at=f"{place}:{number}")[0] == -9
        rounds.check_complete()
        print(f"{place} a commit: {rounds.kills} kills, {rounds.asked_again} ids asked for twice")


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_fifty_times(tmp_path, seed):
    chance = random.Random(seed)
    with Rounds(tmp_path / "journal.db", ids=700, concurrency=chance.choice([1, 3, 10])) as rounds:
        while rounds.kills < 25:
            assert rounds.run(after_lines=chance.randint(1, 20))[0] in (-9, 0)
        rounds.check_complete()
        print(f"at random: {rounds.kills} kills, {rounds.asked_again} ids asked for twice of 700")
