/*
 * A histogram of nanoseconds in constant memory: buckets of one nanosecond up to 2 * PER_OCTAVE, and
 * PER_OCTAVE buckets for each doubling above, so that a bucket is at most 1/64 as wide as the times in it.
 */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { OCTAVE_BITS = 6, PER_OCTAVE = 1 << OCTAVE_BITS, LARGEST_BIT = 40 };
enum { BUCKETS = (LARGEST_BIT - OCTAVE_BITS + 1) * PER_OCTAVE };

typedef struct {
    uint64_t count[BUCKETS];
    uint64_t total, largest_ns;
} histogram;

static size_t bucket_of(uint64_t ns) {
    if (ns < 2 * PER_OCTAVE)
        return ns;
    if (ns >> LARGEST_BIT)
        return BUCKETS - 1;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - OCTAVE_BITS;
    return ((size_t)shift << OCTAVE_BITS) + (ns >> shift);
}

/* The least time in a bucket; a bucket ends where the next begins. */
static uint64_t bucket_start(size_t bucket) {
    if (bucket < 2 * PER_OCTAVE)
        return bucket;
    unsigned shift = (unsigned)(bucket >> OCTAVE_BITS) - 1;
    return (uint64_t)(bucket - ((size_t)shift << OCTAVE_BITS)) << shift;
}

static void count_times(histogram *h, uint64_t ns, uint64_t times) {
    h->count[bucket_of(ns)] += times;
    h->total += times;
    if (ns > h->largest_ns)
        h->largest_ns = ns;
}

/* The time that `share` of the counted ones do not exceed, interpolated in its bucket; 0 of nothing. */
static double quantile_ns(const histogram *h, double share) {
    double rank = share * (double)h->total, below = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        double here = (double)h->count[i];
        if (here > 0 && below + here >= rank) {
            double start = (double)bucket_start(i), end = (double)bucket_start(i + 1);
            double at = start + (end - start) * (rank - below) / here;
            return at < (double)h->largest_ns ? at : (double)h->largest_ns;
        }
        below += here;
    }
    return (double)h->largest_ns;
}

/* As JSON: [[start, end, count], …] of the buckets that are not empty. */
static void print_buckets(const histogram *h) {
    const char *separator = "[";
    for (size_t i = 0; i < BUCKETS; i++)
        if (h->count[i] > 0) {
            printf("%s[%llu,%llu,%llu]", separator, (unsigned long long)bucket_start(i),
                   (unsigned long long)bucket_start(i + 1), (unsigned long long)h->count[i]);
            separator = ",";
        }
    fputs(h->total > 0 ? "]" : "[]", stdout);
}

#endif
