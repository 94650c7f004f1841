"""An error as one line: whose class it is decides, not what the class is called."""

from ipybatch import Permanent, Transient
from ipybatch.engine.data.masking import describe


class Killed(Exception):  # a user's class with the name of one of ours
    pass


class NoSuchGame(Permanent):
    pass


def test_a_users_class_keeps_its_name_whatever_it_is_called():
    assert describe(Killed("by a bear")) == "Killed: by a bear"
    assert describe(NoSuchGame("440")) == "NoSuchGame: 440"


def test_an_error_of_ours_is_its_text():
    assert describe(Transient("try later")) == "try later"
    assert describe(Permanent("")) == "Permanent"
