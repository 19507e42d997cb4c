"""Native threads that run guests beside the event loop, never taking the GIL.

Each worker has its own queue and takes one job at a time; finished jobs are announced by a byte in a pipe.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from posix.unistd cimport close, read, write

from sentinel_wasm._fastpath cimport call_guest, thread_cpu_ns
from sentinel_wasm._hostcalls cimport monotonic_ns, take_output
from sentinel_wasm._instances cimport (
    FAILED_HELD, FAILED_HOST_MEMORY, FAILED_NO_TIME, FAILED_REFUSED, FAILED_TOO_LATE, HOOKS, RETURNED,
    TRAPPED, end_guest, failed, fault, free_outcome, start_guest,
)
from sentinel_wasm._json cimport Cursor, Span, key, named, next_member, scalar, take, white
from sentinel_wasm._threads cimport (
    add, load, pthread_attr_destroy, pthread_attr_init, pthread_attr_setstacksize, pthread_attr_t,
    pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_wait, pthread_create,
    pthread_join, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, store,
)

import os

cdef extern from * nogil:
    """
    #include <signal.h>
    #include <sys/resource.h>

    /* Signals are for the main thread, but for those by which wasmtime knows traps. */
    static void sw_block_signals(sigset_t *before) {
        sigset_t all;
        sigfillset(&all);
        sigdelset(&all, SIGSEGV);
        sigdelset(&all, SIGBUS);
        sigdelset(&all, SIGILL);
        sigdelset(&all, SIGFPE);
        sigdelset(&all, SIGTRAP);
        pthread_sigmask(SIG_SETMASK, &all, before);
    }
    static void sw_restore_signals(const sigset_t *before) { pthread_sigmask(SIG_SETMASK, before, NULL); }

    /* On Linux this is the calling thread's own; elsewhere the process's, event loop and all. */
    static void sw_be_nice(int by) {
    #ifdef __linux__
        setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + by);
    #endif
    }
    """
    ctypedef struct sigset_t:
        pass
    void sw_block_signals(sigset_t* before)
    void sw_restore_signals(const sigset_t* before)
    void sw_be_nice(int by)

START = ONLY_START
END = ONLY_END

cdef int threads = 0

cdef enum:
    STACK_BYTES = 2097152       # wasmtime lets a guest use 512 KiB of it
    NICE = 3                    # the event loop goes first when processors are short


def live_threads() -> int:
    """Worker threads that this process has now."""
    return load(&threads)


cdef bint copy(Bytes* to, const char* data, uint32_t length, Outcome* out) noexcept nogil:
    if length == 0:
        return True
    to.data = <char*>malloc(length)
    if to.data == NULL:
        out.ending = FAILED_HOST_MEMORY
        return False
    memcpy(to.data, data, length)
    to.length = length
    return True


cdef bint refuses(const Bytes* configured) noexcept nogil:
    """Whether on_configure has surely returned an error; the event loop looks at it with more care."""
    cdef Cursor c
    cdef Span name
    cdef bint more = True
    c.at = configured.data
    c.end = c.at + configured.length
    if configured.length == 0 or not take(&c, c'{'):
        return False
    while more:
        if not key(&c, &name):
            return False
        if named(&name, b"error"):
            white(&c)
            return c.at < c.end and c.at[0] != c'n'
        if not scalar(&c) or not next_member(&c, &more):
            return False
    return False


cdef bint start(JobState* job, const Finished* finished) noexcept nogil:
    """Start the job's guest, with its configuration; False where the job ends with that."""
    cdef int64_t now = monotonic_ns()
    cdef int64_t deadline = now + job.start_limit_ns if job.start_limit_ns else job.deadline_ns
    if job.guest.usable:
        return True
    end_guest(job.guest)
    if load(&finished.hold):
        job.out.ending = FAILED_HELD
        return False
    if not start_guest(job.plan, job.guest, deadline, &job.out):
        return False
    if job.config.data == NULL:
        return True
    call_guest(
        job.plan, job.guest, job.plan.on_configure, job.config.data, job.config.length, deadline,
        monotonic_ns(), &job.out)
    if not failed(&job.out) and not job.guest.usable:
        # In dealloc: a guest that is lost is not started, whatever it has said.
        job.out.ending = TRAPPED
    if failed(&job.out) or not copy(&job.configured, job.guest.result, job.out.length, &job.out):
        return False
    if refuses(&job.configured):
        job.out.ending = FAILED_REFUSED
        end_guest(job.guest)
        return False
    return True


cdef void execute(JobState* job, const Finished* finished) noexcept nogil:
    cdef int64_t left = job.deadline_ns - monotonic_ns()
    cdef int64_t began
    if job.hook == ONLY_END:
        end_guest(job.guest)
        job.out.ending = RETURNED
        return
    if job.hook >= 0 and left < job.needs_ns:
        job.out.ending = FAILED_NO_TIME if left > 0 else FAILED_TOO_LATE
        return
    if not start(job, finished):
        return
    job.out.ending = RETURNED
    if job.hook >= 0:
        began = monotonic_ns()
        call_guest(
            job.plan, job.guest, job.hook, job.data.data, job.data.length, job.deadline_ns, began, &job.out)
        if job.out.ending != FAILED_TOO_LATE:
            job.called_ns = max(monotonic_ns() - began, 1)
        if not failed(&job.out):
            copy(&job.result, job.guest.result, job.out.length, &job.out)


