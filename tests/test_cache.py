"""The cache keeps what was used last, within its bounds."""

from hypothesis import given
from hypothesis import strategies as st

from eventjobs.cache import LRUCache

actions = st.sampled_from(["put", "put", "grow", "get", "drop"])
steps = st.lists(st.tuples(actions, st.sampled_from("abcd"), st.integers(0, 40)), min_size=5)


def test_what_was_used_least_recently_is_forgotten_first() -> None:
    kept = LRUCache[int](entries_max=2, bytes_max=100)
    kept.put("a", 1, 1)
    kept.put("b", 2, 1)
    assert kept.get("a") == 1
    kept.put("c", 3, 1)
    assert kept.get("b") is None, "a was used after it"
    assert (kept.get("a"), kept.get("c")) == (1, 3)


def test_a_value_put_again_is_counted_once() -> None:
    kept = LRUCache[int](entries_max=9, bytes_max=100)
    kept.put("a", 1, 90)
    kept.put("a", 2, 90)
    assert (kept.get("a"), kept.size("a"), len(kept)) == (2, 90, 1)


def test_what_is_not_kept_has_no_size() -> None:
    kept = LRUCache[int](entries_max=9, bytes_max=100)
    kept.drop("a")
    assert (kept.get("a"), kept.size("a")) == (None, 0)


def test_a_value_larger_than_everything_is_not_kept() -> None:
    kept = LRUCache[int](entries_max=9, bytes_max=100)
    kept.put("a", 1, 101)
    assert kept.get("a") is None


@given(steps, st.integers(0, 30))
def test_it_keeps_the_last_used_that_fit(
    steps: list[tuple[str, str, int]], entry_bytes: int
) -> None:
    kept = LRUCache[int](entries_max=3, bytes_max=100, entry_bytes=entry_bytes)
    model: dict[str, int] = {}  # in order of use
    for number, (action, key, size) in enumerate(steps):
        match action:
            case "put" | "grow":
                before = model.pop(key, entry_bytes)
                if action == "put":
                    kept.put(key, number, size)
                    model[key] = entry_bytes + size
                else:
                    kept.grow(key, number, size)
                    model[key] = before + size
                while len(model) > 3 or sum(model.values()) > 100:
                    del model[next(iter(model))]
            case "get":
                kept.get(key)
                if key in model:
                    model[key] = model.pop(key)
            case _:
                kept.drop(key)
                model.pop(key, None)
        assert {each: kept.size(each) for each in "abcd"} == {
            each: model.get(each, 0) for each in "abcd"
        }
        assert len(kept) == len(model)
