"""A ring of the last events. It holds no headers: what an event was, and the end of its answer."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from sentinel_wasm._hostcalls cimport monotonic_ns

KEPT = ENTRIES
ENTRY_BYTES = sizeof(Entry)


cdef extern from * nogil:
    """
    #define sw_fetch(entry) do { \
        __builtin_prefetch(entry, 1); \
        __builtin_prefetch((const char *)(entry) + 64, 1); \
        __builtin_prefetch((const char *)(entry) + 128, 1); \
        __builtin_prefetch((const char *)(entry) + 192, 1); \
    } while (0)
    """
    void fetch "sw_fetch"(const Entry* entry)


cdef class Recent:
    """Events get numbers from 1 on. `seen_ns` is set by who has an event, before it is added."""

    def __cinit__(self):
        self.entries = <Entry*>calloc(ENTRIES, sizeof(Entry))
        if self.entries == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.entries)

    cdef void put(
            self, int hook, int decision, int status, uint32_t version, const Span* id, const char* audit,
            size_t length, int64_t decided_ns) noexcept nogil:
        """An event that was decided then; `audit` is its answer from there on."""
        cdef Entry* entry = &self.entries[self.count & (ENTRIES - 1)]
        cdef size_t kept = min(length, <size_t>TAIL_BYTES)
        self.count += 1
        entry.number = self.count
        entry.seen_ns = self.seen_ns if self.seen_ns else decided_ns
        entry.took_ns = max(decided_ns - entry.seen_ns, 0)
        entry.version = version
        entry.status = <uint16_t>status
        entry.hook = <uint8_t>hook
        entry.decision = <uint8_t>decision
        entry.id_bytes = <uint16_t>min(id.length, <size_t>0xffff)
        memcpy(entry.id, id.at, min(id.length, <size_t>ID_BYTES))
        entry.tail_bytes = <uint16_t>kept
        memcpy(entry.tail, audit + length - kept, kept)
        # The next one will be at hand by then: waiting for memory takes longer than the rest.
        fetch(&self.entries[self.count & (ENTRIES - 1)])

    def add(
            self, int hook, int decision, int status, int64_t version, str correlation_id not None,
            bytes answer not None) -> None:
        """An event that is decided now; `answer` is its AgentResponse."""
        cdef Span id
        cdef Py_ssize_t length
        # From there on there is no header.
        cdef Py_ssize_t audit = max(answer.rfind(b'"audit":{'), 0)
        id.at = PyUnicode_AsUTF8AndSize(correlation_id, &length)
        id.length = <size_t>length
        self.put(
            hook, decision, status, <uint32_t>version, &id, PyBytes_AS_STRING(answer) + audit,
            <size_t>(PyBytes_GET_SIZE(answer) - audit), monotonic_ns())

    def since(self, uint64_t number) -> bytes:
        """The entries of the events behind this number that are still here, the oldest first.

        Of a number that has not been given yet, from a process before this one, all.
        """
        cdef uint64_t first = self.count - ENTRIES if self.count > ENTRIES else 0
        cdef uint64_t index
        cdef bytes out
        if number <= self.count:
            first = max(first, number)
        if first == self.count:
            return b""
        out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>((self.count - first) * sizeof(Entry)))
        for index in range(first, self.count):
            memcpy(
                PyBytes_AS_STRING(out) + (index - first) * sizeof(Entry),
                &self.entries[index & (ENTRIES - 1)], sizeof(Entry))
        return out