cdef void settle(JobState* job) noexcept nogil:
    """Take along what the guest left behind: it may run again before the job is looked at."""
    cdef Guest* guest = job.guest
    cdef size_t used
    if guest.usable:
        job.lost = False
    elif job.hook != ONLY_END:
        job.lost = not failed(&job.out)
        job.ended = guest.host.ended
    if guest.host.output.used or guest.host.output.dropped:
        used = sizeof(Output) - sizeof(guest.host.output.data) + guest.host.output.used
        job.output = <Output*>malloc(used)
        if job.output != NULL:
            memcpy(job.output, &guest.host.output, used)
        guest.host.output.used = guest.host.output.dropped = 0


cdef void report(Finished* finished, JobState* job) noexcept nogil:
    cdef bint first
    job.next = NULL
    pthread_mutex_lock(&finished.lock)
    first = finished.first == NULL
    if first:
        finished.first = job
    else:
        finished.last.next = job
    finished.last = job
    pthread_mutex_unlock(&finished.lock)
    if first:
        write(finished.announce, b"!", 1)


cdef JobState* next_job(Worker* worker) noexcept nogil:
    """Wait for a job; NULL at the end."""
    cdef JobState* job
    pthread_mutex_lock(&worker.lock)
    while worker.first == NULL and not worker.stop:
        pthread_cond_wait(&worker.wake, &worker.lock)
    job = NULL if worker.stop else worker.first
    if job != NULL:
        worker.first = job.next
    pthread_mutex_unlock(&worker.lock)
    return job


cdef void* work(void* argument) noexcept nogil:
    cdef Worker* worker = <Worker*>argument
    cdef JobState* job
    cdef int64_t began, cpu
    add(&threads, 1)
    sw_be_nice(NICE)
    while True:
        job = next_job(worker)
        if job == NULL:
            add(&threads, -1)
            return NULL
        began = monotonic_ns()
        job.waited_ns = began - job.queued_ns
        cpu = thread_cpu_ns()
        job.guest.host.slept_ns = 0
        execute(job, worker.finished)
        settle(job)
        job.took_ns = monotonic_ns() - began
        job.busy_ns = thread_cpu_ns() - cpu + job.guest.host.slept_ns
        report(worker.finished, job)


cdef class Job:
    """One call of a hook, START or END on a worker; `owner` is the caller's own.

    `config` is given to `on_configure` of a guest that has to be started first (None: it has none);
    `start_limit_ns` is that start's time (0: what is left of the job's). With less than `needs_ns` left until
    `deadline_ns` (of time.monotonic_ns) the hook is not called.
    """

    def __cinit__(
            self, GuestCall guest not None, int hook, bytes data, bytes config, int64_t deadline_ns,
            int64_t limit_ns, int64_t start_limit_ns, int64_t needs_ns, object owner):
        if hook >= HOOKS or (hook >= 0 and guest.plan.state.names[hook] == NULL):
            raise ValueError(f"hook {hook} is not exported")
        self.guest = guest
        self.owner = owner
        self.references = (data, config)
        self.limit_ns = limit_ns
        self.state.job = <void*>self
        self.state.plan = &guest.plan.state
        self.state.guest = &guest.guest
        self.state.hook = hook
        self.state.data = view(data)
        self.state.config = view(config)
        self.state.deadline_ns = deadline_ns
        self.state.start_limit_ns = start_limit_ns
        self.state.needs_ns = needs_ns

    def __dealloc__(self):
        free_outcome(&self.state.out)
        free(self.state.result.data)
        free(self.state.configured.data)
        free(self.state.output)

    @property
    def waited_ns(self) -> int:
        """In its worker's queue."""
        return self.state.waited_ns

    @property
    def called_ns(self) -> int:
        """In the hook; 0 where it was not called."""
        return self.state.called_ns

    @property
    def took_ns(self) -> int:
        return self.state.took_ns

    @property
    def busy_ns(self) -> int:
        return self.state.busy_ns

    def failure(self) -> ModuleError | None:
        """Why the guest cannot be used any more, or was not asked."""
        if not failed(&self.state.out) and not self.state.lost:
            return None
        limit_ns = self.limit_ns
        if self.state.start_limit_ns and (self.state.hook < 0 or self.state.out.hook != self.state.hook):
            limit_ns = self.state.start_limit_ns
        return fault(self.guest.plan, &self.state.out, &self.state.ended, limit_ns)

    @property
    def is_sound(self) -> bool:
        """The hook has returned, whatever happened after."""
        return not failed(&self.state.out)

    @property
    def was_called(self) -> bool:
        """The guest had been started, and got as far as the hook."""
        return self.state.hook >= 0 and self.state.out.hook == self.state.hook

    @property
    def was_held(self) -> bool:
        """The guest would have had to be started, and that is on hold."""
        return self.state.out.ending == FAILED_HELD

    @property
    def had_no_time(self) -> bool:
        """It was not begun, because too little time was left."""
        return self.state.out.ending == FAILED_NO_TIME

    @property
    def result(self) -> bytes | None:
        return taken(&self.state.result)

    @property
    def configured(self) -> bytes | None:
        """What `on_configure` returned, where the guest had to be started."""
        return taken(&self.state.configured)

    def take_output(self) -> tuple[list[tuple[int, bytes]], int]:
        """What the guest printed or logged, as (channel, bytes), and bytes left out."""
        return take_output(self.state.output) if self.state.output != NULL else ([], 0)


