"""What comes after what on streams and the host, and an error where two may meet in memory.

Each stream has a vector clock: of every stream, up to which of its works all work that it is given
now comes after.  A piece of memory remembers the work that wrote it last, and on each stream the
last that has read it since.  Kernels run at once all the same; only their order is checked.  Of
the host there is one clock, whichever thread waits.
"""


class Race(RuntimeError):
    """Two works, of which one at least writes, reach the same memory in no order."""


class Clock:
    """Of a stream (or the host): how many works it was given, and which of others' the next one
    follows."""

    __slots__ = ("last", "name", "seen", "time")

    def __init__(self, name):
        self.name, self.time, self.seen = name, 0, {}
        self.last = self, 0, "nothing"  # the stamp of its last work

    def follow(self, other):
        """What comes from now on comes after all that the other was given until now."""
        if other is not self and self.seen.get(other, 0) < other.time:
            self.join(other.moment())

    def moment(self):
        """As it is now, for an event."""
        return {**self.seen, self: self.time}

    def join(self, moment):
        """What comes from now on comes after this moment of another's."""
        for clock, time in moment.items():
            if self.seen.get(clock, 0) < time:
                self.seen[clock] = time
        self.time += 1

    def stamp(self, name):
        """One more work."""
        self.time += 1
        self.last = self, self.time, name
        return self.last

    def has_seen(self, stamp):
        return stamp[0] is self or self.seen.get(stamp[0], 0) >= stamp[1]


host = Clock("the host")
_streams, _blocking = {}, {}  # by (device, address); the blocking ones by device


def clock_of(device, address, is_blocking):
    """A stream's, which follows what the host has waited for.  The legacy default stream (0) and
    the blocking streams of its device wait for each other."""
    clock = _streams.get((device, address))
    if clock is None:
        name = f"stream {address:#x}" if address else "the default stream"
        clock = _streams[device, address] = Clock(f"{name} of device {device}")
        if address and is_blocking:
            _blocking.setdefault(device, []).append(clock)
    clock.follow(host)
    if not address:
        for other in _blocking.get(device, ()):
            clock.follow(other)
    elif is_blocking and (default := _streams.get((device, 0))):
        clock.follow(default)
    return clock


def wait_for(devices):
    for (device, _), clock in list(_streams.items()):
        if device in devices:
            host.follow(clock)


def touch(clock, name, blocks, written=()):
    """A work of a stream that reaches these blocks; those in `written` it writes."""
    stamp = clock.stamp(name)
    for block in blocks:
        _check(stamp, block.written)
    for block in written:
        for earlier in [*block.reads.values()]:
            _check(stamp, earlier)
    for block in blocks:
        block.reads[clock] = stamp
    for block in written:
        block.written, block.reads = stamp, {}


def _check(stamp, earlier):
    clock, _, name = stamp
    if not clock.has_seen(earlier):
        what = f"got memory that {earlier[2]} on {earlier[0].name} may still use"
        raise Race(f"{name} on {clock.name}: {what}, wants to come after it (an event, or a wait)")


def check_free(stamp, freed):
    """An allocation may get any memory that is free and was taken for the same stream before;
    `freed`: what others may still do with that."""
    while freed:
        _check(stamp, freed[-1])
        freed.pop()


def give_back(block, freed):
    """Note what other streams than that for which the memory was taken may still do with it."""
    for stamp in (block.written, *block.reads.values()):
        if not block.home.has_seen(stamp):
            freed.append(stamp)
