"""One attempt with many ports at a time: who has the slot for it."""

from daemon.net.paths.punched.heavy_slot import HeavySlot


def test_slot_is_one_seekers_until_it_gives_it_back() -> None:
    slot = HeavySlot()
    assert slot.take("one")
    assert slot.take("one")
    assert not slot.take("two")
    slot.release("two")
    assert slot.is_held_by("one")
    slot.release("one")
    assert slot.is_free
    assert slot.take("two")


def test_line_is_told_in_order_when_the_slot_is_free() -> None:
    slot = HeavySlot()
    slot.take("holder")
    told: list[str] = []
    with slot.line("first", lambda: told.append("first")):
        with (
            slot.line("left", lambda: told.append("left")),
            slot.line("second", lambda: told.append("second")),
        ):
            slot.release("holder")
            assert told == ["first", "left", "second"]
        slot.take("holder")
        slot.release("holder")
        assert told[3:] == ["first"]


def test_first_of_the_line_takes_it_and_the_others_go_on_waiting() -> None:
    slot = HeavySlot()
    slot.take("holder")
    took: list[str] = []

    def take(who: str) -> None:
        if slot.take(who):
            took.append(who)

    with slot.line("first", lambda: take("first")), slot.line("second", lambda: take("second")):
        slot.release("holder")
        assert took == ["first"]
        slot.release("first")
    assert took == ["first", "first"]
