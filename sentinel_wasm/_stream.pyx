"""A connection's bytes in and out: what QuickPath can answer is answered here, in one write a read."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from sentinel_wasm._hostcalls cimport monotonic_ns
from sentinel_wasm._json cimport Span
from sentinel_wasm._metrics cimport count_written, seen_at
from sentinel_wasm._quick cimport append, release

from sentinel_wasm.errors import LateAnswerError, ProtocolError

cdef extern from * nogil:
    """
    #include <sys/socket.h>

    #ifdef __APPLE__
    #include <mach/mach_time.h>
    #undef MSG_NOSIGNAL     /* which older systems than the headers do not know; Python ignores SIGPIPE */
    #define MSG_NOSIGNAL 0
    /* For how long the machine has slept, which libuv's clock counts and time.monotonic_ns does not. */
    static int64_t sw_slept_ns(void) {
        mach_timebase_info_data_t base;
        uint64_t awake = mach_absolute_time();
        uint64_t slept = mach_continuous_time() - awake;
        mach_timebase_info(&base);
        return (int64_t)(slept * base.numer / base.denom);
    }
    #else
    #define sw_slept_ns() 0
    #endif
    """
    ssize_t send_to "send"(int, const void*, size_t, int)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int64_t slept_ns "sw_slept_ns"()

cdef enum:
    GAP_NS = 45000000
    KEPT_BYTES = 65536          # of a stream's room for answers
    QUICK_NS = 1500             # of guests in one read: its answers are not held
    HELD_NS = 25000
    LINGER_NS = 30000
    MOST_DOUBT = 6
    MOST_AT_ONCE = 15

    # What the loop does when it has nothing to do.
    ASLEEP = 0                  # it sleeps
    AWAKE = 1                   # it lingers, and will poll
    POLLED = 2                  # it polls for the first time
    EMPTY = 3                   # there was nothing, and it goes on
    NEEDLESS = 4                # there was something; it sleeps when it has seen to that

LOOP_GAP_NS = GAP_NS


cdef int64_t loop_ns(double seconds) noexcept:
    """What time.monotonic_ns was when uvloop's clock, which counts milliseconds, was this."""
    return <int64_t>(seconds * 1000 + 0.5) * 1000000 - slept_ns()


cdef class Turns:
    """The turns of an event loop: when each began, what leaves at its end, how soon the loop sleeps then.

    An event may have waited for as long as the loop did not run: behind slow guests, while the process was
    stopped, or because the machine had no time for it. Over v2 an answer that is late for that is no danger.
    Over v1 it would be taken for the next request's (agent-protocol.md, section 2), so what is read first
    after a gap counts as having arrived when it began.

    To sleep and to be woken costs more than an event, 20 µs of processor time and of waiting on a virtual
    machine; for the client too. Behind a module that takes its time it sleeps again after each answer, so the
    answers of such a turn leave together: at its end, or when the first has waited for 25 µs. Behind a quick
    one it does not, and they leave at once. And the loop lingers for 30 µs after a read before it sleeps, as
    long as that pays: each time nothing came it does so for half as many reads as before, for one in 64 at
    last, until something comes.
    """

    def __init__(self, loop) -> None:
        self.time = loop.time
        self.call_soon = loop.call_soon
        self.look = self.look_again
        self.held = []

    cdef int hold(self, Stream stream, int64_t now_ns) except -1:
        """Send the stream's answers with those of others."""
        if not self.held:
            self.held_ns = now_ns
            self.look_soon()
        self.held.append(stream)
        if now_ns - self.held_ns > HELD_NS:
            self.send_held()
        return 0

    cdef int send_held(self) except -1:
        """What was held leaves, in the order in which it came."""
        cdef Stream stream
        held, self.held = self.held, []
        for stream in held:
            stream.flush()
        return 0

    cdef int64_t turn(self) except -1:
        """When this turn began, of time.monotonic_ns: what it reads was there by then."""
        cdef double seconds = self.time()
        if seconds != self.this_s:
            self.this_s = seconds
            self.before_ns = self.this_ns
            self.this_ns = loop_ns(seconds)
        return self.this_ns

    def looked_ns(self) -> int:
        """When the loop last looked at its sockets, of time.monotonic_ns."""
        return loop_ns(self.time())

    cdef int has_read(self) except -1:
        """What was read is answered; more may come soon."""
        if self.state == EMPTY:
            self.doubt = self.at_once = 0
            self.state = AWAKE
        elif self.state == POLLED:
            # It was there already: the loop would not have slept.
            self.state = NEEDLESS
            self.skip = self.at_once
            self.at_once = min(self.at_once + 1, MOST_AT_ONCE)
        elif self.state == ASLEEP:
            if self.skip:
                self.skip -= 1
            else:
                self.state = AWAKE
                self.look_soon()
        return 0

    cdef int look_soon(self) except -1:
        if not self.looks:
            self.looks = True
            self.call_soon(self.look)
        return 0

    def look_again(self) -> None:
        """A turn has ended. Where this is called again, the loop polls before, and does not sleep."""
        cdef int64_t now_ns
        self.looks = False
        if self.held:
            self.send_held()
        if self.state == NEEDLESS:
            self.state = ASLEEP
        if self.state == ASLEEP:
            return
        now_ns = monotonic_ns()
        if self.state == AWAKE:
            self.read_ns = now_ns
            self.state = POLLED
        else:
            self.state = EMPTY
        if now_ns - self.read_ns < LINGER_NS:
            self.look_soon()
        else:
            self.state = ASLEEP
            self.doubt = min(self.doubt + 1, MOST_DOUBT)
            self.skip = (1 << self.doubt) - 1

    cdef int64_t v1_arrival(self) noexcept:
        """When an event that is read in this turn may have arrived, over a watched connection."""
        cdef int64_t looked_ns = max(self.gap_began_ns if self.gap_began_ns else self.beat_ns, self.before_ns)
        return looked_ns if self.this_ns - looked_ns > GAP_NS else self.this_ns


