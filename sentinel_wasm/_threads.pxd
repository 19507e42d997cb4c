"""POSIX threads, and integers that several of them touch."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_attr_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_attr_init(pthread_attr_t*)
    int pthread_attr_destroy(pthread_attr_t*)
    int pthread_attr_setstacksize(pthread_attr_t*, size_t)
    int pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*) noexcept, void*)
    int pthread_join(pthread_t, void**)
    int pthread_mutex_init(pthread_mutex_t*, const void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_cond_init(pthread_cond_t*, const void*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)

cdef extern from * nogil:
    """
    /* Sequentially consistent. */
    #define sw_load(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define sw_store(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define sw_add(p, v) __atomic_add_fetch((p), (v), __ATOMIC_SEQ_CST)
    """
    int load "sw_load"(const int*)
    void store "sw_store"(int*, int)
    int add "sw_add"(int*, int)
    int64_t load_long "sw_load"(const int64_t*)
    void store_long "sw_store"(int64_t*, int64_t)
    int64_t add_long "sw_add"(int64_t*, int64_t)
