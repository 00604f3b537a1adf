"""The long attack has the promised size, and reports faults."""

from long_attack import Attack, attacks

from attack.oracle import MODELS
from attack.processes import run_alone
from attack.samples import SAMPLES


def arguments(function: str) -> list[tuple[object, ...]]:
    return [attack.arguments for attack in attacks(1.0) if attack.function == function]


def total(function: str, position: int) -> int:
    return sum(int(str(each[position])) for each in arguments(function))


def test_the_long_attack_has_its_size() -> None:
    assert total("kill_writers", 0) >= 500
    assert total("interrupt_some", 1) >= 2_000
    assert total("damage_alone", 1) >= 50_000
    assert {count for _, count in arguments("operate")} == {2_000}
    assert [name for name, _ in arguments("operate")] == list(MODELS)
    assert arguments("share") == [("texts", 300), ("vectors", 300)]
    assert arguments("send") == [(20_000, False)]
    assert [name for name, _ in arguments("damage_alone")] == list(SAMPLES)
    assert [each[0] for each in arguments("crowd")] == [600]
    assert arguments("slow_readers") == [(100,)]


def test_an_attack_that_does_not_end_is_a_fault() -> None:
    broken = Attack("broken", "damage", "no_such_function", (), lambda found: found)
    counts, (fault,) = broken.run()
    assert counts == {} and "broken did not end" in fault and "no_such_function" in fault


def test_interrupts_are_spread_over_all_calls() -> None:
    interrupts, faults = run_alone("cut_short", "interrupt_some", "exact", 8)
    assert interrupts >= 8 and faults == []