cdef Bytes view(bytes data):
    """The bytes of an object that must outlive the view."""
    cdef Bytes seen
    seen.data = NULL
    seen.length = 0
    if data is not None:
        if PyBytes_GET_SIZE(data) > INT32_MAX:
            raise ValueError("more input than an i32 can count")
        seen.data = PyBytes_AS_STRING(data)
        seen.length = <uint32_t>PyBytes_GET_SIZE(data)
    return seen


cdef object taken(const Bytes* what):
    return PyBytes_FromStringAndSize(what.data, what.length) if what.length else None


cdef class Workers:
    """So many threads, each with its queue. `stop` before the last reference goes."""

    def __cinit__(self, int count):
        cdef pthread_attr_t attributes
        cdef sigset_t before
        cdef int error = 0
        self.jobs = set()
        self.announced = self.done.announce = -1
        self.announced, self.done.announce = os.pipe()
        os.set_blocking(self.announced, False)
        pthread_mutex_init(&self.done.lock, NULL)
        self.workers = <Worker*>calloc(count, sizeof(Worker))
        if self.workers == NULL:
            raise MemoryError
        pthread_attr_init(&attributes)
        pthread_attr_setstacksize(&attributes, STACK_BYTES)
        sw_block_signals(&before)
        while self.running < count and error == 0:
            pthread_mutex_init(&self.workers[self.running].lock, NULL)
            pthread_cond_init(&self.workers[self.running].wake, NULL)
            self.workers[self.running].finished = &self.done
            error = pthread_create(
                &self.workers[self.running].thread, &attributes, work, &self.workers[self.running])
            self.running += error == 0
        sw_restore_signals(&before)
        pthread_attr_destroy(&attributes)
        if error:
            raise OSError(error, f"no thread for worker {self.running + 1} of {count}")

    def __dealloc__(self):
        self.end()
        free(self.workers)
        self.close_pipe()
        pthread_mutex_destroy(&self.done.lock)

    def fileno(self) -> int:
        """Readable when jobs have finished."""
        return self.announced

    def submit(self, int worker, Job job not None, bint first=False) -> None:
        """Append to a worker's queue, or put `first`. The guest is the worker's until it has finished."""
        cdef Worker* to
        cdef bint idle
        if not 0 <= worker < self.running:
            raise ValueError(f"there is no worker {worker}")
        if job in self.jobs:
            raise ValueError("the job is under way")
        to = &self.workers[worker]
        self.jobs.add(job)
        job.state.next = NULL
        job.state.queued_ns = monotonic_ns()
        pthread_mutex_lock(&to.lock)
        idle = to.first == NULL
        if idle:
            to.first = to.last = &job.state
        elif first:
            job.state.next = to.first
            to.first = &job.state
        else:
            to.last.next = &job.state
            to.last = &job.state
        pthread_mutex_unlock(&to.lock)
        if idle:
            pthread_cond_signal(&to.wake)

    def finished(self) -> list[Job]:
        """The jobs that have finished since the last call, in that order."""
        cdef char[64] said
        cdef JobState* state
        read(self.announced, said, sizeof(said))
        pthread_mutex_lock(&self.done.lock)
        state = self.done.first
        self.done.first = NULL
        pthread_mutex_unlock(&self.done.lock)
        jobs = []
        while state != NULL:
            job = <Job>state.job
            state = state.next
            self.jobs.discard(job)
            jobs.append(job)
        return jobs

    def hold(self, bint hold) -> None:
        """Whether guests that would have to be started are left alone."""
        store(&self.done.hold, hold)

    def stop(self) -> None:
        """End the threads; jobs that have not begun are dropped."""
        self.end()
        self.jobs.clear()
        self.close_pipe()

    cdef void close_pipe(self) noexcept:
        if self.announced >= 0:
            close(self.announced)
            close(self.done.announce)
            self.announced = self.done.announce = -1

    cdef void end(self) noexcept:
        cdef int index
        for index in range(self.running):
            pthread_mutex_lock(&self.workers[index].lock)
            self.workers[index].stop = True
            pthread_cond_signal(&self.workers[index].wake)
            pthread_mutex_unlock(&self.workers[index].lock)
        with nogil:
            for index in range(self.running):
                pthread_join(self.workers[index].thread, NULL)
        for index in range(self.running):
            pthread_mutex_destroy(&self.workers[index].lock)
            pthread_cond_destroy(&self.workers[index].wake)
        self.running = 0
