"""A call a few turns of the loop later."""

import asyncio

from ipybatch.engine.data.after_turns import AfterTurns


def turned(story):
    """Return in which turns of the loop a call came, of one that takes three."""

    async def run():
        came, turn = [], 0
        soon = AfterTurns(asyncio.get_running_loop(), 3, lambda: came.append(turn))
        for turn in range(10):
            story(turn, soon)
            await asyncio.sleep(0)
        return came

    return asyncio.run(run())


def test_whoever_asks_meanwhile_shares_it():
    assert turned(lambda turn, soon: soon.ask() if turn in (0, 1, 2) else None) == [2]


def test_it_comes_once_and_again_when_it_is_asked_for_anew():
    assert turned(lambda turn, soon: soon.ask() if turn in (0, 5) else None) == [2, 7]
    assert turned(lambda turn, soon: soon.ask() if turn < 8 else None) == [2, 5, 8]


def test_it_can_be_called_off_in_any_turn():
    for at in range(3):

        def story(turn, soon, at=at):
            if turn == 0:
                soon.ask()
            if turn == at:
                assert soon.is_due
                soon.cancel()
            assert soon.is_due is (turn < at)

        assert turned(story) == []
