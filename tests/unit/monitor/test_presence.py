from kvnet.monitor.presence import SPANS_KEPT, Presence


def present(*changes):
    presence = Presence()
    for up_since_ms, at_ms in changes:
        presence.update(up_since_ms, at_ms)
    return presence


def test_a_pop_is_connected_since_it_came_up():
    assert present((100.0, 150.0)).since_ms == 100


def test_exposure_begins_with_the_write_or_with_the_connection():
    presence = present((100.0, 100.0))
    assert presence.exposure_ms(500, 800) == 300
    assert presence.exposure_ms(50, 800) == 700


def test_exposure_is_the_longest_single_span_not_their_sum():
    presence = present((0.0, 0.0), (None, 600.0), (700.0, 700.0))
    assert presence.exposure_ms(0, 1200) == 600
    assert presence.exposure_ms(0, 1500) == 800
    assert presence.exposure_ms(590, 690) == 10


def test_a_cut_that_heals_begins_a_new_span_although_the_process_is_old():
    presence = present((0.0, 0.0), (None, 600.0), (0.0, 900.0))
    assert presence.since_ms == 900


def test_a_restart_between_two_looks_is_seen_by_its_time():
    presence = present((0.0, 0.0), (500.0, 650.0))
    assert presence.since_ms == 500
    assert presence.exposure_ms(0, 500) == 500
    assert not presence.lasted(400, 600)


def test_a_span_lasted_only_if_it_covers_all_of_the_time():
    presence = present((0.0, 0.0), (None, 600.0))
    assert presence.lasted(100, 599)
    assert not presence.lasted(100, 600)
    assert not present((100.0, 100.0)).lasted(99, 150)


def test_a_pop_that_went_may_still_tell_for_a_moment():
    presence = present((0.0, 0.0), (None, 600.0))
    assert presence.may_still_tell(100, 1000, patience_ms=500)
    assert not presence.may_still_tell(100, 1100, patience_ms=500)
    assert not presence.may_still_tell(700, 800, patience_ms=500)


def test_flapping_takes_no_memory_without_bound():
    presence = Presence()
    for i in range(1000):
        presence.update(i * 10.0, i * 10.0)
        presence.update(None, i * 10.0 + 5)
    assert len(presence._ended) == SPANS_KEPT