cdef class Stream:
    """The half of a connection through which every event goes; a subclass is the other half.

    `send`, `unsent` and `fd` must be set before anything is read, `send` to None when the connection is lost,
    `fd` to -1 when it is closed; `shaken`, once v2's handshake is done, and `packed`, where what follows is
    MessagePack, which is for the subclass. It has
    `on_frame(payload, arrived_ns)`, which gives the frame that answers it, or None: for ever, or (then
    `waiting` counts it) until a worker has asked the module. It may raise ProtocolError, which comes back to
    `on_broken`, as do the stream's own. Over v1 nothing more is read while an event waits.
    """

    def __init__(self, QuickPath quick not None, Turns turns not None, int64_t proxy_timeout_ns):
        """`proxy_timeout_ns`: when a v1 proxy gives an event up."""
        self.frames = FrameBuffer()
        self.quick = quick
        self.turns = turns
        self.counts = quick.counts
        self.proxy_timeout_ns = proxy_timeout_ns
        self.fd = -1

    def __dealloc__(self):
        release(&self.out)

    def set_quick(self, QuickPath quick not None) -> None:
        """Answer by this one from the next event on; not to be called while events are answered."""
        self.quick = quick
        self.counts = quick.counts

    def get_buffer(self, sizehint) -> FrameBuffer:
        return self.frames

    def buffer_updated(self, Py_ssize_t count) -> None:
        self.frames.grow(count)
        self.answer_all(self.turns.turn())
        self.turns.has_read()

    def answer_frames(self, int64_t arrived_ns) -> None:
        """Answer every whole frame that is there; `arrived_ns` is when they came, of time.monotonic_ns."""
        self.turns.turn()
        self.answer_all(arrived_ns)

    cdef int answer_all(self, int64_t arrived_ns) except -1:
        cdef Span payload
        cdef int64_t began_ns = monotonic_ns()
        if self.waiting and self.frames.protocol == 1:
            return 0
        self.quick.guest_ns = 0
        try:
            while self.frames.find(&payload):
                if self.frames.protocol == 1:
                    arrived_ns = min(arrived_ns, self.turns.v1_arrival())
                if self.counts.recent is not None:
                    self.counts.recent.seen_ns = seen_at(arrived_ns, began_ns)
                if self.answer_quickly(&payload, arrived_ns):
                    self.frames.drop(&payload)
                    continue
                answer = self.on_frame(self.frames.next_frame(), arrived_ns)
                if answer is not None:
                    append(&self.out, PyBytes_AS_STRING(answer), <size_t>PyBytes_GET_SIZE(answer))
                elif self.frames.protocol == 1 and self.waiting:
                    break
        except ProtocolError as error:
            self.flush()
            self.on_broken(error)
        else:
            if self.quick.guest_ns < QUICK_NS or self.out.used == 0:
                self.flush()
            else:
                self.turns.hold(self, self.quick.ended_ns)
        count_written(self.counts, seen_at(arrived_ns, began_ns))
        return 0

    def write(self, bytes frame not None) -> None:
        """Send a frame, behind the answers that are held."""
        append(&self.out, PyBytes_AS_STRING(frame), <size_t>PyBytes_GET_SIZE(frame))
        self.flush()

    def write_held(self) -> None:
        """Send the answers that are held, before the connection is closed."""
        self.flush()

    cdef bint answer_quickly(self, const Span* payload, int64_t arrived_ns) except -1:
        cdef size_t before = self.out.used
        if self.frames.protocol == 1:
            if not self.quick.answer(0, payload, arrived_ns, &self.out):
                return False
            if self.late(arrived_ns):
                self.out.used = before
                raise self.too_late(arrived_ns)
            return True
        return self.shaken and not self.packed and self.frames.frame_type != 0 \
            and self.quick.answer(self.frames.frame_type, payload, arrived_ns, &self.out)

    def is_late(self, int64_t arrived_ns) -> bool:
        """Whether a v1 proxy has given up an event that came then."""
        return self.late(arrived_ns)

    cdef bint late(self, int64_t arrived_ns) noexcept:
        return monotonic_ns() - arrived_ns > self.proxy_timeout_ns

    def too_late(self, int64_t arrived_ns) -> LateAnswerError:
        """For an answer that the proxy would take for the next request's (agent-protocol.md, section 2)."""
        took_ms = (monotonic_ns() - arrived_ns) // 1000000
        return LateAnswerError(
            f"an answer took {took_ms} ms, and a v1 proxy waits {self.proxy_timeout_ns // 1000000}")

    cdef int flush(self) except -1:
        """Send the answers: to the kernel, and by the transport what that does not take."""
        cdef ssize_t sent = 0
        cdef bytes answers
        if self.out.used == 0 or self.send is None:
            return 0
        if self.behind and self.unsent() == 0:
            self.behind = False
        if self.fd >= 0 and not self.behind:
            # An error too is the transport's to find.
            sent = send_to(self.fd, self.out.data, self.out.used, MSG_DONTWAIT | MSG_NOSIGNAL)
            sent = max(sent, <ssize_t>0)
        if <size_t>sent < self.out.used:
            self.behind = True
            answers = PyBytes_FromStringAndSize(self.out.data + sent, <Py_ssize_t>self.out.used - sent)
            self.out.used = 0
            self.send(answers)
        self.out.used = 0
        if self.out.capacity > KEPT_BYTES:
            release(&self.out)
        return 0
